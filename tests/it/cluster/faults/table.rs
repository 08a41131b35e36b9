//! What each fault of a router comes to.

use std::time::Duration;

use mikrotik_backup::sim::Fault;

/// The largest message that the tests' NATS server takes.
pub const MAX_PAYLOAD: u64 = 4 << 20;
/// The largest export that the tests' poller takes.
pub const MAX_EXPORT: u64 = 6 << 20;
/// More than the receive window that SSH clients usually open with.
pub const LARGE: u64 = 3 << 20;

/// Fault → kind → stored state → metric.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What goes wrong.
    pub fault: Fault,
    /// `error_kind` of state and journal, and the label of the failure counter; `None` where the
    /// export is whole all the same.
    pub kind: Option<&'static str>,
    /// What is stored about the future.
    pub then: Then,
    /// The step in which the attempt ends: the last one of the journal.
    pub step: &'static str,
    /// How many passwords the router sees.
    pub passwords: u64,
    /// What the error says among other things.
    pub says: &'static str,
    /// It looks cut beside the export before, and so is read a second time.
    pub twice: bool,
}

/// What the stored state says about the future.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// Nothing failed: due an interval after the start.
    Interval,
    /// One failure: due five minutes after the end, and not blocked.
    Retry,
    /// One failure: blocked, and counted again an interval after the start.
    Blocked,
}

const fn whole(fault: Fault) -> Row {
    Row {
        fault,
        kind: None,
        then: Then::Interval,
        step: "publish",
        passwords: 1,
        says: "",
        twice: false,
    }
}

const fn retry(fault: Fault, kind: &'static str, step: &'static str, says: &'static str) -> Row {
    Row {
        fault,
        kind: Some(kind),
        then: Then::Retry,
        step,
        passwords: 1,
        says,
        twice: false,
    }
}

const fn blocked(fault: Fault, kind: &'static str, step: &'static str, says: &'static str) -> Row {
    Row {
        then: Then::Blocked,
        ..retry(fault, kind, step, says)
    }
}

impl Row {
    const fn read_twice(mut self) -> Self {
        self.twice = true;
        self
    }

    const fn no_password(mut self) -> Self {
        self.passwords = 0;
        self
    }
}

/// Faults that a router or its network ends by itself.
#[rustfmt::skip]
pub const THAT_END: &[Row] = &[
    retry(Fault::Refuse, "connection_refused", "connect", "refused").no_password(),
    retry(Fault::AcceptAndClose, "connection_lost", "connect", "exchange keys with").no_password(),
    // A router that reboots must not be blocked.
    retry(Fault::CutDuringLogin, "connection_lost", "authenticate", "log in to"),
    blocked(Fault::WrongPassword, "auth_failed", "authenticate", "refused"),
    blocked(Fault::KeyOnly, "auth_failed", "authenticate", "publickey").no_password(),
    blocked(Fault::RotateHostKey, "host_key_mismatch", "connect", "SHA256:").no_password(),
    retry(Fault::CutMidLine, "truncated_output", "export", "cut"),
    retry(Fault::CloseWithoutExitStatus, "truncated_output", "export", "without an exit status"),
    retry(Fault::DropConnectionMidOutput, "truncated_output", "export", "the connection ended"),
    retry(Fault::ExitStatus(1), "truncated_output", "export", "exit status 1"),
    retry(Fault::Interrupted, "truncated_output", "export", "#interrupted"),
    retry(Fault::MenuTimeout, "truncated_output", "normalise", "/ipv6/route"),
    retry(Fault::ErrorText, "not_an_export", "export", "std failure: timeout (13)"),
    retry(Fault::EmptyOutput, "not_an_export", "export", "nothing"),
    retry(Fault::BannerOnly, "not_an_export", "export", "export header"),
    retry(Fault::Html, "not_an_export", "export", "web page"),
    retry(Fault::Noise(500_000), "not_an_export", "export", "export header"),
    retry(Fault::PermissionDenied, "permission_denied", "export", "not enough permissions (9)"),
    retry(Fault::Size(MAX_EXPORT + (1 << 20)), "export_too_large", "export", "CONFIG_BACKUP_MAX_EXPORT_BYTES"),
    // What must succeed in spite of it.
    whole(Fault::Size(LARGE)),
    // More than one message may be.
    whole(Fault::Size(MAX_PAYLOAD + (1 << 20))),
    whole(Fault::LoseTail),
    whole(Fault::LoseTailFar),
    whole(Fault::DataAfterExitStatus),
    whole(Fault::SlowKex(Duration::from_millis(500))),
    whole(Fault::LegacyAlgorithmsOnly),
    whole(Fault::KeyboardInteractiveOnly),
    // Nothing in the text tells it, only the export before.
    retry(Fault::CutOnce, "truncated_output", "normalise", "was another one").read_twice(),
    retry(Fault::CutThenDrop, "truncated_output", "export", "the first is cut").read_twice(),
    whole(Fault::SecretsWithheld).read_twice(),
    whole(Fault::PauseMidOutput(Duration::from_secs(1))),
];

/// Faults that only the deadline of the session ends.
#[rustfmt::skip]
pub const THAT_STALL: &[Row] = &[
    retry(Fault::AcceptAndSayNothing, "timeout", "connect", "exchange keys with").no_password(),
    retry(Fault::StallInKex, "timeout", "connect", "exchange keys with").no_password(),
    retry(Fault::SlowKex(Duration::from_secs(7)), "timeout", "connect", "exchange keys with").no_password(),
    retry(Fault::StallAfterAuth, "timeout", "export", "run a command on"),
    retry(Fault::StallBeforeOutput, "timeout", "export", "run a command on"),
    retry(Fault::StallMidOutput, "truncated_output", "export", "read the whole output"),
    retry(Fault::CutThenStall, "truncated_output", "export", "read again, and did not end").read_twice(),
    retry(Fault::SlowDrip(Duration::from_secs(1)), "truncated_output", "export", "read the whole output"),
];

/// A clean end between two items at each reading: that is what the router has, as far as anybody
/// can tell. It is published with a warning, which `src/fleet/attempt/export/tests.rs` shows.
const LEFT_OUT: &[&str] = &["cut"];

#[test]
fn the_tables_leave_no_fault_out() {
    let rows = THAT_END.iter().chain(THAT_STALL);
    let named: Vec<_> = rows.map(|row| row.fault.name()).collect();
    for fault in Fault::ALL {
        let known = named.contains(&fault.name()) ^ LEFT_OUT.contains(&fault.name());
        assert!(known, "{fault}");
    }
}
