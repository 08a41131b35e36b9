//! A database, Redis or NATS that is away: at start, during an export, at the end.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{count, locked, logged, not_ready, ready, router};
use crate::cluster::harness::{Cluster, get};
use crate::cluster::poll::until;
use crate::services::postgres::Postgres;

/// A database of a server of its own, that the test can stop. Replicas reach it over TCP, as they
/// would: a refused connection is tried again for a while, a missing socket is not.
async fn with_its_own_postgres() -> Option<(Cluster, Postgres)> {
    let mut cluster = Cluster::start().await?;
    let postgres = Postgres::start_private().await?;
    cluster.database = postgres.database("migrated").await;
    let (_, name) = cluster.database.url.rsplit_once('/')?;
    cluster.database.url = postgres.tcp_url(name);
    Some((cluster, postgres))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_at_start_is_waited_for() {
    let Some((cluster, mut postgres)) = with_its_own_postgres().await else {
        return;
    };
    let router = router([127, 61, 0, 5]);
    let device = cluster.insert(&router).await;
    postgres.stop().await;

    let mut impatient = cluster.spawn("impatient", &[]);
    logged(&impatient, "waiting for the database").await;
    impatient.signal(Signal::SIGTERM);
    assert_eq!(impatient.exit_code().await, 0, "{}", impatient.log());

    let replica = cluster.replica("patient", &[]).await;
    let failing = not_ready(&replica, "database").await;
    assert_eq!(
        failing.as_object().expect("an object").len(),
        1,
        "{failing}"
    );
    assert!(
        get(&replica.http, "/livez")
            .await
            .expect("a page")
            .contains("ok")
    );
    logged(&replica, "waiting for the database").await;
    postgres.launch().await;
    ready(&replica).await;
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_and_nats_that_are_away_at_start_are_named_and_waited_for() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let router = router([127, 61, 0, 6]);
    let device = cluster.insert(&router).await;
    cluster.redis.stop();
    cluster.nats.stop();
    let replica = cluster
        .replica("alone", &[("OUTBOX_RETRY_INTERVAL", "1")])
        .await;
    until("Redis and NATS to be named, and nothing else", || async {
        let failing = not_ready(&replica, "nats").await;
        let named: Vec<_> = failing.as_object()?.keys().cloned().collect();
        (named == ["nats", "redis"]).then_some(())
    })
    .await;
    assert_eq!(router.stats().connections, 0, "no lock, no backup");
    cluster.redis.start().await;
    until("Redis not to be named any more", || async {
        let failing = not_ready(&replica, "nats").await;
        failing.get("redis").is_none().then_some(())
    })
    .await;
    // Redis is enough to keep an export until NATS can take it.
    cluster
        .state_when(device, "a queued backup", |state| state.status == "queued")
        .await;
    cluster.nats.start().await;
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;
    ready(&replica).await;
    assert_eq!(cluster.attempts("status <> 'success'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_stops_no_export_and_loses_no_record() {
    let Some((cluster, mut postgres)) = with_its_own_postgres().await else {
        return;
    };
    let router = router([127, 61, 0, 7]);
    router.set_delay(Duration::from_secs(3));
    let device = cluster.insert(&router).await;
    let replica = cluster.replica("outage", &[]).await;
    // The last statement before the record: from here on the export needs no database.
    until("the key to be pinned", || async {
        let pinned: Option<String> =
            sqlx::query_scalar("SELECT ssh_host_key_fingerprint FROM devices WHERE id = $1")
                .bind(device)
                .fetch_one(cluster.pool())
                .await
                .expect("read the pin");
        pinned
    })
    .await;
    postgres.stop().await;
    until("the snapshot to be published", || async {
        (cluster.messages().await.len() == 1).then_some(())
    })
    .await;
    logged(&replica, "could not be recorded yet").await;
    logged(&replica, "the inventory still cannot be read").await;
    not_ready(&replica, "database").await;

    postgres.launch().await;
    let state = cluster
        .state_when(device, "the late record", |state| state.status == "success")
        .await;
    let (id, event) = cluster.messages().await.remove(0);
    assert_eq!(state.last_attempt.map(|id| id.to_string()), Some(id));
    assert_eq!(state.hash, Some(event.sha256_hash.to_string()));
    assert_eq!(cluster.attempts("true").await, 1);
    logged(&replica, "the database is back").await;
    ready(&replica).await;
    assert_eq!(
        count(&replica, "the inventory cannot be read"),
        1,
        "said once"
    );
    assert_eq!(count(&replica, "the database is back"), 1, "said once");
    assert!(!locked(&cluster).await);

    // What was edited meanwhile, or is now, is followed as before.
    router.set_delay(Duration::ZERO);
    let newcomer = self::router([127, 61, 0, 8]);
    let newcomer = cluster.insert(&newcomer).await;
    cluster
        .state_when(newcomer, "a success", |state| state.status == "success")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_the_database_ends_in_time_and_the_next_replica_knows() {
    let Some((cluster, mut postgres)) = with_its_own_postgres().await else {
        return;
    };
    let routers = [12, 13, 14].map(|number| router([127, 61, 0, number]));
    for router in &routers {
        router.set_delay(Duration::from_secs(3));
        cluster.insert(router).await;
    }
    let mut replica = cluster.replica("stranded", &[]).await;
    until("all keys to be pinned", || async {
        let pinned: i64 = sqlx::query_scalar("SELECT count(ssh_host_key_fingerprint) FROM devices")
            .fetch_one(cluster.pool())
            .await
            .expect("count pins");
        (pinned == 3).then_some(())
    })
    .await;
    postgres.stop().await;
    replica.signal(Signal::SIGTERM);
    assert_eq!(replica.exit_code().await, 0, "{}", replica.log());
    assert_eq!(count(&replica, "the grace period is over"), 0, "in time");
    assert_eq!(count(&replica, "could not be recorded before the end"), 3);
    assert_eq!(cluster.messages().await.len(), 3, "published all the same");
    assert!(!locked(&cluster).await);

    postgres.launch().await;
    for router in &routers {
        router.set_delay(Duration::ZERO);
    }
    let _next = cluster.replica("next", &[]).await;
    until(
        "every device to be backed up and the lost ends to be journaled",
        || async {
            let made = cluster
                .attempts("status = 'success' AND replica = 'next'")
                .await;
            let lost = cluster
                .attempts("status = 'interrupted' AND replica = 'stranded'")
                .await;
            (made == 3 && lost == 3).then_some(())
        },
    )
    .await;
}
