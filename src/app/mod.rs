//! Composition root: configuration to adapters to fleet. The one place that knows all of them; what
//! the modes share is here, what each brings along is in its own file.

mod archive;
mod cluster;
mod embedded;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::Api;
use crate::api::access::Access;
use crate::clock::Clock;
use crate::config::Config;
use crate::credentials::{Credentials, Key, Transit};
use crate::domain::failure::chain;
use crate::domain::hold::Place;
use crate::domain::schedule::Policy;
use crate::fleet::backlog::{self, Backlog};
use crate::fleet::hindrance::Hindrance;
use crate::fleet::outbox::{Queue, hold, relay};
use crate::fleet::reconciler::Reconciler;
use crate::fleet::requests::Requests;
use crate::fleet::slots::{Lane, Slots};
use crate::fleet::view::FleetView;
use crate::fleet::{Context, Limits};
use crate::http::{self, Pages, Readiness, Server};
use crate::lifecycle::{Ended, Shutdown, Signal};
use crate::metrics::Metrics;
use crate::ports::{Coordinator, SnapshotSink, Store};
use crate::ssh;

pub use archive::{run_archive, text_limit};
pub use cluster::{migrate, run_cluster};
pub use embedded::{Embedded, run_embedded};

/// How much longer than the command timeout a stop waits: an export that ends at the last moment is
/// still published and recorded.
const SHUTDOWN_RESERVE: Duration = Duration::from_secs(10);
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
    /// The arguments do not go together, or one of them is nothing that can be meant: exit code 2.
    #[error(transparent)]
    Usage(anyhow::Error),
    /// Anything else: exit code 1.
    #[error(transparent)]
    Failed(anyhow::Error),
}

/// What a mode brings along.
struct Ports {
    store: Arc<dyn Store>,
    coordinator: Arc<dyn Coordinator>,
    sink: Arc<dyn SnapshotSink>,
    outbox: Option<Queue>,
    key: Key,
}

/// What every attempt of this process works with.
fn context(config: &Config, ports: Ports, shutdown: &Shutdown) -> Result<Arc<Context>, AppError> {
    let metrics = Arc::new(Metrics::new().map_err(failed)?);
    let transit = transit(config, &metrics)?;
    Ok(Arc::new(Context {
        store: ports.store,
        coordinator: ports.coordinator,
        sink: ports.sink,
        outbox: ports.outbox,
        credentials: Credentials::new(Some(ports.key)).with_transit(transit),
        slots: Slots::new(config.max_concurrent),
        backlog: Backlog::default(),
        hindrance: Hindrance::default(),
        requests: Requests::default(),
        view: FleetView::default(),
        metrics,
        clock: Clock::System,
        shutdown: shutdown.clone(),
        limits: Limits {
            command_timeout: config.command_timeout,
            ssh: ssh::Options {
                connect_timeout: config.connect_timeout,
                max_output: config.max_export_bytes,
                idle_timeout: config.idle_timeout,
                algorithms: config.ssh_algorithms,
            },
            bound: config.connections,
        },
        normalizer: config.normalizer.clone(),
        replica: config.replica.clone(),
        advice: config.mode.advice(),
    }))
}

/// What opens Transit ciphertexts, if it is configured.
///
/// # Errors
/// [`AppError::Configuration`] when `OPENBAO_ADDR` cannot be used.
pub fn transit(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Arc<Transit>>, AppError> {
    let Some(openbao) = &config.openbao else {
        return Ok(None);
    };
    let transit = Transit::new(&openbao.address, &openbao.token, metrics.clone());
    Ok(Some(Arc::new(transit.map_err(configuration)?)))
}

/// Serves HTTP and works, once `prepare` says that the store is ready, until the process is told to
/// stop; then lets running exports end.
async fn serve<P>(
    config: Config,
    context: Arc<Context>,
    signals: mpsc::Receiver<Signal>,
    readiness: Readiness,
    api: Api,
    prepare: P,
) -> Result<(), AppError>
where
    P: Future<Output = Result<(), AppError>> + Send + 'static,
{
    let shutdown = context.shutdown.clone();
    let server = Server::bind(config.http_addr)
        .await
        .map_err(configuration)?;
    info!(
        http.address = %server.address(),
        "Listening for /metrics, /livez, /readyz and /api/v1"
    );
    let pages = pages(&context, readiness);
    let access = Access::of(config.http_addr, config.api_token.as_ref());
    let router = http::router(pages).merge(api.router(access));
    let server_stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(router, server_stop.clone()));

    let grace = config.command_timeout + SHUTDOWN_RESERVE;
    let working = shutdown.spawn({
        // However it ends, by a panic too: a process without its fleet must not seem to live.
        let stop = shutdown.soft().clone().drop_guard();
        async move {
            let _stop = stop;
            work(&config, &context, prepare).await
        }
    });
    let ended = shutdown.wait(signals, grace).await;
    let result = match ended {
        Ended::Graceful | Ended::Forced { left: 0 } => working.await.map_err(failed)?,
        Ended::Forced { left } => Err(failed(anyhow::anyhow!(
            "{left} tasks did not end and were cut off"
        ))),
    };
    server_stop.cancel();
    serving.await.map_err(failed)?;
    result
}

/// The schema first, then the fleet, until the soft stop; then the end in order.
async fn work(
    config: &Config,
    context: &Arc<Context>,
    prepare: impl Future<Output = Result<(), AppError>>,
) -> Result<(), AppError> {
    let soft = context.shutdown.soft();
    tokio::select! {
        biased;
        () = soft.cancelled() => return Ok(()),
        ready = prepare => ready?,
    }

    let opener = tokio::spawn({
        let context = context.clone();
        async move {
            if let Some(transit) = context.credentials.transit() {
                transit.run().await;
            }
        }
    });
    let recorder = tokio::spawn({
        let context = context.clone();
        async move { backlog::run(&context).await }
    });
    let pruner = tokio::spawn({
        let context = context.clone();
        let age = Duration::from_secs(config.journal_days * 86_400);
        async move { prune(&context, age).await }
    });
    let relaying = tokio::spawn({
        let context = context.clone();
        async move {
            let hard = context.shutdown.hard().clone();
            tokio::select! {
                () = hard.cancelled() => {}
                _ = async { tokio::join!(relay::run(&context), relay::watch(&context)) } => {}
            }
        }
    });
    if let Some(outbox) = &context.outbox {
        outbox.adopt().await;
    }
    let holding = tokio::spawn({
        let context = context.clone();
        async move { hold::run(&context).await }
    });
    Reconciler::new(context.clone(), policy(config), config.refresh)
        .run()
        .await;
    pruner.abort();
    opener.abort();
    holding.abort();
    // Until it has really ended it may still be moving what is moved here.
    let _ = holding.await;
    hold::drain(context).await;
    // It ends by itself, and gives back what it has in its hands.
    let _ = relaying.await;
    recorder.abort();
    // Until it has really ended it may still be writing what is flushed here.
    let _ = recorder.await;
    backlog::flush(context).await;
    hold::leave(context).await;
    info!("Every export has ended, and its lock is released");
    Ok(())
}

/// When devices come due.
fn policy(config: &Config) -> Policy {
    Policy {
        interval: config.interval,
        jitter_min: config.jitter_min,
        jitter_max: config.jitter_max,
        recheck: config.offline_recheck,
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

/// What is served over HTTP.
fn pages(context: &Arc<Context>, readiness: Readiness) -> Pages {
    let of_scrape = context.clone();
    let refresh = move |metrics: &Metrics| {
        metrics.set_devices(&of_scrape.view.counts());
        let slots = &of_scrape.slots;
        metrics.set_waiting(
            slots.waiting(Lane::Scheduled),
            slots.waiting(Lane::Requested),
        );
        metrics.set_oldest_success_age(of_scrape.view.oldest_success_age(of_scrape.clock.now()));
        if let Some(outbox) = &of_scrape.outbox {
            let holding = outbox.holding();
            metrics.set_held(Place::Disk, holding.disk);
            metrics.set_held(Place::Memory, holding.memory);
        }
    };
    Pages::new(context.metrics.clone(), Arc::new(readiness), refresh)
}

/// Adds to the dependencies of a mode OpenBao, where it is one.
fn with_openbao(readiness: Readiness, context: &Arc<Context>) -> Readiness {
    if context.credentials.transit().is_none() {
        return readiness;
    }
    let context = context.clone();
    readiness.with("openbao", move || {
        let context = context.clone();
        async move {
            match context.credentials.transit() {
                Some(transit) => transit.ping().await,
                None => Ok(()),
            }
        }
    })
}

/// Adds to the dependencies of a mode what every process says of itself.
fn with_process(readiness: Readiness, shutdown: &Shutdown) -> Readiness {
    let shutdown = shutdown.clone();
    readiness.with("process", move || {
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
