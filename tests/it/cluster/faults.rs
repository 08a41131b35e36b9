//! Each fault of a router ends in the failure that one would name, within the timeout, with nothing
//! published, the last good state untouched, and slot, lock and connection free again.

mod compare;
mod table;

use std::net::Ipv4Addr;
use std::time::Duration;

use mikrotik_backup::sim::{Fault, Fleet, FleetOptions, HostKeyKind, Router, RouterOptions};
use nix::sys::signal::Signal;
use uuid::Uuid;

use self::compare::{Good, compare, compare_metrics, good, is_whole};
use self::table::{LARGE, MAX_EXPORT, MAX_PAYLOAD, Row, THAT_END, THAT_STALL};
use super::harness::{Cluster, Replica};
use super::poll::until;

/// The default of `CONFIG_BACKUP_INTERVAL`, so that it does not cut the back-off short.
const INTERVAL: f64 = 21_600.0;

/// A router with its device and what was stored when it was well.
struct Case {
    row: Row,
    router: Router,
    device: Uuid,
    good: Good,
}

#[tokio::test]
async fn faults_that_end_by_themselves() {
    hold_the_table(THAT_END, Ipv4Addr::new(127, 21, 0, 1), 60.0, 4).await;
}

#[tokio::test]
async fn faults_that_only_the_deadline_ends() {
    // Fewer slots than stalls: one that was not given back would leave the rest waiting.
    hold_the_table(THAT_STALL, Ipv4Addr::new(127, 22, 0, 1), 4.0, 3).await;
}

#[tokio::test]
async fn a_process_never_has_more_connections_than_slots() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let fleet = Fleet::start(FleetOptions {
        routers: 30,
        delay: Duration::from_millis(200),
        base_address: Ipv4Addr::new(127, 23, 0, 1),
        ..FleetOptions::default()
    })
    .await
    .expect("start a fleet");
    for router in fleet.routers() {
        cluster.insert(router).await;
    }
    let overrides = [("CONFIG_BACKUP_MAX_CONCURRENT", "3")];
    let replica = cluster.replica("three-slots", &overrides).await;
    until("every router to be backed up", || async {
        (cluster.attempts("status = 'success'").await == 30).then_some(())
    })
    .await;
    let stats = fleet.stats();
    assert_eq!(stats.connections, 30, "one for each");
    assert_eq!(stats.max_open_connections, 3, "all slots, and no more");
    assert_eq!(cluster.messages().await.len(), 30);
    let active = replica.metric("mikrotik_config_backup_active").await;
    assert_eq!(active, 0.0);
}

/// Backs every router of `rows` up, gives each its fault, lets half a day pass, and compares what
/// the next attempts come to.
async fn hold_the_table(rows: &[Row], base: Ipv4Addr, timeout: f64, slots: u32) {
    let max_payload = format!("max_payload: {MAX_PAYLOAD}");
    let Some(cluster) = Cluster::start_with(&[], &max_payload).await else {
        return;
    };
    let mut devices = Vec::new();
    for (row, number) in rows.iter().zip(0..) {
        let router = router_for(row, base, number);
        let device = cluster.insert(&router).await;
        devices.push((*row, router, device));
    }
    let (slots, timeout_text) = (slots.to_string(), timeout.to_string());
    let (interval, max_export) = (INTERVAL.to_string(), MAX_EXPORT.to_string());
    let overrides = |timeout| {
        [
            ("CONFIG_BACKUP_INTERVAL", interval.as_str()),
            ("CONFIG_BACKUP_MAX_CONCURRENT", slots.as_str()),
            ("CONFIG_BACKUP_MAX_EXPORT_BYTES", max_export.as_str()),
            ("CONFIG_BACKUP_COMMAND_TIMEOUT", timeout),
        ]
    };
    let mut before = cluster.replica("before", &overrides("60")).await;
    let mut cases = Vec::new();
    for (row, router, device) in devices {
        let what = format!("{} to be backed up while it is well", row.fault);
        let state = cluster.state_when(device, &what, |_| true).await;
        assert_eq!(state.status, "success", "{}: {:?}", row.fault, state.error);
        router.set_fault(row.fault);
        cases.push((row, router, device));
    }
    before.signal(Signal::SIGTERM);
    assert_eq!(before.exit_code().await, 0);

    cluster.database.sql(HALF_A_DAY_LATER).await;
    let mut with_good = Vec::new();
    for (row, router, device) in cases {
        let good = good(&cluster, device).await;
        with_good.push(Case {
            row,
            router,
            device,
            good,
        });
    }
    let replica = cluster.replica("faulty", &overrides(&timeout_text)).await;
    for case in &with_good {
        let what = format!("the second attempt at {}", case.row.fault);
        until(&what, || async {
            let second = format!("device_id = '{}'", case.device);
            (cluster.attempts(&second).await == 2).then_some(())
        })
        .await;
    }
    let messages = cluster.messages().await;
    for case in &with_good {
        let published = messages
            .iter()
            .filter(|(_, event)| event.device_id.0 == case.device);
        let published: Vec<_> = published.collect();
        let wanted = 1 + usize::from(case.row.kind.is_none());
        assert_eq!(published.len(), wanted, "{}: messages", case.row.fault);
        compare(&cluster, &replica, case, timeout).await;
        if case.row.kind.is_none() {
            is_whole(case, &cluster.text_of(&published[1].1).await);
        }
    }
    // The last attempt is journaled while its lock is still held.
    let running = "mikrotik_config_backup_devices{state=\"running\"}";
    until("no device to be worked on", || async {
        (replica.metric(running).await == 0.0).then_some(())
    })
    .await;
    compare_metrics(&replica, rows).await;
    is_free_again(&cluster, &replica, &with_good, base).await;
}

/// Everything stored is twelve hours older, as if so much time had passed.
const HALF_A_DAY_LATER: &str = "\
    UPDATE mikrotik_backup.attempts SET started_at = started_at - interval '12 hours', \
        finished_at = finished_at - interval '12 hours'; \
    UPDATE mikrotik_backup.device_state SET last_attempt_at = last_attempt_at - interval '12 hours', \
        last_finished_at = last_finished_at - interval '12 hours', \
        last_success_at = last_success_at - interval '12 hours', \
        next_due = next_due - interval '12 hours'";

fn router_for(row: &Row, base: Ipv4Addr, number: u32) -> Router {
    let loses_tail = matches!(row.fault, Fault::LoseTail | Fault::LoseTailFar);
    let legacy = row.fault == Fault::LegacyAlgorithmsOnly;
    let address = Ipv4Addr::from_bits(base.to_bits() + number);
    Router::start_one(RouterOptions {
        name: format!("{}-{number}", row.fault.name().replace('_', "-")),
        address: (address, 0).into(),
        seed: 100 + u64::from(number),
        size_bytes: if loses_tail { LARGE } else { 20_000 },
        // The old algorithms come with an RSA host key, and another key would be another fault.
        host_key: if legacy {
            HostKeyKind::Rsa
        } else {
            HostKeyKind::Ed25519
        },
        ..RouterOptions::default()
    })
    .expect("start a router")
}

/// Connections, locks and slots are given back: a healthy router is backed up at once.
async fn is_free_again(cluster: &Cluster, replica: &Replica, cases: &[Case], base: Ipv4Addr) {
    for case in cases {
        let what = format!("the connection to {} to be gone", case.row.fault);
        until(&what, || async {
            (case.router.stats().open_connections == 0).then_some(())
        })
        .await;
    }
    let mut redis = cluster.redis.client().await;
    let locks: Vec<String> = redis::cmd("KEYS")
        .arg("backup:device:*")
        .query_async(&mut redis)
        .await
        .expect("list the locks");
    assert_eq!(locks, [""; 0]);
    assert_eq!(replica.metric("mikrotik_config_backup_active").await, 0.0);

    let healthy = Router::start_one(RouterOptions {
        name: "healthy".to_owned(),
        address: (Ipv4Addr::from_bits(base.to_bits() + 200), 0).into(),
        ..RouterOptions::default()
    })
    .expect("start a router");
    let device = cluster.insert(&healthy).await;
    let state = cluster
        .state_when(device, "a healthy router", |_| true)
        .await;
    assert_eq!(state.status, "success", "{:?}", state.error);
}
