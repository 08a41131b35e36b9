//! A fleet's world in memory: a store, a sink and a coordinator that go wrong on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use time::macros::datetime;
use tokio::sync::Notify;
use uuid::Uuid;

use super::backlog::Backlog;
use super::hindrance::Hindrance;
use super::requests::Requests;
use super::slots::Slots;
use super::view::FleetView;
use super::{Context, Limits};
use crate::adapters::in_process::InProcess;
use crate::clock::Clock;
use crate::credentials::{Credentials, Key};
use crate::domain::Timestamp;
use crate::domain::attempt::{AttemptId, AttemptRecord, LastAttempt, Outcome, StepTime, Taken};
use crate::domain::backoff::later;
use crate::domain::contact::Bound;
use crate::domain::device::{CredentialSource, Device, DeviceId, Endpoint, TenantId};
use crate::domain::failure::Advice;
use crate::domain::host_key::{Fingerprint, Pin};
use crate::domain::schedule::Policy;
use crate::domain::session::MissingMenus;
use crate::domain::snapshot::Snapshot;
use crate::domain::suspect::Recurrence;
use crate::lifecycle::Shutdown;
use crate::metrics::Metrics;
use crate::ports::{
    Begun, Bucket, Claim, Claimed, Coordinator, CoordinatorError, JournalEntry, JournalPage, Lease,
    Listed, Presence, Running, SinkError, SnapshotSink, StatusPage, Statuses, Store, StoreError,
};
use crate::ssh;

mod lines;
mod post;

pub use lines::Lines;
pub use post::{Post, snapshot};

/// Where the clock of a world with paused time begins.
pub const START: Timestamp = datetime!(2026-01-02 03:04:05 UTC);

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// The policy of the contract's defaults.
pub const POLICY: Policy = Policy {
    interval: Duration::from_secs(6 * 3600),
    jitter_min: Duration::from_secs(30),
    jitter_max: Duration::from_secs(300),
    recheck: Duration::from_secs(300),
};

/// What seals the credentials of every device.
const KEY: [u8; 32] = *b"a key that opens nothing at all.";

/// Device number `n`.
pub fn id(n: u32) -> DeviceId {
    DeviceId(Uuid::from_u128(u128::from(n)))
}

fn bucket(device: DeviceId) -> Bucket {
    device.0.as_bytes()[15]
}

/// Credentials as the database keeps them.
pub fn sealed(password: &str) -> CredentialSource {
    let login = serde_json::json!({ "username": crate::sim::USERNAME, "password": password });
    let key = Key::from_bytes(KEY);
    CredentialSource::DeviceSealed(key.seal([7; 12], login.to_string().as_bytes()))
}

/// Device number `n`, which listens at a documentation address.
pub fn device(n: u32) -> Device {
    Device {
        id: id(n),
        tenant: TenantId(Uuid::from_u128(99)),
        name: format!("edge-{n}"),
        endpoint: Endpoint {
            host: "192.0.2.1".into(),
            port: 22,
        },
        credentials: sealed(crate::sim::PASSWORD),
        pin: Pin::Unpinned,
        routeros_version: None,
        settings: Default::default(),
    }
}

/// A context with everything around it in memory.
pub struct World {
    pub context: Arc<Context>,
    pub store: Arc<MemoryStore>,
    pub coordinator: Arc<Locks>,
    pub sink: Arc<MemorySink>,
}

impl World {
    /// A world whose clock follows tokio's.
    pub fn new(slots: usize) -> Self {
        let clock = Clock::following_tokio(START);
        let store = Arc::new(MemoryStore::new(clock));
        let coordinator = Arc::new(Locks::default());
        let sink = Arc::new(MemorySink::default());
        let context = Arc::new(Context {
            store: store.clone(),
            coordinator: coordinator.clone(),
            sink: sink.clone(),
            outbox: None,
            credentials: Credentials::new(Some(Key::from_bytes(KEY))),
            slots: Slots::new(slots),
            backlog: Backlog::default(),
            hindrance: Hindrance::default(),
            requests: Requests::default(),
            view: FleetView::default(),
            metrics: Arc::new(Metrics::new().expect("the metrics are valid")),
            clock,
            shutdown: Shutdown::new(),
            limits: Limits {
                command_timeout: Duration::from_secs(10),
                ssh: ssh::Options::default(),
                bound: Some(Bound::new(Duration::from_secs(10))),
            },
            normalizer: Default::default(),
            replica: "one".to_owned(),
            advice: Advice::Sql,
        });
        Self {
            context,
            store,
            coordinator,
            sink,
        }
    }

    /// The value of a metric by its name with labels, as Prometheus reads it.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.context.metrics.render().expect("a page");
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or_else(|| panic!("no metric {name} in\n{page}"))
    }
}

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

pub struct MemoryStore {
    state: Mutex<State>,
    clock: Clock,
    pub hint: Notify,
}

impl MemoryStore {
    fn new(clock: Clock) -> Self {
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
        Ok(Claimed::Begun(Box::new(begun.beside(last))))
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

/// Leases in memory.
#[derive(Default)]
pub struct Locks {
    pub inner: InProcess,
    /// So many questions for presence panic.
    pub panics: AtomicUsize,
    pub released: AtomicUsize,
    /// Leases are already used up when they are given.
    pub expired: AtomicBool,
}

#[async_trait]
impl Coordinator for Locks {
    async fn presence(&self, device: DeviceId) -> Presence {
        let left = self.panics.load(Ordering::Relaxed);
        if left > 0 {
            self.panics.store(left - 1, Ordering::Relaxed);
            panic!("told to panic");
        }
        self.inner.presence(device).await
    }

    async fn try_lease(
        &self,
        device: DeviceId,
        ttl: Duration,
    ) -> Result<Option<Lease>, CoordinatorError> {
        let mut lease = self.inner.try_lease(device, ttl).await?;
        if let Some(lease) = &mut lease
            && self.expired.load(Ordering::Relaxed)
        {
            lease.expires = tokio::time::Instant::now();
        }
        Ok(lease)
    }

    async fn release(&self, lease: Lease) {
        self.released.fetch_add(1, Ordering::Relaxed);
        self.inner.release(lease).await;
    }

    async fn ping(&self) -> Result<(), CoordinatorError> {
        Ok(())
    }
}

/// The last attempt at `device`, a success that started `ago`.
pub fn succeeded(device: &Device, now: Timestamp, ago: Duration) -> LastAttempt {
    let started_at = now - ago;
    LastAttempt {
        id: AttemptId::generate(),
        started_at,
        finished_at: later(started_at, Duration::from_secs(2)),
        status: crate::domain::attempt::Status::Success,
        failure: None,
        consecutive_failures: 0,
        revision: device.revision(),
        last_success_at: Some(started_at),
        deaths: 0,
    }
}

/// The kind of failure that `record` says, or its status.
pub fn told(record: &AttemptRecord) -> &'static str {
    match &record.outcome {
        Outcome::Failed(failure) => failure.kind.as_str(),
        outcome => outcome.status().as_str(),
    }
}
