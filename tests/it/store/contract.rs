//! What every store must do, whatever database is behind it: `suite` runs all of it.

mod attempts;
mod contact;
mod inventory;
mod journal;
pub(super) mod sessions;
mod statuses;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use mikrotik_backup::domain::attempt::{
    AttemptId, AttemptRecord, Cause, LastAttempt, Outcome, Status, Taken,
};
use mikrotik_backup::domain::device::{Device, DeviceId};
use mikrotik_backup::domain::digest::Digest;
use mikrotik_backup::domain::failure::{Failure, FailureKind};
use mikrotik_backup::domain::snapshot::{MenuShape, Shape};
use mikrotik_backup::ports::{Begun, Bucket, Claim, Claimed, Listed, Store};
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
    /// Sets what differs for one device from the service's own settings.
    async fn set_settings(
        &self,
        id: DeviceId,
        seconds: Option<i32>,
        algorithms: Option<&'static str>,
    );
    /// The state row of a device as an operator reads it, each column as text.
    async fn state(&self, id: DeviceId) -> BTreeMap<String, Option<String>>;
    /// The row of the overview about a device, each column as text.
    async fn overview(&self, id: DeviceId) -> BTreeMap<String, Option<String>>;
    /// How many steps are stored for an attempt.
    async fn count_steps(&self, id: AttemptId) -> u64;
}

/// Everything; the database belongs to this run alone.
pub async fn suite(store: &dyn Store, operator: &dyn Operator) {
    store.ping().await.expect("a database that is there");
    inventory::only_our_devices_are_listed(store, operator).await;
    inventory::odd_rows_do_not_break_others(store, operator).await;
    inventory::digests_follow_exactly_what_is_read(store, operator).await;
    attempts::a_backup_is_recorded_and_remembered(store, operator).await;
    attempts::the_slower_replica_is_superseded(store, operator).await;
    attempts::a_lost_attempt_is_journaled_as_interrupted(store, operator).await;
    attempts::a_device_in_whose_attempts_the_process_dies_is_put_off(store, operator).await;
    attempts::a_late_record_tells_the_times_of_the_attempt(store, operator).await;
    attempts::a_claim_that_was_taken_back_never_was(store, operator).await;
    attempts::a_block_outlasts_everything_but_another_outcome(store, operator).await;
    attempts::state_only_moves_forward(store, operator).await;
    attempts::text_that_a_database_hates_is_stored(store, operator).await;
    contact::connections_to_a_device_are_bounded(store, operator).await;
    contact::what_died_counts_and_what_never_dialled_does_not(store, operator).await;
    contact::a_router_that_counts_nobody_may_be_asked_more_often(store, operator).await;
    contact::rows_that_say_the_same_address_share_its_connections(store, operator).await;
    contact::an_address_in_two_spellings_is_one(store, operator).await;
    contact::a_short_interval_is_each_rows_own(store, operator).await;
    inventory::the_first_pin_wins(store, operator).await;
    inventory::since_when_a_device_is_known_is_kept(store, operator).await;
    statuses::the_state_of_each_device_is_read_in_pages(store, operator).await;
    sessions::what_a_session_showed_is_kept(store, operator).await;
    sessions::a_suspect_is_kept_until_something_is_said_of_it(store, operator).await;
    sessions::a_warning_stays_until_something_changes(store, operator).await;
    sessions::what_was_seen_at_another_address_is_forgotten(store, operator).await;
    sessions::an_address_that_is_written_another_way_is_no_other(store, operator).await;
    sessions::settings_of_one_device_are_part_of_the_inventory(store, operator).await;
    journal::the_journal_is_paged_newest_first(store, operator).await;
    journal::an_attempt_is_running_until_it_is_recorded(store, operator).await;
    journal::the_journal_is_pruned_in_batches(store, operator).await;
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
        bound: None,
        replica: replica.into(),
        held_here: false,
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
        ended_ago: Duration::ZERO,
        revision: device.revision(),
        consecutive_failures: u32::from(outcome.failure().is_some()),
        standing: outcome
            .failure()
            .map(|failure| (failure.kind, device.revision())),
        outcome,
        offered_key: None,
        steps: vec![],
        ledger: BTreeMap::new(),
        next_due_in: Duration::from_secs(3600),
        observed: Default::default(),
        held: false,
    }
}

/// Ended by something that is not the device's fault.
pub fn interrupted() -> Outcome {
    Outcome::Interrupted {
        reason: "the process was told to stop".into(),
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
                .map(|menu| MenuShape {
                    menu: menu.to_owned(),
                    digest: Digest::of(menu),
                    items: 7,
                })
                .to_vec(),
            secrets: 3,
            end: Some(Digest::of(text)),
        },
        incomplete_menus: vec![],
        warning: None,
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
