//! Several replicas on one inventory: they share the work, each device is backed up once per
//! interval between them all, and neither a restart nor a kill loses or repeats anything.

mod three;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use mikrotik_backup::domain::backoff::period;
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::sim::{Fault, Fleet, FleetOptions};
use nix::sys::signal::Signal;
use sqlx::Row as _;
use uuid::Uuid;

use super::harness::{Cluster, Replica, get};
use super::judge::{Attempt, journal};
use super::poll::until;
use crate::api::client;

const NAMES: [&str; 2] = ["replica-1", "replica-2"];

/// Routers on addresses of this test alone: every test has its own second byte.
async fn fleet(second_byte: u8, routers: usize, delay: Duration) -> Fleet {
    let options = FleetOptions {
        routers,
        delay,
        base_address: Ipv4Addr::new(127, second_byte, 0, 1),
        ..FleetOptions::default()
    };
    Fleet::start(options).await.expect("start a fleet")
}

/// Two replicas that are ready for work: neither has a head start.
async fn pair(cluster: &Cluster, settings: &[(&str, &str)]) -> [Replica; 2] {
    let replicas = NAMES.map(|name| cluster.spawn(name, settings));
    for replica in &replicas {
        ready(replica).await;
    }
    replicas
}

async fn ready(replica: &Replica) {
    until("the replica to be ready", || async {
        let body = get(&replica.http, "/readyz").await.ok()?;
        body.contains(r#""status":"ready""#).then_some(())
    })
    .await;
}

async fn insert_all(cluster: &Cluster, fleet: &Fleet) -> Vec<Uuid> {
    let mut devices = Vec::new();
    for router in fleet.routers() {
        devices.push(cluster.insert(router).await);
    }
    devices
}

/// Waits until so many attempts were made, whatever came of them.
async fn journaled(cluster: &Cluster, count: i64) {
    until(&format!("{count} attempts"), || async {
        (cluster.attempts("true").await >= count).then_some(())
    })
    .await;
}

/// Waits until so many attempts succeeded; none may fail.
async fn succeeded(cluster: &Cluster, count: i64) {
    until(&format!("{count} successes"), || async {
        let failed: Vec<String> = sqlx::query_scalar(
            "SELECT format('%s %s: %s', error_kind, started_at, error) \
             FROM mikrotik_backup.attempts WHERE status = 'failed'",
        )
        .fetch_all(cluster.pool())
        .await
        .expect("read what failed");
        assert!(
            failed.is_empty(),
            "instead of {count} successes: {failed:#?}"
        );
        (cluster.attempts("status = 'success'").await >= count).then_some(())
    })
    .await;
}

/// Waits until every replica has taken note that `devices` devices have their backup.
async fn settled(replicas: &[Replica], devices: u32) {
    for replica in replicas {
        until("the replica to know of all backups", || async {
            let ok = replica
                .metric(r#"mikrotik_config_backup_devices{state="ok"}"#)
                .await;
            (ok >= f64::from(devices)).then_some(())
        })
        .await;
    }
}

/// Asks the replicas to end, and waits until they have.
async fn stop(replicas: impl IntoIterator<Item = Replica>) {
    let mut replicas: Vec<_> = replicas.into_iter().collect();
    for replica in &replicas {
        replica.signal(Signal::SIGTERM);
    }
    for replica in &mut replicas {
        assert_eq!(replica.exit_code().await, 0, "{}", replica.log());
    }
}

/// The time between the attempts at one device, as multiples of `interval`.
fn gaps(attempts: &[Attempt], interval: Duration) -> Vec<f64> {
    attempts
        .windows(2)
        .map(|pair| (pair[1].started_at - pair[0].started_at) / interval)
        .collect()
}

/// Every message once, one for each of `devices`, each from a success of the journal.
async fn assert_published_once(cluster: &Cluster, devices: &[Uuid]) {
    let messages = cluster.messages().await;
    let ids: BTreeSet<String> = messages.iter().map(|(id, _)| id.clone()).collect();
    let published: BTreeSet<Uuid> = messages.iter().map(|(_, e)| e.device_id.0).collect();
    assert_eq!(messages.len(), devices.len(), "messages");
    assert_eq!(ids.len(), devices.len(), "distinct Nats-Msg-Ids");
    assert_eq!(published, devices.iter().copied().collect(), "devices");
    let succeeded: BTreeSet<String> = journal(cluster)
        .await
        .into_values()
        .flatten()
        .filter(|attempt| attempt.status == "success")
        .map(|attempt| attempt.id.to_string())
        .collect();
    assert_eq!(
        ids, succeeded,
        "each message is of an attempt that succeeded"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_replica_knows_of_an_attempt_that_another_one_is_making() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(86, 1, Duration::from_secs(4)).await;
    let replicas = pair(&cluster, &[]).await;
    let device = insert_all(&cluster, &fleet).await.remove(0);
    let marked = "SELECT running_attempt_id, running_replica FROM mikrotik_backup.device_state \
                  WHERE device_id = $1 AND running_attempt_id IS NOT NULL";
    let (attempt, by): (Uuid, String) = until("an attempt to begin", || async {
        let found = sqlx::query_as(marked).bind(device);
        found
            .fetch_optional(cluster.pool())
            .await
            .expect("read the mark")
    })
    .await;
    for replica in &replicas {
        let path = format!("/api/v1/attempts/{attempt}");
        let answer = client::tcp(&replica.http, "GET", &path, &[]).await.json();
        assert_eq!(answer["status"], "pending", "{answer}");
        assert_eq!(answer["device"], device.to_string());
        assert_eq!(answer["replica"], by);
        assert!(answer["started_at"].is_string(), "{answer}");
    }
    succeeded(&cluster, 1).await;
}

#[tokio::test]
async fn two_replicas_share_two_hundred_routers_and_publish_each_once() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(61, 200, Duration::from_millis(200)).await;
    let replicas = pair(&cluster, &[("CONFIG_BACKUP_MAX_CONCURRENT", "50")]).await;
    let devices = insert_all(&cluster, &fleet).await;

    succeeded(&cluster, 200).await;
    // Whoever found a device locked looks at it again; then the last one has had its chance to
    // make one backup too many.
    settled(&replicas, 200).await;
    stop(replicas).await;

    assert_eq!(cluster.attempts("true").await, 200);
    for name in NAMES {
        let made = cluster.attempts(&format!("replica = '{name}'")).await;
        assert!(made > 0, "{name} did nothing");
    }
    assert_published_once(&cluster, &devices).await;
    let stats = fleet.stats();
    assert_eq!((stats.exports_begun, stats.exports_whole), (200, 200));
    let most = stats.max_open_connections;
    assert!(
        most <= 100,
        "{most} connections at once, 50 for each replica"
    );
}

#[tokio::test]
async fn every_device_is_backed_up_once_per_interval_between_the_replicas() {
    const INTERVAL: Duration = Duration::from_secs(6);
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(62, 20, Duration::from_millis(20)).await;
    let replicas = pair(&cluster, &[("CONFIG_BACKUP_INTERVAL", "6")]).await;
    let devices = insert_all(&cluster, &fleet).await;
    until("five attempts at each device", || async {
        let journal = journal(&cluster).await;
        let enough = |device| journal.get(device).is_some_and(|made| made.len() >= 5);
        devices.iter().all(enough).then_some(())
    })
    .await;
    stop(replicas).await;

    let journal = journal(&cluster).await;
    for (device, attempts) in &journal {
        let gaps = gaps(attempts, INTERVAL);
        assert!(
            gaps.iter().all(|gap| (0.9..=1.2).contains(gap)),
            "{device}: {gaps:?} intervals apart"
        );
        // The phase of the device is the only thing that may add up; what an attempt waits for,
        // a lock or the other replica, must not push the next one back each time.
        let phase = period(INTERVAL, DeviceId(*device)).div_duration_f64(INTERVAL);
        let last = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / last;
        assert!(
            (phase - 0.01..phase + 0.06).contains(&mean),
            "{device}: {mean} intervals on average, with a phase of {phase}"
        );
    }
    let all = || journal.values().flatten();
    assert!(all().all(|made| made.status == "success" && made.cause == "scheduled"));
    assert_eq!(fleet.stats().exports_begun, all().count() as u64);
}

#[tokio::test]
async fn one_replicas_block_holds_for_all_and_across_restarts() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(63, 1, Duration::ZERO).await;
    let router = &fleet.routers()[0];
    let settings = [("CONFIG_BACKUP_INTERVAL", "3")];
    let replicas = pair(&cluster, &settings).await;
    let device = cluster
        .insert_with(router, &router.username(), "wr0ng")
        .await;
    let blocked = "mikrotik_config_backup_total{status=\"skipped_auth_blocked\"}";
    let skipped_by_both = async |replicas: &[Replica]| {
        for replica in replicas {
            until("a blocked device to come due", || async {
                (replica.metric(blocked).await >= 2.0).then_some(())
            })
            .await;
        }
    };
    skipped_by_both(&replicas).await;
    stop(replicas).await;
    let replicas = pair(&cluster, &settings).await;
    skipped_by_both(&replicas).await;

    assert_eq!(router.stats().password_attempts, 1);
    assert_eq!(cluster.attempts("true").await, 1);
    let state = cluster.state(device).await.expect("a state");
    assert_eq!(state.error_kind.as_deref(), Some("auth_failed"));
    assert!(state.blocked);
    stop(replicas).await;
}

#[tokio::test]
async fn a_restart_repeats_nothing_that_is_not_due_and_keeps_the_time_of_a_retry() {
    const INTERVAL: Duration = Duration::from_secs(12);
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(64, 10, Duration::ZERO).await;
    let unreachable = &fleet.routers()[0];
    unreachable.set_fault(Fault::Refuse);
    let settings = [("CONFIG_BACKUP_INTERVAL", "12")];
    let replicas = pair(&cluster, &settings).await;
    let devices = insert_all(&cluster, &fleet).await;
    journaled(&cluster, 10).await;
    stop(replicas).await;
    assert_eq!(cluster.attempts("true").await, 10, "one at each device");

    let replicas = pair(&cluster, &settings).await;
    journaled(&cluster, 20).await;
    stop(replicas).await;
    for (device, attempts) in journal(&cluster).await {
        let [first, second, ..] = attempts.as_slice() else {
            panic!("{device} was not tried again");
        };
        let (status, cause) = if device == devices[0] {
            ("failed", "retry")
        } else {
            ("success", "scheduled")
        };
        assert_eq!(first.cause, "scheduled");
        assert_eq!(
            (second.status.as_str(), second.cause.as_str()),
            (status, cause)
        );
        let gap = gaps(&attempts, INTERVAL)[0];
        assert!((0.9..=1.2).contains(&gap), "{device}: {gap} intervals");
    }
}

#[tokio::test]
async fn a_rolling_restart_loses_nothing_and_repeats_nothing() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(65, 40, Duration::from_secs(1)).await;
    let settings = [("CONFIG_BACKUP_MAX_CONCURRENT", "5")];
    let [first, second] = pair(&cluster, &settings).await;
    let devices = insert_all(&cluster, &fleet).await;

    let mut running = vec![];
    for (old, done) in [(first, 5), (second, 15)] {
        succeeded(&cluster, done).await;
        until("the replica to be in the middle of an export", || async {
            let statement = "SELECT count(*) FROM mikrotik_backup.device_state \
                             WHERE running_replica = $1";
            let count: i64 = sqlx::query_scalar(statement)
                .bind(&old.name)
                .fetch_one(cluster.pool())
                .await
                .expect("count what runs");
            (count > 0).then_some(())
        })
        .await;
        let successor = cluster.spawn(&format!("{}-new", old.name), &settings);
        stop([old]).await;
        ready(&successor).await;
        running.push(successor);
    }
    succeeded(&cluster, 40).await;
    settled(&running, 40).await;
    stop(running).await;

    assert_eq!(cluster.attempts("true").await, 40);
    assert_published_once(&cluster, &devices).await;
    assert_eq!(fleet.stats().exports_begun, 40);
}

/// The one slow test: the lock of a dead process lives for the command timeout and 30 s more.
#[tokio::test]
async fn what_a_killed_replica_was_doing_is_done_by_the_other_when_the_lock_expires() {
    const LOCK: f64 = 40.0;
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(66, 6, Duration::from_secs(1)).await;
    let settings = [
        ("CONFIG_BACKUP_COMMAND_TIMEOUT", "10"),
        ("CONFIG_BACKUP_MAX_CONCURRENT", "3"),
    ];
    let [killed, other] = pair(&cluster, &settings).await;
    let devices = insert_all(&cluster, &fleet).await;
    until("logins, before the routers answer", || async {
        (fleet.stats().open_sessions >= 1 && !running(&cluster, &killed.name).await.is_empty())
            .then_some(())
    })
    .await;
    killed.signal(Signal::SIGKILL);
    let orphans = until("the process to be dead", || async {
        let gone = get(&killed.http, "/livez").await.is_err();
        let orphans = running(&cluster, &killed.name).await;
        gone.then_some(orphans)
    })
    .await;
    assert!(
        !orphans.is_empty(),
        "it was killed in the middle of something"
    );

    succeeded(&cluster, 6).await;
    settled(std::slice::from_ref(&other), 6).await;
    let journal = journal(&cluster).await;
    for (device, attempts) in &journal {
        let made: Vec<_> = attempts
            .iter()
            .map(|made| (made.status.as_str(), made.replica.as_str()))
            .collect();
        let Some(dead) = orphans.get(device) else {
            assert_eq!(made.len(), 1, "{device}: {made:?}");
            continue;
        };
        let expected = [("interrupted", NAMES[0]), ("success", NAMES[1])];
        assert_eq!(made, expected, "{device}");
        assert_eq!(attempts[0].id, *dead);
        let gap = (attempts[1].started_at - attempts[0].started_at).as_seconds_f64();
        // The lock is older than the mark by a moment.
        assert!((LOCK - 1.0..LOCK + 20.0).contains(&gap), "{gap} s later");
    }
    assert!(running(&cluster, &killed.name).await.is_empty());
    assert_published_once(&cluster, &devices).await;
    stop([other]).await;
}

/// What a replica is doing, or was doing when it died: attempt by device.
async fn running(cluster: &Cluster, replica: &str) -> BTreeMap<Uuid, Uuid> {
    let statement = "SELECT device_id, running_attempt_id FROM mikrotik_backup.device_state \
                     WHERE running_replica = $1";
    let rows = sqlx::query(statement)
        .bind(replica)
        .fetch_all(cluster.pool())
        .await
        .expect("read what runs");
    rows.iter()
        .map(|row| (row.get("device_id"), row.get("running_attempt_id")))
        .collect()
}
