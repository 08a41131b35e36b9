//! The state table, row by row.

mod edits;
mod requests;
mod restarts;

use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::domain::attempt::AttemptId;
use crate::domain::digest::Digest;

const NOW: Timestamp = datetime!(2026-01-02 03:04:05 UTC);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const POLICY: Policy = Policy {
    interval: Duration::from_secs(6 * 3600),
    jitter_min: Duration::from_secs(30),
    jitter_max: Duration::from_secs(300),
    recheck: Duration::from_secs(300),
};
const NONE: Draw = Draw::ZERO;

fn device() -> DeviceId {
    DeviceId(Uuid::from_u128(1))
}

fn interval() -> Duration {
    period(POLICY.interval, device())
}

fn revision(endpoint: &str, credentials: &str, pin: &str) -> Revision {
    Revision {
        endpoint: Digest::of(endpoint),
        credentials: Digest::of(credentials),
        pin: Digest::of(pin),
    }
}

fn original() -> Revision {
    revision("address", "password", "pin")
}

fn new_password() -> Revision {
    revision("address", "another password", "pin")
}

fn new_pin() -> Revision {
    revision("address", "password", "another pin")
}

fn new_address() -> Revision {
    revision("another address", "password", "pin")
}

/// A schedule with its own clock, so that tests read as stories.
struct Story {
    schedule: Schedule,
    now: Timestamp,
    began: Timestamp,
}

impl Story {
    fn new() -> Self {
        Self::resumed(None, original())
    }

    fn resumed(last: Option<&LastAttempt>, revision: Revision) -> Self {
        Self {
            schedule: Schedule::resume(POLICY, device(), revision, last, NOW, NONE),
            now: NOW,
            began: NOW,
        }
    }

    fn pass(mut self, time: Duration) -> Self {
        self.now = later(self.now, time);
        self
    }

    fn then(mut self, event: Event) -> Self {
        if event == Event::Began {
            self.began = self.now;
        }
        self.schedule.handle(event, self.now, NONE);
        self
    }

    fn made(self, result: Made) -> Self {
        self.made_with(original(), result)
    }

    fn made_with(self, revision: Revision, result: Made) -> Self {
        let started_at = self.began;
        self.then(Event::Finished(Finish::Made {
            started_at,
            revision,
            result,
        }))
    }

    fn deferred(self, deferral: Deferral) -> Self {
        self.then(Event::Finished(Finish::Deferred(deferral)))
    }

    /// One attempt of a minute.
    fn attempt(self, result: Made) -> Self {
        self.then(Event::Began).pass(MINUTE).made(result)
    }

    /// Until what is waited for, and how long that is.
    fn next(&self) -> (Next, Duration) {
        (self.schedule.next(), self.schedule.due_in(self.now))
    }

    #[track_caller]
    fn waits(&self, wait: Duration, cause: Cause) {
        let at = later(self.now, wait);
        assert_eq!(self.next(), (Next::Attempt { at, cause }, wait));
        assert_eq!(self.schedule.blocked(), None);
    }

    #[track_caller]
    fn is_blocked(&self, wait: Duration, kind: FailureKind) {
        let at = later(self.now, wait);
        assert_eq!(self.next(), (Next::Skip { at, kind }, wait));
        assert_eq!(self.schedule.blocked(), Some(kind));
        assert_eq!(self.schedule.condition(), Some(Condition::Blocked));
    }

    #[track_caller]
    fn failures(&self, failures: u32) {
        assert_eq!(self.schedule.consecutive_failures(), failures);
    }
}

use FailureKind::{AuthFailed, HostKeyMismatch, Timeout};
use Made::{Failed, Interrupted, Taken};

fn auth_blocked() -> Story {
    Story::new().attempt(Failed(AuthFailed))
}

fn record(status: Status, failure: Option<FailureKind>, ago: Duration) -> LastAttempt {
    let started_at = NOW - ago;
    LastAttempt {
        id: AttemptId(Uuid::from_u128(9)),
        started_at,
        finished_at: started_at + MINUTE,
        status,
        failure,
        consecutive_failures: u32::from(failure.is_some()),
        revision: original(),
        last_success_at: None,
        deaths: 0,
    }
}

#[test]
fn a_new_device_waits_for_its_jitter() {
    Story::new().waits(POLICY.jitter_min, Cause::Scheduled);
    let most = Draw::new(1.0);
    let latest = Schedule::resume(POLICY, device(), original(), None, NOW, most);
    let waited = latest.due_in(NOW);
    assert!(waited > POLICY.jitter_max - MINUTE / 60 && waited <= POLICY.jitter_max);
    assert_eq!(latest.condition(), Some(Condition::New));
}

#[test]
fn while_an_attempt_runs_there_is_nothing_to_do() {
    let story = Story::new().then(Event::Began);
    assert_eq!(story.schedule.next(), Next::Wait);
    assert_eq!(story.schedule.condition(), Some(Condition::Running));
}

#[test]
fn a_success_is_followed_by_the_next_interval_start_to_start() {
    let story = Story::new().attempt(Failed(Timeout)).attempt(Taken);
    story.waits(interval() - MINUTE, Cause::Scheduled);
    story.failures(0);
    assert_eq!(story.schedule.condition(), Some(Condition::Ok));
}

#[test]
fn a_success_that_took_longer_than_the_interval_is_followed_at_once() {
    let story = Story::new().then(Event::Began).pass(2 * interval());
    story.made(Taken).waits(Duration::ZERO, Cause::Scheduled);
}

#[test]
fn failures_climb_the_ladder_and_a_success_leaves_it() {
    let mut story = Story::new();
    for (failures, wait) in [(1, 5), (2, 15), (3, 60), (4, 60)] {
        story = story.attempt(Failed(Timeout));
        story.waits(wait * MINUTE, Cause::Retry);
        story.failures(failures);
        assert_eq!(story.schedule.condition(), Some(Condition::Failing));
        story = story.pass(wait * MINUTE);
    }
    story.attempt(Taken).attempt(Failed(Timeout)).failures(1);
}

#[test]
fn refused_logins_and_changed_keys_block() {
    for kind in [AuthFailed, HostKeyMismatch] {
        let story = Story::new().attempt(Failed(kind));
        story.is_blocked(interval() - MINUTE, kind);
        story.failures(1);
    }
}

#[test]
fn a_blocked_device_comes_due_every_interval_without_being_tried() {
    let mut story = auth_blocked().pass(interval() - MINUTE);
    for _ in 0..100 {
        story = story.then(Event::Skipped);
        story.is_blocked(interval(), AuthFailed);
        story = story.pass(interval());
    }
    story.failures(1);
}

#[test]
fn a_deferral_is_looked_at_again_a_recheck_later_for_the_same_cause() {
    let away = || Deferral::Unavailable {
        reason: "redis is away".into(),
    };
    for deferral in [
        Deferral::Offline,
        Deferral::Contended,
        Deferral::Gone,
        away(),
    ] {
        let story = Story::new().attempt(Failed(Timeout)).pass(5 * MINUTE);
        let story = story.then(Event::Began).deferred(deferral);
        story.waits(POLICY.recheck, Cause::Retry);
        story.failures(1);
    }
}

#[test]
fn a_recheck_is_never_longer_than_a_quarter_of_the_interval_nor_nothing() {
    let wait = |interval: u64, recheck: u64| {
        let policy = Policy {
            interval: Duration::from_secs(interval),
            recheck: Duration::from_secs(recheck),
            ..POLICY
        };
        let mut schedule = Schedule::resume(policy, device(), original(), None, NOW, NONE);
        schedule.handle(Event::Began, NOW, NONE);
        schedule.handle(
            Event::Finished(Finish::Deferred(Deferral::Offline)),
            NOW,
            NONE,
        );
        (schedule.due_in(NOW), period(policy.interval, device()))
    };
    let (waited, interval) = wait(10, 300);
    assert_eq!(waited, interval / 4);
    assert_eq!(wait(21_600, 0).0, SOON);
    let (waited, interval) = wait(10, 0);
    assert_eq!(waited, interval / 20);
}

#[test]
fn stopping_leaves_the_device_waiting_for_the_same_cause() {
    let story = Story::new().attempt(Failed(Timeout)).then(Event::Began);
    let story = story.deferred(Deferral::Stopping);
    story.waits(POLICY.recheck, Cause::Retry);
    story.failures(1);
}

#[test]
fn another_replicas_success_gives_the_next_interval() {
    let theirs = record(Status::Success, None, 2 * MINUTE);
    let story = Story::new().attempt(Failed(Timeout)).then(Event::Began);
    let passed = story.now - NOW;
    let story = story.deferred(Deferral::Superseded(Box::new(theirs)));
    let passed = Duration::try_from(passed).expect("time passes forwards");
    story.waits(interval() - 2 * MINUTE - passed, Cause::Scheduled);
    story.failures(0);
}

#[test]
fn another_replicas_block_holds_here_unless_an_edit_answers_it() {
    let superseded = |story: Story| {
        let theirs = record(Status::Failed, Some(AuthFailed), MINUTE);
        let story = story.then(Event::Began);
        story.deferred(Deferral::Superseded(Box::new(theirs)))
    };
    superseded(Story::new()).is_blocked(interval() - MINUTE, AuthFailed);
    let edited = superseded(Story::new().then(Event::Edited(new_password())));
    edited.waits(Duration::ZERO, Cause::Edited);
}

#[test]
fn removal_is_final() {
    let mut story = Story::new()
        .then(Event::Began)
        .then(Event::Removed)
        .made(Taken);
    for event in [
        Event::Requested,
        Event::Edited(new_address()),
        Event::Skipped,
        Event::Began,
    ] {
        story = story.then(event);
        assert_eq!(story.next(), (Next::Done, Duration::ZERO));
        assert_eq!(story.schedule.condition(), None);
    }
}

#[test]
fn conditions_have_names_of_their_own() {
    let names: std::collections::BTreeSet<_> = Condition::ALL.iter().map(|c| c.as_str()).collect();
    assert_eq!(names.len(), Condition::ALL.len());
}
