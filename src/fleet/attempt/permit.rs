//! Whether, and until when, a claim permits to dial: what the router's firewall bears, and the lease.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Ask, Stop};
use crate::domain::attempt::{Cause, Deferral};
use crate::domain::backoff::later;
use crate::domain::contact::Bound;
use crate::domain::device::Device;
use crate::fleet::Context;
use crate::fleet::progress::Progress;
use crate::ports::Lease;

impl Context {
    /// The device was connected to so often that it is left alone for `wait`.
    pub(super) fn too_soon(&self, ask: &Ask, wait: Duration) -> Deferral {
        let wait_s = wait.as_secs();
        match ask.cause {
            Cause::Scheduled | Cause::Retry => warn!(
                wait_s,
                "The backup of {} is put off: one connection more so soon, and a firewall with \
                 MikroTik's brute-force recipe would take us for an attacker. Requests, edits, \
                 another row with the same address and port, or a service that dies in the middle of \
                 backups use up what it tolerates",
                ask.name
            ),
            // Whoever asked is told; whoever edited the row finds it here and in the metric.
            Cause::Edited | Cause::Manual => {
                debug!(wait_s, "Left {} alone: connected to too often", ask.name)
            }
        }
        let until = later(self.clock.now(), wait);
        Deferral::RateLimited { until, wait }
    }

    /// When a session with `device` that is dialled now must have ended. Too long after the claim
    /// nothing is dialled any more: the connection would not be where the firewall's lists, as the
    /// store plays them, have it.
    pub(super) fn may_dial(
        &self,
        device: &Device,
        lease: &Lease,
        progress: &Progress,
    ) -> Result<Instant, Stop> {
        let claimed = progress.claimed.as_ref().map(|claimed| claimed.instant);
        let waited = claimed.map_or(Duration::ZERO, |claimed| claimed.elapsed());
        if self.limits.bound.is_some() && waited > Bound::PERMIT {
            return Err(Stop::Deferred(Deferral::Unavailable {
                reason: format!(
                    "opening the credentials took {} s, longer than the {} s within which a router \
                     is dialled",
                    waited.as_secs(),
                    Bound::PERMIT.as_secs()
                ),
            }));
        }
        let deadline = self.limits.deadline(lease, &device.settings);
        if deadline <= Instant::now() {
            return Err(Stop::Interrupted(
                "the device's lock was about to run out before the device could be dialled; the \
                 database was slow"
                    .to_owned(),
            ));
        }
        Ok(deadline)
    }
}
