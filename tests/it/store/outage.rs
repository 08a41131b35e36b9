//! A database that goes away and comes back: errors say so, and nothing has to be restarted.

use std::time::Duration;

use mikrotik_backup::adapters::postgres::MigrateError;
use mikrotik_backup::domain::attempt::Outcome;
use mikrotik_backup::domain::failure::chain;
use mikrotik_backup::domain::host_key::{Fingerprint, Pin};
use mikrotik_backup::ports::{Store, StoreError};
use tokio::time::timeout;

use super::contract::{begin, claim, listed, record, taken};
use crate::services::postgres::{
    NewDevice, Postgres, empty_database, fresh_database, insert_device, open,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_is_away_and_then_back() {
    let Some(mut server) = Postgres::start_private().await else {
        return;
    };
    let database = server.database("migrated").await;
    let name = database.url.rsplit('/').next().expect("a database name");
    let store = open(&server.tcp_url(name), "one");
    let id = insert_device(&database.pool, NewDevice::default()).await;
    let attempt = claim(id, None, "one");
    let device = begin(&store, &attempt).await.device;
    timeout(Duration::from_secs(30), store.changed())
        .await
        .expect("listening");

    // A statement that waits while the server shuts down.
    let lock = async {
        let mut holder = database.pool.begin().await.expect("a transaction");
        sqlx::query("SELECT FROM devices WHERE id = $1 FOR UPDATE")
            .bind(id.0)
            .execute(&mut *holder)
            .await
            .expect("lock the row");
        holder
    };
    let _holder = lock.await;
    let key = Fingerprint::of_key_blob(b"key");
    let (waiting, ()) = tokio::join!(store.pin_host_key(id, &key), async {
        let waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                     AND application_name = 'mikrotik-backup/one'";
        while !sqlx::query_scalar::<_, bool>(waits)
            .fetch_one(&database.pool)
            .await
            .expect("look")
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.stop().await;
    });
    assert_away(waiting.map(drop));
    let success = record(attempt.attempt, &device, Outcome::Delivered(taken("x")));
    // Each waits for the server for as long as it may.
    let (recorded, pinged, inventory, state, migrated) = tokio::join!(
        store.record(&success, "one"),
        store.ping(),
        store.inventory(),
        store.schema_state(),
        store.migrate(),
    );
    assert_away(recorded);
    assert_away(pinged);
    assert_away(inventory.map(drop));
    for error in [state.map(drop), migrated.map(drop)] {
        let error = error.expect_err("the database is stopped");
        assert!(matches!(error, MigrateError::Unavailable { .. }), "{error}");
    }

    server.launch().await;
    store.ping().await.expect("back without a restart");
    store
        .record(&success, "one")
        .await
        .expect("record what could not be recorded");
    let last = listed(&store, id)
        .await
        .and_then(|listed| listed.last)
        .expect("a last attempt");
    assert_eq!(last.id, attempt.attempt);
    timeout(Duration::from_secs(60), store.changed())
        .await
        .expect("listening again");
    store.close().await;
}

fn assert_away(result: Result<(), StoreError>) {
    let error = result.expect_err("the database is stopped");
    assert!(
        matches!(error, StoreError::Unavailable { .. }),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_away() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = silent.local_addr().expect("its address").port();
    let url = format!("postgres://someone:recognisable-secret@127.0.0.1:{port}/fleet");
    let error = open(&url, "one").ping().await.expect_err("nothing answers");
    let text = chain(&error);
    assert!(matches!(error, StoreError::Unavailable { .. }), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
    assert!(!format!("{text} {error:?}").contains("recognisable-secret"));
}

#[tokio::test]
async fn a_refused_statement_is_no_outage() {
    let Some(database) = empty_database().await else {
        return;
    };
    let error = database
        .store("one")
        .inventory()
        .await
        .expect_err("no tables");
    assert!(
        matches!(error, StoreError::Failed { .. }),
        "{}",
        chain(&error)
    );
    let nowhere = database.url.replace("test_", "no_such_database_");
    let error = open(&nowhere, "one").ping().await.expect_err("no database");
    assert!(
        matches!(error, StoreError::Failed { .. }),
        "{}",
        chain(&error)
    );
}

/// Attempts may be dropped at any await: their connections must not be missing afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_were_given_up_do_not_block_others() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let store = database.store("one");
    let id = insert_device(&database.pool, NewDevice::default()).await;
    let mut holder = database.pool.begin().await.expect("a transaction");
    sqlx::query("SELECT FROM devices WHERE id = $1 FOR UPDATE")
        .bind(id.0)
        .execute(&mut *holder)
        .await
        .expect("lock the row");
    let key = Fingerprint::of_key_blob(b"key");
    // More than the pool has connections.
    let waiting =
        (0..15).map(|_| timeout(Duration::from_millis(500), store.pin_host_key(id, &key)));
    for given_up in futures_util::future::join_all(waiting).await {
        assert!(given_up.is_err(), "the row is locked: {given_up:?}");
    }
    store
        .ping()
        .await
        .expect("a free connection while the row is still locked");
    holder.rollback().await.expect("unlock the row");
    assert_eq!(
        store.pin_host_key(id, &key).await.expect("pin"),
        Pin::Pinned(key)
    );
}
