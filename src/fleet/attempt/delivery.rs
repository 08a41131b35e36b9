//! Where a snapshot goes: to the sink, or into the outbox until the sink can take it, or if nothing
//! of that can be reached into the hold of this process.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument as _, debug};

use super::Stop;
use crate::domain::attempt::Taken;
use crate::domain::failure::{Failure, FailureKind, chain};
use crate::domain::snapshot::Snapshot;
use crate::fleet::outbox::Queue;
use crate::fleet::{Context, fence};
use crate::ports::{Lease, SinkError};

/// How long before the lease may run out a sink that does not answer is given up, so that there is
/// time to put the snapshot into the outbox.
const RESERVE: Duration = Duration::from_secs(6);
/// The same of an outbox, so that there is time to hold the snapshot.
const HOLD_RESERVE: Duration = Duration::from_secs(2);

/// A snapshot that is safe.
pub(super) struct Kept {
    /// What is remembered of it.
    pub(super) taken: Taken,
    /// Where it is.
    pub(super) place: Place,
}

/// Where a snapshot is safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Where it belongs.
    Sink,
    /// In the outbox.
    Outbox,
    /// With this process, until the outbox can be reached.
    Held,
}

impl Context {
    /// Delivers or keeps `snapshot`, and neither once the lease may have run out.
    pub(super) async fn deliver(&self, snapshot: &Snapshot, lease: &Lease) -> Result<Place, Stop> {
        if Instant::now() >= lease.expires {
            return Err(too_late());
        }
        let Some(outbox) = &self.outbox else {
            let delivered = fence::until(lease.expires, self.publish(snapshot)).await;
            return match delivered.ok_or_else(too_late)? {
                Ok(()) => Ok(Place::Sink),
                Err(error) => Err(failed(&error)),
            };
        };
        // Published now, it would overtake what is older.
        if outbox.waits(snapshot.device).await {
            return self
                .keep(outbox, snapshot, lease, "an older one of the device waits")
                .await;
        }
        match fence::until(before(lease, RESERVE), self.publish(snapshot)).await {
            Some(Ok(())) => Ok(Place::Sink),
            Some(Err(error @ SinkError::Refused { .. })) => Err(failed(&error)),
            Some(Err(error @ (SinkError::Unavailable { .. } | SinkError::NoRoom { .. }))) => {
                self.keep(outbox, snapshot, lease, &chain(&error)).await
            }
            None => {
                self.keep(outbox, snapshot, lease, "no answer in time")
                    .await
            }
        }
    }

    async fn publish(&self, snapshot: &Snapshot) -> Result<(), SinkError> {
        let delivered = self.sink.deliver(snapshot).await;
        self.metrics.published(delivered.is_ok());
        delivered
    }

    async fn keep(
        &self,
        outbox: &Queue,
        snapshot: &Snapshot,
        lease: &Lease,
        why: &str,
    ) -> Result<Place, Stop> {
        debug!(why, "the snapshot goes to the outbox");
        let letter = outbox.write(snapshot, self.clock.now()).in_current_span();
        let letter = letter.await.map_err(|error| failed(&error))?;
        let why = if outbox.holds_of(snapshot.device) {
            // In the outbox it would overtake what is older.
            format!("{why}; an older one of the device is held by this process")
        } else {
            match fence::until(before(lease, HOLD_RESERVE), outbox.put(&letter)).await {
                Some(Ok(())) => return Ok(Place::Outbox),
                Some(Err(error)) => format!("{why}; and {}", chain(&error)),
                None => format!("{why}; and the outbox did not answer in time"),
            }
        };
        let held = fence::until(lease.expires, outbox.hold(letter, &why)).await;
        match held.ok_or_else(too_late)? {
            Ok(()) => Ok(Place::Held),
            Err(error) => Err(Stop::Failed(Failure::new(
                FailureKind::PublishFailed,
                format!("{why}; and {}", chain(&error)),
            ))),
        }
    }
}

/// So long before the lease may have run out, if it has not already.
fn before(lease: &Lease, reserve: Duration) -> Instant {
    lease.expires.checked_sub(reserve).unwrap_or(lease.expires)
}

fn too_late() -> Stop {
    Stop::Interrupted(
        "the device's lock ran out before the snapshot could be published or kept".to_owned(),
    )
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Stop {
    Stop::Failed(Failure::from_error(FailureKind::PublishFailed, error))
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
