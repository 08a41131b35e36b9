//! SQLite by the contract, and what only shows with files, keys, shells and killed processes.

mod disk;
mod edit;
mod killed;
mod opening;
mod shell;

use std::path::{Path, PathBuf};
use std::time::Duration;

use mikrotik_backup::adapters::sqlite::SqliteStore;
use mikrotik_backup::clock::Clock;
use mikrotik_backup::credentials::Key;
use mikrotik_backup::domain::attempt::{Outcome, Status};
use mikrotik_backup::domain::failure::chain;
use mikrotik_backup::domain::host_key::Fingerprint;
use mikrotik_backup::ports::{Claim, Claimed, Store};
use tempfile::TempDir;
use tokio::time::timeout;

use super::contract::{self, Operator, begin, claim, interrupted, listed, record, taken};
use crate::services::postgres::NewDevice;
pub use shell::Shell;

/// Longer than anything here takes, also on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// A `DATA_DIR` of one test; not made yet.
pub fn data_dir() -> (TempDir, PathBuf) {
    let outer = tempfile::tempdir().expect("a temporary directory");
    let inner = outer.path().join("data");
    (outer, inner)
}

pub async fn open(data_dir: &Path) -> SqliteStore {
    let opened = SqliteStore::open(data_dir, Some(Key::from_bytes([7; 32])), Clock::System);
    opened.await.expect("open the store")
}

#[tokio::test]
async fn the_contract_holds() {
    let (_outer, data) = data_dir();
    let store = open(&data).await;
    contract::suite(&store, &Shell::on(&data)).await;
    store.close().await;
}

/// A shell that forgot to commit hinders nobody who reads, and those who write only wait.
#[tokio::test(flavor = "multi_thread")]
async fn readers_and_writers_do_not_wait_for_each_other() {
    let (_outer, data) = data_dir();
    let store = open(&data).await;
    let shell = Shell::on(&data);
    let id = shell.insert(NewDevice::default()).await;
    let watcher = SqliteStore::open_reading(&data, Clock::System)
        .await
        .expect("open beside the service");
    shell
        .sql("BEGIN IMMEDIATE; UPDATE devices SET hostname = 'half done'")
        .await;
    let wish = claim(id, None, "one");
    let writing = store.claim(&wish);
    tokio::pin!(writing);
    assert!(
        timeout(Duration::from_millis(300), &mut writing)
            .await
            .is_err(),
        "two write at once"
    );
    for reader in [&store, &watcher] {
        let seen = timeout(SOON, listed(reader, id)).await;
        let device = seen.expect("a reader waits").expect("listed").device;
        assert_ne!(
            device.name, "half done",
            "a reader sees what is not committed"
        );
    }
    shell.sql("COMMIT").await;
    let begun = timeout(SOON, writing).await.expect("the writer goes on");
    assert!(matches!(begun, Ok(Claimed::Begun(_))), "{begun:?}");
    assert_eq!(
        listed(&watcher, id).await.expect("listed").device.name,
        "half done"
    );

    let refused = watcher
        .claim(&wish)
        .await
        .expect_err("it was opened for reading only");
    assert!(
        chain(&refused).contains("for reading only"),
        "{}",
        chain(&refused)
    );
}

/// An attempt may be dropped at any `.await`, and so may what it asks of the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_given_up_leaves_no_trace() {
    let (_outer, data) = data_dir();
    let store = open(&data).await;
    let shell = Shell::on(&data);
    let id = shell.insert(NewDevice::default()).await;
    for microseconds in (0..2000).step_by(100) {
        let wish = Claim {
            any_last: true,
            ..claim(id, None, "one")
        };
        let _ = timeout(Duration::from_micros(microseconds), store.claim(&wish)).await;
    }
    let wish = Claim {
        any_last: true,
        ..claim(id, None, "one")
    };
    let device = timeout(SOON, begin(&store, &wish))
        .await
        .expect("not stuck")
        .device;
    let done = record(wish.attempt, &device, interrupted());
    timeout(SOON, store.record(&done, "one"))
        .await
        .expect("not stuck")
        .expect("record");
    shell.sql("BEGIN IMMEDIATE; COMMIT").await;
    assert_eq!(
        shell
            .text("SELECT integrity_check FROM pragma_integrity_check")
            .await,
        "ok"
    );
}

#[tokio::test]
async fn a_clock_that_was_wrong_holds_nothing_up() {
    let (_outer, data) = data_dir();
    let shell = Shell::on(&data);
    let ahead = Clock::following_tokio(time::macros::datetime!(2091-05-06 07:08:09 UTC));
    let store = SqliteStore::open(&data, None, ahead).await.expect("open");
    let id = shell.insert(NewDevice::default()).await;
    let first = claim(id, None, "one");
    let device = begin(&store, &first).await.device;
    store
        .record(
            &record(first.attempt, &device, Outcome::Delivered(taken("x"))),
            "one",
        )
        .await
        .expect("record");
    let lost = claim(id, Some(first.attempt), "one");
    begin(&store, &lost).await;
    store.close().await;
    drop(store);

    let store = SqliteStore::open(&data, None, Clock::System)
        .await
        .expect("open");
    let last = listed(&store, id)
        .await
        .and_then(|listed| listed.last)
        .expect("a last attempt");
    assert!(last.started_at <= Clock::System.now(), "{last:?}");
    let next = claim(id, Some(first.attempt), "one");
    begin(&store, &next).await;
    let (orphan, _) = store.attempt(lost.attempt).await.expect("the lost attempt");
    assert_eq!(orphan.status, Status::Interrupted);
    store
        .record(
            &record(next.attempt, &device, Outcome::Delivered(taken("y"))),
            "one",
        )
        .await
        .expect("record");
    let last = listed(&store, id)
        .await
        .and_then(|listed| listed.last)
        .expect("a last attempt");
    assert_eq!(last.id, next.attempt, "the state goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_are_told_of_and_our_own_records_are_not() {
    let (_outer, data) = data_dir();
    let store = open(&data).await;
    let shell = Shell::on(&data);
    let quiet = Duration::from_millis(1500); // longer than the period of looking
    assert!(
        timeout(quiet, store.changed()).await.is_err(),
        "nothing has changed"
    );
    let id = shell.insert(NewDevice::default()).await;
    timeout(SOON, store.changed()).await.expect("a new device");

    let wish = claim(id, None, "one");
    let device = begin(&store, &wish).await.device;
    store
        .pin_host_key(id, &Fingerprint::of_key_blob(b"key"))
        .await
        .expect("pin");
    store
        .record(&record(wish.attempt, &device, interrupted()), "one")
        .await
        .expect("record");
    shell
        .sql("UPDATE devices SET routeros_version = '7.1', ip_address = ip_address")
        .await;
    assert!(
        timeout(quiet, store.changed()).await.is_err(),
        "none of this is an edit"
    );

    for edit in [
        "UPDATE devices SET ip_address = '192.0.2.99'",
        "UPDATE devices SET ssh_host_key_fingerprint = NULL",
        "INSERT INTO credential_profiles DEFAULT VALUES",
        "UPDATE credential_profiles SET encrypted_credentials = x'01'",
        "DELETE FROM credential_profiles",
        "DELETE FROM devices",
    ] {
        shell.sql(edit).await;
        timeout(SOON, store.changed())
            .await
            .unwrap_or_else(|_| panic!("{edit}"));
    }
    let columns = shell.text("SELECT count(*) FROM overview").await;
    assert_eq!(columns, "0");
}

/// 20,000 rows are no work for a quiet minute.
#[tokio::test]
async fn a_large_inventory_is_told_apart_by_a_few_kilobytes() {
    let (_outer, data) = data_dir();
    let store = open(&data).await;
    let shell = Shell::on(&data);
    shell
        .sql(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
             INSERT INTO devices (hostname, ip_address, encrypted_credentials) \
             SELECT 'router-' || i, '192.0.2.1', randomblob(100) FROM n",
        )
        .await;
    let before = store.inventory().await.expect("digests");
    assert_eq!(before.len(), 256);
    let bytes: usize = before.values().map(String::len).sum();
    assert!(bytes < 8192, "{bytes}");
    shell
        .sql("UPDATE devices SET ssh_port = 2222 WHERE hostname = 'router-777'")
        .await;
    let after = store.inventory().await.expect("digests");
    assert_eq!(
        before
            .iter()
            .filter(|(bucket, digest)| after[bucket] != **digest)
            .count(),
        1
    );
    let all = store
        .devices(&contract::all_buckets())
        .await
        .expect("the devices");
    assert_eq!(all.len(), 20_000);
}
