//! How often a device is connected to, between all who claim it.

use std::time::Duration;

use mikrotik_backup::domain::attempt::{AttemptId, Cause, Outcome, Status, Step, StepTime};
use mikrotik_backup::domain::contact::{Bound, UNCOUNTED};
use mikrotik_backup::domain::device::{Device, DeviceId};
use mikrotik_backup::domain::failure::FailureKind;
use mikrotik_backup::ports::{Claim, Claimed, Store};

use super::{Operator, begin, claim, failed, interrupted, journal_status, last, record, taken};
use crate::services::postgres::NewDevice;

const QUARTER: Duration = Duration::from_secs(15 * 60);
const HOUR: Duration = Duration::from_secs(3600);

/// A bounded claim that is made whatever happened since.
fn bounded(device: DeviceId, cause: Cause, replica: &str) -> Claim {
    Claim {
        any_last: true,
        cause,
        bound: Some(Bound::new(Duration::from_secs(10))),
        ..claim(device, None, replica)
    }
}

/// How long `claim` must wait, which must be refused.
async fn refused(store: &dyn Store, claim: &Claim) -> Duration {
    match store.claim(claim).await.expect("claim a device") {
        Claimed::TooSoon(wait) => wait,
        other => panic!("not refused: {other:?}"),
    }
}

/// Records the end of an attempt that got as far as `step`, in no time.
async fn ended(
    store: &dyn Store,
    attempt: AttemptId,
    device: &Device,
    outcome: Outcome,
    step: Step,
) {
    let mut record = record(attempt, device, outcome);
    record.elapsed = Duration::ZERO;
    record.steps = [Step::Lock, step]
        .map(|step| StepTime {
            step,
            took: Duration::ZERO,
        })
        .to_vec();
    store.record(&record, "one").await.expect("record");
}

fn about(wait: Duration, expected: Duration) -> bool {
    // The margin, and what a busy machine takes.
    wait > expected.saturating_sub(Duration::from_secs(20))
        && wait <= expected + Duration::from_secs(6)
}

pub(super) async fn connections_to_a_device_are_bounded(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator.insert(NewDevice::default()).await;
    // Long ago it was connected to often; that is over.
    for _ in 0..3 {
        let old = claim(id, None, "one");
        let device = begin(
            store,
            &Claim {
                any_last: true,
                ..old.clone()
            },
        )
        .await
        .device;
        let mut old = record(old.attempt, &device, failed(FailureKind::Timeout));
        old.ended_ago = 2 * HOUR;
        store.record(&old, "one").await.expect("record");
    }
    // The service's own two, by whichever replica, however they end.
    for (replica, outcome) in [
        ("one", interrupted()),
        ("two", failed(FailureKind::Timeout)),
    ] {
        let own = bounded(id, Cause::Scheduled, replica);
        let device = begin(store, &own).await.device;
        ended(store, own.attempt, &device, outcome, Step::Connect).await;
    }
    for cause in [Cause::Scheduled, Cause::Retry] {
        let wait = refused(store, &bounded(id, cause, "one")).await;
        assert!(about(wait, QUARTER), "{wait:?}");
    }
    assert_eq!(operator.state(id).await["running_attempt_id"], None);

    // One more for an operator, and then for nobody; an edit changes nothing about that.
    let asked = bounded(id, Cause::Edited, "two");
    let device = begin(store, &asked).await.device;
    let delivered = Outcome::Delivered(taken("x"));
    ended(store, asked.attempt, &device, delivered, Step::Connect).await;
    operator
        .set(
            "devices",
            id.0,
            "ip_address",
            super::Value::Text("192.0.2.99"),
        )
        .await;
    for cause in [Cause::Manual, Cause::Edited, Cause::Scheduled] {
        let late = bounded(id, cause, "one");
        let wait = refused(store, &late).await;
        assert!(about(wait, HOUR), "{wait:?}");
        assert!(store.attempt(late.attempt).await.is_err(), "none was made");
    }
    assert_eq!(last(store, id).await.id, asked.attempt);
    let unbounded = Claim {
        bound: None,
        ..bounded(id, Cause::Manual, "one")
    };
    begin(store, &unbounded).await;

    let other = operator.insert(NewDevice::default()).await;
    begin(store, &bounded(other, Cause::Scheduled, "one")).await;
}

pub(super) async fn what_died_counts_and_what_never_dialled_does_not(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator.insert(NewDevice::default()).await;
    for _ in 0..5 {
        // Its credentials cannot be opened; or what opens them is away.
        let unopened = bounded(id, Cause::Edited, "one");
        let device = begin(store, &unopened).await.device;
        let outcome = failed(FailureKind::CredentialsUnreadable);
        ended(store, unopened.attempt, &device, outcome, Step::Lock).await;
        let given_back = bounded(id, Cause::Edited, "one");
        begin(store, &given_back).await;
        let unclaimed = store.unclaim(id, given_back.attempt).await;
        unclaimed.expect("give it back");
    }
    // Nobody knows how far these came.
    let lost = [(); 3].map(|()| bounded(id, Cause::Manual, "one"));
    let device = begin(store, &lost[0]).await.device;
    for lost in &lost {
        begin(store, lost).await;
        begin(store, lost).await; // asked again after a lost answer: one attempt, one connection
    }
    let wait = refused(store, &bounded(id, Cause::Manual, "two")).await;
    // It may have dialled as late as it was permitted to.
    let longest = HOUR + Duration::from_secs(60);
    assert!(about(wait, longest), "{wait:?}");
    for lost in &lost {
        let status = journal_status(store, lost.attempt).await;
        assert_eq!(status, Status::Interrupted);
    }
    let state = operator.state(id).await;
    assert_eq!(
        state["running_attempt_id"], None,
        "the mark of the dead is gone"
    );
    let again = refused(store, &bounded(id, Cause::Manual, "two")).await;
    assert!(again <= wait, "{again:?}");

    // One of them was only slow, and tells now that it never dialled: so there is one place more.
    let outcome = failed(FailureKind::CredentialsUnreadable);
    ended(store, lost[0].attempt, &device, outcome, Step::Lock).await;
    begin(store, &bounded(id, Cause::Manual, "two")).await;
}

pub(super) async fn a_router_that_counts_nobody_may_be_asked_more_often(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let ask = async |id, counts| {
        let asked = bounded(id, Cause::Manual, "one");
        let device = begin(store, &asked).await.device;
        let outcome = match counts {
            Some(_) => Outcome::Delivered(taken("x")),
            None => failed(FailureKind::Timeout),
        };
        let mut record = record(asked.attempt, &device, outcome);
        record.elapsed = Duration::ZERO;
        record.steps = vec![StepTime {
            step: Step::Connect,
            took: Duration::ZERO,
        }];
        record.observed.counts_connections = counts;
        store.record(&record, "one").await.expect("record");
    };
    // What an export showed is not forgotten for a failure after it.
    let uncounted = operator.insert(NewDevice::default()).await;
    for n in 0..UNCOUNTED {
        ask(uncounted, (n % 2 == 0).then_some(false)).await;
    }
    for cause in [Cause::Manual, Cause::Edited, Cause::Scheduled] {
        let wait = refused(store, &bounded(uncounted, cause, "one")).await;
        assert!(about(wait, HOUR), "{wait:?}");
    }
    // The rules are there now; and who knows what is at another address?
    let counted = operator.insert(NewDevice::default()).await;
    let moved = operator.insert(NewDevice::default()).await;
    for (id, last) in [(counted, true), (moved, false)] {
        for counts in [false, false, last] {
            ask(id, Some(counts)).await;
        }
    }
    let address = super::Value::Text("192.0.2.99");
    operator
        .set("devices", moved.0, "ip_address", address)
        .await;
    for id in [counted, moved] {
        let wait = refused(store, &bounded(id, Cause::Manual, "one")).await;
        assert!(about(wait, HOUR), "{wait:?}");
    }
}
