//! Backups that are asked for over NATS, with real replicas: what each asker is told, and what it
//! costs the router.

use std::time::Duration;

use async_nats::Client;
use mikrotik_backup::sim::{Router, RouterOptions};
use mikrotik_backup::trigger::TRIGGER;
use nix::sys::signal::Signal;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{Cluster, Replica, get};
use super::poll::until;

/// Nothing comes due by itself after the first backup.
const STILL: &[(&str, &str)] = &[("CONFIG_BACKUP_INTERVAL", "86400")];

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(25);

fn router(name: &str, address: [u8; 4]) -> Router {
    Router::start_one(RouterOptions {
        name: name.to_owned(),
        address: (address, 0).into(),
        seed: u64::from(u32::from_be_bytes(address)),
        ..RouterOptions::default()
    })
    .expect("start a router")
}

pub(super) async fn client(cluster: &Cluster) -> Client {
    let client = async_nats::ConnectOptions::new()
        .request_timeout(Some(PATIENCE))
        .connect(cluster.nats.url().expose_secret())
        .await;
    client.expect("connect to NATS")
}

/// Asks, and asks again while no replica has subscribed yet.
pub(super) async fn ask(client: &Client, payload: impl Into<Vec<u8>>) -> Value {
    let payload = payload.into();
    let answer = until("somebody who answers", || async {
        let asked = client.request(TRIGGER, payload.clone().into()).await;
        match asked {
            Ok(answer) => Some(answer),
            Err(error) if error.to_string().contains("no responders") => None,
            Err(error) => panic!("{error}"),
        }
    });
    serde_json::from_slice(&answer.await.payload).expect("JSON")
}

pub(super) fn naming(device: Uuid, tenant: Uuid) -> String {
    json!({ "device_id": device, "tenant_id": tenant }).to_string()
}

pub(super) async fn tenant(cluster: &Cluster, device: Uuid) -> Uuid {
    sqlx::query_scalar("SELECT tenant_id FROM devices WHERE id = $1")
        .bind(device)
        .fetch_one(cluster.pool())
        .await
        .expect("the device's tenant")
}

async fn lock(cluster: &Cluster, device: Uuid) {
    let mut redis = cluster.redis.client().await;
    redis::cmd("SET")
        .arg(format!("backup:device:{device}"))
        .arg("somebody else")
        .exec_async(&mut redis)
        .await
        .expect("lock the device");
}

async fn requests(replica: &Replica, result: &str) -> f64 {
    let labels = format!(r#"{{result="{result}",source="nats"}}"#);
    let series = format!("mikrotik_config_backup_requests_total{labels}");
    replica.metric(&series).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_with_what_came_of_it() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let good = router("good", [127, 90, 0, 1]);
    let bad = router("bad", [127, 90, 0, 2]);
    let device = cluster.insert(&good).await;
    let refused = cluster.insert_with(&bad, &bad.username(), "wrong").await;
    let replica = cluster.replica("answers", STILL).await;
    let first = cluster.state_when(device, "a success", |state| state.status == "success");
    let first = first.await;
    cluster
        .state_when(refused, "a block", |state| state.blocked)
        .await;
    let owner = tenant(&cluster, device).await;
    let nats = client(&cluster).await;

    // What presence says, and that it was backed up just now, is skipped.
    cluster.presence(device, "offline").await;
    let answer = ask(&nats, naming(device, owner)).await;
    assert_eq!(answer["status"], "success", "{answer}");
    assert_eq!(answer["sha256_hash"].as_str(), first.hash.as_deref());
    assert_eq!(cluster.messages_of(device).await.len(), 2);
    assert_eq!(cluster.attempts("cause = 'manual'").await, 1);

    // A blocked device gets one try, and stays blocked.
    let tries = bad.stats().password_attempts;
    let answer = ask(&nats, naming(refused, tenant(&cluster, refused).await)).await;
    assert_eq!(answer["status"], "failed", "{answer}");
    let error = answer["error"].as_str().expect("a text");
    assert!(error.starts_with("auth_failed: "), "{answer}");
    assert_eq!(bad.stats().password_attempts, tries + 1);
    assert!(cluster.state(refused).await.expect("a state").blocked);

    lock(&cluster, device).await;
    let answer = ask(&nats, naming(device, owner)).await;
    assert_eq!(answer["status"], "locked", "{answer}");
    assert!(answer["message"].is_string(), "{answer}");

    for (payload, says) in [
        ("{".to_owned(), "not JSON"),
        (json!({ "device_id": device }).to_string(), "tenant_id"),
        (naming(Uuid::from_u128(7), owner), "no device"),
        (naming(device, Uuid::from_u128(7)), "does not belong"),
    ] {
        let answer = ask(&nats, payload.clone()).await;
        assert_eq!(answer["status"], "failed", "{payload}: {answer}");
        let error = answer["error"].as_str().expect("a text");
        assert!(error.contains(says), "{payload}: {answer}");
    }
    assert_eq!(cluster.attempts("cause = 'manual'").await, 2);
    for (result, count) in [
        ("success", 1.0),
        ("failed", 1.0),
        ("locked", 1.0),
        ("refused", 4.0),
    ] {
        assert_eq!(requests(&replica, result).await, count, "{result}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_requests_at_two_replicas_are_one_session() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("wanted", [127, 91, 0, 1]);
    let device = cluster.insert(&router).await;
    let replicas = [
        cluster.replica("first", STILL).await,
        cluster.replica("second", STILL).await,
    ];
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;
    let owner = tenant(&cluster, device).await;
    let nats = client(&cluster).await;
    // Both take part from here on.
    until("both to answer", || async {
        ask(&nats, naming(Uuid::from_u128(7), owner)).await;
        let refused = [
            requests(&replicas[0], "refused").await,
            requests(&replicas[1], "refused").await,
        ];
        (refused[0] > 0.0 && refused[1] > 0.0).then_some(())
    })
    .await;
    let sessions = router.stats().connections;
    router.set_delay(Duration::from_secs(2));
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let (nats, request) = (nats.clone(), naming(device, owner));
            tokio::spawn(async move { ask(&nats, request).await })
        })
        .collect();
    let mut told = std::collections::BTreeMap::new();
    for answer in asking {
        let answer = answer.await.expect("no panic");
        let status = answer["status"].as_str().expect("a status").to_owned();
        *told.entry(status).or_insert(0) += 1;
    }
    // Those at the replica that works share its result, the others learn that it does.
    let (success, locked) = (told.get("success"), told.get("locked"));
    assert!(success.is_some_and(|count| *count > 0), "{told:?}");
    assert!(locked.is_some_and(|count| *count > 0), "{told:?}");
    assert_eq!(told.values().sum::<u32>(), 100, "{told:?}");
    assert_eq!(cluster.attempts("cause = 'manual'").await, 1);
    assert_eq!(router.stats().connections, sessions + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_again_after_nats_was_away_and_while_a_replica_stops() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let router = router("patient", [127, 92, 0, 1]);
    let device = cluster.insert(&router).await;
    let mut replica = cluster.replica("again", STILL).await;
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;
    let owner = tenant(&cluster, device).await;
    cluster.nats.stop();
    until("the loss to be noticed", || async {
        let page = get(&replica.http, "/readyz").await.ok()?;
        page.contains("nats").then_some(())
    })
    .await;
    cluster.nats.start().await;
    until("NATS to be back", || async {
        let page = get(&replica.http, "/readyz").await.ok()?;
        page.contains(r#""ready""#).then_some(())
    })
    .await;
    let nats = client(&cluster).await;
    let answer = ask(&nats, naming(device, owner)).await;
    assert_eq!(answer["status"], "success", "{answer}");

    // A process that is told to stop ends what it has begun, and tells whoever asked for it.
    router.set_delay(Duration::from_secs(2));
    let sessions = router.stats().connections;
    let last = tokio::spawn({
        let (nats, request) = (nats.clone(), naming(device, owner));
        async move { ask(&nats, request).await }
    });
    until("the session to begin", || async {
        (router.stats().connections > sessions).then_some(())
    })
    .await;
    replica.signal(Signal::SIGTERM);
    let answer = last.await.expect("no panic");
    assert_eq!(answer["status"], "success", "{answer}");
    assert_eq!(replica.exit_code().await, 0, "{}", replica.log());
}
