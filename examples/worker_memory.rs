//! Prints what a sleeping worker costs: starts a reconciler over a made-up inventory, lets every
//! worker fall asleep, and divides the growth of the resident memory by their number.
//!
//! `cargo run --release --example worker_memory [DEVICES]`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mikrotik_backup::adapters::in_process::InProcess;
use mikrotik_backup::clock::Clock;
use mikrotik_backup::credentials::Credentials;
use mikrotik_backup::domain::attempt::{AttemptId, AttemptRecord, StepTime};
use mikrotik_backup::domain::device::{CredentialSource, Device, DeviceId, Endpoint, TenantId};
use mikrotik_backup::domain::failure::Advice;
use mikrotik_backup::domain::host_key::{Fingerprint, Pin};
use mikrotik_backup::domain::schedule::Policy;
use mikrotik_backup::domain::snapshot::Snapshot;
use mikrotik_backup::fleet::backlog::Backlog;
use mikrotik_backup::fleet::hindrance::Hindrance;
use mikrotik_backup::fleet::reconciler::Reconciler;
use mikrotik_backup::fleet::requests::Requests;
use mikrotik_backup::fleet::slots::Slots;
use mikrotik_backup::fleet::view::FleetView;
use mikrotik_backup::fleet::{Context, Limits};
use mikrotik_backup::lifecycle::Shutdown;
use mikrotik_backup::metrics::Metrics;
use mikrotik_backup::ports::{
    Bucket, Claim, Claimed, JournalEntry, JournalPage, Listed, Running, SinkError, SnapshotSink,
    StatusPage, Statuses, Store, StoreError,
};
use mikrotik_backup::ssh;
use uuid::Uuid;

/// An inventory that is made up when it is read, so that it costs no memory itself.
struct MadeUp {
    devices: u32,
}

impl MadeUp {
    fn listed(n: u32) -> Listed {
        let id = Uuid::from_u128(u128::from(n) << 64 | u128::from(n % 256));
        Listed {
            bucket: id.as_bytes()[15],
            device: Device {
                id: DeviceId(id),
                tenant: TenantId(Uuid::nil()),
                name: format!("edge-{n}.example.net"),
                endpoint: Endpoint {
                    host: "192.0.2.1".to_owned(),
                    port: 22,
                },
                credentials: CredentialSource::DeviceSealed(vec![0; 96]),
                pin: Pin::Unpinned,
                routeros_version: None,
                settings: Default::default(),
            },
            last: None,
            first_seen: None,
        }
    }
}

fn nothing<T>() -> Result<T, StoreError> {
    Err(StoreError::NotFound {
        what: "anything".to_owned(),
    })
}

#[async_trait]
impl Store for MadeUp {
    async fn inventory(&self) -> Result<BTreeMap<Bucket, String>, StoreError> {
        Ok((0..=255).map(|bucket| (bucket, String::new())).collect())
    }

    async fn devices(&self, buckets: &[Bucket]) -> Result<Vec<Listed>, StoreError> {
        let all = (0..self.devices).map(Self::listed);
        Ok(all.filter(|row| buckets.contains(&row.bucket)).collect())
    }

    fn unreadable(&self) -> usize {
        0
    }

    async fn note_seen(&self, _: &[DeviceId]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn claim(&self, _: &Claim) -> Result<Claimed, StoreError> {
        Ok(Claimed::Gone)
    }

    async fn unclaim(&self, _: DeviceId, _: AttemptId) -> Result<(), StoreError> {
        nothing()
    }

    async fn pin_host_key(&self, _: DeviceId, _: &Fingerprint) -> Result<Pin, StoreError> {
        nothing()
    }

    async fn record(&self, _: &AttemptRecord, _: &str) -> Result<(), StoreError> {
        nothing()
    }

    async fn attempt(&self, _: AttemptId) -> Result<(JournalEntry, Vec<StepTime>), StoreError> {
        nothing()
    }

    async fn attempts(&self, _: JournalPage) -> Result<Vec<JournalEntry>, StoreError> {
        nothing()
    }

    async fn running(&self, _: AttemptId) -> Result<Option<Running>, StoreError> {
        nothing()
    }

    async fn statuses(&self, _: StatusPage) -> Result<Statuses, StoreError> {
        nothing()
    }

    async fn prune(&self, _: Duration, _: u32) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn changed(&self) {
        std::future::pending().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl SnapshotSink for MadeUp {
    async fn ready(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn deliver(&self, _: &Snapshot) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Resident memory in KiB, as Linux tells it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

#[tokio::main]
async fn main() {
    let argument = std::env::args().nth(1);
    let devices = argument.map_or(20_000, |text| text.parse().expect("a number of devices"));
    let inventory = Arc::new(MadeUp { devices });
    let context = Arc::new(Context {
        store: inventory.clone(),
        coordinator: Arc::new(InProcess::new()),
        sink: inventory,
        outbox: None,
        credentials: Credentials::new(None),
        slots: Slots::new(10),
        backlog: Backlog::default(),
        hindrance: Hindrance::default(),
        requests: Requests::default(),
        view: FleetView::default(),
        metrics: Arc::new(Metrics::new().expect("valid metrics")),
        clock: Clock::System,
        shutdown: Shutdown::new(),
        limits: Limits {
            command_timeout: Duration::from_secs(60),
            ssh: ssh::Options::default(),
            bound: None,
        },
        normalizer: Default::default(),
        replica: "example".to_owned(),
        advice: Advice::Sql,
    });
    let policy = Policy {
        interval: Duration::from_secs(21_600),
        jitter_min: Duration::from_secs(3_000),
        jitter_max: Duration::from_secs(3_600),
        recheck: Duration::from_secs(300),
    };
    let mut reconciler = Reconciler::new(context.clone(), policy, Duration::from_secs(60));
    let before = resident();
    let began = tokio::time::Instant::now();
    let changes = reconciler.reconcile().await.expect("it is made up");
    let took = began.elapsed();
    while context.view.counts().values().sum::<usize>() < changes.started {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let grown = resident().saturating_sub(before);
    println!(
        "{} workers asleep: {grown} KiB, {} bytes each; the first look took {took:?}",
        changes.started,
        grown * 1024 / changes.started.max(1) as u64,
    );
}
