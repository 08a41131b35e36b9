//! Backups that somebody asks for: finds the device's worker, and brings back what came of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::WeakUnboundedSender;
use tokio::sync::{Notify, oneshot};

use super::worker::Mail;
use crate::domain::attempt::LastAttempt;
use crate::domain::device::DeviceId;
use crate::domain::request::Reply;

/// The way to the workers. Clones are the same one.
#[derive(Clone, Default)]
pub struct Requests {
    desk: Arc<Desk>,
}

#[derive(Default)]
struct Desk {
    /// Weak: it is the reconciler that keeps workers alive.
    mailboxes: Mutex<HashMap<DeviceId, WeakUnboundedSender<Mail>>>,
    entered: Notify,
}

/// A request that no worker answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// No worker has the device.
    #[error(
        "device {0} is not backed up here: it is not in the inventory, has no credentials, or is \
         of another device_type"
    )]
    Unknown(DeviceId),
    /// The device left the inventory, or the process stops.
    #[error("the request for device {0} was dropped: the device was removed, or the service stops")]
    Dropped(DeviceId),
}

impl Requests {
    /// Backs `device` up now, whenever it is due, and tells what came of it.
    ///
    /// Requests for one device share one attempt, also one that is running already for another
    /// reason. Cancel safe; an attempt that was asked for is made all the same.
    ///
    /// # Errors
    /// [`RequestError`] when there is nobody to ask, or nobody left to answer.
    pub async fn backup(&self, device: DeviceId) -> Result<Reply, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.post(device, Mail::Requested { reply })?;
        answer.await.map_err(|_| RequestError::Dropped(device))
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

    /// Tells the device's worker, if there is one here, that what is stored of its last attempt
    /// changed.
    pub(super) fn revise(&self, device: DeviceId, last: LastAttempt) {
        // Without a worker there is no schedule to put right.
        let _ = self.post(device, Mail::Revised(Box::new(last)));
    }

    fn post(&self, device: DeviceId, mail: Mail) -> Result<(), RequestError> {
        let mailbox = self.lock().get(&device).cloned();
        let mailbox = mailbox.ok_or(RequestError::Unknown(device))?;
        let mailbox = mailbox.upgrade().ok_or(RequestError::Dropped(device))?;
        let posted = mailbox.send(mail);
        posted.map_err(|_| RequestError::Dropped(device))
    }

    /// A worker has `device` from now on.
    pub(super) fn enter(&self, device: DeviceId, mailbox: WeakUnboundedSender<Mail>) {
        self.lock().insert(device, mailbox);
        self.desk.entered.notify_waiters();
    }

    /// No worker has `device` any more.
    pub(super) fn leave(&self, device: DeviceId) {
        self.lock().remove(&device);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, WeakUnboundedSender<Mail>>> {
        // Nothing that could panic runs under the lock.
        let mailboxes = self.desk.mailboxes.lock();
        mailboxes.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
