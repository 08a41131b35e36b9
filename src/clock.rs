//! Where the time comes from: the one caller of the system clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::Timestamp;

/// A wall clock.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The machine's.
    System,
    /// A start moment plus the time that tokio counted since: in a paused runtime one
    /// `tokio::time::advance` moves sleeps and timestamps together.
    FollowTokio {
        /// The wall time at `origin`.
        start: Timestamp,
        /// The tokio time at `start`.
        origin: Instant,
    },
}

impl Clock {
    /// A clock that begins at `start` and follows tokio's time.
    pub fn following_tokio(start: Timestamp) -> Self {
        Self::FollowTokio {
            start,
            origin: Instant::now(),
        }
    }

    /// The time now, in UTC.
    pub fn now(&self) -> Timestamp {
        match self {
            #[expect(
                clippy::disallowed_methods,
                reason = "this is the one reader of the clock"
            )]
            Self::System => Timestamp::now_utc(),
            Self::FollowTokio { start, origin } => *start + origin.elapsed(),
        }
    }

    /// How long to sleep from now until `at`; zero when it has passed.
    pub fn until(&self, at: Timestamp) -> Duration {
        Duration::try_from(at - self.now()).unwrap_or(Duration::ZERO)
    }
}
