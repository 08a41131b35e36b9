//! A sink that keeps what it is given, or is away, slow or full on demand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::device::DeviceId;
use crate::domain::snapshot::Snapshot;
use crate::ports::{SinkError, SnapshotSink};

#[derive(Default)]
pub struct MemorySink {
    pub snapshots: Mutex<Vec<Snapshot>>,
    pub away: AtomicBool,
    pub panics: AtomicBool,
    /// How long a delivery takes.
    pub takes: Mutex<Duration>,
    /// How long it takes to look whether there was one.
    pub looks: Mutex<Duration>,
    /// Whose snapshots find no room.
    pub no_room: Mutex<Option<DeviceId>>,
}

impl MemorySink {
    pub fn taken(&self) -> Vec<Snapshot> {
        let snapshots = self.snapshots.lock();
        snapshots.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl SnapshotSink for MemorySink {
    async fn ready(&self) -> Result<(), SinkError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(SinkError::Unavailable {
                sink: "memory",
                operation: "prepare".to_owned(),
                source: "it is not there".into(),
            });
        }
        Ok(())
    }

    async fn deliver(&self, snapshot: &Snapshot) -> Result<(), SinkError> {
        assert!(!self.panics.load(Ordering::Relaxed), "told to panic");
        let takes = *self.takes.lock().expect("nobody panics here");
        tokio::time::sleep(takes).await;
        self.ready().await?;
        if *self.no_room.lock().expect("nobody panics here") == Some(snapshot.device) {
            return Err(SinkError::NoRoom {
                sink: "memory",
                operation: "keep its text".to_owned(),
                source: "full".into(),
            });
        }
        let mut snapshots = self.snapshots.lock().expect("nobody panics here");
        snapshots.push(snapshot.clone());
        Ok(())
    }

    async fn has(&self, snapshot: &Snapshot, _age: Duration) -> Result<bool, SinkError> {
        let looks = *self.looks.lock().expect("nobody panics here");
        tokio::time::sleep(looks).await;
        let taken = self.taken();
        Ok(taken.iter().any(|taken| taken.attempt == snapshot.attempt))
    }
}
