//! Edits: which of them answers a failure or a block.

use super::*;

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
