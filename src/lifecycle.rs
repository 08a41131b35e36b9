//! Signals, soft and hard cancellation, the grace period, the task tracker.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// How long tasks have to notice the hard token before the process ends without them.
pub const HARD_LIMIT: Duration = Duration::from_secs(5);

/// A request of the operating system to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

impl Signal {
    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }
}

/// How the process came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Every task ended by itself within the grace period.
    Graceful,
    /// A second signal or the end of the grace period cancelled what still ran.
    Forced {
        /// Tasks that did not even end then, within [`HARD_LIMIT`].
        left: usize,
    },
}

/// The two stages of stopping, and the tasks that have to end.
///
/// `soft` means: begin nothing new. `hard` means: drop what you do. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
    tracker: TaskTracker,
}

impl Shutdown {
    /// Nothing is stopping yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when no new work may begin. Cancelling it asks for an orderly stop.
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Cancelled when running work must end at once; `soft` always is cancelled before.
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// The tasks that are waited for.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Starts a task that is waited for at the end.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Returns once the process may end.
    ///
    /// The first signal, or somebody else's cancelling of `soft`, starts the `grace` period; its
    /// end or a second signal cancels `hard`. A closed `signals` channel counts as no signal.
    pub async fn wait(&self, mut signals: mpsc::Receiver<Signal>, grace: Duration) -> Ended {
        tokio::select! {
            () = self.soft.cancelled() => info!(
                grace_seconds = grace.as_secs(),
                "Stopping: no new work, waiting for what runs"
            ),
            signal = next(&mut signals) => info!(
                signal = signal.as_str(),
                grace_seconds = grace.as_secs(),
                "Stopping: no new work, waiting for what runs"
            ),
        }
        let give_up = Instant::now() + grace;
        self.soft.cancel();
        self.tracker.close();
        tokio::select! {
            biased;
            () = self.tracker.wait() => return Ended::Graceful,
            signal = next(&mut signals) => warn!(
                signal = signal.as_str(),
                tasks = self.tracker.len(),
                "Stopping at once: a second signal"
            ),
            () = sleep_until(give_up) => warn!(
                tasks = self.tracker.len(),
                "Stopping at once: the grace period is over"
            ),
        }
        self.hard.cancel();
        // Elapsed or not, `left` tells what is still there.
        let _ = timeout(HARD_LIMIT, self.tracker.wait()).await;
        Ended::Forced {
            left: self.tracker.len(),
        }
    }
}

/// The next signal; pends for ever once nobody can send one.
async fn next(signals: &mut mpsc::Receiver<Signal>) -> Signal {
    match signals.recv().await {
        Some(signal) => signal,
        None => std::future::pending().await,
    }
}

/// Listens for SIGTERM and SIGINT from now on; they no longer end the process by themselves.
///
/// # Errors
/// When the handlers cannot be installed.
#[cfg(unix)]
pub fn signals() -> io::Result<mpsc::Receiver<Signal>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let seen = tokio::select! {
                Some(()) = terminate.recv() => Signal::Terminate,
                Some(()) = interrupt.recv() => Signal::Interrupt,
                else => return,
            };
            if sender.send(seen).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Listens for Ctrl-C from now on.
///
/// # Errors
/// When the handler cannot be installed.
#[cfg(not(unix))]
pub fn signals() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if sender.send(Signal::Interrupt).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    const GRACE: Duration = Duration::from_secs(60);

    fn start(shutdown: &Shutdown) -> (mpsc::Sender<Signal>, JoinHandle<(Ended, Duration)>) {
        let (sender, receiver) = mpsc::channel(4);
        let shutdown = shutdown.clone();
        let waiting = tokio::spawn(async move {
            let began = Instant::now();
            let ended = shutdown.wait(receiver, GRACE).await;
            (ended, began.elapsed())
        });
        (sender, waiting)
    }

    /// A task that ends only when it must.
    fn stubborn(shutdown: &Shutdown) {
        let hard = shutdown.hard().clone();
        shutdown.spawn(async move { hard.cancelled().await });
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_lets_running_work_finish() {
        let shutdown = Shutdown::new();
        let (finish, finished) = oneshot::channel::<()>();
        shutdown.spawn(finished);
        let (signals, waiting) = start(&shutdown);
        signals.send(Signal::Terminate).await.unwrap();
        shutdown.soft().cancelled().await;
        tokio::time::advance(GRACE / 2).await;
        assert!(!shutdown.hard().is_cancelled());
        assert!(!waiting.is_finished());
        finish.send(()).unwrap();
        assert_eq!(waiting.await.unwrap(), (Ended::Graceful, GRACE / 2));
        assert!(!shutdown.hard().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_stops_without_a_signal() {
        let shutdown = Shutdown::new();
        let (signals, waiting) = start(&shutdown);
        tokio::time::sleep(GRACE * 10).await;
        drop(signals);
        tokio::time::sleep(GRACE * 10).await;
        assert!(!shutdown.soft().is_cancelled());
        assert!(!waiting.is_finished());
        shutdown.soft().cancel();
        assert_eq!(waiting.await.unwrap().0, Ended::Graceful);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_grace_period_cancels_what_still_runs() {
        let shutdown = Shutdown::new();
        stubborn(&shutdown);
        let (signals, waiting) = start(&shutdown);
        signals.send(Signal::Interrupt).await.unwrap();
        let (ended, took) = waiting.await.unwrap();
        assert_eq!(ended, Ended::Forced { left: 0 });
        assert_eq!(took.as_secs(), GRACE.as_secs());
        assert!(shutdown.hard().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_it_at_once() {
        let shutdown = Shutdown::new();
        stubborn(&shutdown);
        let (signals, waiting) = start(&shutdown);
        signals.send(Signal::Terminate).await.unwrap();
        shutdown.soft().cancelled().await;
        signals.send(Signal::Interrupt).await.unwrap();
        let (ended, took) = waiting.await.unwrap();
        assert_eq!(ended, Ended::Forced { left: 0 });
        assert_eq!(took.as_secs(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_everything_is_left_behind() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending::<()>());
        let (signals, waiting) = start(&shutdown);
        signals.send(Signal::Terminate).await.unwrap();
        signals.send(Signal::Terminate).await.unwrap();
        let (ended, took) = waiting.await.unwrap();
        assert_eq!(ended, Ended::Forced { left: 1 });
        assert_eq!(took.as_secs(), HARD_LIMIT.as_secs());
    }
}
