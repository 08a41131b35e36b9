//! What the platform's poller says in Redis, and what happens without Redis.

use super::{
    Cluster, ERRORS, HINTED, SKIPPED_AUTH, STILL, blocked, counted, router, succeeded, two_more,
};

const SKIPPED_OFFLINE: &str = r#"mikrotik_config_backup_total{status="skipped_offline"}"#;
const SUCCESSES: &str = r#"mikrotik_config_backup_total{status="success"}"#;

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
