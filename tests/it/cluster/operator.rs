//! Operators work in SQL, and a running replica follows: pins, credentials, addresses, rows, and
//! what the platform says about presence. Nothing here restarts a process.

mod pins;
mod presence;

use std::net::{Ipv4Addr, SocketAddr};

use mikrotik_backup::sim::{LoginAttempt, LoginMethod, Router, RouterOptions};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::harness::{Cluster, Replica, State, sealed};
use super::poll::until;
use crate::services::postgres::{NewDevice, insert_device};

/// Devices come due every two seconds, and only a notification can tell of an edit.
const HINTED: &[(&str, &str)] = &[
    ("CONFIG_BACKUP_INTERVAL", "2"),
    ("DEVICE_REFRESH_SECONDS", "3600"),
];

/// Nothing comes due again by itself, and only a notification can tell of an edit.
const STILL: &[(&str, &str)] = &[
    ("CONFIG_BACKUP_INTERVAL", "3600"),
    ("DEVICE_REFRESH_SECONDS", "3600"),
];

const SKIPPED_AUTH: &str = r#"mikrotik_config_backup_total{status="skipped_auth_blocked"}"#;
const ERRORS: &str = r#"mikrotik_config_backup_total{status="error"}"#;

/// A router on an address that no other test uses.
fn router(name: &str, address: [u8; 4]) -> Router {
    let options = RouterOptions {
        name: name.to_owned(),
        address: SocketAddr::from((Ipv4Addr::from(address), 0)),
        seed: u64::from(Ipv4Addr::from(address).to_bits()),
        ..RouterOptions::default()
    };
    Router::start_one(options).expect("start a router")
}

/// Edits the row of `device` as an operator would: `assignment` is what follows SET.
async fn update(cluster: &Cluster, device: Uuid, assignment: &str) {
    let statement = format!("UPDATE devices SET {assignment} WHERE id = '{device}'");
    let done = sqlx::query(AssertSqlSafe(statement))
        .execute(cluster.pool())
        .await
        .expect("edit a device");
    assert_eq!(done.rows_affected(), 1);
}

/// Stores a login in the device's own row.
async fn store_login(cluster: &Cluster, device: Uuid, router: &Router, password: &str) {
    sqlx::query("UPDATE devices SET encrypted_credentials = $2 WHERE id = $1")
        .bind(device)
        .bind(sealed(&router.username(), password))
        .execute(cluster.pool())
        .await
        .expect("store credentials");
}

/// Fingerprint, and seconds since it was first seen and last verified.
async fn pin(cluster: &Cluster, device: Uuid) -> (Option<String>, Option<f64>, Option<f64>) {
    sqlx::query_as(
        "SELECT ssh_host_key_fingerprint, \
         extract(epoch FROM now() - ssh_host_key_first_seen)::float8, \
         extract(epoch FROM now() - ssh_host_key_last_verified)::float8 \
         FROM devices WHERE id = $1",
    )
    .bind(device)
    .fetch_one(cluster.pool())
    .await
    .expect("read the pin")
}

/// Waits for a state that came after `before`.
async fn next_state(cluster: &Cluster, device: Uuid, before: &State, status: &str) -> State {
    let what = format!("another attempt that ends as {status}");
    cluster
        .state_when(device, &what, |state| {
            state.last_attempt != before.last_attempt && state.status == status
        })
        .await
}

async fn succeeded(cluster: &Cluster, device: Uuid) -> State {
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await
}

async fn blocked(cluster: &Cluster, device: Uuid, kind: &str) -> State {
    let what = format!("a block by {kind}");
    cluster
        .state_when(device, &what, |state| {
            state.blocked && state.error_kind.as_deref() == Some(kind)
        })
        .await
}

/// Waits until `series` is at least `least`.
async fn counted(replica: &Replica, series: &str, least: f64) {
    until(series, || async {
        (replica.metric(series).await >= least).then_some(())
    })
    .await;
}

/// Waits for two more counts of `series`: whatever was under way before is over then.
async fn two_more(replica: &Replica, series: &str) {
    let now = replica.metric(series).await;
    counted(replica, series, now + 2.0).await;
}

/// Waits for a log line whose message contains `message`.
async fn logged(replica: &Replica, message: &str) -> Value {
    until(message, || async {
        replica.events().into_iter().find(|event| {
            let text = event["message"].as_str().unwrap_or_default();
            text.contains(message)
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_tried_once_and_a_new_one_lifts_the_block() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("edge-password", [127, 60, 0, 3]);
    let device = cluster
        .insert_with(&router, &router.username(), "not-it-1")
        .await;
    let replica = cluster.replica("passwords", HINTED).await;

    let refused = blocked(&cluster, device, "auth_failed").await;
    assert_eq!(
        pin(&cluster, device).await.0,
        None,
        "nothing vouched for the key"
    );
    two_more(&replica, SKIPPED_AUTH).await;
    assert_eq!(
        router.stats().password_attempts,
        1,
        "tried once, not at each beat"
    );
    let skipped = logged(&replica, "Skipped edge-password").await;
    let remedy = skipped["message"].as_str().expect("a message");
    assert!(
        remedy.contains("UPDATE devices SET encrypted_credentials"),
        "{remedy}"
    );
    assert!(remedy.contains(&device.to_string()), "{remedy}");

    // Another wrong one: one more try.
    store_login(&cluster, device, &router, "not-it-2").await;
    next_state(&cluster, device, &refused, "failed").await;
    two_more(&replica, SKIPPED_AUTH).await;
    assert_eq!(router.stats().password_attempts, 2);

    // A cleared pin answers a changed key, not a refused login.
    update(&cluster, device, "ssh_host_key_fingerprint = 'SHA256:none'").await;
    two_more(&replica, SKIPPED_AUTH).await;
    update(&cluster, device, "ssh_host_key_fingerprint = NULL").await;
    two_more(&replica, SKIPPED_AUTH).await;
    assert_eq!(router.stats().password_attempts, 2);

    store_login(&cluster, device, &router, &router.password()).await;
    let state = succeeded(&cluster, device).await;
    assert!(
        !state.blocked && state.failures == 0 && state.error_kind.is_none(),
        "{state:?}"
    );
    let refused = |login: &LoginAttempt| login.method == LoginMethod::Password && !login.accepted;
    let refused = router.logins().into_iter().filter(refused).count();
    assert_eq!(refused, 2, "{:?}", router.logins());
    assert_eq!(replica.metric(ERRORS).await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ciphertext_of_a_credential_profile_lifts_the_block_of_its_devices() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("edge-profile", [127, 60, 0, 4]);
    let profile = Uuid::new_v4();
    sqlx::query("INSERT INTO credential_profiles (id, encrypted_credentials) VALUES ($1, $2)")
        .bind(profile)
        .bind(sealed(&router.username(), "not-it"))
        .execute(cluster.pool())
        .await
        .expect("insert a profile");
    let address = router.address();
    let device = NewDevice {
        hostname: "edge-profile".into(),
        ip_address: address.ip().to_string(),
        ssh_port: Some(address.port().into()),
        encrypted_credentials: None,
        credential_profile_id: Some(profile),
        ..NewDevice::default()
    };
    let device = insert_device(cluster.pool(), device).await.0;
    let _replica = cluster.replica("profile", STILL).await;

    blocked(&cluster, device, "auth_failed").await;
    sqlx::query("UPDATE credential_profiles SET encrypted_credentials = $2 WHERE id = $1")
        .bind(profile)
        .bind(sealed(&router.username(), &router.password()))
        .execute(cluster.pool())
        .await
        .expect("edit the profile");
    succeeded(&cluster, device).await;
    assert_eq!(router.stats().password_attempts, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_address_or_port_lifts_both_blocks() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (wrong_login, wrong_key) = (
        router("edge-moved-a", [127, 60, 0, 5]),
        router("edge-moved-b", [127, 60, 0, 6]),
    );
    // Where they move to: another port of the same address, and another address.
    let (other_port, other_address) = (
        router("edge-new-a", [127, 60, 0, 5]),
        router("edge-new-b", [127, 60, 0, 7]),
    );
    other_port.set_password("not-it");
    let by_login = cluster
        .insert_with(&wrong_login, &wrong_login.username(), "not-it")
        .await;
    let by_key = cluster.insert(&wrong_key).await;
    // The pin is that of the router which it will move to.
    let trusted = other_address.fingerprint().to_string();
    update(
        &cluster,
        by_key,
        &format!("ssh_host_key_fingerprint = '{trusted}'"),
    )
    .await;
    let _replica = cluster.replica("moves", STILL).await;
    blocked(&cluster, by_login, "auth_failed").await;
    blocked(&cluster, by_key, "host_key_mismatch").await;

    let port = other_port.address().port();
    update(&cluster, by_login, &format!("ssh_port = {port}")).await;
    let address = other_address.address();
    let moved = format!(
        "ip_address = '{}', ssh_port = {}",
        address.ip(),
        address.port()
    );
    update(&cluster, by_key, &moved).await;
    succeeded(&cluster, by_login).await;
    succeeded(&cluster, by_key).await;
    assert_eq!(other_port.stats().exports_whole, 1);
    assert_eq!(other_address.stats().exports_whole, 1);
    assert_eq!(wrong_login.stats().connections, 1);
    assert_eq!(wrong_key.stats().connections, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unrelated_edit_is_seen_and_lifts_nothing() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("edge-old-name", [127, 60, 0, 8]);
    let device = cluster
        .insert_with(&router, &router.username(), "not-it")
        .await;
    let environment = [
        ("CONFIG_BACKUP_INTERVAL", "2"),
        ("DEVICE_REFRESH_SECONDS", "1"),
    ];
    let replica = cluster.replica("unrelated", &environment).await;
    blocked(&cluster, device, "auth_failed").await;
    update(&cluster, device, "hostname = 'edge-new-name'").await;
    logged(&replica, "Skipped edge-new-name").await;
    two_more(&replica, SKIPPED_AUTH).await;
    let state = cluster.state(device).await.expect("a state");
    assert!(state.blocked, "{state:?}");
    assert_eq!(router.stats().password_attempts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_start_tasks_and_rows_that_go_stop_them() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let replica = cluster.replica("rows", HINTED).await;
    logged(&replica, "the inventory is unchanged").await;
    let deleted = router("edge-deleted", [127, 60, 0, 9]);
    let switched = router("edge-switch", [127, 60, 0, 10]);
    let stays = router("edge-stays", [127, 60, 0, 11]);
    let deleted_id = cluster.insert(&deleted).await;
    let switched_id = cluster.insert(&switched).await;
    let stays_id = cluster.insert(&stays).await;
    for device in [deleted_id, switched_id, stays_id] {
        succeeded(&cluster, device).await;
    }

    sqlx::query("DELETE FROM devices WHERE id = $1")
        .bind(deleted_id)
        .execute(cluster.pool())
        .await
        .expect("delete a device");
    update(&cluster, switched_id, "device_type = 'switch'").await;
    until("one task to be left", || async {
        let states = ["new", "ok", "failing", "blocked", "running"];
        let mut left = 0.0;
        for state in states {
            let series = format!("mikrotik_config_backup_devices{{state=\"{state}\"}}");
            left += replica.metric(&series).await;
        }
        (left == 1.0).then_some(())
    })
    .await;
    let (gone, not_ours) = (deleted.stats().connections, switched.stats().connections);
    let exports = stays.stats().exports_whole;
    until("the one that stays to be backed up twice more", || async {
        (stays.stats().exports_whole >= exports + 2).then_some(())
    })
    .await;
    assert_eq!(deleted.stats().connections, gone);
    assert_eq!(switched.stats().connections, not_ours);

    // And back again: a type of NULL is RouterOS.
    update(&cluster, switched_id, "device_type = NULL").await;
    until("the former switch to be backed up", || async {
        (switched.stats().connections > not_ours).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_triggers_the_period_finds_edits() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster
        .database
        .sql(
            "DROP TRIGGER mikrotik_backup_edited ON devices; \
             DROP TRIGGER mikrotik_backup_truncated ON devices; \
             DROP TRIGGER mikrotik_backup_edited ON credential_profiles; \
             DROP TRIGGER mikrotik_backup_truncated ON credential_profiles",
        )
        .await;
    let environment = [
        ("CONFIG_BACKUP_INTERVAL", "3600"),
        ("DEVICE_REFRESH_SECONDS", "1"),
    ];
    let replica = cluster.replica("period", &environment).await;
    logged(&replica, "the inventory is unchanged").await;
    let router = router("edge-period", [127, 60, 0, 12]);
    let device = cluster
        .insert_with(&router, &router.username(), "not-it")
        .await;
    blocked(&cluster, device, "auth_failed").await;
    store_login(&cluster, device, &router, &router.password()).await;
    succeeded(&cluster, device).await;
    let triggers: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'mikrotik_backup%'")
            .fetch_one(cluster.pool())
            .await
            .expect("count triggers");
    assert_eq!(triggers, 0, "nothing installed them behind our back");
}
