//! Cluster mode: PostgreSQL, Redis and JetStream, shared by any number of replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tracing::{info, warn};

use super::{AppError, Ports, configuration, context, failed, serve, with_openbao, with_process};
use crate::adapters::jetstream::{self, JetStreamSink};
use crate::adapters::postgres::{MigrateError, Migrated, PostgresStore, SchemaState};
use crate::adapters::redis::{RedisCoordinator, RedisOutbox, Timeouts};
use crate::api::Api;
use crate::clock::Clock;
use crate::config::{Cluster, Config};
use crate::domain::failure::Advice;
use crate::domain::failure::chain;
use crate::fleet::Context;
use crate::fleet::outbox::{Limits, Queue};
use crate::http::Readiness;
use crate::lifecycle::{self, Shutdown};
use crate::trigger;

/// Between two tries at a database that is away at start.
const START_RETRY_FIRST: Duration = Duration::from_millis(500);
const START_RETRY_MAX: Duration = Duration::from_secs(15);

/// Whose rights the database's role must have.
#[derive(Clone, Copy)]
pub(super) enum Rights {
    /// Those of `run`.
    Run,
    /// Those of `archive`.
    Archive,
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
    let store = Arc::new(
        PostgresStore::connect(&cluster.database_url, Clock::System, &config.replica)
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
    let key = cluster.key().map_err(configuration)?.clone();
    let letters =
        RedisOutbox::connect(cluster.redis_url().map_err(configuration)?, &config.replica)
            .map_err(configuration)?;
    let outbox = Queue::new(
        Arc::new(letters),
        store.clone(),
        key.clone(),
        outbox_limits(&config),
        Some(&config.data_dir),
    );
    let ports = Ports {
        store: store.clone(),
        coordinator: Arc::new(coordinator),
        sink: sink.clone(),
        outbox: Some(outbox),
        key,
    };
    let context = context(&config, ports, &Shutdown::new())?;
    let api = Api::new(context.clone(), config.interval, Advice::Sql);
    let answering = trigger::run(sink.client(), context.clone());
    context.shutdown.spawn(answering);
    let schema_ready = Arc::new(AtomicBool::new(false));
    let readiness = readiness(&context, &schema_ready);
    let may_migrate = config.migrate_on_start;
    let prepare = {
        let store = store.clone();
        async move {
            bring_up_schema(&store, may_migrate, Rights::Run).await?;
            schema_ready.store(true, Ordering::Relaxed);
            Ok(())
        }
    };
    let result = serve(config, context, signals, readiness, api, prepare).await;
    sink.close().await;
    store.close().await;
    result
}

/// Waits for the database with back-off, then makes sure that the schema is the one we know, and
/// that the role has every right: one that it lacks would show hours later, at the first pin.
pub(super) async fn bring_up_schema(
    store: &PostgresStore,
    may_migrate: bool,
    rights: Rights,
) -> Result<(), AppError> {
    let mut pause = START_RETRY_FIRST;
    loop {
        let ensured = async {
            ensure_schema(store, may_migrate).await?;
            match rights {
                Rights::Run => store.ensure_rights().await,
                Rights::Archive => store.ensure_archive_rights().await,
            }
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

pub(super) fn sink_settings(config: &Config) -> jetstream::Settings {
    jetstream::Settings {
        stream_max_bytes: config.stream.max_bytes,
        stream_replicas: usize::try_from(config.stream.replicas).unwrap_or(1),
        client_name: format!("mikrotik-backup {}", config.replica),
        ..jetstream::Settings::default()
    }
}

fn outbox_limits(config: &Config) -> Limits {
    Limits {
        retry_interval: config.outbox.retry_interval,
        max_attempts: u32::try_from(config.outbox.max_attempts).unwrap_or(u32::MAX),
        max_bytes: config.outbox.max_bytes,
    }
}

/// Each dependency with what is wrong with it, and what this process holds because of it.
fn readiness(context: &Arc<Context>, schema_ready: &Arc<AtomicBool>) -> Readiness {
    let (database, redis, nats) = (context.clone(), context.clone(), context.clone());
    let schema_ready = schema_ready.clone();
    let readiness = Readiness::new()
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
        });
    let holding = context.clone();
    let readiness = readiness.noting("held", move || {
        let holding = holding.outbox.as_ref()?.holding();
        let letters = holding.disk.letters + holding.memory.letters;
        (letters > 0).then(|| {
            json!({
                "snapshots": letters,
                "disk": { "snapshots": holding.disk.letters, "bytes": holding.disk.bytes },
                "memory": { "snapshots": holding.memory.letters, "bytes": holding.memory.bytes },
                "folder": holding.folder,
            })
        })
    });
    with_process(with_openbao(readiness, context), &context.shutdown)
}
