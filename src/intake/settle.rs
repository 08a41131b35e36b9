//! One message: read, completed with its text, stored; or why not, and whose fault that is.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::adapters::jetstream::{
    ConfigRef, Flaw, Received, Rejection, SnapshotSource, Text, Unresolved,
};
use crate::domain::archive::Arrived;
use crate::domain::failure::chain;
use crate::domain::snapshot::Snapshot;
use crate::ports::{Archive, ArchiveError};

/// A message that the archive's database has refused so often is set aside: an error that only this
/// message makes must not come back for ever.
const TRIES: u64 = 5;

/// SQLSTATE class 42: a table is not there, or the role may not use it. Nothing that a message has.
const NOT_THE_MESSAGE: &str = "42";

/// What came of a message.
#[derive(Debug)]
pub enum Verdict {
    /// It is stored.
    Stored(Arrived),
    /// It cannot be, whenever it is tried.
    Bad(Rejection),
    /// Not now: the archive is away, full, or under another key.
    ArchiveAway(String),
    /// Not now: the text that it refers to could not be asked for.
    TextAway(String),
}

/// What settling takes.
pub struct Settler {
    /// Where it goes.
    pub archive: Arc<dyn Archive>,
    /// Where texts are that do not fit into a message.
    pub source: Option<Arc<SnapshotSource>>,
    /// The largest text that is taken, in bytes.
    pub limit: u64,
    /// Room for texts in memory, in KiB.
    pub room: Arc<Semaphore>,
    /// All of it.
    pub all_room: u32,
}

impl Settler {
    /// Settles a message that was delivered `deliveries` times. `held` is the room that the message
    /// takes; a text from elsewhere takes other room instead.
    pub async fn settle(
        &self,
        received: Received,
        deliveries: u64,
        held: Option<OwnedSemaphorePermit>,
    ) -> Verdict {
        // Off the runtime's threads: parsing and hashing a large text takes long.
        let read = tokio::task::spawn_blocking(move || received.read()).await;
        let (snapshot, _room) = match read {
            Ok(Ok(Text::Whole(snapshot))) => (snapshot, held),
            Ok(Ok(Text::Elsewhere(snapshot, reference))) => {
                // First given back: two that hold some and wait for more would wait for each other.
                drop(held);
                let room = self.make_room(&reference).await;
                match self.complete(snapshot, &reference).await {
                    Ok(snapshot) => (snapshot, room),
                    Err(verdict) => return verdict,
                }
            }
            Ok(Err(rejection)) => return Verdict::Bad(rejection),
            // A panic of the parser, which no message is known to cause.
            Err(error) if deliveries < TRIES => return Verdict::TextAway(error.to_string()),
            Err(error) => {
                let reason = format!("it cannot be read: {error}");
                return Verdict::Bad(Rejection::new(Flaw::NotAnEvent, reason));
            }
        };
        match self.archive.store(&snapshot).await {
            Ok(stored) => Verdict::Stored(stored.arrived),
            Err(error) => judge(&error, deliveries),
        }
    }

    async fn make_room(&self, reference: &ConfigRef) -> Option<OwnedSemaphorePermit> {
        let size = reference.size.min(self.limit);
        let kib = u32::try_from(size / 1024 + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room);
        room.acquire_many_owned(kib.min(self.all_room)).await.ok()
    }

    async fn complete(
        &self,
        snapshot: Snapshot,
        reference: &ConfigRef,
    ) -> Result<Snapshot, Verdict> {
        let Some(source) = &self.source else {
            let reason = "its text is in an object store, and NATS_URL is not set";
            return Err(Verdict::TextAway(reason.to_owned()));
        };
        match source.resolve(reference, self.limit).await {
            Ok(text) => Ok(Snapshot { text, ..snapshot }),
            Err(Unresolved::Away(reason)) => Err(Verdict::TextAway(reason)),
            Err(Unresolved::Bad(reason)) => {
                Err(Verdict::Bad(Rejection::new(Flaw::Unresolvable, reason)))
            }
        }
    }
}

/// Whose fault it is that a snapshot was not stored.
fn judge(error: &ArchiveError, deliveries: u64) -> Verdict {
    let refused = || Verdict::Bad(Rejection::new(Flaw::Refused, chain(error)));
    match error {
        ArchiveError::Unavailable { .. } | ArchiveError::OtherKey { .. } => {
            Verdict::ArchiveAway(chain(error))
        }
        ArchiveError::ForeignAttempt { .. } => refused(),
        ArchiveError::Failed { .. } | ArchiveError::NotFound(_) | ArchiveError::Damaged { .. } => {
            if deliveries >= TRIES && !blames_the_database(error) {
                refused()
            } else {
                Verdict::ArchiveAway(chain(error))
            }
        }
    }
}

fn blames_the_database(error: &ArchiveError) -> bool {
    let ArchiveError::Failed { source, .. } = error else {
        return false;
    };
    let database = source
        .downcast_ref::<sqlx::Error>()
        .and_then(sqlx::Error::as_database_error);
    database
        .and_then(|error| error.code())
        .is_some_and(|code| code.starts_with(NOT_THE_MESSAGE))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::archive::VersionId;
    use crate::domain::attempt::AttemptId;
    use crate::domain::device::DeviceId;

    #[test]
    fn only_the_message_s_own_faults_set_it_aside() {
        let away = || ArchiveError::Unavailable {
            operation: "store".into(),
            source: "no connection".into(),
        };
        let failed = || ArchiveError::Failed {
            operation: "store".into(),
            source: "value out of range".into(),
        };
        let key = || ArchiveError::OtherKey {
            version: VersionId(Uuid::nil()),
            device: DeviceId(Uuid::nil()),
            sealed_under: "a".into(),
            ours: "b".into(),
        };
        let foreign = || ArchiveError::ForeignAttempt {
            attempt: AttemptId(Uuid::nil()),
            device: DeviceId(Uuid::nil()),
            holder: DeviceId(Uuid::nil()),
        };
        let cases: [(ArchiveError, u64, bool); 7] = [
            (away(), 1, false),
            (away(), 1000, false),
            (key(), 1000, false),
            (failed(), 1, false),
            (failed(), TRIES - 1, false),
            (failed(), TRIES, true),
            (foreign(), 1, true),
        ];
        for (error, deliveries, aside) in cases {
            let verdict = judge(&error, deliveries);
            assert_eq!(
                matches!(verdict, Verdict::Bad(_)),
                aside,
                "{error} {deliveries}"
            );
        }
    }
}
