//! Migrations: from nothing, beside a platform's tables, by many at once.

use mikrotik_backup::adapters::postgres::{MigrateError, Migrated, SchemaState};
use mikrotik_backup::domain::attempt::Outcome;
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::domain::host_key::Fingerprint;
use mikrotik_backup::ports::Store;
use uuid::Uuid;

use super::contract::{self, begin, claim, listed, record, taken};
use super::postgres::Psql;
use crate::services::postgres::{Database, empty_database, fresh_database};

/// The version of every migration, in order: branches add theirs without touching these tests.
pub fn versions() -> Vec<i64> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
    let files = std::fs::read_dir(folder).expect("the migrations");
    let mut versions: Vec<i64> = files
        .map(|file| {
            let name = file.expect("a file").file_name();
            let name = name.to_string_lossy();
            let digits = name.split('_').next().expect("a number first");
            digits.parse().expect("a number first")
        })
        .collect();
    versions.sort_unstable();
    versions
}

pub fn newest() -> i64 {
    *versions().last().expect("there are migrations")
}

#[tokio::test]
async fn an_empty_database_becomes_current_once() {
    let Some(database) = empty_database().await else {
        return;
    };
    let store = database.store("one");
    assert_eq!(
        store.schema_state().await.expect("look"),
        SchemaState::Missing
    );
    let first = store.migrate().await.expect("migrate");
    assert_eq!(
        first,
        Migrated {
            applied: versions().len(),
            hints_missing: None
        }
    );
    assert_eq!(
        store.schema_state().await.expect("look"),
        SchemaState::Current
    );
    let again = store.migrate().await.expect("migrate again");
    assert_eq!(
        again,
        Migrated {
            applied: 0,
            hints_missing: None
        }
    );
    contract::suite(&store, &Psql(&database.pool)).await;

    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT schemaname || '.' || tablename FROM pg_tables \
         WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
    )
    .fetch_all(&database.pool)
    .await
    .expect("list tables");
    assert_eq!(
        tables,
        [
            "mikrotik_backup._sqlx_migrations",
            "mikrotik_backup.archive_contents",
            "mikrotik_backup.archive_devices",
            "mikrotik_backup.archive_set_aside",
            "mikrotik_backup.archive_unreferenced",
            "mikrotik_backup.archive_versions",
            "mikrotik_backup.attempt_steps",
            "mikrotik_backup.attempts",
            "mikrotik_backup.device_settings",
            "mikrotik_backup.device_state",
            "public.credential_profiles",
            "public.devices",
        ]
    );
}

#[tokio::test]
async fn state_tells_behind_from_newer() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let store = database.store("one");
    database
        .sql(&format!(
            "DELETE FROM mikrotik_backup._sqlx_migrations WHERE version = {}",
            newest()
        ))
        .await;
    let state = store.schema_state().await.expect("look");
    assert_eq!(
        state,
        SchemaState::Behind {
            applied: versions()[versions().len() - 2],
            known: newest()
        }
    );
    database
        .sql(
            "INSERT INTO mikrotik_backup._sqlx_migrations \
             SELECT 900, 'from the future', now(), true, checksum, 1 \
             FROM mikrotik_backup._sqlx_migrations WHERE version = 1",
        )
        .await;
    let state = store.schema_state().await.expect("look");
    assert_eq!(
        state,
        SchemaState::Newer {
            applied: 900,
            known: newest()
        }
    );
    let error = store
        .migrate()
        .await
        .expect_err("an older program must not touch it");
    assert!(
        matches!(
            error,
            MigrateError::Newer {
                applied: 900,
                known
            } if known == newest()
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_replicas_migrate_at_once() {
    let Some(database) = empty_database().await else {
        return;
    };
    let migrations = (0..4).map(|replica| {
        let store = database.store(&format!("replica-{replica}"));
        tokio::spawn(async move { store.migrate().await })
    });
    let mut applied = vec![];
    for migration in migrations.collect::<Vec<_>>() {
        applied.push(migration.await.expect("no panic").expect("migrate").applied);
    }
    applied.sort_unstable();
    assert_eq!(
        applied,
        [0, 0, 0, versions().len()],
        "one of them did the work"
    );
}

/// Tables as a platform may have them: other types, more columns, some of ours missing.
const PLATFORM: &str = "
    CREATE TYPE kind AS ENUM ('routeros', 'switch');
    CREATE TABLE credential_profiles (
        id uuid PRIMARY KEY, name varchar(40) NOT NULL, encrypted_credentials bytea);
    CREATE TABLE devices (
        id uuid PRIMARY KEY, tenant_id uuid NOT NULL, hostname varchar(64) NOT NULL,
        ip_address inet NOT NULL, ssh_port bigint, device_type kind, site text NOT NULL,
        encrypted_credentials bytea, created_at timestamptz NOT NULL DEFAULT now());
    INSERT INTO devices VALUES
        ('00000000-0000-4000-8000-000000000001', gen_random_uuid(), 'v4', '192.0.2.5', 99999999999,
         'routeros', 'attic', 'sealed'),
        ('00000000-0000-4000-8000-000000000002', gen_random_uuid(), 'v6', '2001:db8::5', NULL,
         NULL, 'cellar', 'sealed'),
        ('00000000-0000-4000-8000-000000000003', gen_random_uuid(), 'sw', '192.0.2.6', 22,
         'switch', 'cellar', 'sealed');";

async fn columns(database: &Database) -> Vec<(String, String)> {
    sqlx::query_as(
        "SELECT table_name || '.' || column_name, data_type::text FROM information_schema.columns \
         WHERE table_schema = 'public' ORDER BY table_name, ordinal_position",
    )
    .fetch_all(&database.pool)
    .await
    .expect("list columns")
}

#[tokio::test]
async fn tables_of_the_platform_are_only_completed() {
    let Some(database) = empty_database().await else {
        return;
    };
    database.sql(PLATFORM).await;
    let before = columns(&database).await;
    let store = database.store("one");
    store.migrate().await.expect("migrate beside the platform");
    let after = columns(&database).await;
    for column in &before {
        assert!(after.contains(column), "{column:?} was changed");
    }
    let added: Vec<&str> = after
        .iter()
        .filter(|column| !before.contains(column))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        added,
        [
            "credential_profiles.encrypted_credentials_transit",
            "devices.routeros_version",
            "devices.encrypted_credentials_transit",
            "devices.credential_profile_id",
            "devices.ssh_host_key_fingerprint",
            "devices.ssh_host_key_first_seen",
            "devices.ssh_host_key_last_verified",
        ]
    );

    let device = |n: u128| DeviceId(Uuid::from_u128(0x00000000_0000_4000_8000_000000000000 + n));
    let v4 = listed(&store, device(1)).await.expect("ours").device;
    assert_eq!(
        (v4.endpoint.host.as_str(), v4.endpoint.port),
        ("192.0.2.5", i32::MAX)
    );
    let v6 = listed(&store, device(2)).await.expect("ours").device;
    assert_eq!(v6.endpoint.to_string(), "[2001:db8::5]:22");
    assert_eq!(listed(&store, device(3)).await, None, "a switch");
    assert_eq!(store.inventory().await.expect("digests").len(), 2);

    let attempt = claim(device(2), None, "one");
    let begun = begin(&store, &attempt).await;
    store
        .pin_host_key(device(2), &Fingerprint::of_key_blob(b"key"))
        .await
        .expect("pin");
    let success = record(
        attempt.attempt,
        &begun.device,
        Outcome::Delivered(taken("x")),
    );
    store.record(&success, "one").await.expect("record");

    // Nothing of ours stands in the way of the platform's own migrations.
    database
        .sql(
            "ALTER TABLE devices ALTER COLUMN ip_address TYPE text USING host(ip_address); \
             ALTER TABLE devices ALTER COLUMN encrypted_credentials_transit TYPE varchar(500); \
             ALTER TABLE devices DROP COLUMN routeros_version; \
             ALTER TABLE devices ADD COLUMN routeros_version varchar(20)",
        )
        .await;
    let v6 = listed(&store, device(2)).await.expect("ours").device;
    assert_eq!(
        v6.endpoint.host, "2001:db8::5",
        "also through statements prepared before"
    );
}

#[tokio::test]
async fn a_table_that_is_something_else_is_refused() {
    let Some(database) = empty_database().await else {
        return;
    };
    database.sql("CREATE TABLE devices (serial text)").await;
    let store = database.store("one");
    let error = store.migrate().await.expect_err("not our table");
    let text = mikrotik_backup::domain::failure::chain(&error);
    assert!(text.contains("devices has no column id"), "{text}");
    assert_eq!(
        columns(&database)
            .await
            .iter()
            .filter(|(name, _)| name.starts_with("devices"))
            .count(),
        1
    );
}
