//! Hears of edits through LISTEN/NOTIFY, on a connection of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Executor as _;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::debug;

/// The channel of migration 0003.
const CHANNEL: &str = "mikrotik_backup_inventory";

/// The first wait before listening again; it doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// The reconciler's default period: waiting longer would make the hints worthless.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// After so long a silence the connection is tried out: a firewall may have dropped it.
const SILENCE: Duration = Duration::from_secs(120);

/// How long a connection may take to come up or to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Hints that the inventory may have changed.
pub(super) struct Hints {
    options: PgConnectOptions,
    changed: Arc<Notify>,
    listener: Mutex<Option<AbortHandle>>,
}

impl Hints {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self {
            options,
            changed: Arc::new(Notify::new()),
            listener: Mutex::new(None),
        }
    }

    /// Resolves after the next hint; hints that nobody waited for count as one. The first call
    /// starts to listen. Cancel safe.
    pub(super) async fn next(&self) {
        {
            let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
            listener.get_or_insert_with(|| {
                let task = listen(self.options.clone(), Arc::clone(&self.changed));
                tokio::spawn(task).abort_handle()
            });
        }
        self.changed.notified().await;
    }

    /// Stops listening for good.
    pub(super) fn stop(&self) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = listener.as_ref() {
            task.abort();
        }
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn listen(options: PgConnectOptions, changed: Arc<Notify>) {
    let mut backoff = MIN_BACKOFF;
    loop {
        match listen_once(&options, &changed, &mut backoff).await {
            Ok(()) => debug!("The connection that listens for edits was lost; listening again"),
            Err(error) => {
                debug!(%error, "Failed to listen for edits; the reconciler finds them by its period")
            }
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// Listens until the connection is lost.
async fn listen_once(
    options: &PgConnectOptions,
    changed: &Notify,
    backoff: &mut Duration,
) -> sqlx::Result<()> {
    // A pool of its own, because the listener keeps its connection for good.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ANSWER)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    *backoff = MIN_BACKOFF;
    // What was edited before we listened was told to nobody.
    changed.notify_one();
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(_))) => changed.notify_one(),
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let answer = timeout(ANSWER, listener.execute("SELECT 1")).await;
                answer.map_err(|_| sqlx::Error::PoolTimedOut)??;
            }
        }
    }
}
