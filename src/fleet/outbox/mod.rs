//! The outbox as attempts and the relay use it: snapshots that the sink could not take are kept and
//! published later, in their order, with no operator.

pub mod letter;
pub mod relay;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::debug;

use crate::credentials::Key;
use crate::domain::Timestamp;
use crate::domain::device::DeviceId;
use crate::domain::failure::chain;
use crate::domain::outbox::RelayPolicy;
use crate::domain::snapshot::Snapshot;
use crate::ports::{Letter, Outbox, OutboxError, Settlements};

use super::attempt::on_a_thread;

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
}

impl Queue {
    /// Letters in `letters`, sealed under `key`; their attempts in `settlements`.
    pub fn new(
        letters: Arc<dyn Outbox>,
        settlements: Arc<dyn Settlements>,
        key: Key,
        limits: Limits,
    ) -> Self {
        Self {
            letters,
            settlements,
            key,
            limits,
            added: Notify::new(),
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
        if state.bytes < self.limits.max_bytes {
            return Ok(());
        }
        let (bytes, dead) = (state.bytes, state.dead);
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
        Ok(())
    }
}
