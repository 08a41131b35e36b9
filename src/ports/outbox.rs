//! The seams of the outbox: where letters are kept, and where attempts are settled afterwards.
//!
//! Every letter is at any moment in exactly one place: waiting, in the hands of a relay, or dead.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Source, StoreError};
use crate::domain::Timestamp;
use crate::domain::attempt::{AttemptId, LastAttempt};
use crate::domain::device::DeviceId;
use crate::domain::digest::Digest;
use crate::domain::failure::Failure;

/// A letter on its way into the outbox, or out of it: what it is filed under, and its text, which
/// is compared as a whole when it is changed or removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter {
    /// The attempt that took the snapshot.
    pub id: AttemptId,
    /// The device.
    pub device: DeviceId,
    /// When it was put into the outbox.
    pub created_at: Timestamp,
    /// As it is stored: JSON with the configuration sealed.
    pub text: Vec<u8>,
}

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OutboxState {
    /// Letters that wait, those in a relay's hands included.
    pub letters: u64,
    /// Bytes of all texts, those of dead letters included.
    pub bytes: u64,
    /// When the oldest of the waiting ones was put in.
    pub oldest: Option<Timestamp>,
    /// Dead letters.
    pub dead: u64,
}

/// The right to relay until it expires.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayLease {
    /// The random token that proves the holder.
    pub token: String,
    /// When it has surely not expired yet, by this process's monotonic clock.
    pub expires: Instant,
}

/// What came of [`Outbox::take`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// The text of the letter that waited longest; it is in the relay's hands now.
    Letter(Vec<u8>),
    /// The same for one that is too large to come along: to be asked for by [`Outbox::fetch`].
    Large(Large),
    /// None waits.
    Empty,
    /// The lease is another's by now.
    LeaseLost,
}

/// A letter in a relay's hands whose text is still in the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Large {
    /// The first bytes of its text: all that it is filed under.
    pub head: Vec<u8>,
    /// The size of all of it, in bytes.
    pub bytes: usize,
}

/// What came of [`Outbox::fetch`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fetched {
    /// All of its text.
    Text(Vec<u8>),
    /// The letter is not in the relay's hands any more, although the lease is: somebody deleted it.
    Gone,
    /// The lease is another's by now, and so is the letter: what is behind it must not go past it.
    LeaseLost,
}

/// Snapshots that could not be published.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Puts a letter at the end. Doing it twice does it once.
    async fn append(&self, letter: &Letter) -> Result<(), OutboxError>;

    /// Whether a letter of `device` waits: what is newer must queue up behind it.
    async fn waits(&self, device: DeviceId) -> Result<bool, OutboxError>;

    /// How much there is.
    async fn state(&self) -> Result<OutboxState, OutboxError>;

    /// Those of `attempts` of which no letter waits.
    async fn missing(&self, attempts: &[AttemptId]) -> Result<Vec<AttemptId>, OutboxError>;

    /// Takes the right to relay for `ttl`; `None` when another holder has it.
    async fn try_lease(&self, ttl: Duration) -> Result<Option<RelayLease>, OutboxError>;

    /// Holds on to the lease for `ttl` from now; `None` when it is another's by now.
    async fn renew(
        &self,
        lease: &RelayLease,
        ttl: Duration,
    ) -> Result<Option<RelayLease>, OutboxError>;

    /// Gives the lease back. Best effort; expiry is the backstop.
    async fn release(&self, lease: &RelayLease);

    /// Puts what relays had in their hands when they ended back to the front, in its order, and
    /// tells how many letters that were.
    async fn recover(&self, lease: &RelayLease) -> Result<u64, OutboxError>;

    /// Takes the letter that waits longest into the hands of this relay. After an error one may be
    /// there that nobody knows of: [`Self::recover`] comes before the next one is taken, or letters
    /// of a device change their order.
    async fn take(&self, lease: &RelayLease) -> Result<Next, OutboxError>;

    /// The text of a letter that this relay has in its hands, and where it is looked for first: the
    /// number of those in its hands that it took `before`. It may take minutes, and holds no other
    /// request up.
    async fn fetch(
        &self,
        lease: &RelayLease,
        large: &Large,
        before: usize,
    ) -> Result<Fetched, OutboxError>;

    /// Removes a letter that this relay has in its hands, and looks for it as [`Self::fetch`] does.
    async fn remove(&self, letter: &Letter, before: usize) -> Result<(), OutboxError>;

    /// Changes the text of a letter that this relay has in its hands.
    async fn replace(&self, letter: &Letter, text: &[u8]) -> Result<(), OutboxError>;

    /// Puts a letter that this relay has in its hands among the dead, as `text`. `letter` is `None`
    /// where the text could not be read: what it was filed under is not known then.
    async fn bury(
        &self,
        from: &[u8],
        letter: Option<&Letter>,
        text: &[u8],
    ) -> Result<(), OutboxError>;

    /// The text of the dead letter in this place, 0 for the oldest; `None` behind the last one. One
    /// at a time, for each may be large.
    async fn dead(&self, place: u64) -> Result<Option<Vec<u8>>, OutboxError>;

    /// Puts the dead letter of the text `from` to the end of the waiting ones, with its new text.
    /// False when it is not there any more.
    async fn revive(&self, from: &[u8], letter: &Letter) -> Result<bool, OutboxError>;
}

/// The outbox could not answer.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}")]
pub struct OutboxError {
    /// The operation and its subject.
    pub operation: String,
    /// What the client said.
    pub source: Source,
}

/// How long an attempt counts as held by a process after that was noted: so long after the end of a
/// process that held letters in memory its devices are backed up again.
pub const HELD_FOR: Duration = Duration::from_secs(120);

/// What a delivered letter says of its attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its device.
    pub device: DeviceId,
    /// SHA-256 of what it took.
    pub hash: Digest,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Settles attempts whose snapshots went to the outbox.
#[async_trait]
pub trait Settlements: Send + Sync {
    /// Notes that the snapshot is in the stream, and tells whether that was news.
    ///
    /// The attempt may be queued, or given up, or taken for interrupted because its process died
    /// before it recorded anything; or still being recorded, which must then come to a success as
    /// well. One that the journal does not know any more is no error.
    async fn delivered(&self, delivered: &Delivered) -> Result<bool, StoreError>;

    /// Notes that the snapshot of a queued attempt will not come to be published by itself. The
    /// device is due now, if this is its last attempt: what is stored of it then.
    async fn give_up(
        &self,
        attempt: AttemptId,
        device: DeviceId,
        failure: &Failure,
    ) -> Result<GivenUp, StoreError>;

    /// Notes that a process still holds the letters of these attempts: those that are queued count as
    /// held for [`HELD_FOR`] from now.
    async fn still_held(&self, attempts: &[AttemptId]) -> Result<(), StoreError>;

    /// Notes that the letters of these attempts are in the outbox now.
    async fn let_go(&self, attempts: &[AttemptId]) -> Result<(), StoreError>;

    /// At most `limit` attempts that are queued and whose letters must be in the outbox, for no
    /// process holds them, by ascending id after `after`.
    async fn queued(
        &self,
        after: Option<AttemptId>,
        limit: u32,
    ) -> Result<Vec<(AttemptId, DeviceId)>, StoreError>;
}

/// What came of [`Settlements::give_up`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GivenUp {
    /// The attempt is not queued: nothing was changed.
    NotQueued,
    /// It failed; a newer attempt was made since, and is what counts.
    Older,
    /// It failed, and is what is known of the device now.
    Last(Box<LastAttempt>),
}
