//! A mirror of the archive in git: whatever the archive stores is committed there too, a moment
//! later and without the archive waiting for it.
//!
//! The archive is the truth and the mirror follows it: for each device that was stored it asks the
//! archive which versions are newer than what git has, and commits these, oldest first. So arrivals
//! that are late, or come twice, change nothing, and what was missed (a kill between the two, a full
//! disk, a lock) is caught up with at the next start or the next snapshot of the device. What git has
//! is found by its text; a mirror that has none of the last [`FAR_BACK`] texts, such as one
//! that was switched on later, begins with the newest, and the commit says so.

mod message;
mod mirrored;
mod worker;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::adapters::git::{GitMirror, tenant_folder};
use crate::domain::device::{DeviceId, TenantId};
use crate::metrics::mirror::MirrorMetrics;
use crate::ports::{Archive, StoreError};

pub use mirrored::Mirrored;

/// How many versions of a device are looked at for the one that git has.
pub const FAR_BACK: u32 = 200;

/// How long a mirror that could not be written is left alone, if no snapshot comes meanwhile.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// What a device is called, and where its file goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The folder: its group, or else its tenant's.
    pub folder: String,
    /// Its name.
    pub name: String,
}

impl Place {
    /// The place of a device in `group`, or else in its tenant's folder.
    pub fn new(name: String, group: Option<String>, tenant: TenantId) -> Self {
        let group = group.filter(|group| !group.is_empty());
        Self {
            folder: group.unwrap_or_else(|| tenant_folder(tenant.0)),
            name,
        }
    }
}

/// Asks the inventory for the place of a device; `None` when it does not know the device.
pub type Places =
    Arc<dyn Fn(DeviceId) -> BoxFuture<'static, Result<Option<Place>, StoreError>> + Send + Sync>;

/// Tells a mirror what was stored. Clones tell the same mirror.
#[derive(Clone, Default)]
pub struct Mirror {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    /// There is something to do, or the end was asked for.
    changed: Notify,
    /// The worker has done what it can for now.
    rested: Notify,
}

#[derive(Default)]
struct Pending {
    devices: BTreeSet<DeviceId>,
    /// Every device of the archive is to be looked at.
    all: bool,
    /// The worker has one in hand.
    working: bool,
    /// Nobody waits for a mirror that cannot be written.
    in_trouble: bool,
}

impl Mirror {
    /// The device has a snapshot in the archive that git may not have. Never waits.
    pub fn changed(&self, device: DeviceId) {
        self.shared.pending().devices.insert(device);
        self.shared.changed.notify_one();
    }

    /// Any device may have versions that git does not have: looks at all of them.
    pub fn catch_up(&self) {
        self.shared.pending().all = true;
        self.shared.changed.notify_one();
    }

    /// Waits until everything that was stored is in git, or it shows that it cannot be now, or
    /// `limit` is over.
    pub async fn settled(&self, limit: Duration) {
        let settled = async {
            loop {
                let rested = self.shared.rested.notified();
                tokio::pin!(rested);
                rested.as_mut().enable();
                {
                    let pending = self.shared.pending();
                    let idle = pending.devices.is_empty() && !pending.all;
                    if !pending.working && (idle || pending.in_trouble) {
                        return;
                    }
                }
                rested.await;
            }
        };
        // What is not there in time is caught up with next time.
        let _ = tokio::time::timeout(limit, settled).await;
    }

    /// Follows `archive` into `git` until what it returns is dropped.
    pub fn follow(
        &self,
        git: GitMirror,
        archive: Arc<dyn Archive>,
        places: Places,
        metrics: MirrorMetrics,
    ) -> Following {
        let worker = worker::Worker::new(self.shared.clone(), git, archive, places, metrics);
        Following(tokio::spawn(worker.run()))
    }
}

/// The task that writes the mirror; it ends when this is dropped. A commit is made or not.
pub struct Following(tokio::task::JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
