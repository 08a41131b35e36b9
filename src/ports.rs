//! The seams: what the fleet needs from a database, from locks and presence, and from where
//! snapshots go. Adapters are in `adapters`, others in memory beside the tests.

mod archive;
mod outbox;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::domain::Timestamp;
use crate::domain::attempt::{AttemptId, AttemptRecord, Cause, LastAttempt, Status, StepTime};
use crate::domain::contact::Bound;
use crate::domain::device::{Device, DeviceId, Revision, TenantId};
use crate::domain::host_key::{Fingerprint, Pin};
use crate::domain::session::MissingMenus;
use crate::domain::snapshot::{Shape, Snapshot};
use crate::domain::suspect::Recurrence;

type Source = Box<dyn StdError + Send + Sync>;

pub use archive::{Archive, ArchiveError, Collected, Opened, Stored, VersionPage};
pub use outbox::{
    Delivered, Fetched, GivenUp, HELD_FOR, Large, Letter, Next, Outbox, OutboxError, OutboxState,
    RelayLease, Settlements,
};

pub use crate::domain::plan::Bucket;

/// One device of the inventory as [`Store::devices`] lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The bucket that it is counted in.
    pub bucket: Bucket,
    /// The device.
    pub device: Device,
    /// Its last attempt, if there was one.
    pub last: Option<LastAttempt>,
    /// When it was first seen, if that has been noted.
    pub first_seen: Option<Timestamp>,
}

/// Counts the rows of the inventory that a store could not read, by bucket.
#[derive(Debug, Default)]
pub struct UnreadableRows {
    by_bucket: Mutex<BTreeMap<Bucket, usize>>,
}

impl UnreadableRows {
    /// These buckets are read anew.
    pub fn forget(&self, buckets: &[Bucket]) {
        self.lock().retain(|bucket, _| !buckets.contains(bucket));
    }

    /// Counts one row.
    pub fn add(&self, bucket: Bucket) {
        *self.lock().entry(bucket).or_default() += 1;
    }

    /// How many there are in all buckets.
    pub fn count(&self) -> usize {
        self.lock().values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Bucket, usize>> {
        // A panic while holding the lock leaves counts that are still counts.
        self.by_bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wish to begin an attempt, made while its lease is held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The attempt that is about to begin.
    pub attempt: AttemptId,
    /// The device.
    pub device: DeviceId,
    /// The last attempt that the caller's schedule knows of. Another one means that a replica
    /// was faster. `None` in [`Claim::any_last`] mode is ignored.
    pub known_last: Option<AttemptId>,
    /// Begin whatever happened since: somebody asked for it.
    pub any_last: bool,
    /// Why it is made: what the journal says if its end is never recorded.
    pub cause: Cause,
    /// How often the device may be connected to; `None` means as often as you like.
    pub bound: Option<Bound>,
    /// Who begins it.
    pub replica: String,
    /// This process holds a snapshot of the device itself: what it takes now queues up behind it.
    pub held_here: bool,
}

/// What the store answered to a [`Claim`].
#[derive(Clone, PartialEq, Debug)]
pub enum Claimed {
    /// Go: the device as it is now, what the last good export looked like, and the store's time.
    Begun(Box<Begun>),
    /// There was an attempt since; its record. Either another replica was faster, or this claim
    /// found that the process has died in the device's attempts twice in a row or more often: the
    /// last one of them is the record then.
    Superseded(Box<LastAttempt>),
    /// [`Claim::bound`] forbids another connection for so long.
    TooSoon(Duration),
    /// The device has left the inventory.
    Gone,
    /// Another process holds its last snapshot and cannot pass it on: a newer one must not overtake
    /// it.
    HeldElsewhere,
}

/// An attempt that has begun.
#[derive(Clone, PartialEq, Debug)]
pub struct Begun {
    /// The device as it is now.
    pub device: Device,
    /// The form of the last good export, if there was one.
    pub last_shape: Option<Shape>,
    /// Size in bytes of the last good export, if there was one.
    pub last_bytes: Option<u64>,
    /// Menus that are missing in the last good export.
    pub last_incomplete_menus: Vec<String>,
    /// Menus that could not be exported in the attempts before.
    pub missing_menus: MissingMenus,
    /// The suspect that the attempts before could not confirm.
    pub suspects: Recurrence,
    /// The store's own time.
    pub now: Timestamp,
}

impl Begun {
    /// What is known of the router, if the last attempt was made where the device is now: behind another
    /// address there may be another router. See [`Device::is_where`] for what tells.
    #[must_use]
    pub fn beside(self, last: Option<&Revision>, went_to: Option<&str>) -> Self {
        if self.device.is_where(last, went_to) {
            return self;
        }
        Self {
            last_shape: None,
            last_bytes: None,
            last_incomplete_menus: Vec::new(),
            missing_menus: MissingMenus::default(),
            suspects: Recurrence::default(),
            ..self
        }
    }
}

/// A row of the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalEntry {
    /// The attempt.
    pub id: AttemptId,
    /// The device.
    pub device: DeviceId,
    /// Its owner.
    pub tenant: TenantId,
    /// Why it was made.
    pub cause: Cause,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What came of it.
    pub status: Status,
    /// The kind of failure.
    pub error_kind: Option<String>,
    /// The text of the failure.
    pub error: Option<String>,
    /// SHA-256 of what was taken.
    pub sha256_hash: Option<String>,
    /// Its size.
    pub bytes: Option<u64>,
    /// Menus that are missing in what was taken.
    pub incomplete_menus: Vec<String>,
    /// Why what was taken was read more than once before it was believed.
    pub warning: Option<String>,
    /// Who made it.
    pub replica: String,
    /// How many steps it took.
    pub step_count: u32,
}

/// An attempt that some replica is making, as its mark says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Running {
    /// The device.
    pub device: DeviceId,
    /// Its owner.
    pub tenant: TenantId,
    /// Why it is made.
    pub cause: Cause,
    /// When it began.
    pub started_at: Timestamp,
    /// Who makes it.
    pub replica: String,
}

/// Which part of the journal to read, newest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JournalPage {
    /// Only this device.
    pub device: Option<DeviceId>,
    /// Only attempts older than this one (the last of the page before).
    pub before: Option<AttemptId>,
    /// At most so many; the store caps it at [`JournalPage::MAX`].
    pub limit: u32,
}

impl JournalPage {
    /// The largest page.
    pub const MAX: u32 = 1000;
}

/// What is known of a device without asking anybody who works on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceStatus {
    /// The device as it is now.
    pub device: Device,
    /// Its last attempt, if there was one.
    pub last: Option<LastAttempt>,
    /// The text of the failure that counts now.
    pub error: Option<String>,
    /// When the first failure since the last success began, as far as the journal goes back.
    pub failing_since: Option<Timestamp>,
    /// Since when it waits for an operator.
    pub blocked_since: Option<Timestamp>,
    /// When it was to be tried next, as seen at the end of the last attempt.
    pub next_due: Option<Timestamp>,
    /// The host key that it offered instead of the pinned one.
    pub offered_key: Option<String>,
    /// When the attempt began that has not ended yet.
    pub running_since: Option<Timestamp>,
    /// Menus that are missing in the last good export.
    pub incomplete_menus: Vec<String>,
    /// Why an export was read more than once before it was believed, for as long as those after it are
    /// the same and nobody has asked for one.
    pub warning: Option<String>,
    /// Names of the algorithms of the last key exchange and login that are weak.
    pub weak_ssh: Vec<String>,
}

/// Which devices [`Store::statuses`] reads, by ascending id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatusPage {
    /// Only devices after this one.
    pub after: Option<DeviceId>,
    /// Only devices with a failure that counts now.
    pub failing: bool,
    /// At most so many; the store caps it at [`StatusPage::MAX`].
    pub limit: u32,
}

impl StatusPage {
    /// The largest page.
    pub const MAX: u32 = 1000;
}

/// A page of [`Store::statuses`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statuses {
    /// The devices; one whose row cannot be read is left out, with a warning.
    pub devices: Vec<DeviceStatus>,
    /// What the next page begins after; `None` on the last one.
    pub next: Option<DeviceId>,
}

/// Devices, their state and the journal of attempts.
#[async_trait]
pub trait Store: Send + Sync {
    /// The digest of every non-empty bucket, computed by the database over all that the service
    /// reads of a device. Quiet inventories cost a few kilobytes.
    async fn inventory(&self) -> Result<BTreeMap<Bucket, String>, StoreError>;

    /// The devices of `buckets` that are ours to back up, each with its last attempt.
    async fn devices(&self, buckets: &[Bucket]) -> Result<Vec<Listed>, StoreError>;

    /// How many rows of the inventory could not be read when [`Self::devices`] last saw them.
    fn unreadable(&self) -> usize;

    /// Notes that these devices are known from now on, where nothing is noted yet.
    async fn note_seen(&self, devices: &[DeviceId]) -> Result<(), StoreError>;

    /// Begins an attempt: looks again whether another replica was faster, and marks the device
    /// as being worked on. Finding the mark of an attempt that never ended, it journals that one
    /// as interrupted: the caller holds the lease, so its holder is gone. From the second one in a
    /// row on it begins nothing then, unless somebody asked for it.
    ///
    /// Every claim that began something counts as a connection for [`Claim::bound`], unless it was
    /// taken back or recorded as an attempt that ended before it dialled.
    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError>;

    /// Takes back a claim under which no attempt was made, because something that it needs is away:
    /// the device is no longer marked. Nothing happens where another attempt has begun since.
    async fn unclaim(&self, device: DeviceId, attempt: AttemptId) -> Result<(), StoreError>;

    /// Pins `seen` if nothing is pinned (first writer wins), notes that it was verified now if it
    /// is what is pinned, and returns what is pinned.
    async fn pin_host_key(&self, device: DeviceId, seen: &Fingerprint) -> Result<Pin, StoreError>;

    /// Records a finished attempt: journal row, steps and device state. Recording the same
    /// attempt twice is recording it once.
    async fn record(&self, record: &AttemptRecord, replica: &str) -> Result<(), StoreError>;

    /// One attempt with its steps.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none.
    async fn attempt(&self, id: AttemptId) -> Result<(JournalEntry, Vec<StepTime>), StoreError>;

    /// The attempt, if it is being made: begun by [`Self::claim`] and not recorded yet. Its process
    /// may have died since; the next claim of the device finds out.
    async fn running(&self, id: AttemptId) -> Result<Option<Running>, StoreError>;

    /// A page of the journal, newest first.
    async fn attempts(&self, page: JournalPage) -> Result<Vec<JournalEntry>, StoreError>;

    /// A page of the devices that are ours to back up, each with what is known of it.
    async fn statuses(&self, page: StatusPage) -> Result<Statuses, StoreError>;

    /// Deletes at most `batch` journal rows older than `age`, and tells how many.
    async fn prune(&self, age: Duration, batch: u32) -> Result<u64, StoreError>;

    /// Resolves when the inventory may have changed. A hint: the period finds what it misses.
    /// Cancel safe.
    async fn changed(&self);

    /// One round trip, to tell whether the store is there.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// A statement did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away: nothing is wrong with the request.
    #[error("failed to {operation}: the database is away")]
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
    /// What was asked for is not there.
    #[error("{what} not found")]
    NotFound {
        /// What was asked for.
        what: String,
    },
}

/// Whether a device can be reached, as something else last reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// Reported online.
    Online,
    /// Reported as anything else.
    Offline,
    /// Nobody has reported, or nobody can be asked: worth trying.
    Unknown,
}

/// The right to work on one device until it expires.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The device.
    pub device: DeviceId,
    /// The random token that proves the holder.
    pub token: String,
    /// When it has surely not expired yet, by this process's monotonic clock: taken before the
    /// request was sent.
    pub expires: Instant,
}

/// Presence and leases.
#[async_trait]
pub trait Coordinator: Send + Sync {
    /// Never fails: what cannot be asked is [`Presence::Unknown`].
    async fn presence(&self, device: DeviceId) -> Presence;

    /// Takes the device's lease for `ttl`; `None` when another holder has it.
    async fn try_lease(
        &self,
        device: DeviceId,
        ttl: Duration,
    ) -> Result<Option<Lease>, CoordinatorError>;

    /// Gives the lease back, if it is still ours. Best effort; expiry is the backstop.
    async fn release(&self, lease: Lease);

    /// One round trip, to tell whether it is there.
    async fn ping(&self) -> Result<(), CoordinatorError>;
}

/// The coordinator could not answer.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}")]
pub struct CoordinatorError {
    /// The operation and its subject.
    pub operation: String,
    /// What the client said.
    pub source: Source,
}

/// Where snapshots go.
#[async_trait]
pub trait SnapshotSink: Send + Sync {
    /// Whether a delivery can be expected to succeed now: asked before a router is troubled.
    async fn ready(&self) -> Result<(), SinkError>;

    /// Returns once the snapshot is durable. Delivering the same snapshot twice stores it once.
    async fn deliver(&self, snapshot: &Snapshot) -> Result<(), SinkError>;

    /// Whether a snapshot that is `age` old was delivered already and would not be recognised any
    /// more. A sink that always recognises what it has need not look.
    async fn has(&self, _snapshot: &Snapshot, _age: Duration) -> Result<bool, SinkError> {
        Ok(false)
    }

    /// Resolves when the sink came back after it was away. Cancel safe. A hint: a sink that cannot
    /// tell never resolves.
    async fn came_back(&self) {
        std::future::pending().await
    }
}

/// A snapshot was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The sink is away, or full: later it may work.
    #[error("failed to {operation}: {sink} is away or full")]
    Unavailable {
        /// Which sink.
        sink: &'static str,
        /// The operation and its subject.
        operation: String,
        /// What it said.
        source: Source,
    },
    /// What this snapshot needs is away or full; there may be room for others. Later it may work.
    #[error("failed to {operation}: {sink} has no room for it now")]
    NoRoom {
        /// Which sink.
        sink: &'static str,
        /// The operation and its subject.
        operation: String,
        /// What it said.
        source: Source,
    },
    /// The sink refused this snapshot for its own sake.
    #[error("failed to {operation}: {sink} refused it")]
    Refused {
        /// Which sink.
        sink: &'static str,
        /// The operation and its subject.
        operation: String,
        /// What it said.
        source: Source,
    },
}
