//! The moving parts: the reconciler keeps one worker per device, a worker sleeps until its schedule
//! says so and makes one attempt at a time.

pub mod attempt;
pub mod backlog;
#[cfg(test)]
mod fakes;
mod fence;
pub mod hindrance;
pub mod outbox;
pub mod progress;
pub mod reconciler;
pub mod requests;
pub mod slots;
pub mod view;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::domain::contact::Bound;
use crate::domain::failure::Advice;
use crate::domain::schedule::Draw;
use crate::domain::session::DeviceSettings;
use crate::lifecycle::Shutdown;
use crate::metrics::Metrics;
use crate::ports::{Coordinator, Lease, SnapshotSink, Store};
use crate::routeros::Normalizer;
use crate::ssh;

/// What every attempt works with. One per process, shared by all workers.
pub struct Context {
    /// Devices, state and journal.
    pub store: Arc<dyn Store>,
    /// Presence and leases.
    pub coordinator: Arc<dyn Coordinator>,
    /// Where snapshots go.
    pub sink: Arc<dyn SnapshotSink>,
    /// Where they wait while they cannot go there; embedded mode has none.
    pub outbox: Option<outbox::Queue>,
    /// Opens stored credentials.
    pub credentials: Credentials,
    /// This process's SSH sessions.
    pub slots: slots::Slots,
    /// Attempts that are made but could not be recorded yet.
    pub backlog: backlog::Backlog,
    /// What keeps attempts from being made.
    pub hindrance: hindrance::Hindrance,
    /// The way to a device's worker, for whoever asks for a backup.
    pub requests: requests::Requests,
    /// What this replica is doing, per device.
    pub view: view::FleetView,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// The wall clock.
    pub clock: Clock,
    /// Soft and hard cancellation.
    pub shutdown: Shutdown,
    /// Time limits of an attempt.
    pub limits: Limits,
    /// What is done to an export before it is compared with others.
    pub normalizer: Normalizer,
    /// The name of this process in the journal.
    pub replica: String,
    /// How an operator unblocks a device.
    pub advice: Advice,
}

/// Time limits of one attempt.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For one whole SSH session, dial to last byte, where a device has no other.
    pub command_timeout: Duration,
    /// For the SSH client.
    pub ssh: ssh::Options,
    /// How often a device may be connected to; `None` where no router counts.
    pub bound: Option<Bound>,
}

impl Limits {
    /// What a lease is asked for beyond the session: claiming, pinning, normalising, publishing,
    /// recording. The sum is the lock's TTL of the contract.
    const LEASE_MARGIN: Duration = Duration::from_secs(30);
    /// How long before its lease expires a session ends at the latest.
    const LEASE_RESERVE: Duration = Duration::from_secs(5);

    fn session(&self, settings: &DeviceSettings) -> Duration {
        settings.command_timeout.unwrap_or(self.command_timeout)
    }

    /// How long a device is leased for.
    pub fn lease(&self, settings: &DeviceSettings) -> Duration {
        self.session(settings) + Self::LEASE_MARGIN
    }

    /// What the SSH client may do at a device.
    pub fn ssh(&self, settings: &DeviceSettings) -> ssh::Options {
        ssh::Options {
            algorithms: settings.ssh_algorithms.unwrap_or(self.ssh.algorithms),
            ..self.ssh.clone()
        }
    }

    /// When an SSH session that starts now must have ended. The lease was asked for with what was
    /// known then; where the device's timeout has been raised since, the lease counts.
    pub fn deadline(&self, lease: &Lease, settings: &DeviceSettings) -> Instant {
        let by_timeout = Instant::now() + self.session(settings);
        let by_lease = lease
            .expires
            .checked_sub(Self::LEASE_RESERVE)
            .unwrap_or(lease.expires);
        by_timeout.min(by_lease)
    }
}

/// Draws a sample for the schedule, which has no randomness of its own.
pub fn draw() -> Draw {
    Draw::new(rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::device::DeviceId;
    use crate::domain::session::SshAlgorithms;

    #[tokio::test(start_paused = true)]
    async fn a_lease_outlives_its_session_by_half_a_minute() {
        let seconds = Duration::from_secs;
        let limits = Limits {
            command_timeout: seconds(60),
            ssh: ssh::Options::default(),
            bound: None,
        };
        let usual = DeviceSettings::default();
        assert_eq!(
            limits.lease(&usual),
            seconds(90),
            "agreed with the platform"
        );
        let now = Instant::now();
        // A claim that was slow leaves less of the lease, and the session ends with it.
        for (left, session) in [(90, 60), (66, 60), (40, 35), (3, 0)] {
            let lease = Lease {
                device: DeviceId(uuid::Uuid::nil()),
                token: String::new(),
                expires: now + seconds(left),
            };
            let deadline = limits.deadline(&lease, &usual);
            assert_eq!(deadline.saturating_duration_since(now), seconds(session));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_with_a_timeout_of_its_own_is_leased_for_as_long() {
        let seconds = Duration::from_secs;
        let limits = Limits {
            command_timeout: seconds(60),
            ssh: ssh::Options::default(),
            bound: None,
        };
        let slow = DeviceSettings {
            command_timeout: Some(seconds(600)),
            ssh_algorithms: Some(SshAlgorithms::Modern),
        };
        assert_eq!(limits.lease(&slow), seconds(630));
        assert_eq!(limits.ssh(&slow).algorithms, SshAlgorithms::Modern);
        let now = Instant::now();
        for (left, session) in [(630, 600), (90, 85)] {
            let lease = Lease {
                device: DeviceId(uuid::Uuid::nil()),
                token: String::new(),
                expires: now + seconds(left),
            };
            let deadline = limits.deadline(&lease, &slow);
            assert_eq!(deadline.saturating_duration_since(now), seconds(session));
        }
    }
}
