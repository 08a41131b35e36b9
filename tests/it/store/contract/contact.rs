//! How often a device is connected to, between all who claim it.

use std::time::Duration;

use mikrotik_backup::domain::attempt::{AttemptId, Cause, Outcome, Status, Step, StepTime};
use mikrotik_backup::domain::contact::{Bound, OFTEN, UNCOUNTED};
use mikrotik_backup::domain::device::{Device, DeviceId};
use mikrotik_backup::domain::failure::FailureKind;
use mikrotik_backup::ports::{Claim, Claimed, Store};

use super::{
    Operator, Value, begin, claim, failed, interrupted, journal_status, last, record, taken,
};
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

/// A row that says `address`: connections are counted by address, so that each test has its own.
fn at(address: &str) -> NewDevice {
    NewDevice {
        ip_address: address.to_owned(),
        ..NewDevice::default()
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
    let id = operator.insert(at("198.51.100.1")).await;
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

    // One more for an operator, and then for nobody; new credentials change nothing about that.
    let asked = bounded(id, Cause::Edited, "two");
    let device = begin(store, &asked).await.device;
    let delivered = Outcome::Delivered(taken("x"));
    ended(store, asked.attempt, &device, delivered, Step::Connect).await;
    let edited = Value::Bytes(b"edited");
    operator
        .set("devices", id.0, "encrypted_credentials", edited)
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

    let other = operator.insert(at("198.51.100.2")).await;
    begin(store, &bounded(other, Cause::Scheduled, "one")).await;
}

pub(super) async fn what_died_counts_and_what_never_dialled_does_not(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator.insert(at("198.51.100.3")).await;
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
    let uncounted = operator.insert(at("198.51.100.4")).await;
    for n in 0..UNCOUNTED {
        ask(uncounted, (n % 2 == 0).then_some(false)).await;
    }
    for cause in [Cause::Manual, Cause::Edited, Cause::Scheduled] {
        let wait = refused(store, &bounded(uncounted, cause, "one")).await;
        assert!(about(wait, HOUR), "{wait:?}");
    }
    // The rules are there now; and who knows what is at another address?
    let counted = operator.insert(at("198.51.100.5")).await;
    let moved = operator.insert(at("198.51.100.6")).await;
    for (id, last) in [(counted, true), (moved, false)] {
        for counts in [false, false, last] {
            ask(id, Some(counts)).await;
        }
    }
    let address = Value::Text("198.51.100.7");
    operator
        .set("devices", moved.0, "ip_address", address)
        .await;
    for _ in 0..3 {
        ask(moved, None).await;
    }
    for id in [counted, moved] {
        let wait = refused(store, &bounded(id, Cause::Manual, "one")).await;
        assert!(about(wait, HOUR), "{wait:?}");
    }
}

pub(super) async fn rows_that_say_the_same_address_share_its_connections(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let connected = async |id, cause| {
        let own = bounded(id, cause, "one");
        let device = begin(store, &own).await.device;
        let outcome = failed(FailureKind::Timeout);
        ended(store, own.attempt, &device, outcome, Step::Connect).await;
    };
    // Of two tenants, written in two ways; another port is another router.
    let one = operator.insert(at("2001:db8::A")).await;
    let two = operator.insert(at("[2001:db8::a]")).await;
    let port = NewDevice {
        ssh_port: Some(2222),
        ..at("2001:db8::a")
    };
    let port = operator.insert(port).await;
    connected(one, Cause::Scheduled).await;
    connected(two, Cause::Scheduled).await;
    for id in [one, two] {
        let wait = refused(store, &bounded(id, Cause::Retry, "one")).await;
        assert!(about(wait, QUARTER), "{wait:?}");
    }
    // The third runs at the one row, and the other one waits for as long as it may take to dial.
    let third = bounded(one, Cause::Manual, "one");
    let device = begin(store, &third).await.device;
    let longest = HOUR + Duration::from_secs(60);
    let wait = refused(store, &bounded(two, Cause::Manual, "two")).await;
    assert!(about(wait, longest), "{wait:?}");
    // It never dialled; so another one may.
    let outcome = failed(FailureKind::CredentialsUnreadable);
    ended(store, third.attempt, &device, outcome, Step::Lock).await;
    connected(two, Cause::Manual).await;
    for id in [one, two] {
        let wait = refused(store, &bounded(id, Cause::Manual, "one")).await;
        assert!(about(wait, HOUR), "{wait:?}");
    }
    connected(port, Cause::Scheduled).await;

    // A row that says another address waits for nobody there, and takes none of its count along;
    // the address keeps it, also for a row that is new.
    let address = Value::Text("2001:db8::b");
    operator.set("devices", two.0, "ip_address", address).await;
    connected(two, Cause::Edited).await;
    connected(two, Cause::Scheduled).await;
    operator.delete(one).await;
    let again = operator.insert(at("2001:db8::a.")).await;
    let wait = refused(store, &bounded(again, Cause::Manual, "one")).await;
    assert!(about(wait, HOUR), "{wait:?}");

    // What died at the address that the row had before does not count at the new one.
    let moved = operator.insert(at("2001:db8::c")).await;
    begin(store, &bounded(moved, Cause::Manual, "one")).await;
    let address = Value::Text("2001:db8::d");
    operator
        .set("devices", moved.0, "ip_address", address)
        .await;
    for _ in 0..3 {
        connected(moved, Cause::Manual).await;
    }
    let old = operator.insert(at("2001:db8::c")).await;
    connected(old, Cause::Scheduled).await;
    let wait = refused(store, &bounded(old, Cause::Scheduled, "one")).await;
    assert!(wait > QUARTER - Duration::from_secs(20), "{wait:?}");
}

pub(super) async fn an_address_in_two_spellings_is_one(store: &dyn Store, operator: &dyn Operator) {
    for (one, two) in [
        ("198.51.100.9", "::ffff:198.51.100.9"),
        ("::FFFF:c633:640a", "198.51.100.10"),
        ("2001:db8:0:0:0:0:00:e", "2001:db8::e"),
        (" [2001:DB8::000f]", "2001:0db8::f"),
        ("Router-9.Example.", "router-9.example"),
    ] {
        let one = operator.insert(at(one)).await;
        let two = NewDevice {
            ssh_port: Some(22),
            ..at(two)
        };
        let two = operator.insert(two).await;
        // Nobody knows how far any of them came: died, and then one that runs.
        for id in [one, two, one] {
            begin(store, &bounded(id, Cause::Manual, "one")).await;
        }
        let longest = HOUR + Duration::from_secs(60);
        for id in [two, one] {
            let wait = refused(store, &bounded(id, Cause::Manual, "two")).await;
            assert!(about(wait, longest), "{wait:?}");
        }
        let state = operator.state(two).await;
        assert_eq!(state["running_attempt_id"], None, "it is taken back");
        let own = Claim {
            bound: Some(Bound::for_interval(
                Duration::from_secs(60),
                Duration::from_secs(10),
            )),
            ..bounded(two, Cause::Scheduled, "one")
        };
        begin(store, &own).await;
    }
}

pub(super) async fn a_short_interval_is_each_rows_own(store: &dyn Store, operator: &dyn Operator) {
    let minute = Duration::from_secs(60);
    let often = Bound::for_interval(minute, Duration::from_secs(10));
    let connected = async |id| {
        let own = Claim {
            bound: Some(often),
            ..bounded(id, Cause::Scheduled, "one")
        };
        let device = begin(store, &own).await.device;
        let outcome = failed(FailureKind::Timeout);
        ended(store, own.attempt, &device, outcome, Step::Connect).await;
    };
    let one = operator.insert(at("198.51.100.8")).await;
    let two = operator.insert(at("198.51.100.8")).await;
    for _ in 0..OFTEN {
        connected(one).await;
    }
    let one_more = Claim {
        bound: Some(often),
        ..bounded(one, Cause::Manual, "one")
    };
    let wait = refused(store, &one_more).await;
    assert!(about(wait, HOUR), "{wait:?}");
    connected(two).await;
}
