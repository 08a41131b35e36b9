//! One backup, top to bottom: presence, slot, lease, fresh row, credentials, SSH, whole export,
//! normalise, deliver, record.

mod delivery;
mod ending;
mod export;
mod permit;
mod suspicion;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::{Instrument as _, Span, debug, warn};

pub use export::{ExportError, take_export};

pub(super) use export::on_a_thread;

use delivery::Kept;
use export::Believed;

use super::progress::{ClaimedAt, Progress};
use super::slots::{Lane, Slot};
use super::{Context, draw};
use crate::credentials::CredentialError;
use crate::domain::Timestamp;
use crate::domain::attempt::{AttemptId, Cause, Deferral, Status, Step, Taken};
use crate::domain::device::{Device, DeviceId};
use crate::domain::failure::{Failure, FailureKind, chain};
use crate::domain::host_key::{Fingerprint, HostKeyMismatch};
use crate::domain::request::Reply;
use crate::domain::schedule::{Draw, Finish, Schedule};
use crate::domain::session::DeviceSettings;
use crate::domain::suspect::Recurrence;
use crate::metrics::LockResult;
use crate::ports::{
    Begun, Claim, Claimed, CoordinatorError, Lease, Presence, SinkError, StoreError,
};
use crate::ssh::{self, SshError};

/// What a worker asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The attempt that is to be made. Used once at most.
    pub id: AttemptId,
    /// The device.
    pub device: DeviceId,
    /// Its name, for the log.
    pub name: String,
    /// What differs for it from the service's own settings, as far as is known before the claim.
    pub settings: DeviceSettings,
    /// Why.
    pub cause: Cause,
    /// The last attempt that the schedule knows of: another one means a replica was faster.
    pub known_last: Option<AttemptId>,
    /// The schedule, in which this attempt has begun: tells when the device comes due after it.
    pub schedule: Schedule,
    /// Set once a slot is held. Until then the attempt may be dropped, to be made for another
    /// reason.
    pub slot_held: Arc<AtomicBool>,
}

/// How an attempt ended, and the moment and sample by which its record was computed: fed with the
/// same, the worker's schedule comes to the same next time.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the schedule is told.
    pub finish: Finish,
    /// When it ended.
    pub at: Timestamp,
    /// The sample.
    pub draw: Draw,
    /// The attempt, if one was made.
    pub made: Option<AttemptId>,
    /// What whoever asked for it is told.
    pub reply: Reply,
}

/// Why an attempt ends early.
enum Stop {
    Deferred(Deferral),
    Failed(Failure),
    Interrupted(String),
}

impl Context {
    /// Makes one attempt at a device and records it. May wait long for a slot; cancel safe until a
    /// slot is held, and after that it ends by itself within the limits.
    pub async fn attempt(&self, ask: Ask) -> Report {
        let id = ask.id;
        let span = tracing::info_span!(
            "attempt",
            attempt.id = %id,
            attempt.cause = %ask.cause,
            device.id = %ask.device,
            device.name = ask.name,
            tenant.id = tracing::field::Empty,
        );
        let mut progress = Progress::default();
        self.collect(id, &ask, &mut progress).instrument(span).await
    }

    async fn collect(&self, id: AttemptId, ask: &Ask, progress: &mut Progress) -> Report {
        let (slot, lease) = match self.admit(ask, progress).await {
            Ok(admitted) => admitted,
            Err(deferral) => return self.deferred(deferral),
        };
        let result = self.collect_guarded(id, ask, &lease, progress).await;
        progress.leave();
        // A database that is slow to record costs no session.
        drop(slot);
        // Recorded under the lease: whoever takes it next finds what this attempt came to.
        let report = self.conclude(id, ask, result, progress).await;
        self.coordinator.release(lease).await;
        report
    }

    /// Presence, slot, lease: nothing of this is an attempt yet.
    async fn admit(&self, ask: &Ask, progress: &mut Progress) -> Result<(Slot, Lease), Deferral> {
        progress.enter(Step::Presence);
        if self.backlog.holds(ask.device) {
            // The claim would take the attempt before that one for another replica's.
            return Err(Deferral::Unavailable {
                reason: "the last attempt at the device is not recorded yet".to_owned(),
            });
        }
        self.check_presence(ask).await?;
        self.has_a_place(None).await?;
        progress.enter(Step::Slot);
        let slot = self.take_slot(ask).await?;
        ask.slot_held.store(true, Ordering::Relaxed);
        progress.enter(Step::Lock);
        self.metrics
            .waited_for_slot(progress.took(Step::Slot).unwrap_or_default());
        let lease = self.take_lease(ask).await?;
        // The wait may have been long: whoever queued up before that changed stops here. Only now is
        // Redis asked about the device: where it is away, the lease said so, and sooner.
        if let Err(deferral) = self.has_a_place(Some(ask.device)).await {
            self.coordinator.release(lease).await;
            return Err(deferral);
        }
        Ok((slot, lease))
    }

    /// A router is not troubled for an export that could neither be delivered nor be kept; nor, with
    /// `device`, for one that would have to queue up where there is no room.
    async fn has_a_place(&self, device: Option<DeviceId>) -> Result<(), Deferral> {
        let ready = self.sink.ready().await;
        let Some(outbox) = &self.outbox else {
            return Ok(ready?);
        };
        let why = match (ready, device) {
            // It must queue up behind what waits of the device, whatever keeps that from going on.
            (Ok(()), Some(device)) if outbox.waits(device).await => {
                "an older snapshot of the device waits".into()
            }
            (Ok(()), _) => return Ok(()),
            (Err(away), _) => chain(&away),
        };
        outbox.room().await.map_err(|reason| Deferral::Unavailable {
            reason: format!("{why}; {reason}"),
        })
    }

    async fn check_presence(&self, ask: &Ask) -> Result<(), Deferral> {
        if ask.cause == Cause::Manual {
            return Ok(());
        }
        match self.coordinator.presence(ask.device).await {
            Presence::Online | Presence::Unknown => Ok(()),
            Presence::Offline => Err(Deferral::Offline),
        }
    }

    async fn take_slot(&self, ask: &Ask) -> Result<Slot, Deferral> {
        let lane = if ask.cause == Cause::Manual {
            Lane::Requested
        } else {
            Lane::Scheduled
        };
        tokio::select! {
            biased;
            () = self.shutdown.soft().cancelled() => Err(Deferral::Stopping),
            slot = self.slots.acquire(lane) => Ok(slot),
        }
    }

    async fn take_lease(&self, ask: &Ask) -> Result<Lease, Deferral> {
        match self
            .coordinator
            .try_lease(ask.device, self.limits.lease(&ask.settings))
            .await
        {
            Ok(Some(lease)) => {
                self.metrics.lock(LockResult::Obtained);
                Ok(lease)
            }
            Ok(None) => {
                self.metrics.lock(LockResult::NotObtained);
                Err(Deferral::Contended)
            }
            Err(error) => {
                self.metrics.lock(LockResult::Error);
                Err(error.into())
            }
        }
    }

    /// The attempt proper, ended early by a hard stop, and with a panic turned into a failure of
    /// this attempt: a text that we cannot digest must not take the worker down with it.
    async fn collect_guarded(
        &self,
        id: AttemptId,
        ask: &Ask,
        lease: &Lease,
        progress: &mut Progress,
    ) -> Result<Kept, Stop> {
        let _running = self.metrics.attempt_running();
        let work = AssertUnwindSafe(self.collect_leased(id, ask, lease, progress)).catch_unwind();
        tokio::select! {
            biased;
            () = self.shutdown.hard().cancelled() => {
                Err(Stop::Interrupted("the process was told to stop".to_owned()))
            }
            result = work => result.unwrap_or_else(|_| {
                self.metrics.worker_restarted();
                Err(Stop::Failed(Failure::new(
                    FailureKind::Internal,
                    "the attempt panicked; the log has the place, please report it",
                )))
            }),
        }
    }

    async fn collect_leased(
        &self,
        id: AttemptId,
        ask: &Ask,
        lease: &Lease,
        progress: &mut Progress,
    ) -> Result<Kept, Stop> {
        let begun = self.claim(id, ask, progress).await?;
        let device = &begun.device;
        let login = self.credentials.open(device).await?;
        let deadline = self.may_dial(device, lease, progress)?;
        progress.enter(Step::Connect);
        let options = self.limits.ssh(&device.settings);
        let dialled = ssh::dial(&device.endpoint, &device.pin, deadline, &options).await;
        progress.offered_key = match &dialled {
            Ok(host) => Some(host.fingerprint().clone()),
            Err(error) => error.offered().cloned(),
        };
        let host = dialled?;
        let weak = host.negotiated().weak();
        self.metrics.weak_ssh(&weak);
        progress.observed.weak_ssh = Some(weak);
        progress.enter(Step::Authenticate);
        let mut session = host.authenticate(&login).await?;
        if let Some(weak) = session.weak_login() {
            self.metrics.weak_ssh(std::slice::from_ref(weak));
            let all = progress.observed.weak_ssh.get_or_insert_default();
            all.push(weak.clone());
        }
        self.pin(device, session.fingerprint(), progress).await?;
        let believed = self
            .take_snapshot(id, &mut session, &begun, progress)
            .await?;
        session.close().await;
        let Believed { snapshot, warning } = believed;
        progress.enter(Step::Publish);
        let place = self.deliver(&snapshot, lease).await?;
        // What was suspected of others is answered.
        progress.observed.suspects = Some(Recurrence::default());
        let taken = Taken {
            hash: snapshot.hash,
            bytes: snapshot.text.expose().len() as u64,
            routeros_version: snapshot.routeros_version,
            shape: snapshot.shape,
            incomplete_menus: snapshot.incomplete_menus,
            warning,
        };
        Ok(Kept { taken, place })
    }

    /// Looks again, under the lease: the row may have changed, another replica may be done.
    async fn claim(
        &self,
        id: AttemptId,
        ask: &Ask,
        progress: &mut Progress,
    ) -> Result<Box<Begun>, Stop> {
        if self.shutdown.soft().is_cancelled() {
            return Err(Stop::Deferred(Deferral::Stopping));
        }
        let claim = Claim {
            attempt: id,
            device: ask.device,
            cause: ask.cause,
            bound: self.limits.bound,
            known_last: ask.known_last,
            any_last: ask.cause == Cause::Manual,
            replica: self.replica.clone(),
            held_here: self
                .outbox
                .as_ref()
                .is_some_and(|outbox| outbox.holds_of(ask.device)),
        };
        let claimed = match self.begin(&claim).await {
            Ok(claimed) => claimed,
            Err(error) => {
                let reason = chain(&error);
                if !matches!(error, StoreError::Unavailable { .. }) {
                    warn!(error = reason, "the database refused to begin an attempt");
                }
                return Err(Stop::Deferred(Deferral::Unavailable { reason }));
            }
        };
        match claimed {
            Claimed::Gone => Err(Stop::Deferred(Deferral::Gone)),
            Claimed::TooSoon(wait) => Err(Stop::Deferred(self.too_soon(ask, wait))),
            Claimed::HeldElsewhere => Err(Stop::Deferred(Deferral::Unavailable {
                reason: "another replica holds the device's last snapshot until its Redis answers"
                    .to_owned(),
            })),
            Claimed::Superseded(last) => {
                if last.deaths > 1 && last.status == Status::Interrupted {
                    warn!(
                        deaths = last.deaths,
                        "The process was gone each time before the backup of {} had ended; it is \
                         put off. See whether the process was killed for want of memory, and raise \
                         its limit or lower CONFIG_BACKUP_MAX_EXPORT_BYTES",
                        ask.name
                    );
                }
                Err(Stop::Deferred(Deferral::Superseded(last)))
            }
            Claimed::Begun(begun) => {
                Span::current().record("tenant.id", tracing::field::display(begun.device.tenant));
                progress.claimed = Some(ClaimedAt {
                    at: self.clock.now(),
                    instant: Instant::now(),
                    device: begun.device.clone(),
                });
                Ok(begun)
            }
        }
    }

    /// Claims, once a claim whose answer was lost is taken back: its mark would be journaled as an
    /// attempt whose process died.
    async fn begin(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let device = claim.device;
        if let Some(lost) = self.backlog.doubtful(device) {
            self.store.unclaim(device, lost).await?;
            self.backlog.settle(device);
        }
        let claimed = self.store.claim(claim).await;
        if claimed.is_err() {
            self.backlog.doubt(device, claim.attempt);
        }
        claimed
    }

    /// Pins a first key; the first writer wins, and what it wrote is compared once more.
    ///
    /// What goes wrong here goes wrong after the login. So it is a failure with back-off, however
    /// little the device can help it: tried again at once, it would log in every few seconds.
    async fn pin(
        &self,
        device: &Device,
        seen: &Fingerprint,
        progress: &mut Progress,
    ) -> Result<(), Stop> {
        match self.store.pin_host_key(device.id, seen).await {
            Ok(pin) => {
                // What the attempt was compared with is part of its record: else the pin that won
                // the race would look like an edit that answers the mismatch.
                if let Some(claimed) = &mut progress.claimed {
                    claimed.device.pin = pin.clone();
                }
                Ok(pin.verify(seen)?)
            }
            Err(StoreError::NotFound { .. }) => Err(Stop::Interrupted(
                "the device left the inventory".to_owned(),
            )),
            Err(error) => Err(Stop::Failed(Failure::from_error(
                FailureKind::Unknown,
                &error,
            ))),
        }
    }

    fn deferred(&self, deferral: Deferral) -> Report {
        self.metrics.deferred(&deferral);
        match &deferral {
            // The device only waits, and so its journal and its state say nothing of this.
            Deferral::Unavailable { reason } if self.hindrance.is_news() => warn!(
                deferral = deferral.as_str(),
                reason, "Backups are put off until what they need is there"
            ),
            Deferral::Unavailable { reason } => {
                debug!(deferral = deferral.as_str(), reason, "Deferred")
            }
            _ => debug!(deferral = deferral.as_str(), "Deferred"),
        }
        Report {
            reply: Reply::of_deferral(&deferral),
            finish: Finish::Deferred(deferral),
            at: self.clock.now(),
            draw: draw(),
            made: None,
        }
    }
}

impl From<ExportError> for Stop {
    fn from(error: ExportError) -> Self {
        Self::Failed(error.into_failure())
    }
}

impl From<SshError> for Stop {
    fn from(error: SshError) -> Self {
        Self::Failed(Failure::from_error(error.kind(), &error))
    }
}

impl From<CredentialError> for Stop {
    fn from(error: CredentialError) -> Self {
        if error.is_passing() {
            return Self::Deferred(Deferral::Unavailable {
                reason: chain(&error),
            });
        }
        Self::Failed(Failure::from_error(error.kind(), &error))
    }
}

impl From<HostKeyMismatch> for Stop {
    fn from(error: HostKeyMismatch) -> Self {
        Self::Failed(Failure::from_error(FailureKind::HostKeyMismatch, &error))
    }
}

impl From<CoordinatorError> for Deferral {
    fn from(error: CoordinatorError) -> Self {
        Self::Unavailable {
            reason: chain(&error),
        }
    }
}

impl From<SinkError> for Deferral {
    fn from(error: SinkError) -> Self {
        Self::Unavailable {
            reason: chain(&error),
        }
    }
}

#[cfg(test)]
mod tests;
