//! What this replica knows of each device now, for metrics and status.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::Timestamp;
use crate::domain::device::DeviceId;
use crate::domain::schedule::Condition;

/// A device as this replica sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceView {
    /// Its state.
    pub state: Condition,
    /// When its last success started.
    pub last_success_at: Option<Timestamp>,
    /// When it was first seen by this process; what its age counts from before any success.
    pub known_since: Timestamp,
}

/// The fleet as this replica sees it; workers write, metrics read.
#[derive(Clone, Default)]
pub struct FleetView {
    devices: Arc<Mutex<HashMap<DeviceId, DeviceView>>>,
}

impl FleetView {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, DeviceView>> {
        // A panic while holding the lock leaves a map that is still a map.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a device is doing.
    pub fn set(&self, device: DeviceId, view: DeviceView) {
        self.lock().insert(device, view);
    }

    /// Forgets a device that left the inventory.
    pub fn forget(&self, device: DeviceId) {
        self.lock().remove(&device);
    }

    /// How many devices are in each state; every state is there.
    pub fn counts(&self) -> BTreeMap<Condition, usize> {
        let mut counts: BTreeMap<_, _> = Condition::ALL.iter().map(|state| (*state, 0)).collect();
        for view in self.lock().values() {
            *counts.entry(view.state).or_default() += 1;
        }
        counts
    }

    /// The longest time since a success (or since the device became known, where there was none
    /// yet); `None` for an empty fleet.
    pub fn oldest_success_age(&self, now: Timestamp) -> Option<Duration> {
        let oldest = self
            .lock()
            .values()
            .map(|view| view.last_success_at.unwrap_or(view.known_since))
            .min();
        oldest.map(|oldest| Duration::try_from(now - oldest).unwrap_or_default())
    }
}
