//! One device's backup loop as a state machine: when the next attempt is due, and why.
//!
//! A device rests, waiting for its time or blocked until an operator acts; or a request is waiting
//! for it; or an attempt runs; or it is retired. [`Schedule::handle`] takes in what happened,
//! [`Schedule::next`] says what to wait for. What is decided here:
//!
//! - Only an operator's edit, a request or another replica's newer record moves a blocked device.
//! - A deferral says nothing about the device: it leaves failures and block as they were.
//! - Every due time lies within the longest configured delay from the moment it was decided.

use std::time::Duration;

use super::Timestamp;
use super::attempt::{Cause, Deferral, LastAttempt, Status};
use super::backoff::{later, next_beat, part_of, period, retry_at, stretched};
use super::contact::LONGEST_WAIT;
use super::device::{DeviceId, Revision};
use super::failure::FailureKind;

pub use super::backoff::Draw;
pub use interface::{Condition, Event, Finish, Made, Next, Policy};

#[cfg(test)]
mod bruteforce;
mod interface;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod tests;

/// The schedule of one device.
#[derive(Clone, PartialEq, Debug)]
pub struct Schedule {
    policy: Policy,
    /// The interval with this device's phase applied.
    period: Duration,
    /// The newest revision that is known.
    revision: Revision,
    verdict: Verdict,
    failures: u32,
    state: State,
}

/// What the attempts so far say about the device as it is now.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Verdict {
    Unknown,
    Good,
    /// Failed, and nothing has answered it. `revision` is what the failed attempt was made with.
    Failed {
        kind: FailureKind,
        revision: Revision,
    },
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    /// Waiting, or blocked if the verdict blocks.
    Resting(Rest),
    /// A request waits since `at`; `rest` is what it came from.
    Requested {
        at: Timestamp,
        rest: Rest,
    },
    Running(Run),
    Retired,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Rest {
    due: Timestamp,
    cause: Cause,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Run {
    cause: Cause,
    /// What it came from.
    rest: Rest,
    /// Somebody asked for another one meanwhile.
    again: bool,
    /// The row was edited meanwhile.
    edited: bool,
}

/// How far work that should be done at once is spread.
const SOON: Duration = Duration::from_secs(5);

/// How much of a recheck the draw may add to it.
const RECHECK_JITTER: f64 = 0.2;

impl Schedule {
    /// Rebuilds the schedule from what is stored. Nothing is repeated that is not due; what came
    /// due long ago is spread over `jitter_max`, at most a twentieth of the interval.
    ///
    /// `revision` is what the device looks like now. A failure in `last` stands unless `revision`
    /// answers it, also where `last` itself was interrupted: see [`Schedule::standing_failure`].
    pub fn resume(
        policy: Policy,
        device: DeviceId,
        revision: Revision,
        last: Option<&LastAttempt>,
        now: Timestamp,
        draw: Draw,
    ) -> Self {
        let spread = policy.jitter_max.saturating_sub(policy.jitter_min);
        let first = policy.jitter_min.saturating_add(part_of(spread, draw));
        let mut schedule = Self {
            policy,
            period: period(policy.interval, device),
            revision,
            verdict: Verdict::Unknown,
            failures: 0,
            state: State::Resting(Rest {
                due: later(now, first),
                cause: Cause::Scheduled,
            }),
        };
        if let Some(last) = last {
            schedule.state = State::Resting(schedule.take_over(last, now, draw));
        }
        schedule
    }

    /// Takes in what happened at `now`. An event that makes no sense in the present state, such as
    /// the end of an attempt that never began, changes nothing.
    pub fn handle(&mut self, event: Event, now: Timestamp, draw: Draw) {
        match event {
            Event::Began => self.began(),
            Event::Finished(finish) => {
                if let State::Running(run) = self.state {
                    self.state = self.finished(run, finish, now, draw);
                }
            }
            Event::Skipped => {
                let blocked = self.blocked().is_some();
                if let (State::Resting(rest), true) = (&mut self.state, blocked) {
                    rest.due = later(now, self.period);
                }
            }
            Event::Edited(revision) => self.edited(revision, now, draw),
            Event::Requested => match &mut self.state {
                State::Resting(rest) => {
                    self.state = State::Requested {
                        at: now,
                        rest: *rest,
                    };
                }
                State::Running(run) => run.again = true,
                State::Requested { at, .. } => *at = now.min(*at),
                State::Retired => {}
            },
            Event::Revised(last) => self.revised(&last, now, draw),
            Event::Removed => self.state = State::Retired,
        }
    }

    /// What to wait for now.
    pub fn next(&self) -> Next {
        match (self.state, self.blocked()) {
            (State::Resting(rest), Some(kind)) => Next::Skip { at: rest.due, kind },
            (State::Resting(rest), None) => Next::Attempt {
                at: rest.due,
                cause: rest.cause,
            },
            (State::Requested { at, .. }, _) => Next::Attempt {
                at,
                cause: Cause::Manual,
            },
            (State::Running(_), _) => Next::Wait,
            (State::Retired, _) => Next::Done,
        }
    }

    /// Failures in a row.
    pub fn consecutive_failures(&self) -> u32 {
        self.failures
    }

    /// How long after `now` the device comes due, to be attempted or skipped; zero when it is due
    /// already, runs, or is gone.
    pub fn due_in(&self, now: Timestamp) -> Duration {
        match self.next() {
            Next::Attempt { at, .. } | Next::Skip { at, .. } => {
                Duration::try_from(at - now).unwrap_or(Duration::ZERO)
            }
            Next::Wait | Next::Done => Duration::ZERO,
        }
    }

    /// What blocks the device, also while a request is about to give it its one try.
    pub fn blocked(&self) -> Option<FailureKind> {
        self.standing_failure()
            .map(|(kind, _)| kind)
            .filter(|kind| kind.blocks())
    }

    /// The failure that nothing has answered yet, and what the device looked like to it.
    ///
    /// A block outlives a requested try that fails for another reason or is interrupted. So this,
    /// and not the outcome of the last attempt, is what must be stored as [`LastAttempt::failure`]
    /// and [`LastAttempt::revision`] while there is one.
    pub fn standing_failure(&self) -> Option<(FailureKind, Revision)> {
        match self.verdict {
            Verdict::Failed { kind, revision } => Some((kind, revision)),
            Verdict::Unknown | Verdict::Good => None,
        }
    }

    /// The state in one word; `None` once the device is gone.
    pub fn condition(&self) -> Option<Condition> {
        match (self.state, self.verdict) {
            (State::Retired, _) => None,
            (State::Running(_), _) => Some(Condition::Running),
            (_, Verdict::Unknown) => Some(Condition::New),
            (_, Verdict::Good) => Some(Condition::Ok),
            (_, Verdict::Failed { kind, .. }) if kind.blocks() => Some(Condition::Blocked),
            (_, Verdict::Failed { .. }) => Some(Condition::Failing),
        }
    }

    fn began(&mut self) {
        let (rest, cause) = match self.state {
            // Never asked for by `next`, but if it was begun then only somebody's wish can be why.
            State::Resting(rest) if self.blocked().is_some() => (rest, Cause::Manual),
            State::Resting(rest) => (rest, rest.cause),
            State::Requested { rest, .. } => (rest, Cause::Manual),
            State::Running(_) | State::Retired => return,
        };
        self.state = State::Running(Run {
            cause,
            rest,
            again: false,
            edited: false,
        });
    }

    fn edited(&mut self, revision: Revision, now: Timestamp, draw: Draw) {
        self.revision = revision;
        let answered = self.answer(&revision);
        let soon = self.soon(now, Cause::Edited, draw);
        let rest = match &mut self.state {
            State::Resting(rest) | State::Requested { rest, .. } => rest,
            State::Running(run) => {
                run.edited = true;
                &mut run.rest
            }
            State::Retired => return,
        };
        if answered {
            *rest = soon;
        }
    }

    /// What a running attempt comes to is newer than anything that is stored.
    fn revised(&mut self, last: &LastAttempt, now: Timestamp, draw: Draw) {
        match self.state {
            State::Resting(_) => self.state = State::Resting(self.take_over(last, now, draw)),
            State::Requested { at, .. } => {
                let rest = self.take_over(last, now, draw);
                self.state = State::Requested { at, rest };
            }
            State::Running(_) | State::Retired => {}
        }
    }

    fn finished(&mut self, run: Run, finish: Finish, now: Timestamp, draw: Draw) -> State {
        let rest = match finish {
            Finish::Deferred(Deferral::Superseded(last)) => self.take_over(&last, now, draw),
            Finish::Deferred(Deferral::RateLimited { until, .. }) => {
                self.held_back(run, until, now, draw)
            }
            Finish::Deferred(
                Deferral::Offline
                | Deferral::Contended
                | Deferral::Gone
                | Deferral::Unavailable { .. }
                | Deferral::Stopping,
            ) => self.put_off(run, now, draw),
            Finish::Made {
                started_at,
                revision,
                result,
            } => {
                // The attempt read the row afresh, so it may know of an edit before we are told.
                if !run.edited {
                    self.revision = revision;
                }
                let mut run = run;
                if self.answer(&revision) {
                    run.rest = self.soon(now, Cause::Edited, draw);
                }
                let started_at = started_at.min(now);
                match result {
                    Made::Taken => self.taken(started_at, now, draw),
                    Made::Failed(kind) => self.failed(kind, revision, started_at, now, draw),
                    Made::Interrupted if run.cause == Cause::Manual && !run.again => {
                        return State::Requested {
                            at: self.soon(now, Cause::Manual, draw).due,
                            rest: self.put_off(run, now, draw),
                        };
                    }
                    Made::Interrupted if run.cause == Cause::Manual => self.put_off(run, now, draw),
                    Made::Interrupted => self.soon(now, run.rest.cause, draw),
                }
            }
        };
        if run.again {
            State::Requested { at: now, rest }
        } else {
            State::Resting(rest)
        }
    }

    fn taken(&mut self, started_at: Timestamp, now: Timestamp, draw: Draw) -> Rest {
        self.verdict = Verdict::Good;
        self.failures = 0;
        let due = later(started_at, self.period);
        if due > now {
            let cause = Cause::Scheduled;
            Rest { due, cause }
        } else {
            self.soon(now, Cause::Scheduled, draw)
        }
    }

    fn failed(
        &mut self,
        kind: FailureKind,
        revision: Revision,
        started_at: Timestamp,
        now: Timestamp,
        draw: Draw,
    ) -> Rest {
        let blocked = self.blocked().is_some();
        // Without an edit while it ran these are the same: what the attempt read was then newer
        // than what we had been told, and must not look like an edit that answers it.
        let answered = kind.answered_by(&revision, &self.revision);
        if answered && !blocked {
            self.verdict = Verdict::Unknown;
            self.failures = 0;
            return self.soon(now, Cause::Edited, draw);
        }
        if !answered {
            self.failures = self.failures.saturating_add(1);
            // A requested try that fails for a passing reason does not prove the block wrong.
            if kind.blocks() || !blocked {
                self.verdict = Verdict::Failed { kind, revision };
            }
        }
        if self.blocked().is_some() {
            self.blocked_rest(started_at, now)
        } else {
            let due = retry_at(self.failures, started_at, now, self.period, draw);
            let cause = Cause::Retry;
            Rest { due, cause }
        }
    }

    /// Where an attempt that was not made leaves the device: as before, and looked at again a
    /// recheck later. What a request was put before, and is not due yet, keeps its time.
    fn put_off(&self, run: Run, now: Timestamp, draw: Draw) -> Rest {
        let Rest { due, cause } = run.rest;
        if run.cause == Cause::Manual && due > now {
            return run.rest;
        }
        // Test clusters beat in seconds; the lower bound keeps a recheck of zero from spinning.
        let recheck = self.policy.recheck.min(self.period / 4);
        let recheck = recheck.max(SOON.min(self.period / 20));
        let due = later(now, stretched(recheck, RECHECK_JITTER, draw));
        Rest { due, cause }
    }

    /// Where a device is that may not be connected to before `until`: due then, for the same reason.
    /// What a request was put before, and is not due yet, keeps its time.
    fn held_back(&self, run: Run, until: Timestamp, now: Timestamp, draw: Draw) -> Rest {
        let Rest { due, cause } = run.rest;
        if run.cause == Cause::Manual && due > now {
            return run.rest;
        }
        let until = until.clamp(now, later(now, LONGEST_WAIT));
        let due = later(until, part_of(SOON, draw));
        Rest { due, cause }
    }

    /// Adopts a stored attempt: ours before a restart, or another replica's.
    ///
    /// The record may have been made with a row that is newer than the revision we know of. That
    /// looks like an edit that answers it, and costs one attempt too many; taking it for the newer
    /// one could leave a device blocked that an operator has already repaired.
    fn take_over(&mut self, last: &LastAttempt, now: Timestamp, draw: Draw) -> Rest {
        let started_at = last.started_at.min(now);
        let ended_at = last.finished_at.min(now).max(started_at);
        let kind = match (last.status, last.failure) {
            (Status::Success | Status::Queued, _) => None,
            (Status::Interrupted, None) if last.consecutive_failures == 0 => None,
            (Status::Failed | Status::Interrupted, kind) => {
                Some(kind.unwrap_or(FailureKind::Unknown))
            }
        };
        let interrupted = last.status == Status::Interrupted;
        // One death may be anybody's fault. A device whose export kills the process each time must
        // not do so again and again.
        let died = (interrupted && last.deaths >= 2)
            .then(|| retry_at(last.deaths - 1, started_at, ended_at, self.period, draw));
        let Some(kind) = kind else {
            // What was interrupted before the interval had passed was extra, asked for by someone.
            let succeeded = if interrupted {
                last.last_success_at.map(|at| at.min(now))
            } else {
                Some(started_at)
            };
            self.verdict = succeeded.map_or(Verdict::Unknown, |_| Verdict::Good);
            self.failures = 0;
            if let Some(due) = died {
                return self.unless_overdue(due, Cause::Retry, now, draw);
            }
            let due = succeeded.map_or(ended_at, |at| later(at, self.period));
            return self.unless_overdue(due, Cause::Scheduled, now, draw);
        };
        let revision = last.revision;
        self.verdict = Verdict::Failed { kind, revision };
        self.failures = last.consecutive_failures.max(1);
        let current = self.revision;
        if self.answer(&current) {
            self.soon(now, Cause::Edited, draw)
        } else if kind.blocks() {
            self.blocked_rest(started_at, now)
        } else if kind == FailureKind::SnapshotLost {
            // No fault of the device: nothing to wait for.
            self.soon(now, Cause::Retry, draw)
        } else if interrupted {
            self.unless_overdue(died.unwrap_or(ended_at), Cause::Retry, now, draw)
        } else {
            let due = retry_at(self.failures, started_at, ended_at, self.period, draw);
            self.unless_overdue(due, Cause::Retry, now, draw)
        }
    }

    /// Forgets the standing failure if an edit to `revision` answers it, and tells whether it did.
    fn answer(&mut self, revision: &Revision) -> bool {
        let answered = self
            .standing_failure()
            .is_some_and(|(kind, failed)| kind.answered_by(&failed, revision));
        if answered {
            self.verdict = Verdict::Unknown;
            self.failures = 0;
        }
        answered
    }

    fn soon(&self, now: Timestamp, cause: Cause, draw: Draw) -> Rest {
        let due = later(now, part_of(SOON.min(self.period / 20), draw));
        Rest { due, cause }
    }

    /// `due`, or if that has passed a moment close to `now` that differs from device to device:
    /// after a long downtime everything is overdue.
    fn unless_overdue(&self, due: Timestamp, cause: Cause, now: Timestamp, draw: Draw) -> Rest {
        let spread = self.policy.jitter_max.min(self.period / 20);
        let due = if due > now {
            due
        } else {
            later(now, part_of(spread, draw))
        };
        Rest { due, cause }
    }

    /// When a blocked device is next counted: whole periods from the start of the attempt, so that
    /// a restart neither repeats a count nor leaves one out.
    fn blocked_rest(&self, started_at: Timestamp, now: Timestamp) -> Rest {
        Rest {
            due: next_beat(started_at, self.period, now),
            cause: Cause::Scheduled,
        }
    }
}
