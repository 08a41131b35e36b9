//! What went wrong on a connection: the evidence, its kind, and a text for the operator.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::domain::failure::FailureKind;
use crate::domain::host_key::{Fingerprint, HostKeyMismatch};

/// How far a connection had come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Looking up the name.
    Resolve,
    /// TCP.
    Connect,
    /// Greeting and key exchange.
    Handshake,
    /// From the first authentication request to the last answer.
    Login,
    /// Running a command that has not printed anything.
    Command,
    /// Running a command that has begun to print.
    Output,
}

impl Stage {
    fn operation(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect to",
            Self::Handshake => "exchange keys with",
            Self::Login => "log in to",
            Self::Command => "run a command on",
            Self::Output => "read the whole output of a command on",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Handshake => "key exchange",
            Self::Login => "login",
            Self::Command | Self::Output => "command",
        }
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// The row's address or port cannot be dialled.
    BadEndpoint,
    /// The name has no address.
    NoAddress,
    /// The operating system said so.
    Io(io::ErrorKind),
    /// The deadline passed.
    Deadline,
    /// The peer closed the connection or sent a disconnect message.
    Ended,
    /// The host key is not the pinned one.
    HostKey,
    /// Nothing in common.
    NoCommonAlgorithm,
    /// The peer broke the protocol, or does not speak it.
    Protocol,
    /// The server itself refused every method.
    Refused,
    /// The login cannot be used.
    Credentials,
    /// The server lets us in, but not do this.
    Denied,
    /// The server lets us in, and has no channel for a command, or not now.
    NoChannel,
    /// More output than allowed.
    TooLarge,
    /// A fault of our side.
    Defect,
}

/// Every evidence has one kind.
pub(super) fn classify(stage: Stage, trouble: Trouble) -> FailureKind {
    let kind = match trouble {
        Trouble::BadEndpoint => FailureKind::InvalidEndpoint,
        Trouble::NoAddress => FailureKind::NameNotResolved,
        Trouble::Io(kind) => classify_io(stage, kind),
        Trouble::Deadline => FailureKind::Timeout,
        Trouble::Ended => FailureKind::ConnectionLost,
        Trouble::HostKey => FailureKind::HostKeyMismatch,
        Trouble::NoCommonAlgorithm => FailureKind::NoCommonAlgorithm,
        Trouble::Protocol => FailureKind::Protocol,
        Trouble::Refused => FailureKind::AuthFailed,
        Trouble::Credentials => FailureKind::CredentialsUnreadable,
        Trouble::Denied => FailureKind::PermissionDenied,
        // As where it closes the connection because it has no session to spare.
        Trouble::NoChannel => FailureKind::ConnectionLost,
        Trouble::TooLarge => FailureKind::ExportTooLarge,
        Trouble::Defect => FailureKind::Unknown,
    };
    match (stage, kind) {
        (Stage::Output, FailureKind::ExportTooLarge | FailureKind::HostKeyMismatch) => kind,
        // Whatever ends an output that has begun has cut it.
        (Stage::Output, _) => FailureKind::TruncatedOutput,
        _ => kind,
    }
}

fn classify_io(stage: Stage, kind: io::ErrorKind) -> FailureKind {
    use io::ErrorKind as Io;
    match (kind, stage) {
        (Io::ConnectionRefused, Stage::Connect) => FailureKind::ConnectionRefused,
        (Io::HostUnreachable | Io::NetworkUnreachable | Io::NetworkDown, _) => {
            FailureKind::Unreachable
        }
        // No local address to reach it from: no IPv6 on this machine, for example.
        (Io::AddrNotAvailable, Stage::Connect) => FailureKind::Unreachable,
        (Io::TimedOut, _) => FailureKind::Timeout,
        (
            Io::ConnectionRefused
            | Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::NotConnected
            | Io::BrokenPipe
            | Io::UnexpectedEof,
            _,
        ) => FailureKind::ConnectionLost,
        (_, Stage::Resolve) => FailureKind::NameNotResolved,
        _ => FailureKind::Unknown,
    }
}

impl From<&russh::Error> for Trouble {
    fn from(error: &russh::Error) -> Self {
        use russh::{ChannelOpenFailure as Refusal, Error as E};
        match error {
            E::NoCommonAlgo { .. } => Self::NoCommonAlgorithm,
            E::UnknownKey | E::KeyChanged { .. } => Self::HostKey,
            E::IO(error) => Self::Io(error.kind()),
            E::Disconnect | E::HUP | E::SendError | E::RecvError => Self::Ended,
            E::ConnectionTimeout
            | E::KeepaliveTimeout
            | E::InactivityTimeout
            | E::Elapsed(_) => Self::Deadline,
            // Only this reason speaks of a right (RFC 4254, section 5.1); the others are a lack.
            E::ChannelOpenFailure(Refusal::AdministrativelyProhibited) | E::RequestDenied => {
                Self::Denied
            }
            E::ChannelOpenFailure(
                Refusal::ConnectFailed
                | Refusal::UnknownChannelType
                | Refusal::ResourceShortage
                | Refusal::Other { .. },
            ) => Self::NoChannel,
            E::Version
            | E::KexInit
            | E::UnknownAlgo
            | E::Kex
            | E::PacketAuth
            | E::Inconsistent
            | E::IndexOutOfBounds
            | E::WrongServerSig
            | E::PacketSize(_)
            | E::WrongChannel
            | E::NotAuthenticated
            | E::Pending
            | E::DecryptionError
            | E::Utf8(_)
            | E::StrictKeyExchangeViolation { .. }
            | E::Signature(_)
            | E::SshKey(_)
            | E::SshEncoding(_)
            // The keys that reach russh in these stages are the server's: ours are read before.
            | E::CouldNotReadKey
            | E::Keys(_)
            // A server that names no method to go on with. Whether that refuses a secret, only the
            // login itself can tell.
            | E::NoAuthMethod
            | E::UnsupportedAuthMethod => Self::Protocol,
            E::NoHomeDir | E::Join(_) | E::InvalidConfig(_) => Self::Defect,
        }
    }
}

/// A connection, a login or a command that failed.
#[derive(Debug)]
pub struct SshError {
    kind: FailureKind,
    stage: Stage,
    timed_out: bool,
    received: u64,
    endpoint: String,
    detail: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl SshError {
    pub(super) fn new(stage: Stage, endpoint: impl fmt::Display, trouble: Trouble) -> Self {
        Self {
            kind: classify(stage, trouble),
            stage,
            timed_out: matches!(trouble, Trouble::Deadline),
            received: 0,
            endpoint: endpoint.to_string(),
            detail: None,
            source: None,
        }
    }

    /// Adds what happened in words, and what to do about it.
    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(super) fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds how many bytes of a command's output had come.
    pub(super) fn received(mut self, bytes: usize) -> Self {
        self.received = bytes as u64;
        self
    }

    /// How many bytes of a command's output had come when it failed.
    pub fn received_bytes(&self) -> u64 {
        self.received
    }

    /// Whether time was up: that of the session, or that for the device's silence. Where output had
    /// come, its kind is `truncated_output` all the same.
    pub fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// The kind of failure that an attempt ends with.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The step that failed, in a word or two.
    pub fn step(&self) -> &'static str {
        if self.kind == FailureKind::HostKeyMismatch {
            "host key"
        } else {
            self.stage.name()
        }
    }

    /// Pin and offered key, when the host key was not the pinned one. No credential was sent.
    pub fn mismatch(&self) -> Option<&HostKeyMismatch> {
        self.source.as_deref()?.downcast_ref()
    }

    /// The fingerprint that the device offered, when it was not the pinned one.
    pub fn offered(&self) -> Option<&Fingerprint> {
        Some(&self.mismatch()?.offered)
    }
}

impl fmt::Display for SshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {} {}", self.stage.operation(), self.endpoint)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl StdError for SshError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind as Io;

    use super::*;
    use crate::domain::failure::chain;
    use crate::domain::host_key::Pin;

    const STAGES: [Stage; 6] = [
        Stage::Resolve,
        Stage::Connect,
        Stage::Handshake,
        Stage::Login,
        Stage::Command,
        Stage::Output,
    ];

    #[test]
    fn each_evidence_has_the_kind_that_an_operator_would_name() {
        use FailureKind as K;
        for (stage, trouble, kind) in [
            (Stage::Connect, Trouble::BadEndpoint, K::InvalidEndpoint),
            (Stage::Resolve, Trouble::NoAddress, K::NameNotResolved),
            (Stage::Resolve, Trouble::Io(Io::Other), K::NameNotResolved),
            (
                Stage::Connect,
                Trouble::Io(Io::ConnectionRefused),
                K::ConnectionRefused,
            ),
            (
                Stage::Connect,
                Trouble::Io(Io::HostUnreachable),
                K::Unreachable,
            ),
            (
                Stage::Connect,
                Trouble::Io(Io::NetworkUnreachable),
                K::Unreachable,
            ),
            (Stage::Connect, Trouble::Io(Io::TimedOut), K::Timeout),
            (Stage::Connect, Trouble::Io(Io::Other), K::Unknown),
            (Stage::Connect, Trouble::Deadline, K::Timeout),
            (Stage::Handshake, Trouble::Ended, K::ConnectionLost),
            (
                Stage::Handshake,
                Trouble::Io(Io::ConnectionReset),
                K::ConnectionLost,
            ),
            (Stage::Handshake, Trouble::Io(Io::TimedOut), K::Timeout),
            (Stage::Handshake, Trouble::HostKey, K::HostKeyMismatch),
            (
                Stage::Handshake,
                Trouble::NoCommonAlgorithm,
                K::NoCommonAlgorithm,
            ),
            (Stage::Handshake, Trouble::Protocol, K::Protocol),
            (Stage::Login, Trouble::Refused, K::AuthFailed),
            (Stage::Login, Trouble::Ended, K::ConnectionLost),
            (
                Stage::Login,
                Trouble::Io(Io::UnexpectedEof),
                K::ConnectionLost,
            ),
            (Stage::Login, Trouble::Deadline, K::Timeout),
            (Stage::Login, Trouble::Credentials, K::CredentialsUnreadable),
            (Stage::Command, Trouble::Denied, K::PermissionDenied),
            (Stage::Command, Trouble::NoChannel, K::ConnectionLost),
            (Stage::Command, Trouble::Deadline, K::Timeout),
            (Stage::Command, Trouble::Ended, K::ConnectionLost),
            (Stage::Command, Trouble::Defect, K::Unknown),
            (Stage::Output, Trouble::Deadline, K::TruncatedOutput),
            (Stage::Output, Trouble::Ended, K::TruncatedOutput),
            (Stage::Output, Trouble::Io(Io::TimedOut), K::TruncatedOutput),
            (
                Stage::Output,
                Trouble::Io(Io::BrokenPipe),
                K::TruncatedOutput,
            ),
            (Stage::Output, Trouble::Protocol, K::TruncatedOutput),
            (Stage::Output, Trouble::TooLarge, K::ExportTooLarge),
        ] {
            assert_eq!(classify(stage, trouble), kind, "{stage:?} {trouble:?}");
        }
    }

    #[test]
    fn only_a_refusal_and_a_changed_key_can_block_a_device() {
        for stage in STAGES {
            for trouble in [
                Trouble::BadEndpoint,
                Trouble::NoAddress,
                Trouble::Deadline,
                Trouble::Ended,
                Trouble::NoCommonAlgorithm,
                Trouble::Protocol,
                Trouble::Credentials,
                Trouble::Denied,
                Trouble::NoChannel,
                Trouble::TooLarge,
                Trouble::Defect,
                Trouble::Io(Io::PermissionDenied),
                Trouble::Io(Io::ConnectionReset),
            ] {
                assert!(!classify(stage, trouble).blocks(), "{stage:?} {trouble:?}");
            }
        }
    }

    #[test]
    fn no_error_of_russh_alone_is_a_refused_login() {
        use russh::{ChannelOpenFailure as Refusal, Error as E};
        let unnamed = Refusal::Other {
            code: 7,
            reason: String::new(),
        };
        for (error, trouble) in [
            (E::NoAuthMethod, Trouble::Protocol),
            (E::Disconnect, Trouble::Ended),
            (E::HUP, Trouble::Ended),
            (E::SendError, Trouble::Ended),
            (E::Version, Trouble::Protocol),
            (E::KexInit, Trouble::Protocol),
            (E::WrongServerSig, Trouble::Protocol),
            (E::UnknownKey, Trouble::HostKey),
            (E::ConnectionTimeout, Trouble::Deadline),
            (
                E::ChannelOpenFailure(Refusal::AdministrativelyProhibited),
                Trouble::Denied,
            ),
            (
                E::ChannelOpenFailure(Refusal::ResourceShortage),
                Trouble::NoChannel,
            ),
            (
                E::ChannelOpenFailure(Refusal::ConnectFailed),
                Trouble::NoChannel,
            ),
            (E::ChannelOpenFailure(unnamed), Trouble::NoChannel),
            (E::IO(Io::TimedOut.into()), Trouble::Io(Io::TimedOut)),
        ] {
            assert_eq!(Trouble::from(&error), trouble, "{error}");
        }
    }

    #[test]
    fn texts_name_operation_endpoint_and_cause() {
        let offered = Fingerprint::of_key_blob(b"offered");
        let pinned = Fingerprint::of_key_blob(b"pinned");
        let mismatch = Pin::Pinned(pinned.clone()).verify(&offered);
        let error = SshError::new(Stage::Handshake, "192.0.2.7:22", Trouble::HostKey)
            .source(mismatch.expect_err("different keys"));
        assert_eq!(error.offered(), Some(&offered));
        assert_eq!(
            chain(&error),
            format!(
                "failed to exchange keys with 192.0.2.7:22: pinned host key is {pinned}, but the \
                 device offered {offered}"
            )
        );
    }
}
