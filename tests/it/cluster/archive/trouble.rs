//! A database that goes away, another key, a role with too few rights, NATS that restarts.

use mikrotik_backup::domain::digest::Digest;
use mikrotik_backup::domain::failure::chain;
use mikrotik_backup::ports::SnapshotSink as _;

use super::{
    STREAM, archive, archiver, assert_stored_once, count, publish, publisher, snapshot, snapshots,
    until_drained, until_ready, until_stored,
};
use crate::cluster::harness::{Cluster, base64, get};
use crate::cluster::poll::until;
use crate::services::postgres::Postgres;

/// What `/readyz` names, once it names `name`.
async fn until_named(http: &str, name: &str) -> String {
    until(&format!("/readyz to name {name}"), || async {
        let body = get(http, "/readyz").await.ok()?;
        let body: serde_json::Value = serde_json::from_str(&body).ok()?;
        Some(body["failing"].get(name)?.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_restarts_meanwhile_costs_nothing() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let Some(mut postgres) = Postgres::start_private().await else {
        return;
    };
    cluster.database = postgres.database("migrated").await;
    let (_, name) = cluster.database.url.rsplit_once('/').expect("a database");
    cluster.database.url = postgres.tcp_url(name);
    let sink = publisher(&cluster).await;
    let snapshots = snapshots(10, 6);
    publish(&sink, &snapshots[..30]).await;
    let role = archiver(&cluster, "patient", &[]).await;
    until_stored(&cluster, 30).await;

    postgres.stop().await;
    publish(&sink, &snapshots[30..]).await;
    // Asked for by a message, not only by the probe.
    let reason = until_named(&role.http, "archive").await;
    assert!(reason.contains("away"), "{reason}");
    until_named(&role.http, "database").await;
    until("the log to say so", || async {
        role.log()
            .contains("Snapshots cannot be stored")
            .then_some(())
    })
    .await;
    postgres.launch().await;
    until_drained(&cluster).await;
    until_ready(&role).await;
    assert_stored_once(&cluster, &snapshots).await;
    assert_eq!(count(&cluster, "archive_set_aside").await, 0);
    let put_off = "mikrotik_archive_messages_total{result=\"put_off\"}";
    let put_off = role.metric(put_off).await;
    // Held back at the gate, and not turned over again and again.
    assert!((1.0..100.0).contains(&put_off), "{put_off} times put off");
    assert_eq!(role.log().matches("Snapshots cannot be stored").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_is_said_before_anything_is_taken() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let sink = publisher(&cluster).await;
    let stored = snapshot(super::device(), 1);
    archive(&cluster).deliver(&stored).await.expect("stored");
    publish(&sink, &[snapshot(stored.device, 2)]).await;

    let other = base64(Digest::of("another key").as_bytes());
    let overrides = [("CREDENTIAL_ENCRYPTION_KEY", other.as_str())];
    let mut role = cluster.spawn_role("archive", "other-key", &overrides);
    assert_eq!(role.exit_code().await, 3, "{}", role.log());
    let log = role.log();
    for part in [
        "sealed under the key with fingerprint",
        "CREDENTIAL_ENCRYPTION_KEY",
    ] {
        assert!(log.contains(part), "{log}");
    }
    assert_eq!(count(&cluster, "archive_versions").await, 1);
    let jetstream = cluster.nats.jetstream().await;
    let stream = jetstream.get_stream(STREAM).await.expect("the stream");
    assert_eq!(
        stream.cached_info().state.consumer_count,
        0,
        "nothing is taken"
    );
}

/// It runs with the rights of its own role and no others, and names one that it lacks.
#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_the_manifests_suffices() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let script = include_str!("../../../../deploy/sql/archive-role.sql");
    cluster.database.sql(script).await;
    let sink = publisher(&cluster).await;
    let device = super::device();
    publish(
        &sink,
        &[
            snapshot(device, 1),
            snapshot(device, 1),
            snapshot(device, 2),
        ],
    )
    .await;
    let jetstream = cluster.nats.jetstream().await;
    let bad = jetstream
        .publish(format!("config.snapshot.create.{device}"), "{}".into())
        .await;
    bad.expect("sent").await.expect("acknowledged");

    let url = cluster.database.url_as("mikrotik_backup_archive");
    let overrides = [
        ("DATABASE_URL", url.as_str()),
        ("MIGRATE_ON_START", "false"),
    ];
    let role = archiver(&cluster, "narrow", &overrides).await;
    until_drained(&cluster).await;
    assert_eq!(
        count(&cluster, "archive_versions").await,
        2,
        "{}",
        role.log()
    );
    assert_eq!(count(&cluster, "archive_set_aside").await, 1);
    until_ready(&role).await;
    drop(role);

    let denied = sqlx::query("SET ROLE mikrotik_backup_archive");
    let mut connection = cluster.pool().acquire().await.expect("a connection");
    denied.execute(&mut *connection).await.expect("the role");
    let devices = sqlx::query("SELECT * FROM devices")
        .execute(&mut *connection)
        .await;
    let error = devices.expect_err("it has no business there").to_string();
    assert!(error.contains("permission denied"), "{error}");
    drop(connection.detach());

    cluster
        .database
        .sql("REVOKE INSERT ON mikrotik_backup.archive_versions FROM mikrotik_backup_archive")
        .await;
    let mut role = cluster.spawn_role("archive", "narrower", &overrides);
    assert_eq!(role.exit_code().await, 3, "{}", role.log());
    let grant = "GRANT INSERT ON mikrotik_backup.archive_versions";
    assert!(role.log().contains(grant), "{}", role.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_that_restarts_is_found_again_and_a_deleted_consumer_made_anew() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let sink = publisher(&cluster).await;
    let snapshots = snapshots(3, 3);
    publish(&sink, &snapshots[..3]).await;
    let role = archiver(&cluster, "steadfast", &[]).await;
    until_drained(&cluster).await;
    cluster.nats.stop();
    until_named(&role.http, "nats").await;
    cluster.nats.start().await;
    until("the sink to be back", || async { sink.ready().await.ok() }).await;
    publish(&sink, &snapshots[3..6]).await;
    until_stored(&cluster, 6).await;
    until_ready(&role).await;

    let jetstream = cluster.nats.jetstream().await;
    let stream = jetstream.get_stream(STREAM).await.expect("the stream");
    let deleted = stream.delete_consumer(super::CONSUMER).await;
    deleted.expect("deleted");
    for snapshot in &snapshots[6..] {
        if let Err(error) = sink.deliver(snapshot).await {
            panic!("{}", chain(&error));
        }
    }
    // It begins with the first message again, which stores nothing twice.
    until_stored(&cluster, 9).await;
    until_drained(&cluster).await;
    assert_stored_once(&cluster, &snapshots).await;
}
