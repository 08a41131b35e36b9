//! What every store must do, whatever database is behind it: `suite` runs all of it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use mikrotik_backup::domain::attempt::{
    AttemptId, AttemptRecord, Cause, LastAttempt, Outcome, Status, Step, StepTime, Taken,
};
use mikrotik_backup::domain::device::{CredentialSource, Device, DeviceId, TenantId};
use mikrotik_backup::domain::digest::Digest;
use mikrotik_backup::domain::failure::{Failure, FailureKind};
use mikrotik_backup::domain::host_key::{Fingerprint, Pin};
use mikrotik_backup::domain::snapshot::Shape;
use mikrotik_backup::ports::{
    Begun, Bucket, Claim, Claimed, JournalPage, Listed, Store, StoreError,
};
use uuid::Uuid;

use crate::services::postgres::NewDevice;

/// A value that an operator stores.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Text(&'static str),
    Int(i32),
    Bytes(&'static [u8]),
    Id(Uuid),
}

/// What an operator does in SQL, in the dialect of the database.
#[async_trait]
pub trait Operator: Sync {
    async fn insert(&self, device: NewDevice) -> DeviceId;
    async fn insert_profile(&self, sealed: Option<Vec<u8>>, transit: Option<String>) -> Uuid;
    /// `UPDATE table SET column = value WHERE id = id`.
    async fn set(&self, table: &'static str, id: Uuid, column: &'static str, value: Value);
    async fn delete(&self, id: DeviceId);
    /// The state row of a device as an operator reads it, each column as text.
    async fn state(&self, id: DeviceId) -> BTreeMap<String, Option<String>>;
    /// How many rows a table of ours has for an attempt.
    async fn count_steps(&self, id: AttemptId) -> u64;
}

/// Everything; the database belongs to this run alone.
pub async fn suite(store: &dyn Store, operator: &dyn Operator) {
    store.ping().await.expect("a database that is there");
    only_our_devices_are_listed(store, operator).await;
    odd_rows_do_not_break_others(store, operator).await;
    digests_follow_exactly_what_is_read(store, operator).await;
    a_backup_is_recorded_and_remembered(store, operator).await;
    the_slower_replica_is_superseded(store, operator).await;
    a_lost_attempt_is_journaled_as_interrupted(store, operator).await;
    a_block_outlasts_everything_but_another_outcome(store, operator).await;
    state_only_moves_forward(store, operator).await;
    text_that_a_database_hates_is_stored(store, operator).await;
    the_first_pin_wins(store, operator).await;
    the_journal_is_paged_newest_first(store, operator).await;
    the_journal_is_pruned_in_batches(store, operator).await;
}

/// All buckets.
pub fn all_buckets() -> Vec<Bucket> {
    (0..=Bucket::MAX).collect()
}

/// The device as the inventory lists it.
pub async fn listed(store: &dyn Store, id: DeviceId) -> Option<Listed> {
    let all = store.devices(&all_buckets()).await.expect("list devices");
    all.into_iter().find(|listed| listed.device.id == id)
}

async fn last(store: &dyn Store, id: DeviceId) -> LastAttempt {
    let listed = listed(store, id).await.expect("a listed device");
    listed.last.expect("a last attempt")
}

/// A claim by `replica` that knows of `known_last`.
pub fn claim(device: DeviceId, known_last: Option<AttemptId>, replica: &str) -> Claim {
    Claim {
        attempt: AttemptId::generate(),
        device,
        known_last,
        any_last: false,
        cause: Cause::Scheduled,
        replica: replica.into(),
    }
}

/// Begins `claim`, which must succeed.
pub async fn begin(store: &dyn Store, claim: &Claim) -> Begun {
    match store.claim(claim).await.expect("claim a device") {
        Claimed::Begun(begun) => *begun,
        other => panic!("not begun: {other:?}"),
    }
}

/// A record of an attempt at `device` that took a second.
pub fn record(id: AttemptId, device: &Device, outcome: Outcome) -> AttemptRecord {
    AttemptRecord {
        id,
        device: device.id,
        tenant: device.tenant,
        cause: Cause::Scheduled,
        elapsed: Duration::from_secs(1),
        revision: device.revision(),
        consecutive_failures: u32::from(outcome.failure().is_some()),
        outcome,
        offered_key: None,
        steps: vec![],
        ledger: BTreeMap::new(),
        next_due_in: Duration::from_secs(3600),
    }
}

pub fn taken(text: &str) -> Taken {
    Taken {
        hash: Digest::of(text),
        bytes: text.len() as u64,
        routeros_version: "7.14.3".into(),
        shape: Shape {
            // Neither alphabetical nor by length: the order must be kept.
            menus: ["/system note", "/ip address", "/interface"]
                .map(|menu| (menu.to_owned(), Digest::of(menu)))
                .to_vec(),
            secrets: 3,
        },
    }
}

pub fn failed(kind: FailureKind) -> Outcome {
    Outcome::Failed(Failure::new(
        kind,
        format!("an invented failure of kind {kind}"),
    ))
}

pub async fn journal_status(store: &dyn Store, id: AttemptId) -> Status {
    store
        .attempt(id)
        .await
        .expect("a journaled attempt")
        .0
        .status
}

async fn only_our_devices_are_listed(store: &dyn Store, operator: &dyn Operator) {
    let none = NewDevice {
        encrypted_credentials: None,
        ..NewDevice::default()
    };
    let no_credentials = operator.insert(none.clone()).await;
    let empty_profile = operator.insert_profile(None, None).await;
    let nothing_in_profile = operator
        .insert(NewDevice {
            id: Uuid::new_v4(),
            credential_profile_id: Some(empty_profile),
            ..none.clone()
        })
        .await;
    let switch = operator
        .insert(NewDevice {
            device_type: Some("switch".into()),
            ..NewDevice::default()
        })
        .await;
    for id in [no_credentials, nothing_in_profile, switch] {
        assert_eq!(listed(store, id).await, None);
        let claimed = store
            .claim(&claim(id, None, "one"))
            .await
            .expect("an answer");
        assert_eq!(claimed, Claimed::Gone);
    }

    let profile = operator
        .insert_profile(Some(b"p".to_vec()), Some("vault:v1:p".into()))
        .await;
    let row = NewDevice {
        id: Uuid::new_v4(),
        tenant: Uuid::new_v4(),
        hostname: "edge".into(),
        ip_address: "2001:db8::7".into(),
        ssh_port: Some(2222),
        device_type: Some("routeros".into()),
        routeros_version: Some("7.1".into()),
        credential_profile_id: Some(profile),
        ..none
    };
    let id = operator.insert(row.clone()).await;
    let Listed {
        bucket,
        device,
        last,
    } = listed(store, id).await.expect("one of ours");
    assert_eq!(bucket, row.id.as_bytes()[15]);
    assert_eq!(
        (device.tenant, device.name.as_str()),
        (TenantId(row.tenant), "edge")
    );
    assert_eq!(
        (device.endpoint.host.as_str(), device.endpoint.port),
        ("2001:db8::7", 2222)
    );
    assert_eq!(
        device.credentials,
        CredentialSource::ProfileTransit("vault:v1:p".into())
    );
    assert_eq!(
        (device.pin, device.routeros_version.as_deref()),
        (Pin::Unpinned, Some("7.1"))
    );
    assert_eq!(last, None);

    operator
        .set(
            "credential_profiles",
            profile,
            "encrypted_credentials_transit",
            Value::Null,
        )
        .await;
    let credentials = async || {
        listed(store, id)
            .await
            .expect("one of ours")
            .device
            .credentials
    };
    assert_eq!(
        credentials().await,
        CredentialSource::ProfileSealed(b"p".to_vec())
    );
    operator
        .set("devices", id.0, "encrypted_credentials", Value::Bytes(b"d"))
        .await;
    assert_eq!(
        credentials().await,
        CredentialSource::DeviceSealed(b"d".to_vec())
    );
    operator
        .set(
            "devices",
            id.0,
            "encrypted_credentials_transit",
            Value::Text("vault:v1:d"),
        )
        .await;
    assert_eq!(
        credentials().await,
        CredentialSource::DeviceTransit("vault:v1:d".into())
    );
}

async fn odd_rows_do_not_break_others(store: &dyn Store, operator: &dyn Operator) {
    let good = operator.insert(NewDevice::default()).await;
    let port = operator
        .insert(NewDevice {
            ssh_port: Some(-7),
            ..NewDevice::default()
        })
        .await;
    let host = operator
        .insert(NewDevice {
            ip_address: " ".into(),
            ..NewDevice::default()
        })
        .await;
    let pin = NewDevice {
        ssh_host_key_fingerprint: Some("MD5:00".into()),
        ..NewDevice::default()
    };
    let pin = operator.insert(pin).await;
    let good = listed(store, good).await.expect("the good one").device;
    assert_eq!(good.endpoint.port, 22, "NULL means 22");
    for odd in [port, host] {
        let device = listed(store, odd)
            .await
            .expect("listed all the same")
            .device;
        assert!(device.endpoint.target().is_err(), "{device:?}");
    }
    let pinned = listed(store, pin)
        .await
        .expect("listed all the same")
        .device
        .pin;
    assert_eq!(pinned, Pin::Unreadable("MD5:00".into()));
}

async fn digests_follow_exactly_what_is_read(store: &dyn Store, operator: &dyn Operator) {
    let profile = operator.insert_profile(None, None).await;
    let id = operator
        .insert(NewDevice {
            credential_profile_id: Some(profile),
            ..NewDevice::default()
        })
        .await;
    let bucket = id.0.as_bytes()[15];
    let other_profile = operator.insert_profile(None, None).await;
    let mut before = store.inventory().await.expect("digests");
    assert_eq!(
        store.inventory().await.expect("digests"),
        before,
        "the same rows, the same digests"
    );
    let relevant = [
        ("devices", id.0, "hostname", Value::Text("renamed")),
        ("devices", id.0, "tenant_id", Value::Id(Uuid::new_v4())),
        ("devices", id.0, "ip_address", Value::Text("192.0.2.9")),
        ("devices", id.0, "ssh_port", Value::Int(22)),
        ("devices", id.0, "device_type", Value::Text("routeros")),
        (
            "devices",
            id.0,
            "encrypted_credentials",
            Value::Bytes(b"new"),
        ),
        (
            "devices",
            id.0,
            "encrypted_credentials_transit",
            Value::Text("vault:v1:new"),
        ),
        (
            "devices",
            id.0,
            "credential_profile_id",
            Value::Id(other_profile),
        ),
        (
            "credential_profiles",
            other_profile,
            "encrypted_credentials",
            Value::Bytes(b"new"),
        ),
        (
            "credential_profiles",
            other_profile,
            "encrypted_credentials_transit",
            Value::Text("v"),
        ),
        ("devices", id.0, "ssh_host_key_fingerprint", Value::Text("")),
        ("devices", id.0, "ssh_host_key_fingerprint", Value::Null),
    ];
    for (table, row, column, value) in relevant {
        operator.set(table, row, column, value.clone()).await;
        let after = store.inventory().await.expect("digests");
        let changed: Vec<_> = all_buckets()
            .into_iter()
            .filter(|b| after.get(b) != before.get(b))
            .collect();
        assert_eq!(changed, [bucket], "{table}.{column} = {value:?}");
        before = after;
    }
    operator
        .set("devices", id.0, "routeros_version", Value::Text("7.99"))
        .await;
    let device = listed(store, id).await.expect("one of ours").device;
    let attempt = claim(id, None, "one");
    begin(store, &attempt).await;
    store
        .record(
            &record(attempt.attempt, &device, Outcome::Interrupted),
            "one",
        )
        .await
        .expect("record");
    assert_eq!(
        store.inventory().await.expect("digests"),
        before,
        "nothing that is read has changed"
    );

    let alone = before.clone();
    operator.delete(id).await;
    let after = store.inventory().await.expect("digests");
    assert_ne!(after.get(&bucket), alone.get(&bucket), "a deletion shows");
    assert_eq!(listed(store, id).await, None);
}

async fn a_backup_is_recorded_and_remembered(store: &dyn Store, operator: &dyn Operator) {
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

async fn the_slower_replica_is_superseded(store: &dyn Store, operator: &dyn Operator) {
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

async fn a_lost_attempt_is_journaled_as_interrupted(store: &dyn Store, operator: &dyn Operator) {
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

async fn a_block_outlasts_everything_but_another_outcome(
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
    let mut stopped = record(AttemptId::generate(), &edited, Outcome::Interrupted);
    stopped.elapsed = Duration::ZERO;
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

async fn state_only_moves_forward(store: &dyn Store, operator: &dyn Operator) {
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

async fn text_that_a_database_hates_is_stored(store: &dyn Store, operator: &dyn Operator) {
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

async fn the_first_pin_wins(store: &dyn Store, operator: &dyn Operator) {
    let id = operator.insert(NewDevice::default()).await;
    let [first, second] = [b"first", b"other"].map(|blob| Fingerprint::of_key_blob(blob));
    let pinned = Pin::Pinned(first.clone());
    for seen in [&first, &second, &first] {
        assert_eq!(
            store.pin_host_key(id, seen).await.expect("pin"),
            pinned,
            "{seen}"
        );
    }
    assert_eq!(listed(store, id).await.expect("listed").device.pin, pinned);
    operator
        .set(
            "devices",
            id.0,
            "ssh_host_key_fingerprint",
            Value::Text("not a key"),
        )
        .await;
    let stored = store.pin_host_key(id, &second).await.expect("pin");
    assert_eq!(
        stored,
        Pin::Unreadable("not a key".into()),
        "any value is a pin"
    );
    operator
        .set("devices", id.0, "ssh_host_key_fingerprint", Value::Null)
        .await;
    assert_eq!(
        store.pin_host_key(id, &second).await.expect("pin"),
        Pin::Pinned(second)
    );
    let gone = store.pin_host_key(DeviceId(Uuid::new_v4()), &first).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
}

async fn the_journal_is_paged_newest_first(store: &dyn Store, operator: &dyn Operator) {
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

async fn the_journal_is_pruned_in_batches(store: &dyn Store, operator: &dyn Operator) {
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
