//! What opening makes, and what it refuses to touch.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mikrotik_backup::adapters::sqlite::{
    DATABASE_FILE, DataDirLock, Holder, KEY_FILE, KeyFileError, LOCK_FILE, LockError, OpenError,
    SqliteStore,
};
use mikrotik_backup::clock::Clock;
use mikrotik_backup::credentials::Key;
use mikrotik_backup::domain::digest::Digest;
use mikrotik_backup::domain::failure::chain;
use mikrotik_backup::ports::Store;

use super::{Operator, Shell, data_dir};
use crate::services::postgres::NewDevice;

async fn open(data: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(data, None, Clock::System).await
}

/// A store with a device in it, closed again.
async fn made(data: &Path) {
    let store = open(data).await.expect("open a new store");
    let shell = Shell::on(data);
    shell.insert(NewDevice::default()).await;
    shell.close().await;
    store.close().await;
}

/// A digest of every file of `data` that holds something: not of the lock, of the shared memory
/// that a reader makes, or of a log with nothing in it.
fn content(data: &Path) -> BTreeMap<PathBuf, Digest> {
    let entries = fs::read_dir(data).expect("read the directory");
    entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| !path.ends_with(LOCK_FILE) && !path.to_string_lossy().ends_with("-shm"))
        .map(|path| (path.clone(), fs::read(path).expect("read a file")))
        .filter(|(path, bytes)| !bytes.is_empty() || !path.to_string_lossy().ends_with("-wal"))
        .map(|(path, bytes)| (path, Digest::of(bytes)))
        .collect()
}

/// Opening fails, with `words` in the message, and changes nothing.
async fn refused(data: &Path, given: Option<Key>, words: &[&str]) -> OpenError {
    let before = content(data);
    let opened = SqliteStore::open(data, given, Clock::System).await;
    let error = opened
        .err()
        .unwrap_or_else(|| panic!("opened in spite of {words:?}"));
    let text = chain(&error);
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(
        text.contains(&data.display().to_string()),
        "it names no file: {text}"
    );
    assert_eq!(content(data), before, "{text}");
    error
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[tokio::test]
async fn everything_that_is_made_is_private() {
    let (_outer, data) = data_dir();
    let store = open(&data).await.expect("open a new store");
    store.ping().await.expect("a store that is there");
    assert_eq!(mode(&data), 0o700);
    for file in [DATABASE_FILE, KEY_FILE, LOCK_FILE] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
    for beside in ["-wal", "-shm"] {
        let file = data.join(format!("{DATABASE_FILE}{beside}"));
        assert_eq!(mode(&file), 0o600, "{beside}");
    }
    let key = fs::read_to_string(data.join(KEY_FILE)).expect("read the key");
    let made = Key::from_base64(&key).expect("base64 of 32 bytes");
    assert_eq!(made.expose(), store.key().expect("the key").expose());
    store.close().await;
    drop(store);

    // A copy that was restored is closed again, and the key stays what it was.
    fs::set_permissions(data.join(DATABASE_FILE), Permissions::from_mode(0o644)).expect("chmod");
    let store = open(&data).await.expect("open it again");
    assert_eq!(mode(&data.join(DATABASE_FILE)), 0o600);
    assert_eq!(
        fs::read_to_string(data.join(KEY_FILE)).expect("read the key"),
        key
    );
    assert_eq!(
        store.unlock(None).await.expect("the key").expose(),
        made.expose()
    );
}

#[tokio::test]
async fn one_process_writes_and_others_read() {
    let (_outer, data) = data_dir();
    let store = open(&data).await.expect("open a new store");
    let pid = std::process::id();
    let error = open(&data).await.err().expect("a second one that writes");
    assert!(
        matches!(&error, OpenError::Lock(LockError::Held { holder: Holder(Some(held)), .. }) if *held == pid),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains(&format!("process {pid}")) && text.contains("DATA_DIR"),
        "{text}"
    );
    let reader = SqliteStore::open_reading(&data, Clock::System)
        .await
        .expect("a reader");
    reader.ping().await.expect("it can read");
    assert!(reader.key().is_none());
    store.close().await;
    drop(store);
    drop(DataDirLock::acquire(&data).expect("the lock went with its holder"));
    reader.ping().await.expect("it can still read");
}

#[tokio::test]
async fn a_reader_makes_nothing() {
    let (_outer, data) = data_dir();
    let missing = async || {
        let opened = SqliteStore::open_reading(&data, Clock::System).await;
        opened.err().expect("there is no store")
    };
    let error = missing().await;
    assert!(matches!(error, OpenError::Missing { .. }), "{error:?}");
    assert!(error.to_string().contains("DATA_DIR"), "{error}");
    assert!(!data.exists());
    fs::create_dir(&data).expect("make it");
    assert!(matches!(missing().await, OpenError::Missing { .. }));
    assert_eq!(content(&data).len(), 0);
}

#[tokio::test]
async fn a_wrong_or_missing_key_is_said_before_anything_is_written() {
    let (_outer, data) = data_dir();
    made(&data).await;
    let other = Key::from_bytes([9; 32]);
    let words = [
        "CREDENTIAL_ENCRYPTION_KEY is not the key",
        "nothing was changed",
    ];
    refused(&data, Some(other.clone()), &words).await;
    let reader = SqliteStore::open_reading(&data, Clock::System)
        .await
        .expect("a reader");
    let error = reader.unlock(Some(other)).await.expect_err("another key");
    assert!(matches!(error, OpenError::WrongKey { .. }), "{error:?}");
    reader.close().await;

    let key_file = data.join(KEY_FILE);
    let right = fs::read(&key_file).expect("read the key");
    for (text, words) in [
        ("not a key", ["holds no encryption key", "not base64"]),
        ("", ["holds no encryption key", "0 bytes instead of 32"]),
        (
            "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=",
            ["is not the key that", "nothing was changed"],
        ),
    ] {
        fs::write(&key_file, text).expect("write another key");
        refused(&data, None, &words).await;
    }
    fs::remove_file(&key_file).expect("remove the key");
    let error = refused(
        &data,
        None,
        &["is sealed with a key", "restore the key file"],
    )
    .await;
    assert!(matches!(error, OpenError::KeyMissing { .. }), "{error:?}");
    assert!(
        !key_file.exists(),
        "a new key would hide that the old one is gone"
    );

    fs::write(&key_file, &right).expect("restore the key");
    let error = refused(&data, None, &["chmod 600", "mode 644"]).await;
    assert!(
        matches!(
            error,
            OpenError::Key(KeyFileError::Open { mode: 0o644, .. })
        ),
        "{error:?}"
    );
    fs::set_permissions(&key_file, Permissions::from_mode(0o600)).expect("chmod");
    open(&data).await.expect("the right key").close().await;
}

/// The key of the configuration counts, and then no key file is made.
#[tokio::test]
async fn a_given_key_needs_no_key_file() {
    let (_outer, data) = data_dir();
    let key = Key::from_bytes([7; 32]);
    let store = SqliteStore::open(&data, Some(key.clone()), Clock::System)
        .await
        .expect("open");
    store.close().await;
    drop(store);
    assert!(!data.join(KEY_FILE).exists());
    refused(
        &data,
        None,
        &["is sealed with a key", "CREDENTIAL_ENCRYPTION_KEY"],
    )
    .await;
    let store = SqliteStore::open(&data, Some(key), Clock::System)
        .await
        .expect("open");
    store.close().await;
}

#[tokio::test]
async fn what_is_damaged_or_not_ours_is_left_alone() {
    let (_outer, data) = data_dir();
    made(&data).await;
    let file = data.join(DATABASE_FILE);
    let good = fs::read(&file).expect("read the database");
    assert!(
        good.len() > 16 * 4096,
        "the log has been moved into the file"
    );

    let mut no_header = good.clone();
    no_header[..16].copy_from_slice(b"PK\x03\x04 not a store");
    fs::write(&file, &no_header).expect("damage it");
    refused(
        &data,
        None,
        &["is no SQLite database", "nothing was changed"],
    )
    .await;
    fs::write(&file, b"short").expect("damage it");
    refused(&data, None, &["is no SQLite database"]).await;
    fs::write(&file, &good[..good.len() / 2]).expect("cut it");
    refused(&data, None, &["is damaged", ".recover"]).await;
    let mut garbled = good.clone();
    for page in garbled.chunks_mut(4096).skip(3) {
        page[..2048].fill(0x5a);
    }
    fs::write(&file, &garbled).expect("damage it");
    refused(&data, None, &["is damaged", ".recover"]).await;
    let read = SqliteStore::open_reading(&data, Clock::System).await;
    if let Ok(reader) = read {
        let error = reader.devices(&super::contract::all_buckets()).await;
        assert!(chain(&error.expect_err("garbage")).contains("is damaged"));
        reader.close().await;
    }

    fs::write(&file, &good).expect("restore it");
    let shell = Shell::on(&data);
    shell
        .sql(
            "INSERT INTO _sqlx_migrations \
             SELECT 900, 'from the future', installed_on, success, checksum, 1 FROM _sqlx_migrations \
             WHERE version = 1; PRAGMA wal_checkpoint(TRUNCATE)",
        )
        .await;
    shell.close().await;
    refused(&data, None, &["at version 900", "run the newer program"]).await;
    let error = SqliteStore::open_reading(&data, Clock::System).await.err();
    assert!(
        matches!(error, Some(OpenError::Newer { applied: 900, .. })),
        "{error:?}"
    );

    fs::remove_file(&file).expect("remove it");
    let shell = Shell::making(&data);
    shell.sql("CREATE TABLE songs (title TEXT)").await;
    shell.close().await;
    refused(&data, None, &["another program", "DATA_DIR"]).await;
}

/// A process that was killed while it made the database left an empty one.
#[tokio::test]
async fn a_database_that_was_only_begun_is_finished() {
    let (_outer, data) = data_dir();
    fs::create_dir(&data).expect("make the directory");
    fs::write(data.join(DATABASE_FILE), b"").expect("an empty file");
    fs::write(data.join("key.new"), b"half a k").expect("a draft of a key");
    made(&data).await;
    assert!(!data.join("key.new").exists());
    let file = data.join(DATABASE_FILE);
    fs::remove_file(&file).expect("remove it");
    let shell = Shell::making(&data);
    shell
        .sql(
            "PRAGMA journal_mode = WAL; CREATE TABLE _sqlx_migrations ( \
             version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
             installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, \
             checksum BLOB NOT NULL, execution_time BIGINT NOT NULL)",
        )
        .await;
    shell.close().await;
    made(&data).await;
}
