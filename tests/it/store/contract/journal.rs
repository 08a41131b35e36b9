//! The journal: pages, and what is pruned.

use std::time::Duration;

use mikrotik_backup::domain::attempt::{AttemptId, Cause, Status, Step, StepTime};
use mikrotik_backup::domain::failure::FailureKind;
use mikrotik_backup::ports::{JournalPage, Store, StoreError};

use super::{Operator, begin, claim, failed, journal_status, listed, record};
use crate::services::postgres::NewDevice;

pub(super) async fn the_journal_is_paged_newest_first(store: &dyn Store, operator: &dyn Operator) {
    let id = operator.insert(NewDevice::default()).await;
    let device = listed(store, id).await.expect("listed").device;
    // Older attempts carry newer ids: the order is that of time.
    let mut newest_first = vec![];
    for minutes in 1..=7 {
        let mut entry = record(AttemptId::generate(), &device, failed(FailureKind::Timeout));
        entry.elapsed = Duration::from_secs(minutes * 60);
        entry.steps = vec![
            StepTime {
                step: Step::Slot,
                took: Duration::ZERO
            };
            minutes as usize
        ];
        store.record(&entry, "one").await.expect("record");
        newest_first.push((entry.id, minutes as u32));
    }
    let mut page = JournalPage {
        device: Some(id),
        before: None,
        limit: 3,
    };
    let mut read = vec![];
    loop {
        let entries = store.attempts(page).await.expect("a page");
        assert!(entries.len() <= 3);
        let Some(oldest) = entries.last() else { break };
        page.before = Some(oldest.id);
        read.extend(entries.iter().map(|entry| (entry.id, entry.step_count)));
    }
    assert_eq!(read, newest_first);

    let everything = JournalPage {
        limit: u32::MAX,
        ..JournalPage::default()
    };
    let everything = store.attempts(everything).await.expect("the whole journal");
    assert!(everything.len() > newest_first.len(), "other devices, too");
    assert!(everything.is_sorted_by_key(|entry| std::cmp::Reverse(entry.started_at)));
    let missing = store.attempt(AttemptId::generate()).await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );
}

pub(super) async fn an_attempt_is_running_until_it_is_recorded(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator.insert(NewDevice::default()).await;
    let device = listed(store, id).await.expect("listed").device;
    let wish = claim(id, None, "one");
    let attempt = wish.attempt;
    assert_eq!(store.running(attempt).await.expect("asked"), None);
    begin(store, &wish).await;
    let running = store.running(attempt).await.expect("asked");
    let running = running.expect("it is being made");
    assert_eq!((running.device, running.tenant), (id, device.tenant));
    assert_eq!(
        (running.cause, &*running.replica),
        (Cause::Scheduled, "one")
    );
    let entry = record(attempt, &device, failed(FailureKind::Timeout));
    store.record(&entry, "one").await.expect("record");
    assert_eq!(store.running(attempt).await.expect("asked"), None);
}

pub(super) async fn the_journal_is_pruned_in_batches(store: &dyn Store, operator: &dyn Operator) {
    const DAY: Duration = Duration::from_secs(86_400);
    let id = operator.insert(NewDevice::default()).await;
    let device = listed(store, id).await.expect("listed").device;
    let mut old = vec![];
    for days in [100, 95, 91] {
        let mut entry = record(AttemptId::generate(), &device, failed(FailureKind::Timeout));
        entry.elapsed = DAY * days;
        entry.steps = vec![StepTime {
            step: Step::Slot,
            took: Duration::ZERO,
        }];
        store.record(&entry, "one").await.expect("record");
        old.push(entry.id);
    }
    let mut young = record(AttemptId::generate(), &device, failed(FailureKind::Timeout));
    young.elapsed = DAY * 89;
    store.record(&young, "one").await.expect("record");

    assert_eq!(operator.count_steps(old[0]).await, 1);
    assert_eq!(store.prune(DAY * 90, 2).await.expect("prune"), 2);
    assert_eq!(
        journal_status(store, old[2]).await,
        Status::Failed,
        "the oldest go first"
    );
    assert_eq!(
        operator.count_steps(old[0]).await,
        0,
        "steps go with their attempt"
    );
    assert_eq!(store.prune(DAY * 90, 2).await.expect("prune"), 1);
    assert_eq!(store.prune(DAY * 90, 2).await.expect("prune"), 0);
    assert_eq!(journal_status(store, young.id).await, Status::Failed);
    assert_eq!(store.prune(Duration::MAX, 10).await.expect("prune"), 0);
    assert!(
        !operator.state(id).await.is_empty(),
        "the device is still there"
    );
}
