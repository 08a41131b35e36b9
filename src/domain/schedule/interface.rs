//! What goes into a schedule and what comes out of it.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::domain::attempt::{Cause, Deferral, LastAttempt};
use crate::domain::device::Revision;
use crate::domain::failure::FailureKind;

/// The delays of the schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Between the starts of two backups of a device.
    pub interval: Duration,
    /// A device never tried before waits at least this long …
    pub jitter_min: Duration,
    /// … and at most this long.
    pub jitter_max: Duration,
    /// Until a device that was offline or contended is looked at again; a quarter of the interval
    /// where that is shorter.
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
    /// What is stored of the last attempt is another thing now: its snapshot, which had been kept to
    /// be published later, will not be.
    Revised(Box<LastAttempt>),
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

/// The state of a device in one word, for the gauge of devices by state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Condition {
    /// Not tried yet, or not since an edit answered its last failure.
    New,
    /// The last attempt brought a snapshot.
    Ok,
    /// The last attempt failed; the ladder says when to retry.
    Failing,
    /// Waits for an operator.
    Blocked,
    /// An attempt is running.
    Running,
}

impl Condition {
    /// Every condition.
    pub const ALL: &'static [Self] = &[
        Self::New,
        Self::Ok,
        Self::Failing,
        Self::Blocked,
        Self::Running,
    ];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Blocked => "blocked",
            Self::Running => "running",
        }
    }
}
