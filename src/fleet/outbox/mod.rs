//! The outbox as attempts and the relay use it: snapshots that the sink could not take are kept and
//! published later, in their order, with no operator.

pub mod hold;
pub mod letter;
pub mod relay;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::debug;

use crate::credentials::Key;
use crate::domain::Timestamp;
use crate::domain::attempt::AttemptId;
use crate::domain::device::DeviceId;
use crate::domain::failure::chain;
use crate::domain::outbox::RelayPolicy;
use crate::domain::snapshot::Snapshot;
use crate::ports::{Letter, Outbox, OutboxError, Settlements};

use super::attempt::on_a_thread;
use hold::{Full, Hold, Holding};

/// What the operator decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The first pause before a letter is offered again.
    pub retry_interval: Duration,
    /// So many refusals make a letter a dead one.
    pub max_attempts: u32,
    /// A fuller outbox stops new backups, in bytes.
    pub max_bytes: u64,
}

/// The outbox of this process.
pub struct Queue {
    letters: Arc<dyn Outbox>,
    settlements: Arc<dyn Settlements>,
    key: Key,
    limits: Limits,
    /// A letter was put in by this process.
    added: Notify,
    /// Letters that could not be put in.
    hold: Arc<Hold>,
}

impl Queue {
    /// Letters in `letters`, sealed under `key`; their attempts in `settlements`. What cannot be put
    /// in is held below `data_dir`, or without one in memory.
    pub fn new(
        letters: Arc<dyn Outbox>,
        settlements: Arc<dyn Settlements>,
        key: Key,
        limits: Limits,
        data_dir: Option<&Path>,
    ) -> Self {
        Self {
            letters,
            settlements,
            key,
            limits,
            added: Notify::new(),
            hold: Arc::new(Hold::new(data_dir, limits.max_bytes)),
        }
    }

    fn policy(&self) -> RelayPolicy {
        RelayPolicy {
            retry: self.limits.retry_interval,
            max_refusals: self.limits.max_attempts,
        }
    }

    /// Whether another snapshot may be taken while the sink is away, or why not.
    ///
    /// # Errors
    /// Which dependency is missing, and what to do.
    pub(super) async fn room(&self) -> Result<(), String> {
        let state = self.letters.state().await.map_err(|error| chain(&error))?;
        let held = self.hold.holding();
        let bytes = state.bytes + held.disk.bytes + held.memory.bytes;
        if bytes < self.limits.max_bytes {
            return Ok(());
        }
        let dead = state.dead;
        Err(format!(
            "the outbox is full: {bytes} bytes wait to be published ({dead} dead letters with \
             them) and OUTBOX_MAX_BYTES allows {}; bring NATS back, or raise it and the memory \
             of Redis",
            self.limits.max_bytes
        ))
    }

    /// Whether something of `device` waits, so that what is newer must queue up behind it. Nobody
    /// to ask is no reason to hold a snapshot back.
    pub(super) async fn waits(&self, device: DeviceId) -> bool {
        if self.hold.waits(device) {
            return true;
        }
        self.letters.waits(device).await.unwrap_or_else(|error| {
            debug!(
                error = chain(&error),
                "not known whether an older snapshot waits"
            );
            false
        })
    }

    /// Makes a letter of `snapshot`.
    pub(super) async fn write(
        &self,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Letter, letter::Unwritten> {
        let (snapshot, key) = (snapshot.clone(), self.key.clone());
        on_a_thread(move || letter::write(&snapshot, &key, now)).await
    }

    /// Puts a letter into the outbox.
    pub(super) async fn put(&self, letter: &Letter) -> Result<(), OutboxError> {
        self.letters.append(letter).await?;
        self.added.notify_one();
        self.hold.redis_answers();
        Ok(())
    }

    /// Holds a letter in this process until it can be put into the outbox. `why` says what is away.
    ///
    /// # Errors
    /// [`Full`] says what to do.
    pub(super) async fn hold(&self, letter: Letter, why: &str) -> Result<(), Full> {
        self.hold.keep(letter, why).await.map(drop)
    }

    /// Whether this process holds anything of `device`.
    pub(super) fn holds_of(&self, device: DeviceId) -> bool {
        self.hold.waits(device)
    }

    /// Whether this process holds the letter of `attempt`.
    pub(super) fn holds(&self, attempt: AttemptId) -> bool {
        self.hold.has(attempt)
    }

    /// How much this process holds, and where.
    pub fn holding(&self) -> Holding {
        self.hold.holding()
    }

    /// Takes over what processes that are gone have held on disk. To be done before attempts are
    /// made: what is newer queues up behind it.
    pub async fn adopt(&self) {
        self.hold.adopt().await;
    }
}
