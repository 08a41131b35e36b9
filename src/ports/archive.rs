//! The seam to where versions of configurations are kept.

use async_trait::async_trait;

use super::Source;
use crate::domain::Timestamp;
use crate::domain::archive::{Arrived, Moment, Position, Version, VersionId};
use crate::domain::attempt::AttemptId;
use crate::domain::device::DeviceId;
use crate::domain::snapshot::{ConfigText, Snapshot};

/// What [`Archive::store`] made of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// What the snapshot was.
    pub arrived: Arrived,
    /// The version that holds its text.
    pub version: VersionId,
}

/// A version with its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The version.
    pub version: Version,
    /// Its text, proven by its hash.
    pub text: ConfigText,
}

/// Which versions of a device to list, newest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionPage {
    /// Only versions first seen before this position: that of the last one of the page before.
    pub before: Position,
    /// At most so many; the archive caps it at [`VersionPage::MAX`].
    pub limit: u32,
}

impl VersionPage {
    /// The largest page.
    pub const MAX: u32 = 1000;

    /// The first page.
    pub fn first(limit: u32) -> Self {
        Self {
            before: Position::END,
            limit,
        }
    }

    /// The page after one that ended in `last`.
    pub fn after(last: &Version, limit: u32) -> Self {
        Self {
            before: last.first.position,
            limit,
        }
    }
}

/// Versions of configurations, one per change of a device: compressed, sealed, and shared where
/// equal. Dropping any of these futures leaves the archive as it was before or as it is after.
#[async_trait]
pub trait Archive: Send + Sync {
    /// Returns once the snapshot is durable: as a version of its own, or as another sighting of
    /// one. Any number of replicas may store at once, in any order, the same snapshot again.
    ///
    /// # Errors
    /// [`ArchiveError::OtherKey`] when the version to compare with was sealed under another key:
    /// nothing is stored then. A damaged neighbour is no error; the version is only not counted
    /// against it.
    async fn store(&self, snapshot: &Snapshot) -> Result<Stored, ArchiveError>;

    /// A page of a device's versions, newest first; none for a device that has none.
    async fn versions(
        &self,
        device: DeviceId,
        page: VersionPage,
    ) -> Result<Vec<Version>, ArchiveError>;

    /// The version that was in force at `at`, as far as it is known: the newest first seen by then.
    async fn version_at(
        &self,
        device: DeviceId,
        at: Timestamp,
    ) -> Result<Option<Version>, ArchiveError>;

    /// One version with its text.
    ///
    /// # Errors
    /// [`ArchiveError::NotFound`], [`ArchiveError::OtherKey`], [`ArchiveError::Damaged`]; the last
    /// two name the version.
    async fn open(&self, version: VersionId) -> Result<Opened, ArchiveError>;

    /// The newest version of each device, by ascending device id, beginning after `after`; at most
    /// [`VersionPage::MAX`] of them.
    async fn newest(
        &self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<Version>, ArchiveError>;

    /// All versions of a device as retention looks at them, oldest first.
    async fn moments(&self, device: DeviceId) -> Result<Vec<Moment>, ArchiveError>;

    /// Deletes versions of a device, all or none, and tells how many there were. The newest stays,
    /// whatever is asked. Texts go later, by [`Archive::collect_garbage`].
    async fn delete(&self, device: DeviceId, versions: &[VersionId]) -> Result<u64, ArchiveError>;

    /// Deletes texts that no version has any more, looking at no more than `batch` of those whose
    /// versions were deleted.
    async fn collect_garbage(&self, batch: u32) -> Result<Collected, ArchiveError>;

    /// Whether the archive is there and its newest text was sealed under this service's key: to be
    /// asked before anything is written.
    ///
    /// # Errors
    /// [`ArchiveError::OtherKey`] when it was not.
    async fn check_key(&self) -> Result<(), ArchiveError>;
}

/// What one round of [`Archive::collect_garbage`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// Texts it looked at; fewer than the batch means that none is left.
    pub examined: u64,
    /// Texts it deleted.
    pub deleted: u64,
}

/// An operation on the archive did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The database is away, full, or too busy: nothing is wrong with the request.
    #[error("failed to {operation}: the archive's database is away or full")]
    Unavailable {
        /// The operation and its subject.
        operation: String,
        /// What the driver said.
        source: Source,
    },
    /// The database answered, with an error.
    #[error("failed to {operation}")]
    Failed {
        /// The operation and its subject.
        operation: String,
        /// What the database said.
        source: Source,
    },
    /// There is no such version.
    #[error("version {0} not found in the archive")]
    NotFound(VersionId),
    /// A version was sealed under another key.
    #[error(
        "failed to open version {version} of device {device}: it was sealed under the key with \
         fingerprint {sealed_under}, and CREDENTIAL_ENCRYPTION_KEY is the one with fingerprint \
         {ours}; start the service with the key that the archive was written under"
    )]
    OtherKey {
        /// The version.
        version: VersionId,
        /// Its device.
        device: DeviceId,
        /// Fingerprint of the key that it needs.
        sealed_under: String,
        /// Fingerprint of the key that we have.
        ours: String,
    },
    /// The stored bytes of a version are not what was stored once.
    #[error(
        "failed to open version {version} of device {device}: its stored text is damaged \
         ({reason}); restore the archive's database from a backup, other versions are not affected"
    )]
    Damaged {
        /// The version.
        version: VersionId,
        /// Its device.
        device: DeviceId,
        /// What is wrong with them.
        reason: String,
    },
    /// The id of an attempt at one device arrived for another.
    #[error(
        "failed to store a snapshot of device {device}: its attempt {attempt} is a version of \
         device {holder}; the producer of this snapshot does not make unique ids"
    )]
    ForeignAttempt {
        /// The attempt.
        attempt: AttemptId,
        /// The device that it arrived for.
        device: DeviceId,
        /// The device that has it.
        holder: DeviceId,
    },
}
