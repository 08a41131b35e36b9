//! Each fault of a router ends in the failure that one would name, within the timeout, with nothing
//! published, the last good state untouched, and slot, lock and connection free again.

mod table;

use std::net::Ipv4Addr;
use std::time::Duration;

use mikrotik_backup::domain::attempt::Step;
use mikrotik_backup::domain::failure::FailureKind;
use mikrotik_backup::sim::{
    Fault, Fleet, FleetOptions, HostKeyKind, Router, RouterOptions, SECRET_MARK,
};
use nix::sys::signal::Signal;
use sqlx::Row as _;
use uuid::Uuid;

use self::table::{LARGE, MAX_EXPORT, MAX_PAYLOAD, Row, THAT_END, THAT_STALL, Then};
use super::harness::{Cluster, Replica};
use super::poll::until;

/// The default of `CONFIG_BACKUP_INTERVAL`, so that it does not cut the back-off short.
const INTERVAL: f64 = 21_600.0;
/// How far the phase of a device may move its interval.
const PHASE: f64 = 0.05;
/// What an attempt may take beyond its SSH session on a busy machine, in seconds.
const MARGIN: f64 = 5.0;

/// A router with its device and what was stored when it was well.
struct Case {
    row: Row,
    router: Router,
    device: Uuid,
    good: Good,
}

/// What a failure must leave as it is.
#[derive(Clone, PartialEq, Debug)]
struct Good {
    hash: String,
    bytes: i64,
    version: String,
    success_at: time::OffsetDateTime,
    shape: serde_json::Value,
    secrets: i64,
    pin: String,
}

/// What the last attempt stored.
#[derive(Debug)]
struct Stored {
    status: String,
    kind: Option<String>,
    error: Option<String>,
    failures: i32,
    blocked: bool,
    offered: Option<String>,
    /// Seconds from start to end, from start to the next due time, and from end to it.
    took: f64,
    due_after_start: f64,
    due_after_end: f64,
    steps: Vec<String>,
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
            let event = &published[1].1;
            let text = event.config_text.as_ref().expect("a text").expose();
            is_whole(case, text);
        }
    }
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

async fn good(cluster: &Cluster, device: Uuid) -> Good {
    let row = sqlx::query(
        "SELECT last_hash, last_bytes, s.routeros_version, last_success_at, menu_digests, \
         secret_count, ssh_host_key_fingerprint FROM mikrotik_backup.device_state s \
         JOIN devices ON id = device_id WHERE device_id = $1",
    )
    .bind(device)
    .fetch_one(cluster.pool())
    .await
    .expect("read the good state");
    Good {
        hash: row.get(0),
        bytes: row.get(1),
        version: row.get(2),
        success_at: row.get(3),
        shape: row.get(4),
        secrets: row.get(5),
        pin: row.get(6),
    }
}

async fn stored(cluster: &Cluster, device: Uuid) -> Stored {
    let row = sqlx::query(
        "SELECT s.status, s.error_kind, s.error, s.consecutive_failures, \
         s.blocked_since IS NOT NULL AS blocked, s.offered_fingerprint, \
         extract(epoch FROM a.finished_at - a.started_at)::float8 AS took, \
         extract(epoch FROM s.next_due - a.started_at)::float8 AS due_after_start, \
         extract(epoch FROM s.next_due - a.finished_at)::float8 AS due_after_end, \
         (SELECT array_agg(step ORDER BY ordinal) FROM mikrotik_backup.attempt_steps \
          WHERE attempt_id = a.id) AS steps \
         FROM mikrotik_backup.device_state s JOIN mikrotik_backup.attempts a \
         ON a.id = s.last_attempt_id AND a.status = s.status \
         AND a.error_kind IS NOT DISTINCT FROM s.error_kind \
         AND a.error IS NOT DISTINCT FROM s.error AND a.replica = 'faulty' \
         WHERE s.device_id = $1",
    )
    .bind(device)
    .fetch_one(cluster.pool())
    .await
    .expect("state and journal tell the same about the last attempt");
    Stored {
        status: row.get("status"),
        kind: row.get("error_kind"),
        error: row.get("error"),
        failures: row.get("consecutive_failures"),
        blocked: row.get("blocked"),
        offered: row.get("offered_fingerprint"),
        took: row.get("took"),
        due_after_start: row.get("due_after_start"),
        due_after_end: row.get("due_after_end"),
        steps: row.get("steps"),
    }
}

/// One row of the table against what is stored and logged.
async fn compare(cluster: &Cluster, replica: &Replica, case: &Case, timeout: f64) {
    let Case { row, router, .. } = case;
    let now = stored(cluster, case.device).await;
    let what = format!("{}: {now:?}", row.fault);
    assert_eq!(now.kind.as_deref(), row.kind, "{what}");
    let failed = row.kind.is_some();
    assert_eq!(
        now.status,
        if failed { "failed" } else { "success" },
        "{what}"
    );
    assert_eq!(now.failures, i32::from(failed), "{what}");
    assert_eq!(now.blocked, row.then == Then::Blocked, "{what}");
    let interval = INTERVAL * (1.0 - PHASE) - 1.0..INTERVAL * (1.0 + PHASE) + 1.0;
    match row.then {
        // Five minutes, and up to a tenth of jitter.
        Then::Retry => assert!((299.0..332.0).contains(&now.due_after_end), "{what}"),
        Then::Interval | Then::Blocked => {
            assert!(interval.contains(&now.due_after_start), "{what}")
        }
    }
    let steps: Vec<_> = Step::ALL.iter().map(|step| step.as_str()).collect();
    let last = steps.iter().position(|step| *step == row.step);
    assert_eq!(now.steps, steps[..=last.expect("a step")], "{what}");
    assert!(now.took < timeout + MARGIN, "{what}");
    if THAT_STALL
        .iter()
        .any(|stalling| stalling.fault == row.fault)
    {
        assert!(now.took > timeout * 0.9, "ended before its time: {what}");
    }
    // One while it was well.
    assert_eq!(
        router.stats().password_attempts,
        1 + row.passwords,
        "{what}"
    );
    if !failed {
        assert_eq!((&now.error, &now.offered), (&None, &None), "{what}");
        return;
    }
    assert_eq!(good(cluster, case.device).await, case.good, "{what}");
    let error = now.error.as_deref().expect("a failure has a text");
    assert!(error.contains(row.says), "{what}");
    assert!(!error.contains(SECRET_MARK), "{what}");
    if row.fault == Fault::RotateHostKey {
        let offered = now.offered.as_deref().expect("what it offered is stored");
        assert_ne!(offered, case.good.pin, "{what}");
        assert!(
            error.contains(offered) && error.contains(&case.good.pin),
            "{what}"
        );
    }
    compare_log(replica, case, error);
}

/// The log has one line about the failure, with its kind, its text and the remedy.
fn compare_log(replica: &Replica, case: &Case, error: &str) {
    let events = replica.events();
    let device = case.device.to_string();
    let mut of_device = events
        .iter()
        .filter(|event| event["device.id"] == device.as_str() && event["level"] == "warn");
    let event = of_device
        .next()
        .unwrap_or_else(|| panic!("no warning about {}:\n{}", case.row.fault, replica.log()));
    let what = format!("{}: {event}", case.row.fault);
    assert!(of_device.next().is_none(), "one warning: {what}");
    assert_eq!(
        event["failure.kind"],
        case.row.kind.expect("it failed"),
        "{what}"
    );
    assert_eq!(event["error"], error, "{what}");
    let remedy = event["remedy"].as_str().unwrap_or_default();
    let sql = match case.row.kind {
        Some("auth_failed") => "UPDATE devices SET encrypted_credentials = ",
        Some("host_key_mismatch") => {
            "UPDATE devices SET ssh_host_key_fingerprint = NULL WHERE id = "
        }
        _ => return assert_eq!(remedy, "", "{what}"),
    };
    assert!(remedy.contains(sql) && remedy.contains(&device), "{what}");
}

/// What was published in spite of the fault is all of the export.
fn is_whole(case: &Case, text: &str) {
    let fault = case.row.fault;
    let name = case.router.name();
    assert!(
        text.contains(&format!("/system identity\nset name={name}\n")),
        "{fault}"
    );
    assert!(
        text.ends_with("}\\r\\n\"\n") || text.ends_with("\"\n"),
        "{fault}: the last item"
    );
    let secrets = fault != Fault::SecretsWithheld;
    assert_eq!(text.contains(SECRET_MARK), secrets, "{fault}");
    let large = matches!(fault, Fault::Size(_) | Fault::LoseTail | Fault::LoseTailFar);
    if large {
        assert!(
            text.len() as u64 > LARGE - 100_000,
            "{fault}: {}",
            text.len()
        );
    }
    assert_eq!(case.router.stats().exports_whole, 2, "{fault}");
}

async fn compare_metrics(replica: &Replica, rows: &[Row]) {
    let count =
        |wanted: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| wanted(row)).count() as f64;
    for kind in FailureKind::ALL {
        let series = format!("mikrotik_config_backup_failures_total{{kind=\"{kind}\"}}");
        let expected = count(&|row| row.kind == Some(kind.as_str()));
        assert_eq!(replica.metric(&series).await, expected, "{series}");
    }
    for (series, expected) in [
        (
            "mikrotik_config_backup_total{status=\"error\"}",
            count(&|row| row.kind.is_some()),
        ),
        (
            "mikrotik_config_backup_total{status=\"success\"}",
            count(&|row| row.kind.is_none()),
        ),
        (
            "mikrotik_config_backup_duration_seconds_count",
            count(&|_| true),
        ),
        (
            "mikrotik_redis_lock_total{status=\"obtained\"}",
            count(&|_| true),
        ),
        (
            "mikrotik_config_backup_devices{state=\"blocked\"}",
            count(&|row| row.then == Then::Blocked),
        ),
        (
            "mikrotik_config_backup_devices{state=\"failing\"}",
            count(&|row| row.then == Then::Retry),
        ),
        (
            "mikrotik_nats_publish_total{status=\"error\",subject=\"config_snapshot\"}",
            count(&|row| row.kind == Some("publish_failed")),
        ),
    ] {
        assert_eq!(replica.metric(series).await, expected, "{series}");
    }
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
