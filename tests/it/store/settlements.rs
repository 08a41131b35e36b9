//! What becomes of attempts whose snapshots went to the outbox, however far their recording came.

use std::time::Duration;

use mikrotik_backup::adapters::postgres::PostgresStore;
use mikrotik_backup::clock::Clock;
use mikrotik_backup::domain::attempt::{AttemptId, AttemptRecord, Cause, Outcome, Status};
use mikrotik_backup::domain::device::{Device, DeviceId};
use mikrotik_backup::domain::failure::{Failure, FailureKind};
use mikrotik_backup::ports::{Claim, Claimed, Delivered, GivenUp, Settlements as _, Store as _};
use secrecy::SecretString;

use super::contract::{
    Operator as _, begin, claim, interrupted, journal_status, listed, record, taken,
};
use super::postgres::Psql;
use crate::services::postgres::{Database, NewDevice, fresh_database};

struct World {
    store: PostgresStore,
    database: Database,
}

impl World {
    async fn new() -> Option<Self> {
        let database = fresh_database().await?;
        let url = SecretString::from(database.url.clone());
        let store = PostgresStore::connect(&url, Clock::System, "settlements").expect("a good URL");
        Some(Self { store, database })
    }

    fn psql(&self) -> Psql<'_> {
        Psql(&self.database.pool)
    }

    /// A device on which an attempt has begun.
    async fn begun(&self) -> (Device, Claim) {
        let id = self.psql().insert(NewDevice::default()).await;
        let device = listed(&self.store, id).await.expect("listed").device;
        let claim = claim(id, None, "one");
        begin(&self.store, &claim).await;
        (device, claim)
    }

    async fn queue(&self, device: &Device, attempt: AttemptId) {
        let record = record(attempt, device, Outcome::Queued(taken("text")));
        self.store.record(&record, "one").await.expect("record");
    }

    async fn deliver(&self, device: DeviceId, attempt: AttemptId) -> bool {
        let delivered = Delivered {
            attempt,
            device,
            hash: taken("text").hash,
            bytes: 4,
        };
        self.store.delivered(&delivered).await.expect("settle")
    }

    async fn give_up(&self, device: DeviceId, attempt: AttemptId) -> GivenUp {
        let failure = Failure::new(FailureKind::SnapshotLost, "it is gone");
        let given_up = self.store.give_up(attempt, device, &failure).await;
        given_up.expect("give up")
    }

    async fn state(&self, device: DeviceId, column: &str) -> Option<String> {
        self.psql().state(device).await[column].clone()
    }
}

#[tokio::test]
async fn a_queued_attempt_becomes_a_success_once() {
    let Some(world) = World::new().await else {
        return;
    };
    let (device, claim) = world.begun().await;
    world.queue(&device, claim.attempt).await;
    assert_eq!(
        world.state(device.id, "last_success_at").await,
        None,
        "not yet"
    );
    let queued = world.store.queued(None, 10).await.expect("list");
    assert_eq!(queued, [(claim.attempt, device.id)]);
    let next = world
        .store
        .queued(Some(claim.attempt), 10)
        .await
        .expect("list");
    assert_eq!(next, []);

    assert!(world.deliver(device.id, claim.attempt).await);
    assert_eq!(
        journal_status(&world.store, claim.attempt).await,
        Status::Success
    );
    assert_eq!(
        world.state(device.id, "status").await.as_deref(),
        Some("success")
    );
    assert!(world.state(device.id, "last_success_at").await.is_some());
    assert!(!world.deliver(device.id, claim.attempt).await, "no news");
    assert_eq!(
        world.give_up(device.id, claim.attempt).await,
        GivenUp::NotQueued
    );
    assert_eq!(world.store.queued(None, 10).await.expect("list"), []);
}

#[tokio::test]
async fn a_delivery_that_is_faster_than_the_record_is_kept_by_it() {
    let Some(world) = World::new().await else {
        return;
    };
    let (device, claim) = world.begun().await;
    assert!(world.deliver(device.id, claim.attempt).await);
    assert_eq!(
        journal_status(&world.store, claim.attempt).await,
        Status::Success
    );
    // Its replica comes to record it now.
    world.queue(&device, claim.attempt).await;
    assert_eq!(
        journal_status(&world.store, claim.attempt).await,
        Status::Success
    );
    let state = world.psql().state(device.id).await;
    assert_eq!(state["status"].as_deref(), Some("success"));
    assert_eq!(state["last_attempt_id"], Some(claim.attempt.to_string()));
    assert_eq!(state["running_attempt_id"], None);
    let (entry, _) = world.store.attempt(claim.attempt).await.expect("an entry");
    assert_eq!(entry.replica, "one");
    // And once more, as after an answer that was lost: nothing moves.
    let before = world.psql().state(device.id).await;
    world.queue(&device, claim.attempt).await;
    assert_eq!(world.psql().state(device.id).await, before);
}

#[tokio::test]
async fn a_delivered_attempt_whose_process_died_is_a_success_in_the_journal() {
    let Some(world) = World::new().await else {
        return;
    };
    // Delivered before anybody claims the device again …
    let (device, first) = world.begun().await;
    assert!(world.deliver(device.id, first.attempt).await);
    // Asked for, so that no death before it puts it off.
    let asked = |replica| Claim {
        any_last: true,
        ..claim(device.id, None, replica)
    };
    let second = asked("two");
    begin(&world.store, &second).await;
    assert_eq!(
        journal_status(&world.store, first.attempt).await,
        Status::Success
    );
    // … and after somebody has, and journaled it as interrupted.
    let third = asked("three");
    begin(&world.store, &third).await;
    assert_eq!(
        journal_status(&world.store, second.attempt).await,
        Status::Interrupted
    );
    assert!(world.deliver(device.id, second.attempt).await);
    let (entry, _) = world.store.attempt(second.attempt).await.expect("an entry");
    assert_eq!((entry.status, entry.error), (Status::Success, None));
    assert_eq!(entry.sha256_hash, Some(taken("text").hash.to_string()));
    // The attempt that runs now is not touched.
    let state = world.psql().state(device.id).await;
    assert_eq!(state["running_attempt_id"], Some(third.attempt.to_string()));
    assert_eq!(state["last_attempt_id"], None);
    assert!(state["last_success_at"].is_some());
    // One that nobody knows is no error.
    assert!(!world.deliver(device.id, AttemptId::generate()).await);
}

#[tokio::test]
async fn what_is_given_up_fails_and_is_due_now() {
    let Some(world) = World::new().await else {
        return;
    };
    let (device, claim) = world.begun().await;
    assert_eq!(
        world.give_up(device.id, claim.attempt).await,
        GivenUp::NotQueued
    );
    world.queue(&device, claim.attempt).await;
    let GivenUp::Last(last) = world.give_up(device.id, claim.attempt).await else {
        panic!("it was the last attempt");
    };
    assert_eq!((last.id, last.status), (claim.attempt, Status::Failed));
    assert_eq!(last.failure, Some(FailureKind::SnapshotLost));
    assert_eq!(last.consecutive_failures, 1);
    let (entry, _) = world.store.attempt(claim.attempt).await.expect("an entry");
    assert_eq!(entry.error_kind.as_deref(), Some("snapshot_lost"));
    assert_eq!(entry.sha256_hash, None);
    let state = world.psql().state(device.id).await;
    assert_eq!(state["error"].as_deref(), Some("it is gone"));
    let due: bool = sqlx::query_scalar(
        "SELECT next_due <= now() FROM mikrotik_backup.device_state WHERE device_id = $1",
    )
    .bind(device.id.0)
    .fetch_one(&world.database.pool)
    .await
    .expect("read the state");
    assert!(due);

    // It turns up after all: somebody put a dead letter back.
    assert!(world.deliver(device.id, claim.attempt).await);
    let state = world.psql().state(device.id).await;
    assert_eq!(state["status"].as_deref(), Some("success"));
    assert_eq!((&state["error_kind"], &state["error"]), (&None, &None));
    assert_eq!(state["consecutive_failures"].as_deref(), Some("0"));
}

#[tokio::test]
async fn a_settlement_leaves_what_is_newer_alone() {
    let Some(world) = World::new().await else {
        return;
    };
    let (device, old) = world.begun().await;
    world.queue(&device, old.attempt).await;
    let newer = claim(device.id, Some(old.attempt), "one");
    begin(&world.store, &newer).await;
    let ended = record(newer.attempt, &device, interrupted());
    tokio::time::sleep(Duration::from_millis(2)).await;
    world.store.record(&ended, "one").await.expect("record");
    let before = world.psql().state(device.id).await;
    assert_eq!(before["status"].as_deref(), Some("interrupted"));
    assert!(world.deliver(device.id, old.attempt).await);
    let mut after = world.psql().state(device.id).await;
    assert!(after["last_success_at"].is_some());
    after.insert("last_success_at".to_owned(), None);
    assert_eq!(after, before);

    let third = claim(device.id, Some(newer.attempt), "one");
    begin(&world.store, &third).await;
    world.queue(&device, third.attempt).await;
    let fourth = claim(device.id, Some(third.attempt), "one");
    begin(&world.store, &fourth).await;
    let ended = record(fourth.attempt, &device, Outcome::Delivered(taken("text")));
    world.store.record(&ended, "one").await.expect("record");
    assert_eq!(
        world.give_up(device.id, third.attempt).await,
        GivenUp::Older
    );
    assert_eq!(
        journal_status(&world.store, third.attempt).await,
        Status::Failed
    );
    assert_eq!(
        world.state(device.id, "status").await.as_deref(),
        Some("success")
    );
}

#[tokio::test]
async fn what_a_process_holds_is_neither_missed_nor_overtaken() {
    let Some(world) = World::new().await else {
        return;
    };
    let (device, first) = world.begun().await;
    let held = AttemptRecord {
        held: true,
        ..record(first.attempt, &device, Outcome::Queued(taken("text")))
    };
    world.store.record(&held, "one").await.expect("record");
    let queued = || async { world.store.queued(None, 10).await.expect("a list") };
    assert_eq!(queued().await, [], "its process has it");

    let next = claim(device.id, Some(first.attempt), "two");
    let by_hand = Claim {
        any_last: true,
        cause: Cause::Manual,
        ..next.clone()
    };
    for refused in [&next, &by_hand] {
        let answer = world.store.claim(refused).await.expect("an answer");
        assert_eq!(answer, Claimed::HeldElsewhere);
    }
    let late = claim(device.id, Some(AttemptId::generate()), "two");
    let answer = world.store.claim(&late).await.expect("an answer");
    assert!(matches!(answer, Claimed::Superseded(_)), "{answer:?}");
    let holder = Claim {
        held_here: true,
        ..next.clone()
    };
    begin(&world.store, &holder).await;
    let unclaimed = world.store.unclaim(device.id, holder.attempt).await;
    unclaimed.expect("taken back");

    // Its time is over, and it is noted again that it is held.
    let expire = "UPDATE mikrotik_backup.attempts SET held_until = now() - interval '1 second'";
    world.database.sql(expire).await;
    assert_eq!(queued().await, [(first.attempt, device.id)]);
    let still = world.store.still_held(&[first.attempt]).await;
    still.expect("noted");
    assert_eq!(queued().await, []);
    world.store.let_go(&[first.attempt]).await.expect("noted");
    assert_eq!(queued().await, [(first.attempt, device.id)]);
    begin(&world.store, &next).await;

    // An attempt that is settled is nobody's to hold.
    assert!(world.deliver(device.id, first.attempt).await);
    let still = world.store.still_held(&[first.attempt]).await;
    still.expect("nothing to note");
    let held: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM mikrotik_backup.attempts WHERE held_until IS NOT NULL",
    )
    .fetch_one(&world.database.pool)
    .await
    .expect("count");
    assert_eq!(held, 0);
}
