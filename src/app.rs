//! Composition root: configuration to adapters to fleet. The one place that knows all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::adapters::jetstream::{self, JetStreamSink};
use crate::adapters::postgres::{MigrateError, Migrated, PostgresStore, SchemaState};
use crate::adapters::redis::{RedisCoordinator, Timeouts};
use crate::clock::Clock;
use crate::config::{Cluster, Config};
use crate::credentials::Credentials;
use crate::domain::failure::chain;
use crate::domain::schedule::Policy;
use crate::fleet::backlog::{self, Backlog};
use crate::fleet::hindrance::Hindrance;
use crate::fleet::reconciler::Reconciler;
use crate::fleet::slots::Slots;
use crate::fleet::view::FleetView;
use crate::fleet::{Context, Limits};
use crate::http::{self, Pages, Readiness, Server};
use crate::lifecycle::{self, Ended, Shutdown};
use crate::metrics::Metrics;
use crate::ssh;

/// How much longer than the command timeout a stop waits: an export that ends at the last moment is
/// still published and recorded.
const SHUTDOWN_RESERVE: Duration = Duration::from_secs(10);
/// Between two tries at a database that is away at start.
const START_RETRY_FIRST: Duration = Duration::from_millis(500);
const START_RETRY_MAX: Duration = Duration::from_secs(15);
/// How many journal rows one statement deletes, how long to wait after it, and between two rounds.
const PRUNE_BATCH: u32 = 500;
const PRUNE_PAUSE: Duration = Duration::from_millis(200);
const PRUNE_PERIOD: Duration = Duration::from_secs(3600);

/// Why the service cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Something that the operator must configure differently: exit code 3.
    #[error(transparent)]
    Configuration(anyhow::Error),
    /// Anything else: exit code 1.
    #[error(transparent)]
    Failed(anyhow::Error),
}

impl From<MigrateError> for AppError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Unavailable { .. } => Self::Failed(error.into()),
            // Rights, a wrong password, another database, another version: all the operator's.
            _ => Self::Configuration(error.into()),
        }
    }
}

/// Brings the schema up to date, and nothing else.
pub async fn migrate(cluster: &Cluster) -> Result<(), AppError> {
    let store = PostgresStore::connect(&cluster.database_url, Clock::System, "migrate")
        .map_err(configuration)?;
    let migrated = store.migrate().await?;
    report_migration(&migrated);
    store.close().await;
    Ok(())
}

/// Runs the poller against PostgreSQL, Redis and JetStream until it is told to stop.
pub async fn run_cluster(config: Config, cluster: &Cluster) -> Result<(), AppError> {
    let signals = lifecycle::signals().map_err(failed)?;
    let shutdown = Shutdown::new();
    let clock = Clock::System;
    let store = Arc::new(
        PostgresStore::connect(&cluster.database_url, clock, &config.replica)
            .map_err(configuration)?,
    );
    let coordinator = RedisCoordinator::connect(
        cluster.redis_url().map_err(configuration)?,
        Timeouts::default(),
    )
    .map_err(configuration)?;
    let sink = Arc::new(
        JetStreamSink::connect(
            cluster.nats_url().map_err(configuration)?,
            sink_settings(&config),
        )
        .await
        .map_err(configuration)?,
    );
    let context = Arc::new(Context {
        store: store.clone(),
        coordinator: Arc::new(coordinator),
        sink: sink.clone(),
        credentials: Credentials::new(Some(cluster.key().map_err(configuration)?.clone())),
        slots: Slots::new(config.max_concurrent),
        backlog: Backlog::default(),
        hindrance: Hindrance::default(),
        view: FleetView::default(),
        metrics: Arc::new(Metrics::new().map_err(failed)?),
        clock,
        shutdown: shutdown.clone(),
        limits: Limits {
            command_timeout: config.command_timeout,
            ssh: ssh::Options {
                connect_timeout: config.connect_timeout,
                max_output: config.max_export_bytes,
            },
        },
        replica: config.replica.clone(),
    });
    let schema_ready = Arc::new(AtomicBool::new(false));
    let server = Server::bind(config.http_addr)
        .await
        .map_err(configuration)?;
    info!(http.address = %server.address(), "Listening for /metrics, /livez and /readyz");
    let pages = pages(&context, &schema_ready);
    let server_stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(http::router(pages), server_stop.clone()));

    let grace = config.command_timeout + SHUTDOWN_RESERVE;
    let working = shutdown.spawn({
        // However it ends, by a panic too: a process without its fleet must not seem to live.
        let stop = shutdown.soft().clone().drop_guard();
        let store = store.clone();
        async move {
            let _stop = stop;
            work(&config, &context, &store, &schema_ready).await
        }
    });
    let ended = shutdown.wait(signals, grace).await;
    let result = match ended {
        Ended::Graceful | Ended::Forced { left: 0 } => working.await.map_err(failed)?,
        Ended::Forced { left } => Err(failed(anyhow::anyhow!(
            "{left} tasks did not end and were cut off"
        ))),
    };
    sink.close().await;
    store.close().await;
    server_stop.cancel();
    serving.await.map_err(failed)?;
    result
}

/// The schema first, then the fleet, until the soft stop; then the end in order.
async fn work(
    config: &Config,
    context: &Arc<Context>,
    store: &PostgresStore,
    schema_ready: &AtomicBool,
) -> Result<(), AppError> {
    let soft = context.shutdown.soft();
    tokio::select! {
        biased;
        () = soft.cancelled() => return Ok(()),
        ready = bring_up_schema(store, config.migrate_on_start) => ready?,
    }
    schema_ready.store(true, Ordering::Relaxed);

    let recorder = tokio::spawn({
        let context = context.clone();
        async move { backlog::run(&context).await }
    });
    let pruner = tokio::spawn({
        let context = context.clone();
        let age = Duration::from_secs(config.journal_days * 86_400);
        async move { prune(&context, age).await }
    });
    let policy = Policy {
        interval: config.interval,
        jitter_min: config.jitter_min,
        jitter_max: config.jitter_max,
        recheck: config.offline_recheck,
    };
    Reconciler::new(context.clone(), policy, config.refresh)
        .run()
        .await;
    pruner.abort();
    recorder.abort();
    // Until it has really ended it may still be writing what is flushed here.
    let _ = recorder.await;
    backlog::flush(context).await;
    info!("Every export has ended, and its lock is released");
    Ok(())
}

/// Waits for the database with back-off, then makes sure that the schema is the one we know, and
/// that the role has every right: one that it lacks would show hours later, at the first pin.
async fn bring_up_schema(store: &PostgresStore, may_migrate: bool) -> Result<(), AppError> {
    let mut pause = START_RETRY_FIRST;
    loop {
        let ensured = async {
            ensure_schema(store, may_migrate).await?;
            store.ensure_rights().await
        };
        match ensured.await {
            Ok(()) => return Ok(()),
            Err(error @ MigrateError::Unavailable { .. }) => {
                warn!(
                    error = chain(&error),
                    "waiting for the database; next try in {} s",
                    pause.as_secs_f32()
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(START_RETRY_MAX);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn ensure_schema(store: &PostgresStore, may_migrate: bool) -> Result<(), MigrateError> {
    match store.schema_state().await? {
        SchemaState::Current => Ok(()),
        SchemaState::Newer { applied, known } => Err(MigrateError::Newer { applied, known }),
        state if may_migrate => {
            info!(?state, "bringing the schema up to date");
            store
                .migrate()
                .await
                .map(|migrated| report_migration(&migrated))
        }
        state => Err(MigrateError::Off { state }),
    }
}

fn report_migration(migrated: &Migrated) {
    info!(applied = migrated.applied, "The schema is up to date");
    if let Some(reason) = &migrated.hints_missing {
        warn!(
            reason,
            "edits are found by the period only: the triggers that tell of them could not be \
             installed"
        );
    }
}

/// Deletes old journal rows in small batches.
async fn prune(context: &Context, age: Duration) {
    loop {
        let mut total = 0;
        loop {
            match context.store.prune(age, PRUNE_BATCH).await {
                Ok(0) => break,
                Ok(count) => total += count,
                Err(error) => {
                    warn!(
                        error = chain(&error),
                        "the journal could not be pruned; tried again later"
                    );
                    break;
                }
            }
            tokio::time::sleep(PRUNE_PAUSE).await;
        }
        if total > 0 {
            info!(
                rows = total,
                "pruned journal rows older than {} days",
                age.as_secs() / 86_400
            );
        }
        tokio::time::sleep(PRUNE_PERIOD).await;
    }
}

fn sink_settings(config: &Config) -> jetstream::Settings {
    jetstream::Settings {
        stream_max_bytes: config.stream.max_bytes,
        stream_replicas: usize::try_from(config.stream.replicas).unwrap_or(1),
        client_name: format!("mikrotik-backup {}", config.replica),
        ..jetstream::Settings::default()
    }
}

/// What is served over HTTP.
fn pages(context: &Arc<Context>, schema_ready: &Arc<AtomicBool>) -> Pages {
    let of_scrape = context.clone();
    let refresh = move |metrics: &Metrics| {
        metrics.set_devices(&of_scrape.view.counts());
        metrics.set_oldest_success_age(of_scrape.view.oldest_success_age(of_scrape.clock.now()));
    };
    let readiness = readiness(context, schema_ready);
    Pages::new(context.metrics.clone(), Arc::new(readiness), refresh)
}

/// Each dependency with what is wrong with it.
fn readiness(context: &Arc<Context>, schema_ready: &Arc<AtomicBool>) -> Readiness {
    let (database, redis, nats) = (context.clone(), context.clone(), context.clone());
    let (schema_ready, shutdown) = (schema_ready.clone(), context.shutdown.clone());
    Readiness::new()
        .with("database", move || {
            let (context, schema_ready) = (database.clone(), schema_ready.clone());
            async move {
                context.store.ping().await.map_err(|error| chain(&error))?;
                let ready = schema_ready.load(Ordering::Relaxed);
                ready
                    .then_some(())
                    .ok_or_else(|| "the schema is not up to date yet".to_owned())
            }
        })
        .with("redis", move || {
            let context = redis.clone();
            async move {
                context
                    .coordinator
                    .ping()
                    .await
                    .map_err(|error| chain(&error))
            }
        })
        .with("nats", move || {
            let context = nats.clone();
            async move { context.sink.ready().await.map_err(|error| chain(&error)) }
        })
        .with("process", move || {
            let stopping = shutdown.soft().is_cancelled();
            async move {
                if stopping {
                    Err("stopping".to_owned())
                } else {
                    Ok(())
                }
            }
        })
}

fn failed(error: impl Into<anyhow::Error>) -> AppError {
    AppError::Failed(error.into())
}

fn configuration(error: impl Into<anyhow::Error>) -> AppError {
    AppError::Configuration(error.into())
}
