//! What the database could not be told, because it went away meanwhile: attempts that were made, kept
//! in memory and recorded as soon as it is back, and claims that it may have granted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Context;
use crate::domain::attempt::{AttemptId, AttemptRecord};
use crate::domain::device::DeviceId;
use crate::domain::failure::chain;
use crate::ports::StoreError;

/// Records that wait for the database. It stays small by itself: without a database no attempt can
/// be claimed, so at most the attempts that were running when it went away end up here.
#[derive(Default)]
pub struct Backlog {
    /// Each with the moment at which the attempt ended.
    waiting: Mutex<Vec<(Instant, AttemptRecord)>>,
    added: Notify,
    /// Claims whose answer was lost, at most one a device: no attempt was made under them.
    doubtful: Mutex<HashMap<DeviceId, AttemptId>>,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, AttemptRecord)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `record`, of an attempt that ended at `ended`, until it can be written.
    pub fn push(&self, ended: Instant, record: AttemptRecord) {
        self.lock().push((ended, record));
        self.added.notify_one();
    }

    /// Whether an attempt at `device` waits: what the database says of it is older than the truth.
    pub fn holds(&self, device: DeviceId) -> bool {
        self.lock()
            .iter()
            .any(|(_, record)| record.device == device)
    }

    /// Notes that `attempt` may have been granted without our learning of it. Its mark would look like
    /// that of a process that died.
    pub fn doubt(&self, device: DeviceId, attempt: AttemptId) {
        self.doubts().insert(device, attempt);
    }

    /// The claim at `device` that may have been granted.
    pub fn doubtful(&self, device: DeviceId) -> Option<AttemptId> {
        self.doubts().get(&device).copied()
    }

    /// The doubtful claim at `device` is taken back.
    pub fn settle(&self, device: DeviceId) {
        self.doubts().remove(&device);
    }

    fn doubts(&self) -> MutexGuard<'_, HashMap<DeviceId, AttemptId>> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first(&self) -> Option<AttemptRecord> {
        let (ended, mut record) = self.lock().first().cloned()?;
        record.ended_ago = ended.elapsed();
        Some(record)
    }

    fn remove(&self, id: AttemptId) {
        self.lock().retain(|(_, record)| record.id != id);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Writes what waits, retrying while the database is away, until the process ends its work.
pub async fn run(context: &Context) {
    let mut pause = RETRY_FIRST;
    loop {
        let Some(record) = context.backlog.first() else {
            pause = RETRY_FIRST;
            context.backlog.added.notified().await;
            continue;
        };
        if write(context, &record).await {
            pause = RETRY_FIRST;
        } else {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

/// One last try at everything that waits, when the process ends; what cannot be written is logged.
/// Gives up at the first sign that the database is away, and at the hard stop.
pub async fn flush(context: &Context) {
    let drain = async {
        while let Some(record) = context.backlog.first() {
            if !write(context, &record).await {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = context.shutdown.hard().cancelled() => {}
        () = drain => {}
    }
    for (_, record) in std::mem::take(&mut *context.backlog.lock()) {
        error!(
            attempt.id = %record.id,
            device.id = %record.device,
            status = record.outcome.status().as_str(),
            "an attempt could not be recorded before the end; the next replica that claims the \
             device will journal it as interrupted"
        );
    }
}

/// Whether `record` is dealt with.
async fn write(context: &Context, record: &AttemptRecord) -> bool {
    let holds = |id| {
        context
            .outbox
            .as_ref()
            .is_some_and(|outbox| outbox.holds(id))
    };
    let record = &AttemptRecord {
        // What it waited for may have gone on meanwhile.
        held: holds(record.id),
        ..record.clone()
    };
    match context.store.record(record, &context.replica).await {
        Ok(()) => {
            info!(attempt.id = %record.id, device.id = %record.device, "recorded a waiting attempt");
            context.backlog.remove(record.id);
            true
        }
        Err(StoreError::Unavailable { .. }) => false,
        Err(error) => {
            // The database refuses this very record: keeping it would hold up the others for ever.
            warn!(attempt.id = %record.id, device.id = %record.device, error = chain(&error),
                "the database refused the record of an attempt");
            context.backlog.remove(record.id);
            true
        }
    }
}
