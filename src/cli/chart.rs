//! What `check` finds, printed as it is found: a line per step, and a verdict.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::exit;
use crate::domain::device::DeviceId;
use crate::domain::failure::{Advice, FailureKind};

/// What was found, printed as it is found.
pub(super) struct Chart {
    /// The device as the inventory knows it, by id and name.
    device: Option<(DeviceId, String)>,
    advice: Advice,
    began: Instant,
    failed: Option<FailureKind>,
    left_out: bool,
}

impl Chart {
    pub(super) fn new(device: Option<(DeviceId, String)>, advice: Advice) -> Self {
        Self {
            device,
            advice,
            began: Instant::now(),
            failed: None,
            left_out: false,
        }
    }

    pub(super) fn begin(&mut self) {
        self.began = Instant::now();
    }

    pub(super) fn title(&self, text: &str) {
        print(text);
    }

    pub(super) fn ok(&mut self, step: &str, text: &str) {
        let took = self.began.elapsed();
        self.timed(step, text, took);
        self.begin();
    }

    pub(super) fn timed(&self, step: &str, text: &str, took: Duration) {
        line("ok", step, Some(took), text);
    }

    pub(super) fn note(&self, step: &str, text: &str) {
        line("note", step, None, text);
    }

    /// A step that was not tried, and with it everything after it.
    pub(super) fn leave_out(&mut self, step: &str, why: &str) {
        self.left_out = true;
        self.note(step, &format!("not tried: {why}"));
    }

    pub(super) fn fail(&mut self, step: &str, kind: FailureKind, text: &str) {
        self.failed = Some(kind);
        line(
            "FAIL",
            step,
            Some(self.began.elapsed()),
            &format!("{kind}: {text}"),
        );
        let known = self.device.as_ref();
        if let Some(remedy) = known.and_then(|(id, name)| kind.remedy(self.advice, *id, name)) {
            line("", "what to do", None, &remedy);
        }
    }

    /// The last line, and the exit code.
    pub(super) fn conclude(&self) -> ExitCode {
        match self.failed {
            Some(kind) => {
                let what = if kind.blocks() {
                    "and would wait for an operator"
                } else {
                    "and would be tried again"
                };
                print(&format!("A backup would fail with {kind}, {what}."));
                ExitCode::from(exit::FAILED)
            }
            None if self.left_out => {
                print("Nothing is wrong as far as it was tried.");
                ExitCode::SUCCESS
            }
            None => {
                print("A backup would succeed.");
                ExitCode::SUCCESS
            }
        }
    }
}

fn line(verdict: &str, step: &str, took: Option<Duration>, text: &str) {
    let took = took.map_or_else(String::new, |took| format!("{} ms", took.as_millis()));
    print(&format!("  {verdict:<4}  {step:<13} {took:>9}  {text}"));
}

/// A reader that went away (`| head`) ends the output, not the program.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{}", super::printable(line));
}
