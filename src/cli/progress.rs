//! How far a command with many devices has come: a bar on a terminal, with counts, rate and the time
//! that is left; nothing elsewhere, where each device has its own line.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::config::Config;

/// Time between two drawings while nothing happens, so that the time left goes on.
const TICK: Duration = Duration::from_millis(250);

const FORM: &str = "{bar:30} {pos} of {len} devices, {per_sec}, {left}{msg}";

/// A bar on standard error, gone when it is dropped.
pub(super) struct Progress {
    bar: ProgressBar,
    failed: usize,
    color: bool,
}

impl Progress {
    /// A bar of `total` devices, where there is a terminal and more than one to wait for.
    pub(super) fn new(config: &Config, total: usize) -> Option<Self> {
        if total < 2 || !std::io::stderr().is_terminal() {
            return None;
        }
        let target = ProgressDrawTarget::stderr();
        let bar = ProgressBar::with_draw_target(u64::try_from(total).ok(), target);
        // The form is a constant; the default one would do as well.
        if let Ok(style) = ProgressStyle::with_template(FORM) {
            bar.set_style(style.progress_chars("=> ").with_key("left", left));
        }
        bar.enable_steady_tick(TICK);
        Some(Self {
            bar,
            failed: 0,
            color: !config.no_color,
        })
    }

    /// One more device is done.
    pub(super) fn done(&mut self, succeeded: bool) {
        if !succeeded {
            self.failed += 1;
            let (red, off) = match self.color {
                true => ("\x1b[31m", "\x1b[0m"),
                false => ("", ""),
            };
            self.bar
                .set_message(format!(", {red}{} failed{off}", self.failed));
        }
        self.bar.inc(1);
    }
}

/// The time left; nobody knows it before the first device is done.
fn left(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let _ = match state.pos() {
        0 => write!(out, "time left not known yet"),
        _ => write!(out, "{:#} left", HumanDuration(state.eta())),
    };
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
