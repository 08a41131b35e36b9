//! Disks that are full or cannot be written: small file systems of their own, where we may mount.

use std::fs;

use mikrotik_backup::adapters::sqlite::{OpenError, SqliteStore};
use mikrotik_backup::clock::Clock;
use mikrotik_backup::domain::attempt::{AttemptId, Outcome};
use mikrotik_backup::domain::failure::{Failure, FailureKind, chain};
use mikrotik_backup::ports::{Store, StoreError};

use super::contract::{begin, claim, listed, record};
use super::{Operator, Shell};
use crate::services::disk::{Small, mount};
use crate::services::postgres::NewDevice;

#[tokio::test]
async fn a_full_disk_loses_nothing_and_recovers() {
    let Some(disk) = Small::mount() else { return };
    let data = disk.path().join("data");
    let store = SqliteStore::open(&data, None, Clock::System)
        .await
        .expect("open");
    let shell = Shell::on(&data);
    let id = shell.insert(NewDevice::default()).await;
    let device = listed(&store, id).await.expect("listed").device;
    let ballast = disk.fill();
    let mut stored = vec![];
    let lost = loop {
        let failure = Failure::new(FailureKind::Timeout, "x".repeat(4000));
        let wish = record(AttemptId::generate(), &device, Outcome::Failed(failure));
        match store.record(&wish, "one").await {
            Ok(()) => stored.push(wish.id),
            Err(error) => break (wish, error),
        }
        assert!(stored.len() < 10_000, "the disk never fills");
    };
    let (wish, error) = lost;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    let text = chain(&error);
    assert!(
        text.contains("is full") && text.contains(&data.display().to_string()),
        "{text}"
    );
    store.ping().await.expect("it still reads");
    let again = store.record(&wish, "one").await;
    assert!(
        matches!(again, Err(StoreError::Unavailable { .. })),
        "{again:?}"
    );

    fs::remove_file(ballast).expect("free the space");
    store
        .record(&wish, "one")
        .await
        .expect("record once there is space");
    begin(&store, &claim(id, Some(wish.id), "one")).await;
    for attempt in stored {
        store
            .attempt(attempt)
            .await
            .expect("what was recorded is there");
    }
    let check = "SELECT integrity_check FROM pragma_integrity_check";
    assert_eq!(shell.text(check).await, "ok");
    store.close().await;
}

#[tokio::test]
async fn no_store_is_made_on_a_full_disk() {
    let Some(disk) = Small::mount() else { return };
    let data = disk.path().join("data");
    fs::create_dir(&data).expect("make the directory");
    let ballast = disk.fill();
    let open = async || SqliteStore::open(&data, None, Clock::System).await;
    let error = open().await.err().expect("no space for a key");
    let text = chain(&error);
    assert!(
        matches!(error, OpenError::Key(_)) && text.contains("No space left"),
        "{text}"
    );
    // Space for the key, none for the database.
    let length = fs::metadata(&ballast).expect("the ballast").len();
    let file = fs::File::options()
        .write(true)
        .open(&ballast)
        .expect("open the ballast");
    file.set_len(length - 16 * 1024).expect("free a little");
    drop(file);
    let error = open().await.err().expect("no space for a database");
    let text = chain(&error);
    assert!(matches!(error, OpenError::Full { .. }), "{text}");
    assert!(
        text.contains("no space is left") && text.contains("mikrotik-backup.db"),
        "{text}"
    );
    fs::remove_file(ballast).expect("free the space");
    open()
        .await
        .expect("open once there is space")
        .close()
        .await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let Some(disk) = Small::mount() else { return };
    let data = disk.path().join("data");
    let store = SqliteStore::open(&data, None, Clock::System)
        .await
        .expect("open");
    store.close().await;
    drop(store);
    assert!(mount(&["-o", "remount,ro"], disk.path()), "remount");
    for folder in [&data, &disk.path().join("new")] {
        let error = SqliteStore::open(folder, None, Clock::System).await.err();
        let text = chain(&error.expect("it cannot be written"));
        assert!(text.contains(&folder.display().to_string()), "{text}");
        assert!(
            text.contains("Read-only file system") && text.contains("DATA_DIR"),
            "{text}"
        );
    }
    // What was closed properly can still be read.
    let reader = SqliteStore::open_reading(&data, Clock::System)
        .await
        .expect("a reader");
    reader.ping().await.expect("it reads");
}
