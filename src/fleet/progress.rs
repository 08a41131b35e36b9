//! How far an attempt has come: its steps with their times, and what it learned on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::Timestamp;
use crate::domain::attempt::{Step, StepTime};
use crate::domain::device::Device;
use crate::domain::host_key::Fingerprint;
use crate::domain::session::Observed;

/// Written to while an attempt runs, so that it is complete however the attempt ends.
#[derive(Debug, Default)]
pub struct Progress {
    done: Vec<StepTime>,
    current: Option<(Step, Instant)>,
    /// When the attempt was claimed, from which on it is an attempt and no deferral.
    pub claimed: Option<ClaimedAt>,
    /// The host key that the device offered.
    pub offered_key: Option<Fingerprint>,
    /// What the session showed beside its outcome.
    pub observed: Observed,
    /// How often each normalisation rule dropped something.
    pub ledger: BTreeMap<String, u64>,
}

/// The moment at which an attempt was claimed, and the device as it was then.
#[derive(Debug)]
pub struct ClaimedAt {
    /// By the wall clock.
    pub at: Timestamp,
    /// By the monotonic clock.
    pub instant: Instant,
    /// The device's row.
    pub device: Device,
}

impl Progress {
    /// Ends the current step and begins `step`.
    pub fn enter(&mut self, step: Step) {
        self.leave();
        self.current = Some((step, Instant::now()));
    }

    /// Ends the current step, if there is one.
    pub fn leave(&mut self) {
        if let Some((step, since)) = self.current.take() {
            self.done.push(StepTime {
                step,
                took: since.elapsed(),
            });
        }
    }

    /// The steps that have ended, in order.
    pub fn steps(&self) -> &[StepTime] {
        &self.done
    }

    /// The step that the attempt is in.
    pub fn current(&self) -> Option<Step> {
        self.current.map(|(step, _)| step)
    }

    /// How long `step` took, if it has ended.
    pub fn took(&self, step: Step) -> Option<Duration> {
        self.done
            .iter()
            .find(|done| done.step == step)
            .map(|done| done.took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn steps_are_timed_in_order() {
        let mut progress = Progress::default();
        progress.enter(Step::Presence);
        tokio::time::advance(Duration::from_millis(5)).await;
        progress.enter(Step::Slot);
        assert_eq!(progress.current(), Some(Step::Slot));
        tokio::time::advance(Duration::from_secs(2)).await;
        progress.leave();
        progress.leave();
        assert_eq!(
            progress.steps(),
            [
                StepTime {
                    step: Step::Presence,
                    took: Duration::from_millis(5)
                },
                StepTime {
                    step: Step::Slot,
                    took: Duration::from_secs(2)
                },
            ]
        );
        assert_eq!(progress.took(Step::Export), None);
    }
}
