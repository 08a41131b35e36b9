//! The `archive` role: from JetStream into the PostgreSQL archive, shared by any number of replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::cluster::{Rights, bring_up_schema, sink_settings};
use super::{AppError, configuration, failed, with_process};
use crate::adapters::archive::{SealedArchive, SetAside};
use crate::adapters::git::GitMirror;
use crate::adapters::jetstream::SnapshotSource;
use crate::adapters::postgres::PostgresStore;
use crate::clock::Clock;
use crate::config::{Cluster, Config};
use crate::domain::failure::chain;
use crate::http::{self, Pages, Readiness, Server};
use crate::intake::Intake;
use crate::lifecycle::{self, Ended, Shutdown};
use crate::metrics::archive::ArchiveMetrics;
use crate::mirror::{Mirror, Mirrored, Place, Places};
use crate::ports::{Archive, ArchiveError};

/// How long a stop waits for what is being stored: longer than a statement may take.
const GRACE: Duration = Duration::from_secs(45);

/// Between two tries at an archive that cannot be asked for its key.
const KEY_RETRY: Duration = Duration::from_secs(2);

/// How often the git mirror looks at every device.
const CATCH_UP: Duration = Duration::from_secs(900);

/// How long the end waits for the git mirror; what is missing then follows at the next start.
const MIRROR_LIMIT: Duration = Duration::from_secs(10);

/// The largest text that is taken from an object store, in bytes: a byte of an export that is no
/// UTF-8 becomes three in a snapshot.
pub fn text_limit(config: &Config) -> u64 {
    (config.max_export_bytes as u64).saturating_mul(3)
}

/// Stores what arrives in JetStream until the process is told to stop.
pub async fn run_archive(config: Config, cluster: &Cluster) -> Result<(), AppError> {
    let signals = lifecycle::signals().map_err(failed)?;
    let store = PostgresStore::connect(&cluster.database_url, Clock::System, &config.replica)
        .map_err(configuration)?;
    let store = Arc::new(store);
    let key = cluster.key().map_err(configuration)?;
    let (pool, renormalize) = (store.pool().clone(), config.normalizer.renormalize());
    let sealed = Arc::new(SealedArchive::postgres(pool, key.clone(), renormalize));
    let nats_url = cluster.nats_url().map_err(configuration)?;
    let source = SnapshotSource::connect(nats_url, sink_settings(&config)).await;
    let source = Arc::new(source.map_err(configuration)?);
    let metrics = Arc::new(ArchiveMetrics::new().map_err(failed)?);
    let mirror = config.git_archive_dir.as_ref().map(|folder| {
        let mirror = Mirror::default();
        let git = GitMirror::new(folder.clone(), &config.replica);
        let places = places(store.clone());
        let following = mirror.follow(git, sealed.clone(), places, metrics.mirror());
        (mirror, following)
    });
    let archive: Arc<dyn Archive> = match &mirror {
        Some((mirror, _)) => Arc::new(Mirrored::new(sealed, mirror.clone())),
        None => sealed,
    };
    let shutdown = Shutdown::new();
    let intake = Arc::new(Intake::new(
        source.clone(),
        archive.clone(),
        SetAside::new(store.pool().clone(), key.clone()),
        text_limit(&config),
        metrics.clone(),
        Clock::System,
        shutdown.clone(),
    ));

    let schema_ready = Arc::new(AtomicBool::new(false));
    let readiness = readiness(&archive, &source, &intake, &schema_ready);
    let readiness = Arc::new(with_process(readiness, &shutdown));
    let server = Server::bind(config.http_addr)
        .await
        .map_err(configuration)?;
    info!(http.address = %server.address(), "Listening for /metrics, /livez and /readyz");
    let pages = Pages::of(move || metrics.render(), readiness);
    let server_stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(http::router(pages), server_stop.clone()));

    let working = shutdown.spawn({
        // However it ends, by a panic too: a process that takes nothing must not seem to live.
        let stop = shutdown.soft().clone().drop_guard();
        let (soft, store) = (shutdown.soft().clone(), store.clone());
        let told = mirror.as_ref().map(|(mirror, _)| mirror.clone());
        async move {
            let _stop = stop;
            tokio::select! {
                biased;
                () = soft.cancelled() => return Ok(()),
                ready = prepare(&store, archive.as_ref(), config.migrate_on_start) => ready?,
            }
            schema_ready.store(true, Ordering::Relaxed);
            match told {
                Some(mirror) => tokio::select! {
                    () = intake.run() => {}
                    () = catch_up(&mirror) => {}
                },
                None => intake.run().await,
            }
            Ok(())
        }
    });
    let ended = shutdown.wait(signals, GRACE).await;
    let result = match ended {
        Ended::Graceful | Ended::Forced { left: 0 } => working.await.map_err(failed)?,
        Ended::Forced { left } => Err(failed(anyhow::anyhow!(
            "{left} tasks did not end and were cut off; their messages come again"
        ))),
    };
    server_stop.cancel();
    serving.await.map_err(failed)?;
    // Acknowledgements on their way are sent.
    source.close().await;
    if let Some((mirror, _)) = &mirror {
        mirror.settled(MIRROR_LIMIT).await;
    }
    store.close().await;
    if result.is_ok() {
        info!("Every message that was taken is settled or given back");
    }
    result
}

/// Has the mirror look at every device now and then: what other replicas store is not told here.
/// Ends only when it is dropped.
async fn catch_up(mirror: &Mirror) {
    loop {
        mirror.catch_up();
        tokio::time::sleep(CATCH_UP).await;
    }
}

/// Where the git mirror keeps the devices of `store`.
fn places(store: Arc<PostgresStore>) -> Places {
    Arc::new(move |device| {
        let store = store.clone();
        async move {
            let mut found = store.find(&device.to_string()).await?;
            found.retain(|found| found.id == device);
            let found = found.pop();
            Ok(found.map(|found| Place::new(found.name, None, found.tenant)))
        }
        .boxed()
    })
}

/// The schema, the rights and the key, before anything is taken: under another key than the
/// archive's nothing is written.
async fn prepare(
    store: &PostgresStore,
    archive: &dyn Archive,
    may_migrate: bool,
) -> Result<(), AppError> {
    bring_up_schema(store, may_migrate, Rights::Archive).await?;
    loop {
        match archive.check_key().await {
            Ok(()) => return Ok(()),
            Err(error @ ArchiveError::Unavailable { .. }) => {
                warn!(error = chain(&error), "waiting for the archive");
                tokio::time::sleep(KEY_RETRY).await;
            }
            Err(error) => return Err(configuration(error)),
        }
    }
}

/// Each dependency with what is wrong with it.
fn readiness(
    archive: &Arc<dyn Archive>,
    source: &Arc<SnapshotSource>,
    intake: &Arc<Intake>,
    schema_ready: &Arc<AtomicBool>,
) -> Readiness {
    let (archive, source, intake) = (archive.clone(), source.clone(), intake.clone());
    let schema_ready = schema_ready.clone();
    Readiness::new()
        .with("database", move || {
            let (archive, schema_ready) = (archive.clone(), schema_ready.clone());
            async move {
                if !schema_ready.load(Ordering::Relaxed) {
                    return Err("the schema is not known to be up to date yet".to_owned());
                }
                archive.check_key().await.map_err(|error| chain(&error))
            }
        })
        .with("nats", move || {
            let source = source.clone();
            async move { source.ready().await.map_err(|error| chain(&error)) }
        })
        .with("archive", move || {
            let trouble = intake.trouble();
            async move { trouble.map_or(Ok(()), Err) }
        })
}
