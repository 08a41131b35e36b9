//! Measures what a look at a large inventory costs this process: the first look, a quiet one, one
//! after a single edit, and one after an edit of everything. It prints, and asserts nothing.
//!
//! ```sh
//! demo=$(mktemp -d); scripts/servers start "$demo"; source "$demo/env"
//! cargo run --release --example reconcile_cost
//! scripts/servers stop "$demo"; rm -r "$demo"
//! ```
//!
//! The database must have no devices: 20,000 are inserted, and deleted again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use mikrotik_backup::adapters::in_process::InProcess;
use mikrotik_backup::adapters::postgres::PostgresStore;
use mikrotik_backup::clock::Clock;
use mikrotik_backup::config::{Config, Environment, Mode, Need};
use mikrotik_backup::credentials::Credentials;
use mikrotik_backup::domain::failure::Advice;
use mikrotik_backup::domain::schedule::Policy;
use mikrotik_backup::domain::snapshot::Snapshot;
use mikrotik_backup::fleet::reconciler::Reconciler;
use mikrotik_backup::fleet::{
    Context, Limits, backlog::Backlog, hindrance::Hindrance, requests::Requests, slots::Slots,
    view::FleetView,
};
use mikrotik_backup::lifecycle::Shutdown;
use mikrotik_backup::metrics::Metrics;
use mikrotik_backup::ports::{SinkError, SnapshotSink};
use mikrotik_backup::ssh;
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::Instant;

const DEVICES: i32 = 20_000;

/// How often the cheap looks are repeated, so that the kernel's clock ticks can measure them.
const REPEATED: u32 = 100;

/// Clock ticks per second in `/proc` (proc_pid_stat(5)); 100 on every current Linux.
const TICKS: f64 = 100.0;

const INSERT: &str = "INSERT INTO devices (tenant_id, hostname, ip_address, encrypted_credentials) \
     SELECT '00000000-0000-4000-8000-000000000001', format('router-%s', n), \
            format('192.0.2.%s', n % 256), \
            decode(repeat(md5(n::text), 6), 'hex') FROM generate_series(1, $1) AS n";

/// Nothing comes due while this measures.
const POLICY: Policy = Policy {
    interval: Duration::from_secs(21_600),
    jitter_min: Duration::from_secs(20_000),
    jitter_max: Duration::from_secs(21_600),
    recheck: Duration::from_secs(300),
};

struct Nowhere;

#[async_trait]
impl SnapshotSink for Nowhere {
    async fn ready(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn deliver(&self, _snapshot: &Snapshot) -> Result<(), SinkError> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::load(Need::Migrate, &Environment::of_process())?;
    let Mode::Cluster(cluster) = &config.mode else {
        anyhow::bail!("DATABASE_URL is not set");
    };
    let store = PostgresStore::connect(&cluster.database_url, Clock::System, "measurement")?;
    store.migrate().await?;
    let mut database = PgConnection::connect(cluster.database_url.expose_secret()).await?;
    let present: i64 = sqlx::query_scalar("SELECT count(*) FROM devices")
        .fetch_one(&mut database)
        .await?;
    ensure!(
        present == 0,
        "the database holds {present} devices; use one that has none"
    );
    sqlx::query(INSERT)
        .bind(DEVICES)
        .execute(&mut database)
        .await?;
    let result = measure(store, &mut database).await;
    database.execute("DELETE FROM devices").await?;
    result
}

async fn measure(store: PostgresStore, database: &mut PgConnection) -> anyhow::Result<()> {
    database.execute("ANALYZE devices").await?;
    let context = Context {
        store: Arc::new(store),
        coordinator: Arc::new(InProcess::new()),
        sink: Arc::new(Nowhere),
        outbox: None,
        credentials: Credentials::new(None),
        slots: Slots::new(1),
        backlog: Backlog::default(),
        hindrance: Hindrance::default(),
        requests: Requests::default(),
        view: FleetView::default(),
        metrics: Arc::new(Metrics::new()?),
        clock: Clock::System,
        shutdown: Shutdown::new(),
        limits: Limits {
            command_timeout: Duration::from_secs(60),
            ssh: ssh::Options::default(),
            bound: None,
        },
        normalizer: Default::default(),
        replica: "measurement".to_owned(),
        advice: Advice::Sql,
    };
    let mut reconciler = Reconciler::new(Arc::new(context), POLICY, Duration::from_secs(60));
    println!("{DEVICES} devices; per look, CPU time of this process and time on the clock:");
    look(&mut reconciler, "first look, all are started", 1).await?;
    look(&mut reconciler, "quiet", REPEATED).await?;
    database
        .execute("UPDATE devices SET ssh_port = 2222 WHERE hostname = 'router-1'")
        .await?;
    look(&mut reconciler, "one edited", 1).await?;
    database
        .execute("UPDATE devices SET ssh_port = 2223")
        .await?;
    look(&mut reconciler, "all edited", 1).await?;
    Ok(())
}

async fn look(reconciler: &mut Reconciler, what: &str, times: u32) -> anyhow::Result<()> {
    let (cpu, began) = (cpu_seconds()?, Instant::now());
    let mut changes = None;
    for _ in 0..times {
        changes = Some(reconciler.reconcile().await?);
    }
    let changes = changes.context("at least one look")?;
    // Workers that were started or told take their turn too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let clock = began.elapsed() - Duration::from_millis(300);
    let per_look = |seconds: f64| seconds * 1000.0 / f64::from(times);
    println!(
        "  {what:<28} {:>7.1} ms CPU {:>7.1} ms   started {}, edited {}, stopped {}",
        per_look(cpu_seconds()? - cpu),
        per_look(clock.as_secs_f64()),
        changes.started,
        changes.edited,
        changes.stopped,
    );
    Ok(())
}

/// User and system time of this process.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("needs Linux's /proc")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    // The 14th and 15th field; the first two are cut off.
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
    };
    let (user, system) = ticks(11)
        .zip(ticks(12))
        .context("/proc/self/stat is unreadable")?;
    Ok((user + system) / TICKS)
}
