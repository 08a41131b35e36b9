//! LISTEN/NOTIFY: edits by operators are heard of at once, and nothing else is.

use std::time::Duration;

use mikrotik_backup::domain::attempt::Outcome;
use mikrotik_backup::domain::host_key::Fingerprint;
use mikrotik_backup::ports::Store;
use sqlx::postgres::PgListener;
use tokio::time::timeout;

use super::contract::{Operator, Value, begin, claim, record, taken};
use super::postgres::Psql;
use crate::services::postgres::{Database, NewDevice, fresh_database, insert_device};

const SOON: Duration = Duration::from_secs(30);

/// Whether `edit` was told of. A notification of our own marks the end, because they arrive in
/// the order in which they were committed.
async fn is_told(database: &Database, listener: &mut PgListener, edit: &str) -> bool {
    database.sql(edit).await;
    told_until_now(database, listener).await
}

async fn told_until_now(database: &Database, listener: &mut PgListener) -> bool {
    database.sql("NOTIFY the_end").await;
    let mut told = false;
    loop {
        let next = timeout(SOON, listener.recv())
            .await
            .expect("our own notification");
        if next.expect("a notification").channel() == "the_end" {
            return told;
        }
        told = true;
    }
}

#[tokio::test]
async fn exactly_relevant_edits_are_told() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let psql = Psql(&database.pool);
    let profile = psql.insert_profile(None, None).await;
    let id = psql
        .insert(NewDevice {
            ssh_port: Some(22),
            ..NewDevice::default()
        })
        .await;
    let mut listener = PgListener::connect(&database.url).await.expect("listen");
    listener
        .listen_all(["mikrotik_backup_inventory", "the_end"])
        .await
        .expect("listen");

    for (edit, expected) in [
        ("UPDATE devices SET ip_address = '192.0.2.50'", true),
        ("UPDATE devices SET ip_address = '192.0.2.50'", false),
        ("UPDATE devices SET ssh_port = 22", false),
        ("UPDATE devices SET ssh_port = NULL", true),
        (
            "UPDATE devices SET hostname = 'x', routeros_version = '7.2'",
            false,
        ),
        ("UPDATE devices SET device_type = 'routeros'", true),
        ("UPDATE devices SET encrypted_credentials = 'new'", true),
        (
            "UPDATE devices SET encrypted_credentials_transit = 'vault:v1:x'",
            true,
        ),
        (
            "UPDATE devices SET ssh_host_key_fingerprint = 'SHA256:x'",
            true,
        ),
        (
            "UPDATE devices SET ssh_host_key_last_verified = now()",
            false,
        ),
        ("UPDATE devices SET ssh_host_key_fingerprint = NULL", true),
        (
            "UPDATE credential_profiles SET encrypted_credentials = 'new'",
            true,
        ),
        (
            "UPDATE credential_profiles SET encrypted_credentials = 'new'",
            false,
        ),
        (
            "UPDATE credential_profiles SET encrypted_credentials_transit = 'new'",
            true,
        ),
        (
            "INSERT INTO devices (tenant_id, hostname, ip_address) VALUES (gen_random_uuid(), 'h', '192.0.2.3')",
            true,
        ),
        ("DELETE FROM devices WHERE hostname = 'h'", true),
        (
            "INSERT INTO mikrotik_backup.device_settings SELECT id, 600 FROM devices",
            true,
        ),
        (
            "UPDATE mikrotik_backup.device_settings SET command_timeout_seconds = 600",
            false,
        ),
        (
            "UPDATE mikrotik_backup.device_settings SET ssh_algorithms = 'modern'",
            true,
        ),
        ("DELETE FROM mikrotik_backup.device_settings", true),
        ("TRUNCATE mikrotik_backup.device_settings", true),
        (
            "BEGIN; UPDATE devices SET ip_address = '192.0.2.51'; ROLLBACK",
            false,
        ),
    ] {
        assert_eq!(
            is_told(&database, &mut listener, edit).await,
            expected,
            "{edit}"
        );
    }
    psql.set("devices", id.0, "credential_profile_id", Value::Id(profile))
        .await;
    assert!(told_until_now(&database, &mut listener).await);

    // What the service itself writes in the course of a backup.
    let store = database.store("one");
    let attempt = claim(id, None, "one");
    let device = begin(&store, &attempt).await.device;
    for _ in 0..2 {
        store
            .pin_host_key(id, &Fingerprint::of_key_blob(b"key"))
            .await
            .expect("pin");
    }
    let success = record(attempt.attempt, &device, Outcome::Delivered(taken("x")));
    store.record(&success, "one").await.expect("record");
    assert!(
        !told_until_now(&database, &mut listener).await,
        "our own pin is no edit"
    );

    // A platform that migrates its table must be able to update it in the sessions it has open.
    for (migration, edit) in [
        (
            "ALTER TABLE devices ALTER COLUMN ssh_port TYPE bigint",
            "UPDATE devices SET ssh_port = 2223",
        ),
        (
            "ALTER TABLE devices DROP COLUMN device_type",
            "UPDATE devices SET ip_address = '192.0.2.60'",
        ),
        (
            "ALTER TABLE credential_profiles ALTER COLUMN encrypted_credentials_transit TYPE varchar(99)",
            "UPDATE credential_profiles SET encrypted_credentials_transit = 'vault:v1:y'",
        ),
    ] {
        assert!(
            !is_told(&database, &mut listener, migration).await,
            "{migration}"
        );
        assert!(
            is_told(&database, &mut listener, edit).await,
            "{edit} after {migration}"
        );
        assert!(
            !is_told(&database, &mut listener, edit).await,
            "{edit} after {migration}, again"
        );
        let other = "UPDATE devices SET hostname = hostname || 'y'";
        assert!(
            !is_told(&database, &mut listener, other).await,
            "{other} after {migration}"
        );
    }
    assert!(is_told(&database, &mut listener, "TRUNCATE devices").await);
}

/// The platform's role, which has no right in our schema, is not hindered by our trigger.
#[tokio::test]
async fn a_role_without_rights_in_our_schema_can_edit() {
    let Some(database) = fresh_database().await else {
        return;
    };
    insert_device(&database.pool, NewDevice::default()).await;
    database
        .sql("CREATE ROLE platform_edits; GRANT SELECT, INSERT, UPDATE, DELETE ON devices TO platform_edits")
        .await;
    database
        .sql("SET ROLE platform_edits; UPDATE devices SET ip_address = '192.0.2.8'; DELETE FROM devices; RESET ROLE")
        .await;
}

#[tokio::test]
async fn a_hint_wakes_the_store_even_after_its_connection_was_cut() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let store = database.store("listener");
    let id = insert_device(&database.pool, NewDevice::default()).await;
    timeout(SOON, store.changed())
        .await
        .expect("the first hint says that we listen now");
    // Giving up to wait loses nothing.
    assert!(
        timeout(Duration::from_millis(50), store.changed())
            .await
            .is_err(),
        "nothing has changed"
    );
    Psql(&database.pool)
        .set("devices", id.0, "ip_address", Value::Text("192.0.2.9"))
        .await;
    timeout(SOON, store.changed())
        .await
        .expect("the edit is heard of");

    let cut: Vec<bool> = sqlx::query_scalar(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name = 'mikrotik-backup/listener'",
    )
    .fetch_all(&database.pool)
    .await
    .expect("cut connections");
    assert_eq!(cut, [true], "the listener has a connection of its own");
    timeout(SOON, store.changed())
        .await
        .expect("listening again is a hint: something may have been missed");
    Psql(&database.pool)
        .set("devices", id.0, "ip_address", Value::Text("192.0.2.10"))
        .await;
    timeout(SOON, store.changed())
        .await
        .expect("the edit is heard of");
    store.close().await;
}
