//! Attempts: how they begin, what is recorded of them, and what the state says afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use mikrotik_backup::domain::attempt::{AttemptId, Cause, Outcome, Status, Step, StepTime};
use mikrotik_backup::domain::failure::{Failure, FailureKind};
use mikrotik_backup::domain::host_key::Fingerprint;
use mikrotik_backup::ports::{Claim, Claimed, Store};

use super::{
    Operator, Value, begin, claim, failed, interrupted, journal_status, last, listed, record, taken,
};
use crate::services::postgres::NewDevice;

pub(super) async fn a_backup_is_recorded_and_remembered(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator
        .insert(NewDevice {
            routeros_version: Some("6.49".into()),
            ..NewDevice::default()
        })
        .await;
    let wish = claim(id, None, "replica-a");
    let begun = begin(store, &wish).await;
    assert_eq!((begun.last_shape, begun.last_bytes), (None, None));
    assert_eq!(
        begun.device.routeros_version.as_deref(),
        Some("6.49"),
        "as the platform says"
    );
    let running = operator.state(id).await;
    assert_eq!(
        running["running_attempt_id"],
        Some(wish.attempt.to_string())
    );
    assert_eq!(running["running_replica"].as_deref(), Some("replica-a"));
    assert_eq!(
        listed(store, id).await.expect("listed").last,
        None,
        "a running attempt is no last one"
    );

    let snapshot = taken("/ip address\n");
    let key = Fingerprint::of_key_blob(b"a key");
    let mut success = record(
        wish.attempt,
        &begun.device,
        Outcome::Delivered(snapshot.clone()),
    );
    success.offered_key = Some(key.clone());
    success.elapsed = Duration::from_millis(61_500);
    success.ledger = BTreeMap::from([("header".into(), 1)]);
    success.steps = [
        (Step::Presence, 1),
        (Step::Connect, 250),
        (Step::Export, 61_000),
    ]
    .map(|(step, ms)| StepTime {
        step,
        took: Duration::from_millis(ms),
    })
    .to_vec();
    store.record(&success, "replica-a").await.expect("record");
    store
        .record(&success, "replica-a")
        .await
        .expect("record it again");

    let (entry, steps) = store.attempt(wish.attempt).await.expect("the journal row");
    assert_eq!(steps, success.steps);
    assert_eq!((entry.device, entry.tenant), (id, begun.device.tenant));
    assert_eq!(
        (entry.cause, entry.status),
        (Cause::Scheduled, Status::Success)
    );
    assert_eq!((entry.error_kind, entry.error), (None, None));
    assert_eq!(entry.sha256_hash, Some(snapshot.hash.to_string()));
    assert_eq!((entry.bytes, entry.step_count), (Some(snapshot.bytes), 3));
    assert_eq!(entry.replica, "replica-a");
    assert_eq!(entry.finished_at - entry.started_at, success.elapsed);

    let state = operator.state(id).await;
    assert_eq!(state["status"].as_deref(), Some("success"));
    assert_eq!(state["running_attempt_id"], None);
    assert_eq!(state["last_hash"], Some(snapshot.hash.to_string()));
    assert_eq!(
        state["offered_fingerprint"], None,
        "only a mismatch is worth showing"
    );

    let remembered = last(store, id).await;
    assert_eq!(
        (remembered.id, remembered.status),
        (wish.attempt, Status::Success)
    );
    assert_eq!(
        (remembered.failure, remembered.consecutive_failures),
        (None, 0)
    );
    assert_eq!(remembered.revision, begun.device.revision());
    assert_eq!(remembered.last_success_at, Some(remembered.started_at));

    let next = claim(id, Some(wish.attempt), "replica-a");
    let begun = begin(store, &next).await;
    assert_eq!(begun.last_shape, Some(snapshot.shape.clone()));
    assert_eq!(begun.last_bytes, Some(snapshot.bytes));
    assert_eq!(
        begun.device.routeros_version.as_deref(),
        Some("7.14.3"),
        "our own state knows better"
    );
    store
        .record(
            &record(next.attempt, &begun.device, failed(FailureKind::Timeout)),
            "replica-a",
        )
        .await
        .expect("record");
    let state = operator.state(id).await;
    assert_eq!(state["error_kind"].as_deref(), Some("timeout"));
    assert_eq!(
        state["last_hash"],
        Some(snapshot.hash.to_string()),
        "a failure forgets nothing"
    );
    let failure = last(store, id).await;
    assert_eq!(
        (failure.failure, failure.consecutive_failures),
        (Some(FailureKind::Timeout), 1)
    );
    let since = failure.last_success_at.expect("an earlier success") - remembered.started_at;
    assert!(since.abs() < time::Duration::seconds(5), "{since}");
}

pub(super) async fn the_slower_replica_is_superseded(store: &dyn Store, operator: &dyn Operator) {
    let id = operator.insert(NewDevice::default()).await;
    let first = claim(id, None, "replica-a");
    let device = begin(store, &first).await.device;
    store
        .record(
            &record(first.attempt, &device, Outcome::Delivered(taken("x"))),
            "replica-a",
        )
        .await
        .expect("record");

    let mut late = claim(id, None, "replica-b");
    let Claimed::Superseded(record_of_a) = store.claim(&late).await.expect("an answer") else {
        panic!("replica-b must not repeat what replica-a has just done");
    };
    assert_eq!(record_of_a.id, first.attempt);
    assert_eq!(
        operator.state(id).await["running_attempt_id"],
        None,
        "no mark of a refused claim"
    );
    late.known_last = Some(first.attempt);
    begin(store, &late).await;

    let by_hand = Claim {
        any_last: true,
        cause: Cause::Manual,
        ..claim(id, None, "replica-b")
    };
    begin(store, &by_hand).await;
    operator.delete(id).await;
    let claimed = store.claim(&by_hand).await.expect("an answer");
    assert_eq!(claimed, Claimed::Gone);
}

pub(super) async fn a_claim_that_was_taken_back_never_was(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator.insert(NewDevice::default()).await;
    let wish = claim(id, None, "replica-a");
    let other = claim(id, None, "replica-b");
    begin(store, &wish).await;
    // Somebody else's claim stays.
    store
        .unclaim(id, other.attempt)
        .await
        .expect("nothing to do");
    assert!(operator.state(id).await["running_since"].is_some());
    store.unclaim(id, wish.attempt).await.expect("take it back");
    let state = operator.state(id).await;
    assert_eq!(
        (&state["running_attempt_id"], &state["running_since"]),
        (&None, &None)
    );
    assert_eq!(listed(store, id).await.expect("listed").last, None);
    begin(store, &other).await;
    let journaled = store.attempt(wish.attempt).await;
    assert!(journaled.is_err(), "no attempt was made: {journaled:?}");
}

pub(super) async fn a_lost_attempt_is_journaled_as_interrupted(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator.insert(NewDevice::default()).await;
    let lost = Claim {
        cause: Cause::Retry,
        ..claim(id, None, "replica-a")
    };
    let device = begin(store, &lost).await.device;
    begin(store, &lost).await; // asked again after a lost answer: still the same attempt
    let next = claim(id, None, "replica-b");
    begin(store, &next).await;
    let (entry, steps) = store.attempt(lost.attempt).await.expect("the lost attempt");
    assert_eq!(
        (entry.status, entry.cause),
        (Status::Interrupted, Cause::Retry)
    );
    assert_eq!((entry.replica.as_str(), steps.len()), ("replica-a", 0));
    assert!(entry.error.expect("a reason").contains("died"));

    // Its process was only slow: the truth replaces the guess, and the running mark stays.
    let mut truth = record(lost.attempt, &device, Outcome::Delivered(taken("x")));
    truth.steps = vec![StepTime {
        step: Step::Export,
        took: Duration::from_millis(5),
    }];
    store.record(&truth, "replica-a").await.expect("record");
    let (entry, steps) = store.attempt(lost.attempt).await.expect("the slow attempt");
    assert_eq!((entry.status, entry.error), (Status::Success, None));
    assert_eq!(steps, truth.steps);
    let state = operator.state(id).await;
    assert_eq!(state["running_attempt_id"], Some(next.attempt.to_string()));
    assert_eq!(state["last_attempt_id"], Some(lost.attempt.to_string()));
    store
        .record(
            &record(next.attempt, &device, Outcome::Queued(taken("y"))),
            "replica-b",
        )
        .await
        .expect("record");
    assert_eq!(last(store, id).await.status, Status::Queued);
    assert_eq!(journal_status(store, lost.attempt).await, Status::Success);
}

pub(super) async fn a_block_outlasts_everything_but_another_outcome(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator.insert(NewDevice::default()).await;
    let device = listed(store, id).await.expect("listed").device;
    let mut mismatch = record(
        AttemptId::generate(),
        &device,
        failed(FailureKind::HostKeyMismatch),
    );
    let offered = Fingerprint::of_key_blob(b"another key");
    mismatch.offered_key = Some(offered.clone());
    store.record(&mismatch, "one").await.expect("record");
    let blocked = operator.state(id).await;
    assert_eq!(
        blocked["offered_fingerprint"].as_deref(),
        Some(offered.as_str())
    );
    assert!(blocked["blocked_since"].is_some());

    operator
        .set("devices", id.0, "ip_address", Value::Text("192.0.2.77"))
        .await;
    let edited = listed(store, id).await.expect("listed").device;
    let mut stopped = record(AttemptId::generate(), &edited, interrupted());
    stopped.elapsed = Duration::ZERO;
    stopped.standing = Some((FailureKind::HostKeyMismatch, device.revision()));
    store.record(&stopped, "one").await.expect("record");
    let after = last(store, id).await;
    assert_eq!(
        (after.status, after.failure),
        (Status::Interrupted, Some(FailureKind::HostKeyMismatch))
    );
    assert_eq!(
        after.revision,
        device.revision(),
        "an edit since the block must still be seen"
    );
    let state = operator.state(id).await;
    for kept in ["blocked_since", "error", "offered_fingerprint"] {
        assert_eq!(state[kept], blocked[kept], "{kept}");
    }

    let mut refused = record(
        AttemptId::generate(),
        &edited,
        failed(FailureKind::AuthFailed),
    );
    refused.elapsed = Duration::ZERO;
    store.record(&refused, "one").await.expect("record");
    let state = operator.state(id).await;
    assert_eq!(
        state["blocked_since"], blocked["blocked_since"],
        "since it was first blocked"
    );
    assert_eq!(state["offered_fingerprint"], None);

    let mut good = record(
        AttemptId::generate(),
        &edited,
        Outcome::Delivered(taken("x")),
    );
    good.elapsed = Duration::ZERO;
    store.record(&good, "one").await.expect("record");
    let state = operator.state(id).await;
    for cleared in ["blocked_since", "error_kind", "error"] {
        assert_eq!(state[cleared], None, "{cleared}");
    }
    assert_eq!(last(store, id).await.failure, None);
}

pub(super) async fn state_only_moves_forward(store: &dyn Store, operator: &dyn Operator) {
    let id = operator.insert(NewDevice::default()).await;
    let device = listed(store, id).await.expect("listed").device;
    let newer = record(
        AttemptId::generate(),
        &device,
        Outcome::Delivered(taken("x")),
    );
    store.record(&newer, "one").await.expect("record");
    let mut older = record(
        AttemptId::generate(),
        &device,
        failed(FailureKind::AuthFailed),
    );
    older.elapsed = Duration::from_secs(600);
    store.record(&older, "two").await.expect("record");
    assert_eq!(last(store, id).await.id, newer.id);
    assert_eq!(operator.state(id).await["blocked_since"], None);
    assert_eq!(
        journal_status(store, older.id).await,
        Status::Failed,
        "journaled all the same"
    );
}

pub(super) async fn text_that_a_database_hates_is_stored(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator.insert(NewDevice::default()).await;
    let device = listed(store, id).await.expect("listed").device;
    let message = "a banner with \0, 'quotes', \u{1f600}; DROP TABLE devices; --";
    let failure = Failure::new(FailureKind::NotAnExport, message);
    let mut odd = record(AttemptId::generate(), &device, Outcome::Failed(failure));
    odd.ledger = BTreeMap::from([("rule\0".into(), u64::from(u32::MAX))]);
    odd.next_due_in = Duration::MAX;
    odd.consecutive_failures = u32::MAX;
    store.record(&odd, "replica \0").await.expect("record");
    let (entry, _) = store.attempt(odd.id).await.expect("the journal row");
    assert_eq!(entry.error, Some(message.replace('\0', "\u{fffd}")));
    assert_eq!(entry.error_kind.as_deref(), Some("not_an_export"));
}
