//! One device's backup loop as a state machine: when the next attempt is due, and why.

use std::time::Duration;

use super::Timestamp;
use super::attempt::{Cause, Deferral, LastAttempt};
use super::device::{DeviceId, Revision};
use super::failure::FailureKind;

/// A sample in `[0, 1)` that the caller drew.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Draw(f64);

impl Draw {
    /// Takes a sample; values outside `[0, 1)` are brought back into it.
    pub fn new(sample: f64) -> Self {
        if sample.is_finite() {
            Self(sample.clamp(0.0, 1.0 - f64::EPSILON))
        } else {
            Self(0.0)
        }
    }

    /// The sample.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The delays of the schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Between the starts of two backups of a device.
    pub interval: Duration,
    /// A device never tried before waits at least this long …
    pub jitter_min: Duration,
    /// … and at most this long.
    pub jitter_max: Duration,
    /// Until a device that was offline or contended is looked at again.
    pub recheck: Duration,
}

/// Something that happened to a device.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// An attempt began.
    Began,
    /// The attempt ended.
    Finished(Finish),
    /// A blocked device came due; it was counted and logged, not tried.
    Skipped,
    /// The device's row changed to this revision.
    Edited(Revision),
    /// Somebody asked for a backup now.
    Requested,
    /// The device left the inventory.
    Removed,
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Finish {
    /// It was made: what came of it, when it started, what the device looked like to it.
    Made {
        /// When it started.
        started_at: Timestamp,
        /// What the device looked like to it.
        revision: Revision,
        /// What came of it.
        result: Made,
    },
    /// It was not made.
    Deferred(Deferral),
}

/// What came of an attempt that was made, as far as the schedule cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Made {
    /// Delivered, or safe in the outbox.
    Taken,
    /// Failed.
    Failed(FailureKind),
    /// Told to stop.
    Interrupted,
}

/// What to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Attempt the device at this time.
    Attempt {
        /// When.
        at: Timestamp,
        /// Why.
        cause: Cause,
    },
    /// Count and log that the device is blocked, without trying it, at this time.
    Skip {
        /// When.
        at: Timestamp,
        /// What blocks it.
        kind: FailureKind,
    },
    /// An attempt is running: wait for it.
    Wait,
    /// The device is gone.
    Done,
}

/// The schedule of one device.
#[derive(Clone, PartialEq, Debug)]
pub struct Schedule {
    policy: Policy,
    device: DeviceId,
}

impl Schedule {
    /// Rebuilds the schedule from what is stored. Nothing is repeated that is not due.
    pub fn resume(
        policy: Policy,
        device: DeviceId,
        revision: Revision,
        last: Option<&LastAttempt>,
        now: Timestamp,
        draw: Draw,
    ) -> Self {
        let _ = (revision, last, now, draw);
        Self { policy, device }
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, event: Event, now: Timestamp, draw: Draw) {
        let _ = (event, now, draw);
    }

    /// What to wait for now.
    pub fn next(&self) -> Next {
        Next::Wait
    }

    /// Failures in a row.
    pub fn consecutive_failures(&self) -> u32 {
        0
    }
}
