//! The closed sets of label values.

use crate::domain::failure::FailureKind;
use crate::domain::request::ReplyStatus;

/// A device that came due and was not backed up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skip {
    /// Another holder has the device's lock.
    Locked,
    /// Reported offline; also when it is blocked as well.
    Offline,
    /// Blocked by a refused login.
    AuthBlocked,
    /// Blocked by a changed host key.
    HostKeyBlocked,
}

impl Skip {
    /// How a device blocked by `kind` is counted; `None` for kinds that do not block.
    pub fn blocked_by(kind: FailureKind) -> Option<Self> {
        match kind {
            FailureKind::AuthFailed => Some(Self::AuthBlocked),
            FailureKind::HostKeyMismatch => Some(Self::HostKeyBlocked),
            _ => None,
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Locked => "skipped",
            Self::Offline => "skipped_offline",
            Self::AuthBlocked => "skipped_auth_blocked",
            Self::HostKeyBlocked => "skipped_hostkey_blocked",
        }
    }
}

/// What came of asking for a device's lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockResult {
    /// It is ours.
    Obtained,
    /// Another holder has it.
    NotObtained,
    /// Nobody could be asked.
    Error,
}

impl LockResult {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Obtained => "obtained",
            Self::NotObtained => "not_obtained",
            Self::Error => "error",
        }
    }
}

/// What came of a ciphertext that OpenBao was to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decrypted {
    /// It is open.
    Success,
    /// The key does not fit, or may not be used.
    Refused,
    /// It is away, or was found to be a moment ago and was not asked.
    Unavailable,
}

impl Decrypted {
    pub(super) const ALL: [Self; 3] = [Self::Success, Self::Refused, Self::Unavailable];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How a backup was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// By a message.
    Nats,
    /// Over HTTP, the control socket included.
    Http,
}

impl Asked {
    pub(super) const ALL: [Self; 2] = [Self::Nats, Self::Http];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Http => "http",
        }
    }
}

/// What came of an export that looked cut, had stray lines or was empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suspected {
    /// It came twice, and was taken.
    Confirmed,
    /// It came in enough attempts in a row, and was taken although no second reading confirmed it.
    Recurring,
    /// A second reading neither confirmed nor refuted it: refused, and remembered.
    Unconfirmed,
    /// A second reading was another one.
    Refuted,
}

impl Suspected {
    pub(super) const ALL: [Self; 4] = [
        Self::Confirmed,
        Self::Recurring,
        Self::Unconfirmed,
        Self::Refuted,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Recurring => "recurring",
            Self::Unconfirmed => "unconfirmed",
            Self::Refuted => "refuted",
        }
    }
}

/// What whoever asked for a backup was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answered {
    /// The snapshot is durable.
    Success,
    /// The attempt failed, or none could be made.
    Failed,
    /// Another process is working on the device.
    Locked,
    /// The request was not taken: unknown device, another tenant, too many, not readable.
    Refused,
    /// Whoever asked went away before there was an answer.
    GaveUp,
}

impl Answered {
    pub(super) const ALL: [Self; 5] = [
        Self::Success,
        Self::Failed,
        Self::Locked,
        Self::Refused,
        Self::GaveUp,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Locked => "locked",
            Self::Refused => "refused",
            Self::GaveUp => "gave_up",
        }
    }
}

impl From<ReplyStatus> for Answered {
    fn from(status: ReplyStatus) -> Self {
        match status {
            ReplyStatus::Success => Self::Success,
            ReplyStatus::Failed => Self::Failed,
            ReplyStatus::Locked => Self::Locked,
        }
    }
}
