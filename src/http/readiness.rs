//! Whether every dependency answers, asked at most once a second.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long a dependency has to answer.
pub const CHECK_LIMIT: Duration = Duration::from_secs(2);

/// How long an answer is good for, so that many probes cost one round trip.
const FRESH: Duration = Duration::from_secs(1);

/// Asks one dependency; `Err` tells what is wrong, without a secret.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Tells what is to be known beside the dependencies, if there is anything.
type Note = Arc<dyn Fn() -> Option<Value> + Send + Sync>;

/// The answer of each dependency, by name.
type Results = Arc<Vec<(&'static str, Result<(), String>)>>;

/// The dependencies that must answer for the process to be ready.
#[derive(Default)]
pub struct Readiness {
    checks: Vec<(&'static str, Check)>,
    notes: Vec<(&'static str, Note)>,
    // Held while asking: whoever comes meanwhile waits for the same answer.
    last: Mutex<Option<(Instant, Results)>>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.checks.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

impl Readiness {
    /// Depends on nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, depending on `name` as well.
    pub fn with<F, Fut>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push((name, Arc::new(move || check().boxed())));
        self
    }

    /// The same, with what `note` has to say as field `name` of the answer, ready or not.
    pub fn noting<F>(mut self, name: &'static str, note: F) -> Self
    where
        F: Fn() -> Option<Value> + Send + Sync + 'static,
    {
        self.notes.push((name, Arc::new(note)));
        self
    }

    /// What is to be known now beside the dependencies.
    pub fn notes(&self) -> impl Iterator<Item = (&'static str, Value)> + '_ {
        let notes = self.notes.iter();
        notes.filter_map(|(name, note)| Some((*name, note()?)))
    }

    /// The answer of every dependency, at most a second old. All are asked at once; one that does
    /// not answer within [`CHECK_LIMIT`] counts as failing. Cancel safe.
    pub async fn results(&self) -> Results {
        let mut last = self.last.lock().await;
        if let Some((at, results)) = last.as_ref()
            && at.elapsed() < FRESH
        {
            return Arc::clone(results);
        }
        let answers = self.checks.iter().map(|(name, check)| async move {
            let answer = timeout(CHECK_LIMIT, check()).await;
            let late = || Err(format!("no answer within {} s", CHECK_LIMIT.as_secs()));
            (*name, answer.unwrap_or_else(|_| late()))
        });
        let results: Results = Arc::new(join_all(answers).await);
        *last = Some((Instant::now(), Arc::clone(&results)));
        results
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_dependency_that_hangs_counts_as_failing_after_two_seconds() {
        let readiness = Readiness::new()
            .with("postgres", || async { Ok(()) })
            .with("redis", std::future::pending);
        let began = Instant::now();
        let results = readiness.results().await;
        assert_eq!(began.elapsed().as_secs(), CHECK_LIMIT.as_secs());
        let late = "no answer within 2 s".to_owned();
        assert_eq!(*results, [("postgres", Ok(())), ("redis", Err(late))]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_probes_cost_one_question_a_second() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let readiness = Readiness::new().with("nats", move || {
            let counter = Arc::clone(&counter);
            async move {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err("away".to_owned())
            }
        });
        let together = join_all((0..20).map(|_| readiness.results())).await;
        assert!(together.iter().all(|results| results[0].1.is_err()));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(FRESH).await;
        readiness.results().await;
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
