//! The archive role as its users run it: the real binary between a real NATS and a real PostgreSQL.

mod bad;
mod incomplete;
mod large;
mod mirrored;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::Info;
use mikrotik_backup::adapters::archive::SealedArchive;
use mikrotik_backup::adapters::jetstream::{CONSUMER, JetStreamSink, Settings};
use mikrotik_backup::credentials::Key;
use mikrotik_backup::domain::attempt::AttemptId;
use mikrotik_backup::domain::device::{DeviceId, TenantId};
use mikrotik_backup::domain::snapshot::{ConfigText, Shape, Snapshot};
use mikrotik_backup::ports::{Archive as _, SnapshotSink as _, VersionPage};
use mikrotik_backup::routeros;
use nix::sys::signal::Signal;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::harness::{Cluster, KEY, Replica, get};
use super::poll::until;
use proxy::Proxy;

mod proxy;

const STREAM: &str = "CONFIG_SNAPSHOTS";

/// Starts the role, and waits until it answers.
async fn archiver(cluster: &Cluster, name: &str, overrides: &[(&str, &str)]) -> Replica {
    let role = cluster.spawn_role("archive", name, overrides);
    until("the role to answer", || async {
        get(&role.http, "/livez").await.ok()
    })
    .await;
    role
}

async fn until_ready(role: &Replica) {
    until("the role to be ready", || async {
        let body = get(&role.http, "/readyz").await.ok()?;
        body.contains(r#""ready""#).then_some(())
    })
    .await;
}

/// A sink that is ready, over which the test publishes.
async fn publisher(cluster: &Cluster) -> JetStreamSink {
    let settings = Settings {
        stream_max_bytes: 256 << 20,
        ..Settings::default()
    };
    let sink = JetStreamSink::connect(&cluster.nats.url(), settings).await;
    let sink = sink.expect("the URL of the test's server");
    until("the sink to be ready", || async { sink.ready().await.ok() }).await;
    sink
}

/// Configuration `number` of `device`, taken in that hour.
fn snapshot(device: DeviceId, number: u32) -> Snapshot {
    let text = format!(
        "/system identity\nset name=edge\n/user\nset admin password=hidden-word\n/ip dns\nset \
         servers=192.0.2.{}\nset cache-size={number}\n",
        number % 250
    );
    let text = ConfigText::new(text);
    Snapshot {
        attempt: AttemptId::generate(),
        device,
        tenant: TenantId(Uuid::from_u128(5)),
        routeros_version: "7.18.2".to_owned(),
        machine: Default::default(),
        collected_at: OffsetDateTime::UNIX_EPOCH + Duration::hours(500_000 + i64::from(number)),
        hash: text.digest(),
        text,
        normalization_version: routeros::renormalize().to.version,
        normalization_rules: routeros::renormalize().to.rules,
        incomplete_menus: Vec::new(),
        ledger: BTreeMap::new(),
        shape: Shape::default(),
    }
}

fn device() -> DeviceId {
    DeviceId(Uuid::new_v4())
}

/// `versions` snapshots of each of `devices` devices, device by device.
fn snapshots(devices: usize, versions: u32) -> Vec<Snapshot> {
    let of = |device| (0..versions).map(move |number| snapshot(device, number));
    std::iter::repeat_with(device)
        .take(devices)
        .flat_map(of)
        .collect()
}

async fn publish(sink: &JetStreamSink, snapshots: &[Snapshot]) {
    for snapshot in snapshots {
        sink.deliver(snapshot).await.expect("published");
    }
}

async fn count(cluster: &Cluster, table: &'static str) -> i64 {
    let statement = match table {
        "archive_versions" => "SELECT count(*) FROM mikrotik_backup.archive_versions",
        _ => "SELECT count(*) FROM mikrotik_backup.archive_set_aside",
    };
    let count = sqlx::query_scalar(statement)
        .fetch_one(cluster.pool())
        .await;
    count.expect("count rows")
}

async fn until_stored(cluster: &Cluster, versions: usize) {
    until(&format!("{versions} versions"), || async {
        let stored = count(cluster, "archive_versions").await;
        assert!(stored <= versions as i64, "{stored} of {versions} versions");
        (stored == versions as i64).then_some(())
    })
    .await;
}

/// What the server says of the consumer, once there is one.
async fn consumer(jetstream: &Context) -> Info {
    let stream = jetstream.get_stream(STREAM).await.expect("the stream");
    until("the consumer", || async {
        stream.consumer_info(CONSUMER).await.ok()
    })
    .await
}

/// Polls until every message is settled.
async fn until_drained(cluster: &Cluster) {
    let jetstream = cluster.nats.jetstream().await;
    until("every message to be settled", || async {
        let info = consumer(&jetstream).await;
        (info.num_pending == 0 && info.num_ack_pending == 0).then_some(())
    })
    .await;
}

fn archive(cluster: &Cluster) -> SealedArchive {
    let key = Key::from_bytes(KEY);
    SealedArchive::postgres(cluster.pool().clone(), key, routeros::renormalize())
}

/// Every snapshot is a version of its device, and nothing else is.
async fn assert_stored_once(cluster: &Cluster, snapshots: &[Snapshot]) {
    let archive = archive(cluster);
    let mut wanted: BTreeMap<DeviceId, BTreeSet<_>> = BTreeMap::new();
    for snapshot in snapshots {
        wanted.entry(snapshot.device).or_default().insert((
            snapshot.collected_at,
            snapshot.hash,
            snapshot.attempt,
        ));
    }
    for (device, wanted) in wanted {
        let versions = archive.versions(device, VersionPage::first(1000)).await;
        let versions = versions.expect("list");
        let found: BTreeSet<_> = versions
            .iter()
            .map(|version| {
                let position = version.first.position;
                (position.at, version.first.hash, position.attempt)
            })
            .collect();
        assert_eq!(found, wanted, "of {device}");
        assert_eq!(versions.len(), wanted.len(), "each once");
    }
    let total = count(cluster, "archive_versions").await;
    assert_eq!(total, snapshots.len() as i64);
}

/// Killed after storing and before the acknowledgement arrives: what it stored comes again, to
/// another process, and is there once.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_storing_and_acknowledging() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let sink = publisher(&cluster).await;
    let snapshots = snapshots(6, 4);
    publish(&sink, &snapshots).await;

    let proxy = Proxy::start(&cluster.nats).await;
    proxy.swallow("$JS.ACK.");
    let role = archiver(&cluster, "killed", &[("NATS_URL", &proxy.url())]).await;
    until_stored(&cluster, snapshots.len()).await;
    let jetstream = cluster.nats.jetstream().await;
    let info = consumer(&jetstream).await;
    assert_eq!(info.ack_floor.stream_sequence, 0, "nothing is acknowledged");
    assert_eq!(info.num_ack_pending, snapshots.len());
    role.signal(Signal::SIGKILL);

    let next = archiver(&cluster, "next", &[]).await;
    until_drained(&cluster).await;
    let redelivered = next
        .metric("mikrotik_archive_messages_total{result=\"seen_again\"}")
        .await;
    assert!(redelivered >= snapshots.len() as f64, "{redelivered}");
    let new = next
        .metric("mikrotik_archive_messages_total{result=\"version\"}")
        .await;
    assert_eq!(new, 0.0, "nothing is stored twice");
    assert_stored_once(&cluster, &snapshots).await;
}

/// Two replicas share one consumer; every snapshot is stored once, whoever gets it and when.
#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_the_work() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let sink = publisher(&cluster).await;
    let (one, other) = tokio::join!(
        archiver(&cluster, "one", &[]),
        archiver(&cluster, "other", &[])
    );
    tokio::join!(until_ready(&one), until_ready(&other));
    let mut snapshots = snapshots(8, 20);
    // Not in the order of their times, and some of them again under the same attempt.
    snapshots.sort_by_key(|snapshot| snapshot.hash);
    publish(&sink, &snapshots).await;
    publish(&sink, &snapshots[..20]).await;
    until_drained(&cluster).await;
    assert_stored_once(&cluster, &snapshots).await;

    let mut versions = 0.0;
    for role in [&one, &other] {
        let series = "mikrotik_archive_messages_total{result=\"version\"}";
        let stored = role.metric(series).await;
        assert!(stored > 0.0, "{} did nothing", role.name);
        versions += stored;
    }
    assert_eq!(versions, snapshots.len() as f64);
    let jetstream = cluster.nats.jetstream().await;
    let stream = jetstream.get_stream(STREAM).await.expect("the stream");
    assert_eq!(stream.cached_info().state.consumer_count, 1);
}

/// A device that the inventory does not know: its configuration is stored all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_device_is_stored_all_the_same() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let sink = publisher(&cluster).await;
    let unknown = snapshot(device(), 1);
    publish(&sink, std::slice::from_ref(&unknown)).await;
    let role = archiver(&cluster, "unknown", &[]).await;
    until_drained(&cluster).await;
    assert_stored_once(&cluster, std::slice::from_ref(&unknown)).await;

    let mut show = cluster.command("show", &[]);
    show.args(["snapshots", "show", &unknown.device.to_string()]);
    let shown = super::commands::finished(show, "").await;
    assert_eq!(shown.out, unknown.text.expose(), "{}", shown.err);

    // The first line tells what runs, and no line tells a secret.
    let log = role.log();
    let first = log.lines().next().expect("a first line");
    for part in [
        "Starting mikrotik-backup",
        r#""mode":"archive""#,
        r#""replica":"unknown""#,
    ] {
        assert!(first.contains(part), "{part} is not in {first}");
    }
    assert!(!log.contains("hidden-word"), "{log}");
}

/// Told to stop, it settles what it works on and gives the rest back at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_lets_it_finish() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let sink = publisher(&cluster).await;
    let snapshots = snapshots(30, 20);
    publish(&sink, &snapshots).await;
    let mut role = archiver(&cluster, "stopped", &[]).await;
    until("some versions", || async {
        (count(&cluster, "archive_versions").await > 20).then_some(())
    })
    .await;
    role.signal(Signal::SIGTERM);
    assert_eq!(role.exit_code().await, 0, "{}", role.log());
    let stored = count(&cluster, "archive_versions").await;
    assert!(stored < snapshots.len() as i64, "it was stopped midway");

    // What was stored is acknowledged: the next one has only the others to do.
    let next = archiver(&cluster, "next", &[]).await;
    until_drained(&cluster).await;
    assert_stored_once(&cluster, &snapshots).await;
    let again = next
        .metric("mikrotik_archive_messages_total{result=\"seen_again\"}")
        .await;
    assert_eq!(again, 0.0, "{}", role.log());
}
