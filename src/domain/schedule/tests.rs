//! The state table, row by row.

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
fn only_the_edit_that_answers_a_block_lifts_it() {
    for (kind, edit, lifted) in [
        (AuthFailed, new_password(), true),
        (AuthFailed, new_address(), true),
        (AuthFailed, new_pin(), false),
        (HostKeyMismatch, new_password(), false),
        (HostKeyMismatch, new_address(), true),
        (HostKeyMismatch, new_pin(), true),
        (HostKeyMismatch, original(), false),
    ] {
        let story = Story::new().attempt(Failed(kind)).then(Event::Edited(edit));
        if lifted {
            story.waits(Duration::ZERO, Cause::Edited);
            story.failures(0);
            assert_eq!(story.schedule.condition(), Some(Condition::New));
        } else {
            story.is_blocked(interval() - MINUTE, kind);
        }
    }
}

#[test]
fn a_new_address_ends_the_wait_for_a_retry_but_a_new_password_does_not() {
    let story = || {
        Story::new()
            .attempt(Failed(Timeout))
            .attempt(Failed(Timeout))
    };
    let edited = story().then(Event::Edited(new_address()));
    edited.waits(Duration::ZERO, Cause::Edited);
    edited.failures(0);
    let edited = story().then(Event::Edited(new_password()));
    edited.waits(15 * MINUTE, Cause::Retry);
    edited.failures(2);
}

#[test]
fn an_edit_of_a_healthy_device_waits_for_its_interval() {
    let story = Story::new().attempt(Taken);
    let story = story.then(Event::Edited(new_address()));
    story.waits(interval() - MINUTE, Cause::Scheduled);
}

#[test]
fn our_own_first_pin_answers_nothing() {
    let unpinned = revision("address", "password", "");
    let first = |result| {
        Story::resumed(None, unpinned)
            .then(Event::Began)
            .made_with(unpinned, result)
    };
    let pinned = first(Taken).then(Event::Edited(original()));
    pinned.waits(interval(), Cause::Scheduled);
    let pinned = first(Failed(FailureKind::PublishFailed)).then(Event::Edited(original()));
    pinned.waits(5 * MINUTE, Cause::Retry);
    pinned.failures(1);
}

#[test]
fn an_edit_while_the_attempt_runs_answers_its_failure() {
    let story = Story::new().then(Event::Began);
    let story = story
        .then(Event::Edited(new_password()))
        .made(Failed(AuthFailed));
    story.waits(Duration::ZERO, Cause::Edited);
    story.failures(0);
}

#[test]
fn an_edit_that_the_attempt_had_already_read_answers_nothing() {
    let story = Story::new().then(Event::Began);
    let story = story.then(Event::Edited(new_password()));
    let story = story.made_with(new_password(), Failed(AuthFailed));
    story.is_blocked(interval(), AuthFailed);
    story.failures(1);
}

#[test]
fn being_told_late_of_the_row_that_was_refused_answers_nothing() {
    let story = Story::new().then(Event::Began);
    let story = story.made_with(new_password(), Failed(AuthFailed));
    story.is_blocked(interval(), AuthFailed);
    let story = story.then(Event::Edited(new_password()));
    story.is_blocked(interval(), AuthFailed);
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
fn a_request_is_due_at_once_whatever_the_device_waits_for() {
    let waiting = Story::new().attempt(Taken).then(Event::Requested);
    waiting.waits(Duration::ZERO, Cause::Manual);
    let blocked = auth_blocked().then(Event::Requested);
    let (at, cause) = (blocked.now, Cause::Manual);
    assert_eq!(blocked.schedule.next(), Next::Attempt { at, cause });
    assert_eq!(blocked.schedule.blocked(), Some(AuthFailed));
}

#[test]
fn a_request_during_an_attempt_is_due_when_that_ends() {
    for result in [Taken, Failed(Timeout), Interrupted] {
        let story = Story::new().then(Event::Began).then(Event::Requested);
        assert_eq!(story.schedule.next(), Next::Wait);
        let story = story.pass(MINUTE).made(result);
        story.waits(Duration::ZERO, Cause::Manual);
    }
    let story = Story::new().then(Event::Began).then(Event::Requested);
    let story = story.deferred(Deferral::Contended);
    story.waits(Duration::ZERO, Cause::Manual);
}

#[test]
fn a_deferred_request_leaves_the_device_where_it_was() {
    let healthy = Story::new().attempt(Taken).then(Event::Requested);
    let healthy = healthy.then(Event::Began).deferred(Deferral::Contended);
    healthy.waits(interval() - MINUTE, Cause::Scheduled);

    let blocked = auth_blocked().then(Event::Requested);
    let blocked = blocked.then(Event::Began).deferred(Deferral::Contended);
    blocked.is_blocked(interval() - MINUTE, AuthFailed);

    let due_meanwhile = Story::new().then(Event::Requested).then(Event::Began);
    let due_meanwhile = due_meanwhile.pass(HOUR).deferred(Deferral::Contended);
    due_meanwhile.waits(POLICY.recheck, Cause::Scheduled);
}

#[test]
fn what_was_connected_to_too_often_is_due_when_it_may_be_again() {
    let limited = |story: &Story, wait| Deferral::RateLimited {
        until: story.now + wait,
        wait,
    };
    let retry = Story::new().attempt(Failed(Timeout)).pass(5 * MINUTE);
    let deferral = limited(&retry, HOUR);
    let retry = retry.then(Event::Began).deferred(deferral);
    retry.waits(HOUR, Cause::Retry);
    retry.failures(1);

    // A request is over then, and the device waits for what it had waited for before.
    let asked = Story::new().attempt(Taken).then(Event::Requested);
    let deferral = limited(&asked, HOUR);
    let asked = asked.then(Event::Began).deferred(deferral);
    asked.waits(interval() - MINUTE, Cause::Scheduled);

    // Whatever the clock was set to meanwhile.
    let story = Story::new().then(Event::Began);
    let deferral = limited(&story, 1000 * HOUR);
    let story = story.deferred(deferral);
    story.waits(LONGEST_WAIT, Cause::Scheduled);
}

#[test]
fn a_request_gives_a_blocked_device_one_try() {
    let tried = |result| {
        auth_blocked()
            .then(Event::Requested)
            .then(Event::Began)
            .made(result)
    };
    for result in [Failed(AuthFailed), Failed(Timeout)] {
        let story = tried(result);
        story.is_blocked(interval(), AuthFailed);
        story.failures(2);
    }
    let cured = tried(Taken);
    cured.waits(interval(), Cause::Scheduled);
    cured.failures(0);
}

#[test]
fn a_requested_try_that_read_an_edit_no_longer_stands_under_the_old_block() {
    let story = auth_blocked().then(Event::Requested).then(Event::Began);
    let story = story.made_with(new_password(), Failed(Timeout));
    story.waits(5 * MINUTE, Cause::Retry);
    story.failures(1);
}

#[test]
fn an_interrupted_attempt_is_repeated_soon_and_not_counted() {
    let story = Story::new().attempt(Failed(Timeout)).attempt(Interrupted);
    story.waits(Duration::ZERO, Cause::Retry);
    story.failures(1);
    let story = auth_blocked().then(Event::Requested).then(Event::Began);
    let story = story.made(Interrupted);
    assert_eq!(story.schedule.blocked(), Some(AuthFailed));
    let (at, cause) = (story.now, Cause::Manual);
    assert_eq!(story.schedule.next(), Next::Attempt { at, cause });
}

#[test]
fn a_second_request_does_not_wait_for_the_repetition_of_the_first() {
    let mut schedule = Schedule::resume(POLICY, device(), original(), None, NOW, NONE);
    schedule.handle(Event::Requested, NOW, NONE);
    schedule.handle(Event::Began, NOW, NONE);
    let interrupted = Event::Finished(Finish::Made {
        started_at: NOW,
        revision: original(),
        result: Interrupted,
    });
    schedule.handle(interrupted, NOW, Draw::new(0.9));
    assert!(schedule.due_in(NOW) > Duration::ZERO);
    schedule.handle(Event::Requested, NOW, NONE);
    assert_eq!(schedule.due_in(NOW), Duration::ZERO);
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
fn a_restart_repeats_nothing_that_is_not_due() {
    for status in [Status::Success, Status::Queued] {
        let last = record(status, None, HOUR);
        let story = Story::resumed(Some(&last), original());
        story.waits(interval() - HOUR, Cause::Scheduled);
        assert_eq!(story.schedule.condition(), Some(Condition::Ok));
    }
}

#[test]
fn overdue_work_is_spread_after_a_long_downtime() {
    let last = record(Status::Success, None, 100 * HOUR);
    let due_in = |sample| {
        let draw = Draw::new(sample);
        Schedule::resume(POLICY, device(), original(), Some(&last), NOW, draw).due_in(NOW)
    };
    assert_eq!(due_in(0.0), Duration::ZERO);
    assert_eq!(due_in(0.5), POLICY.jitter_max / 2);
}

#[test]
fn a_restart_continues_the_ladder() {
    let mut last = record(Status::Failed, Some(Timeout), 5 * MINUTE);
    last.consecutive_failures = 2;
    let story = Story::resumed(Some(&last), original());
    story.waits(11 * MINUTE, Cause::Retry);
    story.attempt(Failed(Timeout)).failures(3);
    let answered = Story::resumed(Some(&last), new_address());
    answered.waits(Duration::ZERO, Cause::Edited);
    answered.failures(0);
}

#[test]
fn a_restart_neither_lifts_a_block_nor_misses_the_edit_that_does() {
    let last = record(Status::Failed, Some(AuthFailed), HOUR);
    let blocked = Story::resumed(Some(&last), original());
    blocked.is_blocked(interval() - HOUR, AuthFailed);
    blocked.failures(1);
    Story::resumed(Some(&last), new_pin()).is_blocked(interval() - HOUR, AuthFailed);
    let answered = Story::resumed(Some(&last), new_password());
    answered.waits(Duration::ZERO, Cause::Edited);
    let long_ago = record(Status::Failed, Some(AuthFailed), 10 * interval() + HOUR);
    let blocked = Story::resumed(Some(&long_ago), original());
    blocked.is_blocked(interval() - HOUR, AuthFailed);
}

#[test]
fn a_block_outlives_an_interrupted_try_across_a_restart() {
    let last = record(Status::Interrupted, Some(AuthFailed), HOUR);
    Story::resumed(Some(&last), original()).is_blocked(interval() - HOUR, AuthFailed);
}

#[test]
fn an_attempt_that_died_with_its_process_is_repeated_soon() {
    let last = record(Status::Interrupted, None, HOUR);
    let story = Story::resumed(Some(&last), original());
    story.waits(Duration::ZERO, Cause::Scheduled);
    story.failures(0);
    assert_eq!(story.schedule.condition(), Some(Condition::New));
    let last = record(Status::Interrupted, Some(Timeout), HOUR);
    let story = Story::resumed(Some(&last), original());
    story.waits(Duration::ZERO, Cause::Retry);
    story.failures(1);
}

#[test]
fn from_the_second_death_on_the_ladder_says_when() {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    for (deaths, wait) in [(1, 0), (2, 5), (3, 15), (4, 60), (9, 60)] {
        let died = LastAttempt {
            deaths,
            ..record(Status::Interrupted, None, MINUTE)
        };
        let cause = match deaths {
            1 => Cause::Scheduled,
            _ => Cause::Retry,
        };
        Story::resumed(Some(&died), original()).waits(minutes(wait), cause);

        // Adopted from the claim that found it, it is the same; and a standing failure stands.
        let failing = LastAttempt {
            deaths,
            ..record(Status::Interrupted, Some(Timeout), MINUTE)
        };
        let story = Story::new()
            .then(Event::Began)
            .deferred(Deferral::Superseded(Box::new(failing)));
        story.waits(minutes(wait), Cause::Retry);
        story.failures(1);
    }
}

#[test]
fn a_requested_attempt_that_died_does_not_bring_the_next_one_forward() {
    let mut last = record(Status::Interrupted, None, MINUTE);
    last.last_success_at = Some(NOW - HOUR);
    let story = Story::resumed(Some(&last), original());
    story.waits(interval() - HOUR, Cause::Scheduled);
    last.last_success_at = Some(NOW - interval() - MINUTE);
    let story = Story::resumed(Some(&last), original());
    story.waits(Duration::ZERO, Cause::Scheduled);
}

#[test]
fn a_record_from_the_future_is_taken_as_made_now() {
    let mut last = record(Status::Success, None, Duration::ZERO);
    last.started_at = NOW + 1000 * HOUR;
    last.finished_at = last.started_at + MINUTE;
    let story = Story::resumed(Some(&last), original());
    story.waits(interval(), Cause::Scheduled);
}

#[test]
fn conditions_have_names_of_their_own() {
    let names: std::collections::BTreeSet<_> = Condition::ALL.iter().map(|c| c.as_str()).collect();
    assert_eq!(names.len(), Condition::ALL.len());
}

#[test]
fn a_device_whose_snapshot_was_lost_is_due_at_once_and_after_a_restart_too() {
    let mut schedule = Schedule::resume(POLICY, device(), original(), None, NOW, NONE);
    schedule.handle(Event::Began, NOW, NONE);
    let taken = Finish::Made {
        started_at: NOW,
        revision: original(),
        result: Made::Taken,
    };
    schedule.handle(Event::Finished(taken), NOW, NONE);
    let lost = LastAttempt {
        deaths: 0,
        id: AttemptId(Uuid::nil()),
        started_at: NOW,
        finished_at: NOW,
        status: Status::Failed,
        failure: Some(FailureKind::SnapshotLost),
        consecutive_failures: 1,
        revision: original(),
        last_success_at: None,
    };
    let now = later(NOW, MINUTE);
    let draw = Draw::new(0.5);
    schedule.handle(Event::Revised(Box::new(lost.clone())), now, draw);
    let resumed = Schedule::resume(POLICY, device(), original(), Some(&lost), now, draw);
    for schedule in [schedule, resumed] {
        assert!(schedule.due_in(now) <= Duration::from_secs(5));
        assert_eq!(schedule.consecutive_failures(), 1);
    }
}
