//! Three replicas and three hundred routers: each device once per interval, also when replicas are
//! killed, stopped for longer than their locks live, woken, and restarted one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use mikrotik_backup::clock::Clock;
use mikrotik_backup::domain::backoff::period;
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::sim::{Fleet, Router};
use nix::sys::signal::Signal;
use uuid::Uuid;

use super::{fleet, ready, running, stop};
use crate::cluster::harness::{Cluster, Replica, get};
use crate::cluster::judge::{Attempt, Evidence, insert_all, journal};
use crate::cluster::poll::until;
use crate::services::redis::freeze_process;

const ROUTERS: usize = 300;
const NAMES: [&str; 3] = ["replica-1", "replica-2", "replica-3"];

/// A cluster with a stream that hides no second publication.
async fn cluster() -> Option<Cluster> {
    let cluster = Cluster::start().await?;
    cluster.create_stream().await;
    Some(cluster)
}

async fn trio(cluster: &Cluster, settings: &[(&str, &str)]) -> [Replica; 3] {
    let replicas = NAMES.map(|name| cluster.spawn(name, settings));
    for replica in &replicas {
        ready(replica).await;
    }
    replicas
}

fn device_period(interval: Duration, device: &Uuid) -> Duration {
    period(interval, DeviceId(*device))
}

/// No router was ever in two sessions that exchanged bytes at once.
fn assert_one_session_at_a_time(fleet: &Fleet) {
    for router in fleet.routers() {
        assert_eq!(router.stats().overlapping, 0, "{}", router.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_300_devices_has_one_success_in_each_of_five_intervals() {
    const INTERVAL: Duration = Duration::from_secs(9);
    let Some(cluster) = cluster().await else {
        return;
    };
    let fleet = fleet(67, ROUTERS, Duration::from_millis(20)).await;
    let settings = [
        ("CONFIG_BACKUP_INTERVAL", "9"),
        ("CONFIG_BACKUP_JITTER_MAX", "7"),
        ("LOG_LEVEL", "info"),
    ];
    let replicas = trio(&cluster, &settings).await;
    let devices = insert_all(&cluster, &fleet).await;
    until("six attempts at each device", || async {
        let journal = journal(&cluster).await;
        let enough = |device| journal.get(device).is_some_and(|made| made.len() >= 6);
        devices.keys().all(enough).then_some(())
    })
    .await;
    stop(replicas).await;

    let evidence = Evidence::gather(&cluster, &devices).await;
    evidence.assert_sound();
    let mut made_by = BTreeMap::<_, u32>::new();
    for (device, attempts) in evidence.journal() {
        // The intervals of a device: as long as its phase says, the first begins with its first
        // attempt. What an attempt waits for must never add up to another interval.
        let period = device_period(INTERVAL, device);
        for (number, attempt) in attempts.iter().enumerate() {
            let since = attempt.started_at - attempts[0].started_at;
            let interval = (since / period).round();
            assert_eq!(interval, number as f64, "{device}: {attempts:#?}");
            assert_eq!(attempt.status, "success", "{device}: {attempts:#?}");
            *made_by.entry(attempt.replica.as_str()).or_default() += 1;
        }
    }
    assert_eq!(made_by.len(), 3, "all three work: {made_by:?}");
    let attempts = made_by.values().sum::<u32>();
    assert_eq!(fleet.stats().exports_begun, u64::from(attempts));
    assert_eq!(evidence.published().len(), attempts as usize);
    assert_one_session_at_a_time(&fleet);
}

/// The locks of a killed or stopped replica live for the command timeout and 30 s more, and an
/// interval must be longer for a device not to miss one.
const INTERVAL: Duration = Duration::from_secs(45);
const FIRST_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn killed_stopped_and_restarted_replicas_miss_nothing_and_repeat_nothing() {
    let Some(cluster) = cluster().await else {
        return;
    };
    // Long enough in its sessions to be caught in the middle of some.
    let fleet = fleet(68, ROUTERS, Duration::from_millis(1500)).await;
    let settings = [
        ("CONFIG_BACKUP_INTERVAL", "45"),
        ("CONFIG_BACKUP_JITTER_MAX", "20"),
        // For a session of 1.5 s on a machine that is busy with other tests.
        ("CONFIG_BACKUP_COMMAND_TIMEOUT", "18"),
        ("CONFIG_BACKUP_MAX_CONCURRENT", "30"),
        ("LOG_LEVEL", "info"),
    ];
    let [mut killed, stopped, third] = trio(&cluster, &settings).await;
    let inserted_at = Clock::System.now();
    let devices = insert_all(&cluster, &fleet).await;

    // It dies, and another one takes its place, as in Kubernetes.
    in_sessions(&cluster, &devices, &killed).await;
    killed.signal(Signal::SIGKILL);
    killed.exit_code().await;
    let orphans = running(&cluster, &killed.name).await;
    assert!(!orphans.is_empty(), "it died in the middle of something");
    let instead = cluster.spawn("replica-1-again", &settings);

    // It stands still, with sessions open.
    in_sessions(&cluster, &devices, &stopped).await;
    freeze_process(stopped.pid());
    let held = running(&cluster, &stopped.name).await;
    assert!(!held.is_empty(), "it stopped in the middle of something");
    let published_before = Evidence::gather(&cluster, &devices).await.published();
    let connections = connections(&devices, &held);

    // The other two are restarted meanwhile, one after the other.
    let mut successors = Vec::new();
    for old in [instead, third] {
        ready(&old).await;
        let successor = cluster.spawn(&format!("{}-new", old.name), &settings);
        stop([old]).await;
        ready(&successor).await;
        successors.push(successor);
    }

    // Its locks run out: each device is taken over, which journals what it was doing.
    until(
        "every device of the stopped replica to be taken",
        || async {
            let journal = journal(&cluster).await;
            let taken = |(device, attempt): (&Uuid, &Uuid)| {
                let made = journal.get(device);
                made.is_some_and(|made| made.iter().any(|made| made.id == *attempt))
            };
            held.iter().all(taken).then_some(())
        },
    )
    .await;
    assert_eq!(connections_left(&devices, &connections), connections.len());
    stopped.signal(Signal::SIGCONT);
    until("the woken replica to drop its old sessions", || async {
        (connections_left(&devices, &connections) == 0).then_some(())
    })
    .await;
    get(&stopped.http, "/livez").await.expect("it is alive");

    let successor = cluster.spawn("replica-2-new", &settings);
    stop([stopped]).await;
    ready(&successor).await;
    successors.push(successor);
    let restarted_at = Clock::System.now();
    until("every device to be backed up after all that", || async {
        let journal = journal(&cluster).await;
        let after = |made: &Vec<Attempt>| {
            let mut made = made.iter().filter(|made| made.status == "success");
            made.any(|made| made.started_at > restarted_at)
        };
        let done = journal.values().filter(|made| after(made)).count();
        (done == ROUTERS).then_some(())
    })
    .await;
    stop(successors).await;

    let evidence = Evidence::gather(&cluster, &devices).await;
    evidence.assert_sound();
    let tally = evidence.tally(Clock::System.now());
    assert!(tally.lost.is_empty(), "{:#?}", tally.lost);
    eprintln!(
        "3 replicas, {ROUTERS} devices: killed with {} attempts, stopped with {}; {tally}",
        orphans.len(),
        held.len()
    );
    assert_one_session_at_a_time(&fleet);
    let held: BTreeSet<_> = held.values().copied().collect();
    let late: Vec<Uuid> = evidence
        .published()
        .difference(&published_before)
        .filter(|id| held.contains(*id))
        .copied()
        .collect();
    assert!(
        late.is_empty(),
        "{late:?} published by the woken replica without a lock"
    );
    for (device, attempts) in evidence.journal() {
        assert_regular(device, attempts, inserted_at);
    }
}

/// No interval without a success, and none with two.
fn assert_regular(device: &Uuid, attempts: &[Attempt], inserted_at: time::OffsetDateTime) {
    let period = device_period(INTERVAL, device);
    let successes: Vec<_> = attempts
        .iter()
        .filter(|made| made.status == "success")
        .map(|made| made.started_at)
        .collect();
    let what = format!("{device}, every {period:?}: {attempts:#?}");
    let first = successes.first().expect("a success");
    assert!(*first < inserted_at + FIRST_WITHIN + period, "{what}");
    for pair in successes.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(gap < period * 2, "missed: {what}");
        // Ages of stored attempts are rounded, and computed at another moment.
        assert!(
            gap > period - Duration::from_millis(500),
            "repeated: {what}"
        );
    }
    let failed = attempts.iter().filter(|made| made.kind.is_some());
    // Woken after its time, a session ends as one that took too long.
    let odd = failed.filter(|made| made.replica != NAMES[1]);
    assert_eq!(odd.count(), 0, "failed: {what}");
}

/// Waits until `replica` is logged in to some routers, which have not answered yet.
async fn in_sessions(cluster: &Cluster, devices: &BTreeMap<Uuid, Router>, replica: &Replica) {
    until("a replica to be in several sessions", || async {
        let running = running(cluster, &replica.name).await;
        let logged_in = running
            .keys()
            .filter(|device| devices[*device].stats().open_sessions > 0)
            .count();
        (logged_in >= 3).then_some(())
    })
    .await;
}

/// The connections that the routers of these attempts have now.
fn connections(
    devices: &BTreeMap<Uuid, Router>,
    held: &BTreeMap<Uuid, Uuid>,
) -> BTreeSet<(Uuid, SocketAddr)> {
    let of = |device: &Uuid| {
        let clients = devices[device].clients();
        let device = *device;
        clients.into_iter().map(move |client| (device, client))
    };
    held.keys().flat_map(of).collect()
}

/// How many of `connections` are still open.
fn connections_left(
    devices: &BTreeMap<Uuid, Router>,
    connections: &BTreeSet<(Uuid, SocketAddr)>,
) -> usize {
    connections
        .iter()
        .filter(|(device, client)| devices[device].clients().contains(client))
        .count()
}
