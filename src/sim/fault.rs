//! The faults that a simulated router can be told to have, by name.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Something that goes wrong on a router. A connection keeps the fault that was set when it was
/// accepted. Faults of the output act on exports; other commands are answered as ever.
///
/// The text form is the name, with `=argument` where there is one: durations in milliseconds, sizes
/// in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing listens: the kernel answers with RST. Lasts until it is cleared.
    Refuse,
    /// TCP is accepted and closed at once, as `address=` in `/ip service` does.
    AcceptAndClose,
    /// TCP is accepted and not one byte is sent.
    AcceptAndSayNothing,
    /// Identification and KEXINIT are sent, then nothing.
    StallInKex,
    /// The reply of the key exchange takes so long.
    SlowKex(Duration),
    /// TCP ends when the client has sent its credentials.
    CutDuringLogin,
    /// Every credential is refused.
    WrongPassword,
    /// Another host key than ever before.
    RotateHostKey,
    /// Only what RouterOS 6 offers by default.
    LegacyAlgorithmsOnly,
    /// Only keyboard-interactive is offered, with one prompt for the password.
    KeyboardInteractiveOnly,
    /// Only public keys are accepted.
    KeyOnly,
    /// The login succeeds, and nothing is answered from then on.
    StallAfterAuth,
    /// The export command is accepted, and no byte of it comes.
    StallBeforeOutput,
    /// Half of the export comes.
    StallMidOutput,
    /// One byte per interval.
    SlowDrip(Duration),
    /// Ends cleanly in the middle of a line.
    CutMidLine,
    /// Ends cleanly between two items: nothing in the text shows it.
    Cut,
    /// The same for the first export of a connection; those after it are whole.
    CutOnce,
    /// The same for the first export of a connection; no byte of those after it comes.
    CutThenStall,
    /// The same for the first export of a connection; TCP ends after three quarters of the next.
    CutThenDrop,
    /// Says nothing for so long in the middle of an export.
    PauseMidOutput(Duration),
    /// The whole export, then CLOSE without an exit status.
    CloseWithoutExitStatus,
    /// TCP ends after half of the export.
    DropConnectionMidOutput,
    /// The whole export with this exit status.
    ExitStatus(u32),
    /// An error text of the console instead of the export, with exit status 0.
    ErrorText,
    /// What a user without the policy `read` is told.
    PermissionDenied,
    /// Nothing, with exit status 0.
    EmptyOutput,
    /// The banner of a login shell and nothing else.
    BannerOnly,
    /// The page of a captive portal.
    Html,
    /// So many bytes that are no text.
    Noise(u64),
    /// RouterOS 6 gave up halfway: the text ends with `#interrupted`.
    Interrupted,
    /// One menu did not answer in time; the export went on without it.
    MenuTimeout,
    /// The policy `sensitive` is missing: secrets are left out without a word.
    SecretsWithheld,
    /// An export of so many bytes.
    Size(u64),
    /// The RouterOS bug: as soon as the client's window is used up, the rest is lost, and the
    /// channel ends cleanly with exit status 0.
    LoseTail,
    /// The same bug seen from far away: no window adjustment arrives in time, so that the window
    /// which the channel was opened with is all that gets through.
    LoseTailFar,
    /// The last data message comes after the exit status.
    DataAfterExitStatus,
}

/// Names, arguments where left out, and what the arguments count.
const WITH_ARGUMENT: [(&str, u64); 6] = [
    ("slow_kex", 5_000),
    ("slow_drip", 1_000),
    ("pause_mid_output", 20_000),
    ("exit_status", 1),
    ("noise", 10 << 20),
    ("size", 100 << 20),
];

impl Fault {
    /// One of each kind, with the default arguments.
    pub const ALL: &'static [Self] = &[
        Self::Refuse,
        Self::AcceptAndClose,
        Self::AcceptAndSayNothing,
        Self::StallInKex,
        Self::SlowKex(Duration::from_secs(5)),
        Self::CutDuringLogin,
        Self::WrongPassword,
        Self::RotateHostKey,
        Self::LegacyAlgorithmsOnly,
        Self::KeyboardInteractiveOnly,
        Self::KeyOnly,
        Self::StallAfterAuth,
        Self::StallBeforeOutput,
        Self::StallMidOutput,
        Self::SlowDrip(Duration::from_secs(1)),
        Self::CutMidLine,
        Self::Cut,
        Self::CutOnce,
        Self::CutThenStall,
        Self::CutThenDrop,
        Self::PauseMidOutput(Duration::from_secs(20)),
        Self::CloseWithoutExitStatus,
        Self::DropConnectionMidOutput,
        Self::ExitStatus(1),
        Self::ErrorText,
        Self::PermissionDenied,
        Self::EmptyOutput,
        Self::BannerOnly,
        Self::Html,
        Self::Noise(10 << 20),
        Self::Interrupted,
        Self::MenuTimeout,
        Self::SecretsWithheld,
        Self::Size(100 << 20),
        Self::LoseTail,
        Self::LoseTailFar,
        Self::DataAfterExitStatus,
    ];

    /// The name without the argument.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::AcceptAndClose => "accept_and_close",
            Self::AcceptAndSayNothing => "accept_and_say_nothing",
            Self::StallInKex => "stall_in_kex",
            Self::SlowKex(_) => "slow_kex",
            Self::CutDuringLogin => "cut_during_login",
            Self::WrongPassword => "wrong_password",
            Self::RotateHostKey => "rotate_host_key",
            Self::LegacyAlgorithmsOnly => "legacy_algorithms_only",
            Self::KeyboardInteractiveOnly => "keyboard_interactive_only",
            Self::KeyOnly => "key_only",
            Self::StallAfterAuth => "stall_after_auth",
            Self::StallBeforeOutput => "stall_before_output",
            Self::StallMidOutput => "stall_mid_output",
            Self::SlowDrip(_) => "slow_drip",
            Self::CutMidLine => "cut_mid_line",
            Self::Cut => "cut",
            Self::CutOnce => "cut_once",
            Self::CutThenStall => "cut_then_stall",
            Self::CutThenDrop => "cut_then_drop",
            Self::PauseMidOutput(_) => "pause_mid_output",
            Self::CloseWithoutExitStatus => "close_without_exit_status",
            Self::DropConnectionMidOutput => "drop_connection_mid_output",
            Self::ExitStatus(_) => "exit_status",
            Self::ErrorText => "error_text",
            Self::PermissionDenied => "permission_denied",
            Self::EmptyOutput => "empty_output",
            Self::BannerOnly => "banner_only",
            Self::Html => "html",
            Self::Noise(_) => "noise",
            Self::Interrupted => "interrupted",
            Self::MenuTimeout => "menu_timeout",
            Self::SecretsWithheld => "secrets_withheld",
            Self::Size(_) => "size",
            Self::LoseTail => "lose_tail",
            Self::LoseTailFar => "lose_tail_far",
            Self::DataAfterExitStatus => "data_after_exit_status",
        }
    }

    fn argument(self) -> Option<u64> {
        match self {
            Self::SlowKex(time) | Self::SlowDrip(time) | Self::PauseMidOutput(time) => {
                Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            }
            Self::ExitStatus(status) => Some(status.into()),
            Self::Noise(bytes) | Self::Size(bytes) => Some(bytes),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.argument() {
            Some(argument) => write!(f, "={argument}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let unknown = || UnknownFault {
            text: text.to_owned(),
        };
        let (name, argument) = match text.split_once('=') {
            Some((name, argument)) => (name, Some(argument.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let default = WITH_ARGUMENT.iter().find(|(with, _)| *with == name);
        let argument: u64 = match (argument, default) {
            (Some(given), Some(_)) => given,
            (None, Some((_, default))) => *default,
            (None, None) => 0,
            (Some(_), None) => return Err(unknown()),
        };
        let kind = Self::ALL.iter().copied().find(|fault| fault.name() == name);
        Ok(match kind.ok_or_else(unknown)? {
            Self::SlowKex(_) => Self::SlowKex(Duration::from_millis(argument)),
            Self::SlowDrip(_) => Self::SlowDrip(Duration::from_millis(argument)),
            Self::PauseMidOutput(_) => Self::PauseMidOutput(Duration::from_millis(argument)),
            Self::ExitStatus(_) => {
                Self::ExitStatus(u32::try_from(argument).map_err(|_| unknown())?)
            }
            Self::Noise(_) => Self::Noise(argument),
            Self::Size(_) => Self::Size(argument),
            plain => plain,
        })
    }
}

/// A text that names no fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is no fault; known are {}", known())]
pub struct UnknownFault {
    text: String,
}

fn known() -> String {
    let names: Vec<String> = Fault::ALL.iter().map(ToString::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_read_back_from_its_text() {
        for fault in Fault::ALL {
            assert_eq!(fault.to_string().parse(), Ok(*fault));
            assert_eq!(fault.name().parse(), Ok(*fault), "default argument");
        }
        assert_eq!(
            "slow_drip=20".parse(),
            Ok(Fault::SlowDrip(Duration::from_millis(20)))
        );
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        for text in ["", "refuse=1", "slow_kex=x", "exit_status=4294967296", "x"] {
            let error = text.parse::<Fault>().expect_err(text).to_string();
            assert!(error.contains("stall_mid_output"), "{error}");
        }
    }
}
