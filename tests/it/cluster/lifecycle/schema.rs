//! Who brings the schema up to date, and who may not.

use std::net::{Ipv4Addr, SocketAddr};

use mikrotik_backup::adapters::postgres::grants;
use mikrotik_backup::sim::{Router, RouterOptions};
use nix::sys::signal::Signal;
use uuid::Uuid;

use super::{count, ready, refused, router};
use crate::cluster::commands::finished;
use crate::cluster::harness::{Cluster, sealed};
use crate::services::postgres::{Database, empty_database};

/// The database of `cluster` is replaced by one with nothing in it.
async fn with_empty_database() -> Option<Cluster> {
    let mut cluster = Cluster::start().await?;
    cluster.database = empty_database().await?;
    Some(cluster)
}

/// A role that may log in and nothing else; the shared server knows every test's.
async fn role(database: &Database) -> String {
    let name = format!("narrow_{}", Uuid::new_v4().simple());
    database.sql(&format!("CREATE ROLE {name} LOGIN")).await;
    name
}

/// What the log says where every migration was applied.
fn all_applied() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
    let migrations = std::fs::read_dir(folder).expect("the migrations").count();
    format!(r#""applied":{migrations}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_leave_to_migrate_a_missing_schema_stops_the_start() {
    let Some(cluster) = with_empty_database().await else {
        return;
    };
    let (code, log) = refused(&cluster, "off", &[("MIGRATE_ON_START", "false")]).await;
    assert_eq!(code, 3, "{log}");
    assert!(log.contains("run `mikrotik-backup migrate`"), "{log}");
    let schemas: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_namespace WHERE nspname = 'mikrotik_backup'")
            .fetch_one(cluster.pool())
            .await
            .expect("count schemas");
    assert_eq!(schemas, 0, "nothing was created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_stops_the_start_and_asks_for_the_newer_program() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster
        .database
        .sql(
            "INSERT INTO mikrotik_backup._sqlx_migrations \
                 (version, description, success, checksum, execution_time) \
             VALUES (9999, 'of a version to come', true, '', 0)",
        )
        .await;
    for may in ["true", "false"] {
        let (code, log) = refused(&cluster, "old", &[("MIGRATE_ON_START", may)]).await;
        assert_eq!(code, 3, "{log}");
        assert!(log.contains("run the newer program"), "{may}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_ddl_runs_on_a_current_schema_and_is_told_what_it_lacks() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router([127, 61, 0, 9]);
    let device = cluster.insert(&router).await;
    let role = role(&cluster.database).await;
    let url = cluster.database.url_as(&role);
    let as_role = &[("DATABASE_URL", url.as_str())];

    let (code, log) = refused(&cluster, "no-rights", as_role).await;
    assert_eq!(code, 3, "{log}");
    assert!(
        log.contains("GRANT USAGE ON SCHEMA mikrotik_backup"),
        "{log}"
    );

    // Everything but one right, which would otherwise show only when the first router is pinned.
    cluster.database.sql(&grants(&role)).await;
    let column = "UPDATE (ssh_host_key_last_verified)";
    cluster
        .database
        .sql(&format!("REVOKE {column} ON devices FROM {role}"))
        .await;
    let (code, log) = refused(&cluster, "one-right-less", as_role).await;
    assert_eq!(code, 3, "{log}");
    assert!(
        log.contains(&format!("GRANT {column} ON devices TO {role}")),
        "{log}"
    );
    assert_eq!(router.stats().connections, 0);

    cluster.database.sql(&grants(&role)).await;
    let mut replica = cluster.replica("narrow", as_role).await;
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;
    replica.signal(Signal::SIGTERM);
    assert_eq!(replica.exit_code().await, 0);

    cluster
        .database
        .sql("DELETE FROM mikrotik_backup._sqlx_migrations WHERE version = 3")
        .await;
    let (code, log) = refused(&cluster, "behind", as_role).await;
    assert_eq!(code, 3, "{log}");
    // No grant lets a role change tables that are another's.
    assert!(
        log.contains("run `mikrotik-backup migrate` as role"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_brings_the_schema_up_and_says_so() {
    let Some(cluster) = with_empty_database().await else {
        return;
    };
    let owner = role(&cluster.database).await;
    cluster
        .database
        .sql(&format!(
            "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {owner}', \
             current_database()); END $$; GRANT CREATE ON SCHEMA public TO {owner}"
        ))
        .await;
    let url = cluster.database.url_as(&owner);
    let migrate = || {
        // `migrate` needs the database and nothing else.
        let mut command = cluster.command("migrate", &[("DATABASE_URL", url.as_str())]);
        for variable in ["REDIS_URL", "NATS_URL", "CREDENTIAL_ENCRYPTION_KEY"] {
            command.env_remove(variable);
        }
        command.arg("migrate");
        command
    };
    let first = finished(migrate(), "").await;
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(first.err.contains(&all_applied()), "{}", first.err);
    let again = finished(migrate(), "").await;
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(again.err.contains(r#""applied":0"#), "{}", again.err);
    let replica = cluster
        .replica("migrated", &[("MIGRATE_ON_START", "false")])
        .await;
    ready(&replica).await;

    let away = &[("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")];
    let mut command = cluster.command("migrate", away);
    command.arg("migrate");
    let ended = finished(command, "").await;
    assert_eq!(
        ended.code, 1,
        "not a matter of configuration: {}",
        ended.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_migrate_an_empty_database_at_once() {
    let Some(cluster) = with_empty_database().await else {
        return;
    };
    let replicas = [cluster.spawn("first", &[]), cluster.spawn("second", &[])];
    for replica in &replicas {
        ready(replica).await;
    }
    let applied = replicas
        .iter()
        .map(|replica| count(replica, &all_applied()));
    assert_eq!(applied.sum::<usize>(), 1, "one of them did the work");
    let router = router([127, 61, 0, 10]);
    let device = cluster.insert(&router).await;
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;
}

/// Tables as a platform may have them: other types, and more columns than ours.
const PLATFORM: &str = "
    CREATE TYPE device_kind AS ENUM ('routeros', 'switch');
    CREATE TABLE credential_profiles (
        id uuid PRIMARY KEY, name varchar(40) NOT NULL, encrypted_credentials bytea,
        encrypted_credentials_transit text);
    CREATE TABLE devices (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant_id uuid NOT NULL,
        hostname varchar(64) NOT NULL, ip_address inet NOT NULL, ssh_port smallint,
        site text NOT NULL, device_type device_kind, routeros_version varchar(20),
        encrypted_credentials bytea, encrypted_credentials_transit text,
        credential_profile_id uuid REFERENCES credential_profiles, last_seen timestamptz,
        ssh_host_key_fingerprint text, ssh_host_key_first_seen timestamptz,
        ssh_host_key_last_verified timestamptz, updated_at timestamptz NOT NULL DEFAULT now());";

#[tokio::test(flavor = "multi_thread")]
async fn the_platforms_own_tables_are_used_as_they_are() {
    let Some(cluster) = with_empty_database().await else {
        return;
    };
    cluster.database.sql(PLATFORM).await;
    let router = on_a_low_port([127, 61, 0, 11]);
    let device: Uuid = sqlx::query_scalar(
        "INSERT INTO devices (tenant_id, hostname, ip_address, ssh_port, site, device_type, \
         encrypted_credentials) VALUES (gen_random_uuid(), 'platform-1', '127.61.0.11', $1, \
         'attic', 'routeros', $2) RETURNING id",
    )
    .bind(i16::try_from(router.address().port()).expect("a low port"))
    .bind(sealed(&router.username(), &router.password()))
    .fetch_one(cluster.pool())
    .await
    .expect("insert a device");
    let replica = cluster.replica("beside", &[]).await;
    ready(&replica).await;
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;
    let (pinned, touched): (String, bool) = sqlx::query_as(
        "SELECT ssh_host_key_fingerprint, updated_at > ssh_host_key_first_seen OR \
         routeros_version IS NOT NULL FROM devices WHERE id = $1",
    )
    .bind(device)
    .fetch_one(cluster.pool())
    .await
    .expect("read the device");
    assert_eq!(pinned, router.fingerprint().to_string());
    assert!(
        !touched,
        "only the columns of the host key are ours to write"
    );
}

/// A router on a port that a smallint can hold.
fn on_a_low_port(address: [u8; 4]) -> Router {
    let started = (20_000..32_000).find_map(|port| {
        let options = RouterOptions {
            address: SocketAddr::from((Ipv4Addr::from(address), port)),
            ..RouterOptions::default()
        };
        Router::start_one(options).ok()
    });
    started.expect("a free port")
}
