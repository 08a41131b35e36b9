//! Another key, damage, and a database that is away.

use futures_util::StreamExt;
use mikrotik_backup::adapters::archive::SealedArchive;
use mikrotik_backup::adapters::postgres::grants;
use mikrotik_backup::archive;
use mikrotik_backup::credentials::Key;
use mikrotik_backup::domain::archive::Arrived;
use mikrotik_backup::domain::failure::chain;
use mikrotik_backup::ports::{Archive, ArchiveError, SinkError, SnapshotSink};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::services::postgres::{fresh_database, open};

use super::bench::{Bench, config, device, history, renormalize, snapshot, told};

on_both!(
    another_key_is_said_and_nothing_is_lost,
    damage_is_named_and_stays_where_it_is,
    texts_in_each_others_place_are_refused,
    a_closed_database_is_away,
);

async fn another_key_is_said_and_nothing_is_lost(bench: &Bench) {
    let right = bench.archive();
    let device = device();
    right
        .store(&snapshot(device, 0, &config(1)))
        .await
        .expect("store");
    let version = history(&right, device).await[0].id;

    let wrong = bench.archive_with(8, 2);
    for error in [
        wrong.check_key().await.expect_err("another key"),
        wrong
            .open(version)
            .await
            .map(drop)
            .expect_err("another key"),
        wrong
            .store(&snapshot(device, 1, &config(2)))
            .await
            .map(drop)
            .expect_err("another key"),
    ] {
        let text = chain(&error);
        assert!(matches!(error, ArchiveError::OtherKey { .. }), "{text}");
        for part in [
            version.to_string(),
            device.to_string(),
            "CREDENTIAL_ENCRYPTION_KEY".into(),
        ] {
            assert!(text.contains(&part), "{text}");
        }
    }
    // To the fleet it is a sink that is away: snapshots wait for the right key.
    let error = wrong.ready().await.expect_err("not with this key");
    assert!(matches!(error, SinkError::Unavailable { .. }), "{error}");
    let error = wrong.deliver(&snapshot(device, 1, &config(2))).await;
    let error = error.expect_err("not with this key");
    assert!(matches!(error, SinkError::Unavailable { .. }), "{error}");
    assert!(
        chain(&error).contains(&version.to_string()),
        "{}",
        chain(&error)
    );
    assert_eq!(
        wrong
            .versions(device, mikrotik_backup::ports::VersionPage::first(9))
            .await
            .expect("lists")
            .len(),
        1
    );

    right.ready().await.expect("the right key");
    right
        .store(&snapshot(device, 2, &config(2)))
        .await
        .expect("store");
    assert_eq!(
        told(&right, device).await,
        [(0, 0, config(1)), (2, 2, config(2))]
    );
}

async fn damage_is_named_and_stays_where_it_is(bench: &Bench) {
    let archive = bench.archive();
    let (hurt, sound) = (device(), device());
    let first = snapshot(hurt, 0, &config(1));
    archive.store(&first).await.expect("store");
    archive
        .store(&snapshot(sound, 0, &config(2)))
        .await
        .expect("store");
    let damaged = bench
        .sql(&format!(
            "UPDATE ~archive_contents SET sealed = substr(sealed, 1, 40) WHERE sha256_hash = '{}'",
            first.hash
        ))
        .await;
    assert_eq!(damaged, 1);

    let version = history(&archive, hurt).await[0].id;
    let error = archive.open(version).await.expect_err("damaged");
    let text = chain(&error);
    assert!(matches!(error, ArchiveError::Damaged { .. }), "{text}");
    assert!(
        text.contains(&version.to_string()) && text.contains(&hurt.to_string()),
        "{text}"
    );
    assert!(!text.contains("hidden-word"), "{text}");

    let mut opened = Vec::new();
    let walk = archive::newest(&archive);
    let mut walk = std::pin::pin!(walk);
    while let Some(item) = walk.next().await {
        let (version, text) = item.expect("the walk goes on");
        opened.push((version.device, text.is_ok()));
    }
    opened.sort_by_key(|(_, whole)| *whole);
    assert_eq!(opened, [(hurt, false), (sound, true)]);

    // The device itself goes on: seen again by its hash alone, and a change is stored uncounted.
    let again = archive
        .store(&snapshot(hurt, 1, &config(1)))
        .await
        .expect("store");
    assert_eq!(again.arrived, Arrived::SeenAgain);
    let change = archive
        .store(&snapshot(hurt, 2, &config(3)))
        .await
        .expect("store");
    assert_eq!(change.arrived, Arrived::Change);
    let versions = history(&archive, hurt).await;
    assert_eq!(versions[1].lines, None);
    archive.open(versions[1].id).await.expect("opens");
}

async fn texts_in_each_others_place_are_refused(bench: &Bench) {
    let archive = bench.archive();
    let device = device();
    for n in [1, 2] {
        let snapshot = snapshot(device, n.into(), &config(n));
        archive.store(&snapshot).await.expect("store");
    }
    let swapped = bench
        .sql(
            "UPDATE ~archive_versions SET content_id = (SELECT min(id) + max(id) \
             FROM ~archive_contents) - content_id",
        )
        .await;
    assert_eq!(swapped, 2);
    for version in history(&archive, device).await {
        let error = archive.open(version.id).await.expect_err("not its text");
        assert!(error.to_string().contains("SHA-256"), "{error}");
    }
}

async fn a_closed_database_is_away(bench: &Bench) {
    let archive = bench.archive();
    match bench {
        Bench::Postgres(pool) => pool.close().await,
        Bench::Sqlite(pool, _) => pool.close().await,
    }
    let error = archive.store(&snapshot(device(), 0, &config(1))).await;
    let error = error.expect_err("no database");
    assert!(matches!(error, ArchiveError::Unavailable { .. }), "{error}");
    let error = archive.ready().await.expect_err("no database");
    assert!(matches!(error, SinkError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_refuses_is_named() {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(1)
        .username("nobody");
    let pool = PgPoolOptions::new()
        .acquire_timeout(std::time::Duration::from_millis(200))
        .connect_lazy_with(options);
    let key = Key::from_bytes([7; 32]);
    let archive = SealedArchive::postgres(pool, key, renormalize(2));
    let error = archive.check_key().await.expect_err("nobody listens");
    assert!(matches!(error, ArchiveError::Unavailable { .. }), "{error}");
    assert!(chain(&error).contains("127.0.0.1:1"), "{}", chain(&error));
}

#[tokio::test]
async fn the_granted_rights_suffice() {
    let Some(database) = fresh_database().await else {
        return;
    };
    database
        .sql(&format!(
            "CREATE ROLE narrow_archive LOGIN; {}",
            grants("narrow_archive")
        ))
        .await;
    let store = open(&database.url_as("narrow_archive"), "archive");
    let key = Key::from_bytes([7; 32]);
    let archive = SealedArchive::postgres(store.pool().clone(), key, renormalize(2));
    let device = device();
    for (hour, number) in [(0, 1), (2, 1), (1, 2)] {
        let snapshot = snapshot(device, hour, &config(number));
        archive.store(&snapshot).await.expect("store");
    }
    let oldest = history(&archive, device).await[0].id;
    assert_eq!(archive.delete(device, &[oldest]).await.expect("delete"), 1);
    archive.collect_garbage(10).await.expect("collect");
    let left = history(&archive, device).await;
    assert_eq!(left.len(), 2);
    for version in left {
        archive.open(version.id).await.expect("the text stays");
    }
    archive.ready().await.expect("ready");
}
