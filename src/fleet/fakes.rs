//! A fleet's world in memory: a store, a sink and a coordinator that go wrong on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use time::macros::datetime;
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
use crate::domain::attempt::{AttemptId, AttemptRecord, LastAttempt, Outcome};
use crate::domain::backoff::later;
use crate::domain::contact::Bound;
use crate::domain::device::{CredentialSource, Device, DeviceId, Endpoint, TenantId};
use crate::domain::failure::Advice;
use crate::domain::host_key::Pin;
use crate::domain::schedule::Policy;
use crate::lifecycle::Shutdown;
use crate::metrics::Metrics;
use crate::ports::{Coordinator, CoordinatorError, Lease, Presence};
use crate::ssh;

mod lines;
mod post;
mod sink;
mod store;

pub use lines::Lines;
pub use post::{Post, snapshot};
pub use sink::MemorySink;
pub use store::MemoryStore;

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
