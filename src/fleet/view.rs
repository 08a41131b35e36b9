//! What this replica knows of each device now, for metrics and status.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::Timestamp;
use crate::domain::device::DeviceId;
use crate::domain::schedule::Condition;

/// A device as this replica sees it.
#[derive(Clone, Debug)]
pub struct DeviceView {
    /// Its state while nothing is done to it.
    pub at_rest: Condition,
    /// Where there is an attempt: whether it has a slot. Until then it only waits for one.
    pub slot_held: Option<Arc<AtomicBool>>,
    /// When its last success started.
    pub last_success_at: Option<Timestamp>,
    /// When it was first seen by this process; what its age counts from before any success.
    pub known_since: Timestamp,
}

impl DeviceView {
    /// Its state: a device that waits for a slot is not worked on yet.
    pub fn state(&self) -> Condition {
        match &self.slot_held {
            Some(held) if held.load(Ordering::Relaxed) => Condition::Running,
            _ => self.at_rest,
        }
    }
}

/// The fleet as this replica sees it; workers write, metrics read.
#[derive(Clone, Default)]
pub struct FleetView {
    seats: Arc<Mutex<Seats>>,
}

#[derive(Default)]
struct Seats {
    taken: u64,
    shown: HashMap<DeviceId, (u64, DeviceView)>,
}

/// The right to say what a device is doing. A device that comes back while the worker of its former
/// row still ends an attempt has two workers for a while: the newer one counts.
pub struct Seat {
    view: FleetView,
    device: DeviceId,
    number: u64,
}

impl Seat {
    /// Notes what the device is doing.
    pub fn show(&self, view: DeviceView) {
        let mut seats = self.view.lock();
        let newer = seats.shown.get(&self.device);
        if newer.is_none_or(|(number, _)| *number <= self.number) {
            seats.shown.insert(self.device, (self.number, view));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.view.lock();
        let shown = seats.shown.get(&self.device);
        if shown.is_some_and(|(number, _)| *number == self.number) {
            seats.shown.remove(&self.device);
        }
    }
}

impl FleetView {
    fn lock(&self) -> MutexGuard<'_, Seats> {
        // A panic while holding the lock leaves a map that is still a map.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the seat of `device`; the device is forgotten when it is dropped.
    pub fn enter(&self, device: DeviceId) -> Seat {
        let mut seats = self.lock();
        seats.taken += 1;
        Seat {
            view: self.clone(),
            device,
            number: seats.taken,
        }
    }

    /// How many devices are in each state; every state is there.
    pub fn counts(&self) -> BTreeMap<Condition, usize> {
        let mut counts: BTreeMap<_, _> = Condition::ALL.iter().map(|state| (*state, 0)).collect();
        for (_, view) in self.lock().shown.values() {
            *counts.entry(view.state()).or_default() += 1;
        }
        counts
    }

    /// The longest time since a success (or since the device became known, where there was none
    /// yet); `None` for an empty fleet.
    pub fn oldest_success_age(&self, now: Timestamp) -> Option<Duration> {
        let oldest = self
            .lock()
            .shown
            .values()
            .map(|(_, view)| view.last_success_at.unwrap_or(view.known_since))
            .min();
        oldest.map(|oldest| Duration::try_from(now - oldest).unwrap_or_default())
    }
}
