//! An inventory, its state and its journal in memory, away or slow on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::domain::attempt::{AttemptId, AttemptRecord, LastAttempt, StepTime, Taken};
use crate::domain::device::{Device, DeviceId};
use crate::domain::host_key::{Fingerprint, Pin};
use crate::domain::session::MissingMenus;
use crate::domain::suspect::Recurrence;
use crate::ports::{
    Begun, Bucket, Claim, Claimed, JournalEntry, JournalPage, Listed, Running, StatusPage,
    Statuses, Store, StoreError,
};

/// What a store holds, and how it goes wrong.
#[derive(Default)]
pub struct State {
    pub devices: BTreeMap<DeviceId, Device>,
    pub last: BTreeMap<DeviceId, LastAttempt>,
    pub seen: BTreeMap<DeviceId, Timestamp>,
    pub unreadable: usize,
    pub running: BTreeMap<DeviceId, AttemptId>,
    pub records: Vec<AttemptRecord>,
    /// What was taken last.
    pub taken: BTreeMap<DeviceId, Taken>,
    pub missing: BTreeMap<DeviceId, MissingMenus>,
    pub suspects: BTreeMap<DeviceId, Recurrence>,
    /// Looks at the digests, and the buckets that were read.
    pub looks: usize,
    pub reads: Vec<Vec<Bucket>>,
    /// So long no device may be connected to.
    pub too_soon: Option<Duration>,
    /// Every statement fails.
    pub away: bool,
    /// The next claim is granted, and its answer lost.
    pub claim_answer_lost: bool,
    /// Claims that found the mark of another attempt: its process has died, as it seems.
    pub marks_found: usize,
    /// `record` fails.
    pub record_away: bool,
    /// `record` never answers.
    pub record_hangs: bool,
    /// `pin_host_key` is refused.
    pub pin_refused: bool,
    /// `inventory` never answers.
    pub inventory_hangs: bool,
    /// How long `inventory` takes.
    pub inventory_takes: Duration,
    /// Somebody else pins this key just before we do.
    pub other_pins: Option<Fingerprint>,
    editions: BTreeMap<Bucket, u64>,
}

impl State {
    /// Inserts or replaces a row.
    pub fn put(&mut self, device: Device) {
        *self.editions.entry(bucket(device.id)).or_default() += 1;
        self.devices.insert(device.id, device);
    }

    /// Deletes a row.
    pub fn delete(&mut self, device: DeviceId) {
        *self.editions.entry(bucket(device)).or_default() += 1;
        self.devices.remove(&device);
    }
}

fn bucket(device: DeviceId) -> Bucket {
    device.0.as_bytes()[15]
}

pub struct MemoryStore {
    state: Mutex<State>,
    clock: Clock,
    pub hint: Notify,
}

impl MemoryStore {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            state: Mutex::default(),
            clock,
            hint: Notify::new(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless the database is away.
    fn here(&self, operation: &str) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        if state.away {
            return Err(away(operation));
        }
        Ok(state)
    }
}

fn away(operation: &str) -> StoreError {
    StoreError::Unavailable {
        operation: operation.to_owned(),
        source: "it is not there".into(),
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn inventory(&self) -> Result<BTreeMap<Bucket, String>, StoreError> {
        if self.state().inventory_hangs {
            std::future::pending::<()>().await;
        }
        let takes = self.state().inventory_takes;
        tokio::time::sleep(takes).await;
        let mut state = self.here("read the inventory")?;
        state.looks += 1;
        let full: BTreeSet<_> = state.devices.keys().map(|id| bucket(*id)).collect();
        let digest = |bucket: Bucket| (bucket, state.editions[&bucket].to_string());
        Ok(full.into_iter().map(digest).collect())
    }

    async fn devices(&self, buckets: &[Bucket]) -> Result<Vec<Listed>, StoreError> {
        let mut state = self.here("read devices")?;
        state.reads.push(buckets.to_vec());
        let listed = |device: &Device| Listed {
            bucket: bucket(device.id),
            device: device.clone(),
            last: state.last.get(&device.id).cloned(),
            first_seen: state.seen.get(&device.id).copied(),
        };
        let wanted = state.devices.values();
        Ok(wanted
            .filter(|device| buckets.contains(&bucket(device.id)))
            .map(listed)
            .collect())
    }

    fn unreadable(&self) -> usize {
        self.state().unreadable
    }

    async fn note_seen(&self, devices: &[DeviceId]) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut state = self.here("note since when devices are known")?;
        for device in devices {
            state.seen.entry(*device).or_insert(now);
        }
        Ok(())
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let mut state = self.here("begin an attempt")?;
        let Some(device) = state.devices.get(&claim.device).cloned() else {
            return Ok(Claimed::Gone);
        };
        if let Some(last) = state.last.get(&claim.device)
            && Some(last.id) != claim.known_last
            && !claim.any_last
        {
            return Ok(Claimed::Superseded(Box::new(last.clone())));
        }
        if let (Some(_), Some(wait)) = (claim.bound, state.too_soon) {
            return Ok(Claimed::TooSoon(wait));
        }
        let mark = state.running.insert(claim.device, claim.attempt);
        state.marks_found += usize::from(mark.is_some_and(|mark| mark != claim.attempt));
        if std::mem::take(&mut state.claim_answer_lost) {
            return Err(away("begin an attempt"));
        }
        let taken = state.taken.get(&claim.device);
        let incomplete = taken.map_or(Vec::new(), |taken| taken.incomplete_menus.clone());
        let missing = state
            .missing
            .get(&claim.device)
            .cloned()
            .unwrap_or_default();
        let suspects = state.suspects.get(&claim.device).cloned();
        let suspects = suspects.unwrap_or_default();
        let begun = Begun {
            device,
            last_shape: state
                .taken
                .get(&claim.device)
                .map(|taken| taken.shape.clone()),
            last_bytes: state.taken.get(&claim.device).map(|taken| taken.bytes),
            last_incomplete_menus: incomplete,
            missing_menus: missing,
            suspects,
            now: self.clock.now(),
        };
        let last = state.last.get(&claim.device);
        Ok(Claimed::Begun(Box::new(
            begun.beside(last.map(|last| &last.revision), None),
        )))
    }

    async fn unclaim(&self, device: DeviceId, attempt: AttemptId) -> Result<(), StoreError> {
        let mut state = self.here("take back a claim")?;
        if state.running.get(&device) == Some(&attempt) {
            state.running.remove(&device);
        }
        Ok(())
    }

    async fn pin_host_key(&self, device: DeviceId, seen: &Fingerprint) -> Result<Pin, StoreError> {
        let mut state = self.here("pin a host key")?;
        if state.pin_refused {
            return Err(StoreError::Failed {
                operation: "pin a host key".to_owned(),
                source: "permission denied for table devices".into(),
            });
        }
        let other = state.other_pins.take();
        let row = state.devices.get_mut(&device);
        let row = row.ok_or_else(|| StoreError::NotFound {
            what: format!("device {device}"),
        })?;
        if row.pin == Pin::Unpinned {
            row.pin = Pin::Pinned(other.unwrap_or_else(|| seen.clone()));
        }
        Ok(row.pin.clone())
    }

    async fn record(&self, record: &AttemptRecord, _replica: &str) -> Result<(), StoreError> {
        if self.state().record_hangs {
            std::future::pending::<()>().await;
        }
        let mut state = self.here("record an attempt")?;
        if state.record_away {
            return Err(away("record an attempt"));
        }
        if state.records.iter().any(|known| known.id == record.id) {
            return Ok(());
        }
        let now = self.clock.now() - record.ended_ago;
        let started_at = now - record.elapsed;
        let success = record.outcome.taken().map(|_| started_at);
        let before = state.last.get(&record.device);
        let last_success_at = success.or(before.and_then(|last| last.last_success_at));
        let standing = record.standing;
        let last = LastAttempt {
            id: record.id,
            started_at,
            finished_at: now,
            status: record.outcome.status(),
            failure: standing.map(|(kind, _)| kind),
            consecutive_failures: record.consecutive_failures,
            revision: standing.map_or(record.revision, |(_, revision)| revision),
            last_success_at,
            deaths: 0,
        };
        state.last.insert(record.device, last);
        state.running.remove(&record.device);
        if let Some(taken) = record.outcome.taken() {
            state.taken.insert(record.device, taken.clone());
        }
        if let Some(missing) = &record.observed.missing_menus {
            state.missing.insert(record.device, missing.clone());
        }
        if let Some(suspects) = &record.observed.suspects {
            state.suspects.insert(record.device, suspects.clone());
        }
        state.records.push(record.clone());
        Ok(())
    }

    async fn attempt(&self, id: AttemptId) -> Result<(JournalEntry, Vec<StepTime>), StoreError> {
        Err(StoreError::NotFound {
            what: format!("attempt {id}"),
        })
    }

    async fn running(&self, _id: AttemptId) -> Result<Option<Running>, StoreError> {
        Ok(None)
    }

    async fn attempts(&self, _page: JournalPage) -> Result<Vec<JournalEntry>, StoreError> {
        Ok(Vec::new())
    }

    async fn statuses(&self, _page: StatusPage) -> Result<Statuses, StoreError> {
        Ok(Statuses {
            devices: Vec::new(),
            next: None,
        })
    }

    async fn prune(&self, _age: Duration, _batch: u32) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn changed(&self) {
        self.hint.notified().await;
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.here("ping").map(drop)
    }
}
