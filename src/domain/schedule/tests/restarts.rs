//! Restarts: what was stored goes on, and what died or was lost is repeated.

use super::*;

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
