//! What keeps attempts from being made: said in the log now and then, not for each device.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long after a hindrance was said the next one is only told at debug level: an outage puts off
/// every device that comes due, again and again.
pub const QUIET: Duration = Duration::from_secs(600);

/// When a hindrance was said last.
#[derive(Debug, Default)]
pub struct Hindrance {
    said: Mutex<Option<Instant>>,
}

impl Hindrance {
    /// Whether one is to be said now; the answer counts as saying it.
    pub fn is_news(&self) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let news = said.is_none_or(|at| at.elapsed() >= QUIET);
        if news {
            *said = Some(Instant::now());
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hindrance_is_news_again_after_a_while() {
        let hindrance = Hindrance::default();
        assert!(hindrance.is_news());
        tokio::time::advance(QUIET / 2).await;
        assert!(!hindrance.is_news());
        tokio::time::advance(QUIET / 2).await;
        assert!(hindrance.is_news());
        assert!(!hindrance.is_news());
    }
}
