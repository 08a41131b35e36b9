//! The way to the outbox: a connection for questions and one for texts, and how long either may take.

use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisResult};
use secrecy::SecretString;

use super::super::link::{Link, Request, Timeouts, Trouble};
use crate::ports::OutboxError;

/// For what is small.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    response: Duration::from_secs(5),
};

/// What travels with more than this has a connection of its own: on the other one, whatever is asked
/// next would wait behind it, the renewal of a lease among it.
pub(super) const LARGE: usize = 1 << 20;

/// A large text may take so many seconds longer as it has times so many bytes: 8 Mbit/s. Over a
/// slower way it would be tried again and again, so it is better to say that Redis does not answer.
const SLOWEST: usize = 1 << 20;

/// No text may take longer. Redis takes none above 512 MiB (`proto-max-bulk-len`).
const LONGEST: Duration = Duration::from_secs(600);

/// How long a request with texts of `bytes`, or such an answer, may take.
pub(super) fn allowed(bytes: usize) -> Duration {
    let travel = Duration::from_millis((bytes as u64).saturating_mul(1000) / SLOWEST as u64);
    TIMEOUTS.response.saturating_add(travel).min(LONGEST)
}

/// Both connections.
pub(super) struct Way {
    link: Link,
    /// For large texts.
    freight: Link,
}

impl Way {
    /// Prepares to talk to the server at `url`.
    pub(super) fn new(url: &SecretString) -> RedisResult<Self> {
        // Each request says how long its answer may take.
        let longest = Timeouts {
            response: LONGEST,
            ..TIMEOUTS
        };
        Ok(Self {
            link: Link::new(url, longest)?,
            freight: Link::new(url, longest)?,
        })
    }

    /// Asks what may safely be asked twice.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        operation: impl FnOnce() -> String,
        command: &Cmd,
    ) -> Result<T, OutboxError> {
        self.ask_within(operation, command, TIMEOUTS.response).await
    }

    /// The same for what may keep the server busy for longer.
    pub(super) async fn ask_within<T: FromRedisValue>(
        &self,
        operation: impl FnOnce() -> String,
        command: &Cmd,
        within: Duration,
    ) -> Result<T, OutboxError> {
        self.link
            .ask_again_within(command, within)
            .await
            .map_err(|trouble| failed(operation(), trouble))
    }

    /// Asks once: for what must not be asked twice, and for several requests at once.
    pub(super) async fn ask_once<T: FromRedisValue>(
        &self,
        operation: impl FnOnce() -> String,
        request: Request,
    ) -> Result<T, OutboxError> {
        let asked = async {
            let connection = self.link.connection().await?;
            self.link
                .ask_within(&connection, request, TIMEOUTS.response)
                .await
        };
        asked.await.map_err(|trouble| failed(operation(), trouble))
    }

    /// [`Self::ask`] for a request with texts of `bytes`, or such an answer.
    pub(super) async fn carry<T: FromRedisValue>(
        &self,
        operation: impl FnOnce() -> String,
        command: &Cmd,
        bytes: usize,
    ) -> Result<T, OutboxError> {
        if bytes <= LARGE {
            return self.ask(operation, command).await;
        }
        self.freight
            .ask_again_within(command, allowed(bytes))
            .await
            .map_err(|trouble| failed(operation(), trouble))
    }
}

fn failed(operation: String, trouble: Trouble) -> OutboxError {
    OutboxError {
        operation,
        source: Box::new(trouble),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_may_travel_for_a_second_a_mebibyte_and_ten_minutes_at_most() {
        let seconds = |bytes| allowed(bytes).as_secs();
        assert_eq!(seconds(0), 5);
        assert_eq!(seconds(24 << 20), 29);
        assert_eq!(seconds(512 << 20), 517);
        assert_eq!(seconds(usize::MAX), 600);
    }
}
