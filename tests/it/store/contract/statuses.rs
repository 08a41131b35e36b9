//! What is known of each device, read without asking anybody who works on it.

use std::collections::BTreeMap;
use std::time::Duration;

use mikrotik_backup::domain::attempt::{AttemptId, Outcome};
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::domain::failure::FailureKind;
use mikrotik_backup::domain::host_key::Fingerprint;
use mikrotik_backup::ports::{DeviceStatus, StatusPage, Store};
use time::OffsetDateTime;

use super::{Operator, Value, begin, claim, failed, interrupted, listed, record, taken};
use crate::services::postgres::NewDevice;

/// Everything, in pages of `limit`.
async fn all(store: &dyn Store, failing: bool, limit: u32) -> BTreeMap<DeviceId, DeviceStatus> {
    let mut page = StatusPage {
        after: None,
        failing,
        limit,
    };
    let mut found: Vec<DeviceStatus> = Vec::new();
    loop {
        let read = store.statuses(page).await.expect("read a page");
        assert!(read.devices.len() <= limit as usize);
        found.extend(read.devices);
        match read.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    let ids: Vec<_> = found.iter().map(|status| status.device.id).collect();
    assert!(ids.is_sorted(), "by ascending id");
    let by_id: BTreeMap<_, _> = found.into_iter().map(|it| (it.device.id, it)).collect();
    assert_eq!(by_id.len(), ids.len(), "no device twice");
    by_id
}

fn hours_ago(at: Option<OffsetDateTime>) -> i64 {
    let age = OffsetDateTime::now_utc() - at.expect("a time");
    (age + time::Duration::minutes(1)).whole_hours()
}

pub(super) async fn the_state_of_each_device_is_read_in_pages(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(operator.insert(NewDevice::default()).await);
    }
    let [untried, good, failing, blocked] = ids[..] else {
        unreachable!("four were inserted")
    };
    let no_router = operator.insert(NewDevice::default()).await;
    operator
        .set("devices", no_router.0, "device_type", Value::Text("switch"))
        .await;
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let made = async |id: DeviceId, age: u64, outcome: Outcome| {
        let device = listed(store, id).await.expect("listed").device;
        let mut entry = record(AttemptId::generate(), &device, outcome);
        entry.elapsed = hours(age);
        if entry
            .outcome
            .failure()
            .is_some_and(|it| it.kind == FailureKind::HostKeyMismatch)
        {
            entry.offered_key = Some(Fingerprint::of_key_blob(b"another key"));
        }
        store.record(&entry, "one").await.expect("record");
    };
    made(good, 3, Outcome::Delivered(taken("a"))).await;
    made(failing, 9, failed(FailureKind::Unknown)).await;
    made(failing, 8, Outcome::Delivered(taken("b"))).await;
    made(failing, 7, failed(FailureKind::Timeout)).await;
    made(failing, 6, failed(FailureKind::Unreachable)).await;
    made(blocked, 5, failed(FailureKind::HostKeyMismatch)).await;
    begin(store, &claim(untried, None, "one")).await;

    let everything = all(store, false, 2).await;
    assert!(!everything.contains_key(&no_router));
    let never = &everything[&untried];
    assert_eq!((never.last.as_ref(), never.failing_since), (None, None));
    assert_eq!(hours_ago(never.running_since), 0);

    let status = &everything[&good];
    assert_eq!(
        status.device,
        listed(store, good).await.expect("listed").device
    );
    assert_eq!(
        hours_ago(status.last.as_ref().expect("tried").last_success_at),
        3
    );
    assert_eq!((status.error.as_ref(), status.failing_since), (None, None));
    assert_eq!(status.running_since, None);
    let due = status.next_due.expect("due") - OffsetDateTime::now_utc();
    assert!(due.whole_minutes().abs_diff(60) <= 1, "due in {due}");

    let status = &everything[&failing];
    let last = status.last.as_ref().expect("tried");
    assert_eq!(last.failure, Some(FailureKind::Unreachable));
    assert_eq!(hours_ago(last.last_success_at), 8);
    assert_eq!(hours_ago(status.failing_since), 7, "since the last success");
    assert_eq!(status.blocked_since, None);
    assert_eq!(
        status.error.as_deref(),
        Some("an invented failure of kind unreachable")
    );

    let status = &everything[&blocked];
    let last = status.last.as_ref().expect("tried");
    assert_eq!(last.failure, Some(FailureKind::HostKeyMismatch));
    assert_eq!(
        hours_ago(status.blocked_since),
        0,
        "noted when it was recorded"
    );
    assert_eq!(
        status.offered_key.as_deref(),
        Some(Fingerprint::of_key_blob(b"another key").as_str())
    );

    // A block outlives an attempt that says nothing, and so does its reason.
    let device = listed(store, blocked).await.expect("listed").device;
    let mut later = record(AttemptId::generate(), &device, interrupted());
    later.standing = Some((FailureKind::HostKeyMismatch, device.revision()));
    later.elapsed = hours(4);
    store.record(&later, "one").await.expect("record");
    let only_failing = all(store, true, 1).await;
    for id in [failing, blocked] {
        assert!(only_failing.contains_key(&id));
    }
    for id in [untried, good, no_router] {
        assert!(!only_failing.contains_key(&id));
    }
    let last = only_failing[&blocked].last.as_ref().expect("tried");
    assert_eq!(last.failure, Some(FailureKind::HostKeyMismatch));
}
