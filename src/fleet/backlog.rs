//! Attempts that were made but could not be recorded, because the database went away meanwhile:
//! kept in memory and recorded as soon as it is back.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::Context;
use crate::domain::attempt::AttemptRecord;
use crate::domain::failure::chain;
use crate::ports::StoreError;

/// Records that wait for the database. It stays small by itself: without a database no attempt can
/// be claimed, so at most the attempts that were running when it went away end up here.
#[derive(Default)]
pub struct Backlog {
    waiting: Mutex<Vec<AttemptRecord>>,
    added: Notify,
}

impl Backlog {
    /// Keeps `record` until it can be written.
    pub fn push(&self, record: AttemptRecord) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(record);
        self.added.notify_one();
    }

    fn first(&self) -> Option<AttemptRecord> {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .first()
            .cloned()
    }

    fn remove_first(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.is_empty() {
            waiting.remove(0);
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
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
/// A database that is away for one record is away for all: asking again for each, with the time
/// that every question takes, would outlast the grace period.
pub async fn flush(context: &Context) {
    let mut away = false;
    while let Some(record) = context.backlog.first() {
        away = away || !write(context, &record).await;
        if away {
            error!(
                attempt.id = %record.id,
                device.id = %record.device,
                status = record.outcome.status().as_str(),
                "an attempt could not be recorded before the end; the next replica that claims \
                 the device will journal it as interrupted"
            );
            context.backlog.remove_first();
        }
    }
}

/// Whether the first record is dealt with.
async fn write(context: &Context, record: &AttemptRecord) -> bool {
    match context.store.record(record, &context.replica).await {
        Ok(()) => {
            info!(attempt.id = %record.id, device.id = %record.device, "recorded a waiting attempt");
            context.backlog.remove_first();
            true
        }
        Err(StoreError::Unavailable { .. }) => false,
        Err(error) => {
            // The database refuses this very record: keeping it would hold up the others for ever.
            warn!(attempt.id = %record.id, device.id = %record.device, error = chain(&error),
                "the database refused the record of an attempt");
            context.backlog.remove_first();
            true
        }
    }
}
