//! Letters that are too large to come along: their texts are fetched while others are published.

use std::sync::Arc;

use tokio::task::JoinError;
use tracing::warn;

use super::{Desk, MOST_BYTES, Served};
use crate::domain::failure::chain;
use crate::domain::outbox::{Answer, Offer};
use crate::fleet::outbox::letter::Filed;
use crate::ports::{Fetched, OutboxError, RelayLease};

/// A letter, and what came of fetching it.
pub(super) type Outcome = (Offer, Result<Fetched, OutboxError>);

impl Desk<'_> {
    /// Waits until a fetch came to its end, which [`Self::serve`] looks at; for ever if none runs.
    /// Nothing is lost when it is dropped.
    pub(in crate::fleet::outbox::relay) async fn fetched(&mut self) {
        match self.fetching.join_next().await {
            Some(fetched) => self.fetched = Some(fetched),
            None => std::future::pending().await,
        }
    }

    pub(super) fn may_fetch(&self) -> bool {
        self.fetching.is_empty() && self.bytes < MOST_BYTES
    }

    /// Begins to fetch the text of a letter.
    pub(super) fn fetch(&mut self, offer: Offer, lease: &RelayLease) {
        let Some(large) = self.large.get(&offer.attempt).cloned() else {
            return self.lanes.done(offer.device);
        };
        let (letters, lease) = (Arc::clone(&self.queue.letters), lease.clone());
        let before = self.lanes.before(offer.device);
        self.fetching
            .spawn(async move { (offer, letters.fetch(&lease, &large, before).await) });
    }

    /// Takes in what was fetched, or leaves it alone for a while.
    pub(super) async fn unpack(
        &mut self,
        fetched: Result<Outcome, JoinError>,
    ) -> Result<Served, OutboxError> {
        let (offer, fetched) = fetched.map_err(|error| OutboxError {
            operation: "fetch a letter from the outbox".to_owned(),
            source: error.into(),
        })?;
        let text = match fetched {
            Ok(Fetched::Text(text)) => text,
            Ok(Fetched::Gone) => {
                warn!(
                    attempt.id = %offer.attempt, device.id = %offer.device,
                    "a snapshot that this relay had taken from the outbox is not there any more"
                );
                self.large.remove(&offer.attempt);
                self.lanes.done(offer.device);
                return Ok(Served::Something);
            }
            // Whoever has it now goes on with this letter: what is behind it waits for that.
            Ok(Fetched::LeaseLost) => return Ok(Served::LeaseLost),
            Err(error) => {
                warn!(
                    attempt.id = %offer.attempt, device.id = %offer.device,
                    bytes = self.large.get(&offer.attempt).map(|large| large.bytes),
                    error = chain(&error),
                    "Redis could not hand out a snapshot of the outbox: what waits of its device is \
                     left alone for a while, and published later, in its order; if this goes on, look \
                     at the load of Redis and at the network to it"
                );
                self.answered(offer.device, Answer::NotHandedOut);
                return Ok(Served::Something);
            }
        };
        self.large.remove(&offer.attempt);
        let label = (offer.attempt, offer.device);
        match Filed::read(&text) {
            Ok(filed) if (filed.id, filed.device_id) == label => {
                self.lanes.arrived(offer.device, filed.attempts);
                self.hold(filed, text);
            }
            // Its beginning did not tell what it is.
            _ => {
                self.lanes.done(offer.device);
                self.take_in(text).await?;
            }
        }
        Ok(Served::Something)
    }
}
