//! Operators work in SQL, and a running replica follows: pins, credentials, addresses, rows, and
//! what the platform says about presence. Nothing here restarts a process.

use std::net::{Ipv4Addr, SocketAddr};

use mikrotik_backup::sim::{Router, RouterOptions};
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

const SKIPPED_OFFLINE: &str = r#"mikrotik_config_backup_total{status="skipped_offline"}"#;
const SKIPPED_AUTH: &str = r#"mikrotik_config_backup_total{status="skipped_auth_blocked"}"#;
const SKIPPED_HOST_KEY: &str = r#"mikrotik_config_backup_total{status="skipped_hostkey_blocked"}"#;
const ERRORS: &str = r#"mikrotik_config_backup_total{status="error"}"#;
const SUCCESSES: &str = r#"mikrotik_config_backup_total{status="success"}"#;

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
async fn the_first_pin_binds_and_clearing_it_trusts_the_next_key() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("edge-pin", [127, 60, 0, 1]);
    let first_key = router.fingerprint().to_string();
    let device = cluster.insert(&router).await;
    let replica = cluster.replica("pins", HINTED).await;

    let first = succeeded(&cluster, device).await;
    let (pinned, seen_ago, _) = pin(&cluster, device).await;
    assert_eq!(pinned.as_deref(), Some(first_key.as_str()));
    let seen_ago = seen_ago.expect("first seen is kept");

    // A second backup in the same process verifies the pin, and says when.
    next_state(&cluster, device, &first, "success").await;
    until("the pin to be verified again", || async {
        let (_, seen, verified) = pin(&cluster, device).await;
        let (seen, verified) = (seen?, verified?);
        (seen > seen_ago && seen - verified > 1.0).then_some(())
    })
    .await;

    let new_key = router.rotate_host_key().to_string();
    assert_ne!(new_key, first_key);
    let state = blocked(&cluster, device, "host_key_mismatch").await;
    assert_eq!(state.offered.as_deref(), Some(new_key.as_str()));
    let error = state.error.expect("a text");
    assert!(
        error.contains(&first_key) && error.contains(&new_key),
        "{error}"
    );

    // Time alone lifts nothing: it is counted, and said with the statement that would.
    let before = router.stats();
    two_more(&replica, SKIPPED_HOST_KEY).await;
    let after = router.stats();
    assert_eq!(after.connections, before.connections);
    assert_eq!(after.login_attempts, before.login_attempts);
    let skipped = logged(&replica, "Skipped edge-pin").await;
    let remedy = skipped["remedy"].as_str().expect("a remedy");
    let statement =
        format!("UPDATE devices SET ssh_host_key_fingerprint = NULL WHERE id = '{device}'");
    assert!(remedy.contains(&statement), "{remedy}");

    update(&cluster, device, "ssh_host_key_fingerprint = NULL").await;
    let state = succeeded(&cluster, device).await;
    assert!(!state.blocked && state.failures == 0, "{state:?}");
    assert_eq!(pin(&cluster, device).await.0, Some(new_key.clone()));

    // The new pin binds as the first did.
    router.rotate_host_key();
    blocked(&cluster, device, "host_key_mismatch").await;
    assert_eq!(pin(&cluster, device).await.0, Some(new_key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_is_set_is_trusted_and_one_that_does_not_parse_never_matches() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("edge-set", [127, 60, 0, 2]);
    let device = cluster.insert(&router).await;
    update(&cluster, device, "ssh_host_key_fingerprint = 'aa:bb:cc'").await;
    let replica = cluster.replica("set-pin", STILL).await;

    let state = blocked(&cluster, device, "host_key_mismatch").await;
    let error = state.error.expect("a text");
    assert!(
        error.contains(r#""aa:bb:cc" is not of the form SHA256:"#),
        "{error}"
    );
    assert_eq!(router.stats().login_attempts, 0, "no credential was sent");
    assert_eq!(pin(&cluster, device).await.0.as_deref(), Some("aa:bb:cc"));

    // A pin of another key is answered at once, and still is none of this router's.
    let other = router.fingerprint().to_string();
    let offered = router.rotate_host_key().to_string();
    update(
        &cluster,
        device,
        &format!("ssh_host_key_fingerprint = '{other}'"),
    )
    .await;
    let state = cluster
        .state_when(device, "the other pin to be tried", |state| {
            state.blocked && state.offered.as_deref() == Some(offered.as_str())
        })
        .await;
    let error = state.error.expect("a text");
    assert!(
        error.contains(&format!("pinned host key is {other}")),
        "{error}"
    );
    assert_eq!(router.stats().login_attempts, 0, "no credential was sent");

    update(
        &cluster,
        device,
        &format!("ssh_host_key_fingerprint = '{offered}'"),
    )
    .await;
    succeeded(&cluster, device).await;
    let (pinned, first_seen, last_verified) = pin(&cluster, device).await;
    assert_eq!(pinned, Some(offered));
    assert!(first_seen.is_some() && last_verified.is_some());
    assert_eq!(replica.metric(ERRORS).await, 2.0);
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
    let remedy = skipped["remedy"].as_str().expect("a remedy");
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
    let rejected = router
        .logins()
        .iter()
        .filter(|login| !login.accepted)
        .count();
    assert_eq!(replica.metric(ERRORS).await, 2.0);
    assert!(rejected >= 2, "the router refused two passwords");
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

#[tokio::test(flavor = "multi_thread")]
async fn an_offline_device_is_counted_and_backed_up_soon_after_it_is_online() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (away, silent) = (
        router("edge-away", [127, 60, 0, 13]),
        router("edge-silent", [127, 60, 0, 14]),
    );
    let away_id = cluster.insert(&away).await;
    let silent_id = cluster.insert(&silent).await;
    cluster.presence(away_id, "offline").await;
    let replica = cluster.replica("presence", STILL).await;
    // No key: nobody says that it is away.
    succeeded(&cluster, silent_id).await;

    counted(&replica, SKIPPED_OFFLINE, 2.0).await;
    assert_eq!(away.stats().connections, 0);
    assert_eq!(
        cluster.attempts(&format!("device_id = '{away_id}'")).await,
        0
    );
    // Whatever is not `online` is not.
    cluster.presence(away_id, "degraded").await;
    two_more(&replica, SKIPPED_OFFLINE).await;
    assert_eq!(away.stats().connections, 0);

    cluster.presence(away_id, "online").await;
    let state = succeeded(&cluster, away_id).await;
    assert_eq!(state.failures, 0);
    assert_eq!(replica.metric(ERRORS).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offline_device_that_is_blocked_counts_as_offline() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("edge-both", [127, 60, 0, 15]);
    let device = cluster
        .insert_with(&router, &router.username(), "not-it")
        .await;
    let replica = cluster.replica("both", HINTED).await;
    blocked(&cluster, device, "auth_failed").await;
    cluster.presence(device, "offline").await;
    two_more(&replica, SKIPPED_OFFLINE).await;
    let as_blocked = replica.metric(SKIPPED_AUTH).await;
    two_more(&replica, SKIPPED_OFFLINE).await;
    assert_eq!(replica.metric(SKIPPED_AUTH).await, as_blocked);
    assert!(cluster.state(device).await.expect("a state").blocked);

    cluster.presence(device, "online").await;
    counted(&replica, SKIPPED_AUTH, as_blocked + 1.0).await;
    assert_eq!(router.stats().password_attempts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_backups_are_deferred_not_failed() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let router = router("edge-redis", [127, 60, 0, 16]);
    let device = cluster.insert(&router).await;
    let replica = cluster.replica("no-redis", HINTED).await;
    succeeded(&cluster, device).await;
    cluster.redis.stop();
    counted(
        &replica,
        r#"mikrotik_redis_lock_total{status="error"}"#,
        2.0,
    )
    .await;
    let successes = replica.metric(SUCCESSES).await;
    counted(
        &replica,
        r#"mikrotik_redis_lock_total{status="error"}"#,
        4.0,
    )
    .await;
    assert_eq!(
        replica.metric(SUCCESSES).await,
        successes,
        "none without a lock"
    );
    assert_eq!(replica.metric(ERRORS).await, 0.0);
    assert_eq!(
        replica.metric(SKIPPED_OFFLINE).await,
        0.0,
        "unknown is not offline"
    );
    assert_eq!(cluster.attempts("status <> 'success'").await, 0);
    let state = cluster.state(device).await.expect("a state");
    assert_eq!((state.status.as_str(), state.failures), ("success", 0));

    cluster.redis.start().await;
    counted(&replica, SUCCESSES, successes + 1.0).await;
    assert_eq!(cluster.attempts("status <> 'success'").await, 0);
}
