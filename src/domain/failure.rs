//! The whole error taxonomy of a backup on one screen: kinds, what each leads to, what lifts it.

use std::fmt;

use super::device::{DeviceId, Revision};

macro_rules! failure_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $disposition:ident;)*) => {
        /// Why an attempt failed. The names are stored, counted and matched on by operators.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum FailureKind { $($(#[$doc])* $kind,)* }

        impl FailureKind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The name in the journal, in logs and in metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What happens next to the device.
            pub const fn disposition(self) -> Disposition {
                match self { $(Self::$kind => Disposition::$disposition,)* }
            }
        }
    };
}

failure_kinds! {
    /// The server itself refused every method offered to it.
    AuthFailed = "auth_failed", Block;
    /// The host key is not the pinned one; no credential was sent.
    HostKeyMismatch = "host_key_mismatch", Block;
    /// The deadline passed before the first byte of output.
    Timeout = "timeout", Retry;
    /// Output began, then ended early: deadline, lost connection, or an export that is not whole.
    TruncatedOutput = "truncated_output", Retry;
    /// The TCP connection was refused.
    ConnectionRefused = "connection_refused", Retry;
    /// The connection ended before the first byte of output, during login for example, or the
    /// device opened no channel on it.
    ConnectionLost = "connection_lost", Retry;
    /// No route to the host or network.
    Unreachable = "unreachable", Retry;
    /// The DNS name has no address.
    NameNotResolved = "name_not_resolved", Retry;
    /// The row's address or port cannot be dialled.
    InvalidEndpoint = "invalid_endpoint", Retry;
    /// Client and server share no algorithm, for the session or for the signature of the user's key.
    NoCommonAlgorithm = "no_common_algorithm", Retry;
    /// What listens there broke the SSH protocol, or is no SSH server.
    Protocol = "protocol_error", Retry;
    /// The stored credentials could not be opened or read.
    CredentialsUnreadable = "credentials_unreadable", Retry;
    /// The device let us in, but its policy does not allow the export.
    PermissionDenied = "permission_denied", Retry;
    /// What the device printed is not an export: an error text, a banner, something else.
    NotAnExport = "not_an_export", Retry;
    /// More output than `CONFIG_BACKUP_MAX_EXPORT_BYTES`.
    ExportTooLarge = "export_too_large", Retry;
    /// The snapshot was whole, but could not be delivered.
    PublishFailed = "publish_failed", Retry;
    /// The snapshot was kept to be published later, and got lost: Redis was restarted without it.
    SnapshotLost = "snapshot_lost", Retry;
    /// Our own fault: a task panicked.
    Internal = "internal", Retry;
    /// Anything else, with its source chain in the text.
    Unknown = "unknown", Retry;
}

/// Whose hands an operator uses to unblock a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// The shared database: SQL.
    Sql,
    /// The store of embedded mode: this program's own commands.
    Commands,
}

/// What a failure leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// Try again by the back-off ladder.
    Retry,
    /// Wait for an operator; time alone changes nothing.
    Block,
}

impl FailureKind {
    /// Reads a stored name; one that a newer version wrote is [`FailureKind::Unknown`].
    pub fn from_name(name: &str) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.as_str() == name)
            .unwrap_or(Self::Unknown)
    }

    /// Whether this kind blocks the device.
    pub fn blocks(self) -> bool {
        self.disposition() == Disposition::Block
    }

    /// Whether an edit of the device from `old` to `new` may have cured this failure.
    ///
    /// Credentials answer a refused login, credentials that could not be opened, and a key for whose
    /// signature there is no algorithm; the pin answers a host key mismatch, address or port answer
    /// everything.
    pub fn answered_by(self, old: &Revision, new: &Revision) -> bool {
        let endpoint = old.endpoint != new.endpoint;
        let specific = match self {
            Self::AuthFailed
            | Self::CredentialsUnreadable
            | Self::PermissionDenied
            | Self::NoCommonAlgorithm => old.credentials != new.credentials,
            Self::HostKeyMismatch => old.pin != new.pin,
            _ => false,
        };
        endpoint || specific
    }

    /// What the operator should do about the device, which is called `name`; for kinds that wait
    /// for an operator.
    pub fn remedy(self, advice: Advice, device: DeviceId, name: &str) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        // What a shell would take apart is named by its id.
        let typed = if name.chars().all(plain) && !name.starts_with('-') && !name.is_empty() {
            name.to_owned()
        } else {
            device.to_string()
        };
        match (advice, self) {
            (Advice::Commands, Self::AuthFailed) => Some(format!(
                "store working credentials for the device with `mikrotik-backup devices edit \
                 {typed} --user …`, or correct user, password and policy on the router and run \
                 `mikrotik-backup retry {typed}`"
            )),
            (Advice::Commands, Self::HostKeyMismatch) => Some(format!(
                "find out why the host key changed; if the change is genuine, `mikrotik-backup \
                 host-key show {typed}` tells how to accept it"
            )),
            (Advice::Sql, Self::AuthFailed) => Some(format!(
                "store working credentials for the device (UPDATE devices SET \
                 encrypted_credentials = … WHERE id = '{device}', or its credential profile), or \
                 correct user, password and policy on the router and store them again"
            )),
            (Advice::Sql, Self::HostKeyMismatch) => Some(format!(
                "find out why the host key changed; if the change is genuine, trust the next key \
                 seen with: UPDATE devices SET ssh_host_key_fingerprint = NULL WHERE id = '{device}'"
            )),
            _ => None,
        }
    }

    /// `text` without what to do about it, in whichever mode, and about a device of whichever name,
    /// it was written.
    pub fn without_remedy(self, text: &str) -> &str {
        let begins = match self {
            Self::AuthFailed => "; store working credentials for the device",
            Self::HostKeyMismatch => "; find out why the host key changed",
            _ => return text,
        };
        text.rfind(begins).map_or(text, |at| &text[..at])
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed attempt: its kind, and a text for the operator with the whole source chain in it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// Operation, subject, cause and what to do next; never a secret, never configuration text.
    pub message: String,
}

impl Failure {
    /// A failure with a finished text.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// A failure whose text is `error` and its chain of sources, joined by `: `.
    pub fn from_error(kind: FailureKind, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(kind, chain(error))
    }
}

/// `error` and its sources in one line, joined by `: `.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their source in their own text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::digest::Digest;

    fn revision(endpoint: &str, credentials: &str, pin: &str) -> Revision {
        Revision {
            endpoint: Digest::of(endpoint),
            credentials: Digest::of(credentials),
            pin: Digest::of(pin),
        }
    }

    #[test]
    fn only_refused_logins_and_changed_keys_block() {
        let blocking: Vec<_> = FailureKind::ALL
            .iter()
            .filter(|kind| kind.blocks())
            .collect();
        assert_eq!(
            blocking,
            [&FailureKind::AuthFailed, &FailureKind::HostKeyMismatch]
        );
    }

    #[test]
    fn every_blocking_kind_tells_the_operator_what_to_do() {
        let device = DeviceId(uuid::Uuid::from_u128(7));
        for kind in FailureKind::ALL {
            for (advice, name) in [
                (Advice::Sql, "edge-1"),
                (Advice::Commands, "edge-1"),
                (Advice::Commands, "edge 1; reboot"),
                (Advice::Commands, "--all"),
            ] {
                let remedy = kind.remedy(advice, device, name);
                assert_eq!(remedy.is_some(), kind.blocks(), "{kind}");
                let Some(remedy) = remedy else { continue };
                let by_name = advice == Advice::Commands && name == "edge-1";
                let subject = if by_name {
                    name.to_owned()
                } else {
                    device.to_string()
                };
                assert!(remedy.contains(&subject), "{remedy}");
                let sql = remedy.contains("UPDATE devices");
                assert_eq!(sql, advice == Advice::Sql, "{remedy}");
                assert_ne!(sql, remedy.contains("`mikrotik-backup "), "{remedy}");
                assert!(
                    !remedy.contains("reboot") && !remedy.contains("--all"),
                    "{remedy}"
                );
                let text = format!("it said no; or so; {remedy}");
                assert_eq!(kind.without_remedy(&text), "it said no; or so");
            }
            assert_eq!(kind.without_remedy("it said no"), "it said no");
        }
    }

    #[test]
    fn names_survive_a_round_trip_and_strangers_are_unknown() {
        for kind in FailureKind::ALL {
            assert_eq!(FailureKind::from_name(kind.as_str()), *kind);
        }
        assert_eq!(
            FailureKind::from_name("from_a_newer_version"),
            FailureKind::Unknown
        );
    }

    #[test]
    fn each_edit_answers_what_it_may_have_cured() {
        let old = revision("a", "b", "c");
        for kind in FailureKind::ALL {
            assert!(!kind.answered_by(&old, &old), "{kind}: nothing was edited");
            assert!(
                kind.answered_by(&old, &revision("A", "b", "c")),
                "{kind}: endpoint"
            );
        }
        let credentials = revision("a", "B", "c");
        let pin = revision("a", "b", "C");
        assert!(FailureKind::AuthFailed.answered_by(&old, &credentials));
        assert!(!FailureKind::AuthFailed.answered_by(&old, &pin));
        assert!(FailureKind::NoCommonAlgorithm.answered_by(&old, &credentials));
        assert!(FailureKind::HostKeyMismatch.answered_by(&old, &pin));
        assert!(!FailureKind::HostKeyMismatch.answered_by(&old, &credentials));
        assert!(!FailureKind::Timeout.answered_by(&old, &credentials));
    }
}
