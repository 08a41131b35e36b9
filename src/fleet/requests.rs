//! Backups that somebody asks for: finds the device's worker, and brings back what came of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::WeakUnboundedSender;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::worker::Mail;
use crate::domain::attempt::AttemptId;
use crate::domain::device::{DeviceId, TenantId};
use crate::domain::request::Reply;

/// So many requests of one process wait at once; what is asked beyond is refused.
pub const MOST_WAITING: usize = 1000;

/// The way to the workers. Clones are the same one.
#[derive(Clone)]
pub struct Requests {
    desk: Arc<Desk>,
}

struct Desk {
    members: Mutex<HashMap<DeviceId, Member>>,
    entered: Notify,
    /// Whether the inventory was read once.
    loaded: watch::Sender<bool>,
    places: Arc<Semaphore>,
}

/// A device that is backed up here.
#[derive(Clone)]
struct Member {
    /// Weak: it is the reconciler that keeps workers alive.
    mailbox: WeakUnboundedSender<Mail>,
    tenant: TenantId,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            desk: Arc::new(Desk {
                members: Mutex::default(),
                entered: Notify::new(),
                loaded: watch::Sender::new(false),
                places: Arc::new(Semaphore::new(MOST_WAITING)),
            }),
        }
    }
}

/// A request that no worker answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// No worker has the device.
    #[error(
        "no device {0} is backed up here: it is not in the inventory, has no credentials, or is of \
         another device_type"
    )]
    Unknown(DeviceId),
    /// The inventory has not been read yet.
    #[error("the inventory has not been read yet; ask for device {0} again in a moment")]
    NotLoaded(DeviceId),
    /// The device is somebody else's. It says no more than that.
    #[error("device {0} does not belong to the tenant that was named")]
    OtherTenant(DeviceId),
    /// More requests wait than this process takes.
    #[error(
        "{MOST_WAITING} requests for backups wait already; ask for device {0} again in a while"
    )]
    TooMany(DeviceId),
    /// The device left the inventory, or the process stops.
    #[error("the request for device {0} was dropped: the device was removed, or the service stops")]
    Dropped(DeviceId),
}

/// A request that a worker has taken. Dropping it withdraws it: an attempt that nobody else waits
/// for, and that still queues, is not made.
#[must_use = "a request that is dropped is withdrawn"]
pub struct Accepted {
    /// The attempt that answers it. Where none is made (the device is locked, say) the reply says
    /// so, and the id is never used.
    pub attempt: AttemptId,
    device: DeviceId,
    answer: oneshot::Receiver<Reply>,
    _place: OwnedSemaphorePermit,
}

impl Accepted {
    /// Waits for what comes of it.
    ///
    /// # Errors
    /// [`RequestError::Dropped`] when there is nobody left to answer.
    pub async fn reply(self) -> Result<Reply, RequestError> {
        let answer = self.answer.await;
        answer.map_err(|_| RequestError::Dropped(self.device))
    }
}

impl Requests {
    /// Backs `device` up now, whenever it is due, and tells what came of it: [`Requests::accept`]
    /// and [`Accepted::reply`]. Cancel safe; cancelling withdraws the request.
    ///
    /// # Errors
    /// [`RequestError`] when there is nobody to ask, or nobody left to answer.
    pub async fn backup(&self, device: DeviceId) -> Result<Reply, RequestError> {
        self.accept(device, None).await?.reply().await
    }

    /// Asks for a backup of `device` now, whenever it is due; `tenant`, if it is named, must be its
    /// owner. Returns as soon as the worker has taken it.
    ///
    /// Requests for one device share one attempt, also one that is running already for another
    /// reason.
    ///
    /// # Errors
    /// [`RequestError`] when it is not taken.
    pub async fn accept(
        &self,
        device: DeviceId,
        tenant: Option<TenantId>,
    ) -> Result<Accepted, RequestError> {
        let member = self.lock().get(&device).cloned();
        let member = member.ok_or_else(|| match *self.desk.loaded.borrow() {
            true => RequestError::Unknown(device),
            false => RequestError::NotLoaded(device),
        })?;
        if tenant.is_some_and(|tenant| tenant != member.tenant) {
            return Err(RequestError::OtherTenant(device));
        }
        let place = Arc::clone(&self.desk.places).try_acquire_owned();
        let place = place.map_err(|_| RequestError::TooMany(device))?;
        let (reply, answer) = oneshot::channel();
        let (taken, attempt) = oneshot::channel();
        let dropped = RequestError::Dropped(device);
        let mailbox = member.mailbox.upgrade().ok_or(dropped)?;
        let mail = Mail::Requested { reply, taken };
        mailbox.send(mail).map_err(|_| dropped)?;
        Ok(Accepted {
            attempt: attempt.await.map_err(|_| dropped)?,
            device,
            answer,
            _place: place,
        })
    }

    /// Returns once a worker has `device`: one that has just been added gets its worker a moment
    /// later. Cancel safe.
    pub async fn appears(&self, device: DeviceId) {
        loop {
            let mut entered = std::pin::pin!(self.desk.entered.notified());
            // From here on no entering is missed.
            entered.as_mut().enable();
            if self.lock().contains_key(&device) {
                return;
            }
            entered.await;
        }
    }

    /// Returns once the inventory has been read: before that every device would be unknown.
    pub async fn loaded(&self) {
        // The sender lives as long as this.
        let _ = self
            .desk
            .loaded
            .subscribe()
            .wait_for(|loaded| *loaded)
            .await;
    }

    /// A worker has `device`, which is `tenant`'s, from now on.
    pub(super) fn enter(
        &self,
        device: DeviceId,
        tenant: TenantId,
        mailbox: WeakUnboundedSender<Mail>,
    ) {
        self.lock().insert(device, Member { mailbox, tenant });
        self.desk.entered.notify_waiters();
    }

    /// `device` has another owner.
    pub(super) fn hand_over(&self, device: DeviceId, tenant: TenantId) {
        if let Some(member) = self.lock().get_mut(&device) {
            member.tenant = tenant;
        }
    }

    /// No worker has `device` any more.
    pub(super) fn leave(&self, device: DeviceId) {
        self.lock().remove(&device);
    }

    /// Every device of the inventory has its worker.
    pub(super) fn is_loaded(&self) {
        self.desk.loaded.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, Member>> {
        // Nothing that could panic runs under the lock.
        let members = self.desk.members.lock();
        members.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
