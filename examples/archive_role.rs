//! Measures the archive role: 10,000 snapshots of 10 KB, every one a change, from a nats-server into
//! PostgreSQL; prints the rate, and the memory of the process as it goes.
//!
//! ```text
//! cargo run --release --example archive_role -- postgres://user@host/empty nats://host:4222
//! ```
//!
//! The database must be empty, and the stream too (`scripts/servers` starts both). `SNAPSHOTS` and
//! `BYTES` in the environment change the numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use futures_util::stream;
use mikrotik_backup::adapters::archive::{SealedArchive, SetAside};
use mikrotik_backup::adapters::jetstream::{JetStreamSink, Settings, SnapshotSource};
use mikrotik_backup::adapters::postgres::PostgresStore;
use mikrotik_backup::clock::Clock;
use mikrotik_backup::credentials::Key;
use mikrotik_backup::domain::attempt::AttemptId;
use mikrotik_backup::domain::device::{DeviceId, TenantId};
use mikrotik_backup::domain::digest::Digest;
use mikrotik_backup::domain::failure::chain;
use mikrotik_backup::domain::snapshot::{ConfigText, Shape, Snapshot};
use mikrotik_backup::intake::Intake;
use mikrotik_backup::lifecycle::Shutdown;
use mikrotik_backup::metrics::archive::ArchiveMetrics;
use mikrotik_backup::ports::{Archive, SnapshotSink as _};
use mikrotik_backup::routeros;
use secrecy::SecretString;
use time::OffsetDateTime;
use uuid::Uuid;

/// So many devices share the snapshots.
const DEVICES: u64 = 1_000;
/// Publications at once.
const PUBLISHERS: usize = 16;

#[expect(
    clippy::disallowed_methods,
    reason = "a measurement's own settings, not the service's"
)]
fn number(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is no number")),
        Err(_) => Ok(default),
    }
}

/// The resident memory of this process in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// Snapshot `n`: a text of about `bytes` bytes that differs from the device's last one in a line,
/// and does not compress to nothing.
fn snapshot(n: u64, bytes: u64) -> Snapshot {
    let (device, version) = (n % DEVICES, n / DEVICES);
    let mut text = format!("/system identity\nset name=edge-{device}\n/ip firewall filter\n");
    let mut rule = 0;
    while (text.len() as u64) < bytes {
        let changes = if rule == 7 { version } else { 0 };
        let digest = Digest::of_fields([
            device.to_be_bytes().as_slice(),
            rule.to_string().as_bytes(),
            changes.to_be_bytes().as_slice(),
        ]);
        let comment = &digest.to_string()[..24];
        text.push_str(&format!(
            "add action=accept chain=forward comment={comment} dst-port={} protocol=tcp\n",
            1000 + rule
        ));
        rule += 1;
    }
    let text = ConfigText::new(text);
    Snapshot {
        attempt: AttemptId(Uuid::from_u128(0x1000_0000 + u128::from(n))),
        device: DeviceId(Uuid::from_u128(0x2000_0000 + u128::from(device))),
        tenant: TenantId(Uuid::from_u128(5)),
        routeros_version: "7.18.2".to_owned(),
        machine: Default::default(),
        collected_at: OffsetDateTime::UNIX_EPOCH + time::Duration::hours(500_000 + version as i64),
        hash: text.digest(),
        text,
        normalization_version: routeros::renormalize().to.version,
        normalization_rules: routeros::renormalize().to.rules,
        incomplete_menus: Vec::new(),
        ledger: Default::default(),
        shape: Shape::default(),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: archive_role postgres://… nats://…";
    let database: SecretString = arguments.next().context(usage)?.into();
    let nats: SecretString = arguments.next().context(usage)?.into();
    let (count, bytes) = (number("SNAPSHOTS", 10_000)?, number("BYTES", 10 * 1024)?);

    let store = PostgresStore::connect(&database, Clock::System, "archive_role")?;
    store.migrate().await?;
    let key = Key::from_bytes(rand::random());
    let archive: Arc<dyn Archive> = Arc::new(SealedArchive::postgres(
        store.pool().clone(),
        key.clone(),
        routeros::renormalize(),
    ));
    ensure!(
        archive.newest(None, 1).await?.is_empty(),
        "the archive of this database is not empty"
    );

    // JetStream sets the whole of it aside, and some disks have less than the default.
    let settings = Settings {
        stream_max_bytes: 1 << 30,
        ..Settings::default()
    };
    let sink = JetStreamSink::connect(&nats, settings.clone()).await?;
    while let Err(error) = sink.ready().await {
        eprintln!("waiting for NATS: {}", chain(&error));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let began = Instant::now();
    let published = stream::iter(0..count)
        .map(|n| {
            let sink = &sink;
            async move { sink.deliver(&snapshot(n, bytes)).await }
        })
        .buffer_unordered(PUBLISHERS);
    let failed = published.filter(|done| std::future::ready(done.is_err()));
    ensure!(
        failed.count().await == 0,
        "not every snapshot was published"
    );
    println!(
        "published {count} snapshots of {bytes} bytes in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    sink.close().await;

    let source = SnapshotSource::connect(&nats, settings).await?;
    let source = Arc::new(source);
    while source.ready().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let shutdown = Shutdown::new();
    let metrics = Arc::new(ArchiveMetrics::new()?);
    let intake = Arc::new(Intake::new(
        source.clone(),
        archive,
        SetAside::new(store.pool().clone(), key),
        u64::MAX,
        metrics.clone(),
        Clock::System,
        shutdown.clone(),
    ));
    println!("before: {:.1} MiB resident", resident());
    let began = Instant::now();
    let working = tokio::spawn(async move { intake.run().await });
    let (mut lowest, mut highest) = (f64::INFINITY, 0_f64);
    let mut told = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let page = metrics.render()?;
        let line = "mikrotik_archive_messages_total{result=\"version\"} ";
        let stored = page.lines().find_map(|text| text.strip_prefix(line));
        let stored: u64 = stored.context("a metric")?.parse()?;
        if stored >= count / 10 {
            lowest = lowest.min(resident());
        }
        highest = highest.max(resident());
        if stored * 10 / count > told {
            told = stored * 10 / count;
            println!(
                "{stored:>8} stored after {:>5.1} s: {:.1} MiB resident",
                began.elapsed().as_secs_f64(),
                resident()
            );
        }
        if stored == count {
            break;
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{count} snapshots in {took:.1} s: {:.0} a second; between {lowest:.1} and {highest:.1} MiB \
         resident after the first tenth",
        count as f64 / took
    );
    shutdown.soft().cancel();
    working.await?;
    source.close().await;
    let versions: i64 = sqlx::query_scalar("SELECT count(*) FROM mikrotik_backup.archive_versions")
        .fetch_one(store.pool())
        .await?;
    ensure!(
        versions as u64 == count,
        "{versions} versions in the archive"
    );
    println!("{versions} versions in the archive, each once");
    store.close().await;
    Ok(())
}
