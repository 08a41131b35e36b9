//! The closed sets of label values.

use crate::domain::failure::FailureKind;

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
