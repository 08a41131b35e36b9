//! One try at backing up one device: why it was made, what came of it, and what is recorded.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;
use super::device::{DeviceId, Revision, TenantId};
use super::digest::Digest;
use super::failure::{Failure, FailureKind};
use super::host_key::Fingerprint;
use super::session::Observed;
use super::snapshot::Shape;

/// Identifies one attempt. It is made before anything is published, and is the `Nats-Msg-Id`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptId(pub Uuid);

impl AttemptId {
    /// A fresh id; ids made later sort later (UUID version 7, RFC 9562).
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An enum of plain names that are stored and printed.
macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $type { $($(#[$vdoc])* $variant,)* }

        impl $type {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stored name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Reads a stored name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named! {
    /// Why an attempt is made.
    Cause {
        /// The interval has passed, or the device is new.
        Scheduled = "scheduled",
        /// The last attempt failed and the ladder says so.
        Retry = "retry",
        /// An edit answered the last failure.
        Edited = "edited",
        /// Somebody asked for it.
        Manual = "manual",
    }
}

named! {
    /// A step of an attempt, in the order in which they are taken.
    Step {
        /// Asking whether the device is online.
        Presence = "presence",
        /// Waiting for one of this process's slots.
        Slot = "slot",
        /// Taking the device's lease, reading its row afresh and opening its credentials.
        Lock = "lock",
        /// Name resolution, TCP, key exchange, host key comparison.
        Connect = "connect",
        /// Logging in, and pinning a first host key.
        Authenticate = "authenticate",
        /// Running the export until it is whole.
        Export = "export",
        /// Normalising and hashing.
        Normalise = "normalise",
        /// Delivering with acknowledgement.
        Publish = "publish",
    }
}

named! {
    /// The outcome of an attempt as it is stored.
    Status {
        /// Delivered and acknowledged.
        Success = "success",
        /// Whole and safe in the outbox; becomes `success` when it is delivered.
        Queued = "queued",
        /// Failed, with a kind.
        Failed = "failed",
        /// The process was told to stop, or died.
        Interrupted = "interrupted",
    }
}

/// A step and how long it took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepTime {
    /// Which step.
    pub step: Step,
    /// Its duration.
    pub took: Duration,
}

/// What came of an attempt that was really made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Delivered and acknowledged.
    Delivered(Taken),
    /// Whole and safe in the outbox.
    Queued(Taken),
    /// Failed.
    Failed(Failure),
    /// Ended before it was done, through no fault of the device.
    Interrupted {
        /// What ended it.
        reason: String,
    },
}

impl Outcome {
    /// The stored status.
    pub fn status(&self) -> Status {
        match self {
            Self::Delivered(_) => Status::Success,
            Self::Queued(_) => Status::Queued,
            Self::Failed(_) => Status::Failed,
            Self::Interrupted { .. } => Status::Interrupted,
        }
    }

    /// The failure, if it is one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Delivered(_) | Self::Queued(_) | Self::Interrupted { .. } => None,
        }
    }

    /// What was taken, if the snapshot was whole.
    pub fn taken(&self) -> Option<&Taken> {
        match self {
            Self::Delivered(taken) | Self::Queued(taken) => Some(taken),
            Self::Failed(_) | Self::Interrupted { .. } => None,
        }
    }
}

/// What is remembered of a snapshot after it was delivered or queued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// SHA-256 of the normalised text.
    pub hash: Digest,
    /// Its length in bytes.
    pub bytes: u64,
    /// The version in its header.
    pub routeros_version: String,
    /// Its form.
    pub shape: Shape,
    /// Menus that are missing in it, because the router could not export them.
    pub incomplete_menus: Vec<String>,
    /// Why it was read more than once before it was believed.
    pub warning: Option<String>,
}

impl Taken {
    /// What to know of it all the same, for people; `None` when nothing is odd.
    pub fn remark(&self) -> Option<String> {
        let incomplete = match self.incomplete_menus.as_slice() {
            [] => None,
            menus => Some(format!(
                "incomplete: the router could not export {}",
                menus.join(", ")
            )),
        };
        let parts: Vec<String> = incomplete.into_iter().chain(self.warning.clone()).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// Why no attempt was made. A deferral says nothing about the device and leaves its record alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deferral {
    /// Presence says that the device is offline.
    Offline,
    /// Another replica, or another task here, holds the device's lease.
    Contended,
    /// The device has left the inventory.
    Gone,
    /// Another replica made an attempt since; its record is what counts now.
    Superseded(Box<LastAttempt>),
    /// Something that the attempt needs is away.
    Unavailable {
        /// Which dependency, and what it said.
        reason: String,
    },
    /// One connection more, and the router's firewall might take us for an attacker.
    RateLimited {
        /// When one may be made again.
        until: Timestamp,
        /// How long that is from now.
        wait: Duration,
    },
    /// The process is stopping and nothing had been started.
    Stopping,
}

impl Deferral {
    /// A stable name for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Contended => "contended",
            Self::Gone => "gone",
            Self::Superseded(_) => "superseded",
            Self::Unavailable { .. } => "unavailable",
            Self::RateLimited { .. } => "rate_limited",
            Self::Stopping => "stopping",
        }
    }
}

/// The last attempt at a device, as stored: all that a schedule needs after a restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastAttempt {
    /// Its id.
    pub id: AttemptId,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What came of it.
    pub status: Status,
    /// The kind, when it failed.
    pub failure: Option<FailureKind>,
    /// Failures in a row up to and including this one.
    pub consecutive_failures: u32,
    /// What the device looked like to it.
    pub revision: Revision,
    /// When the last success started, if there was one.
    pub last_success_at: Option<Timestamp>,
    /// Attempts in a row, this one included, whose process was gone before it recorded their end.
    pub deaths: u32,
}

/// Everything that is recorded of one finished attempt, in one statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttemptRecord {
    /// Its id.
    pub id: AttemptId,
    /// The device.
    pub device: DeviceId,
    /// Its owner.
    pub tenant: TenantId,
    /// Why it was made.
    pub cause: Cause,
    /// From the claim to the end; the store subtracts it from its own clock.
    pub elapsed: Duration,
    /// From the end to now: none, unless the record had to wait for the database.
    pub ended_ago: Duration,
    /// What the device looked like to it.
    pub revision: Revision,
    /// What came of it.
    pub outcome: Outcome,
    /// The host key that the device offered, if it came that far.
    pub offered_key: Option<Fingerprint>,
    /// Each step with its duration, in order.
    pub steps: Vec<StepTime>,
    /// How often each normalisation rule dropped something.
    pub ledger: std::collections::BTreeMap<String, u64>,
    /// Failures in a row, this one included.
    pub consecutive_failures: u32,
    /// The failure that nothing has answered yet, and what the device looked like to it: a block
    /// outlives a requested try that fails for another reason. This is what the device's state
    /// keeps as its failure and revision while there is one.
    pub standing: Option<(FailureKind, Revision)>,
    /// From the end of the attempt to the next time the device comes due.
    pub next_due_in: Duration,
    /// What the session showed beside its outcome.
    pub observed: Observed,
    /// It is queued, and this process holds its snapshot because the outbox cannot be reached.
    pub held: bool,
}
