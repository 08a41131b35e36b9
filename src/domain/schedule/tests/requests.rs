//! Requests: due at once, and what they leave behind.

use super::*;

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
