//! How often a router is connected to, whatever happens: its own count of connections is the judge.

use std::time::Duration;

use async_nats::Client;
use mikrotik_backup::sim::{Fault, Router, RouterOptions};
use mikrotik_backup::trigger::TRIGGER;
use nix::sys::signal::Signal;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{Cluster, Replica, sealed};
use super::poll::until;
use crate::api::client::{self, Answer};

const LIMITED: &str = r#"mikrotik_config_backup_deferrals_total{reason="rate_limited"}"#;

/// What the recipe lets pass in a row.
const ENOUGH: u64 = 3;

fn router(name: &str, address: [u8; 4]) -> Router {
    let router = Router::start_one(RouterOptions {
        name: name.to_owned(),
        address: (address, 0).into(),
        seed: u64::from(u32::from_be_bytes(address)),
        ..RouterOptions::default()
    })
    .expect("start a router");
    // Its firewall counts.
    router.change(|configuration| configuration.add_firewall_rule("add-src-to-address-list"));
    router
}

async fn by_nats(cluster: &Cluster, device: Uuid) -> Value {
    let nats: Client = async_nats::ConnectOptions::new()
        .request_timeout(Some(Duration::from_secs(25)))
        .connect(cluster.nats.url().expose_secret())
        .await
        .expect("connect to NATS");
    let tenant: Uuid = sqlx::query_scalar("SELECT tenant_id FROM devices WHERE id = $1")
        .bind(device)
        .fetch_one(cluster.pool())
        .await
        .expect("the device's tenant");
    let payload = json!({ "device_id": device, "tenant_id": tenant }).to_string();
    let answer = until("somebody who answers", || async {
        let asked = nats.request(TRIGGER, payload.clone().into()).await;
        match asked {
            Ok(answer) => Some(answer),
            Err(error) if error.to_string().contains("no responders") => None,
            Err(error) => panic!("{error}"),
        }
    });
    serde_json::from_slice(&answer.await.payload).expect("JSON")
}

async fn by_http(replica: &Replica, device: Uuid) -> Answer {
    let path = format!("/api/v1/devices/{device}/backup?wait=true");
    client::tcp(&replica.http, "POST", &path, &[]).await
}

/// Seconds until the device may be asked for again, as a header says.
fn retry_after(answer: &Answer) -> u64 {
    let mut lines = answer.head.lines();
    let value = lines.find_map(|line| line.strip_prefix("retry-after: "));
    value.expect("a header").parse().expect("seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn however_often_a_device_is_asked_for_edited_and_reset_it_sees_three_connections() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("besieged", [127, 91, 0, 1]);
    let device = cluster
        .insert_with(&router, &router.username(), "wrong")
        .await;
    let (one, two) = tokio::join!(cluster.replica("one", &[]), cluster.replica("two", &[]));
    cluster
        .state_when(device, "a block", |state| state.blocked)
        .await;
    assert_eq!(router.stats().connections, 1, "the service's own");

    // The second and the third: an edit that answers the failure, and a request.
    let good = sealed(&router.username(), &router.password());
    let repair = "UPDATE devices SET encrypted_credentials = $2 WHERE id = $1";
    sqlx::query(repair)
        .bind(device)
        .bind(&good)
        .execute(cluster.pool())
        .await
        .expect("repair the credentials");
    let repaired = cluster.state_when(device, "a success", |state| state.status == "success");
    let hash = repaired.await.hash;
    let answer = by_nats(&cluster, device).await;
    assert_eq!(answer["status"], "success", "{answer}");
    assert_eq!(answer["sha256_hash"].as_str(), hash.as_deref());
    assert_eq!(router.stats().connections, ENOUGH);

    // Nobody gets a fourth, by whichever way and replica, and each is told why and until when.
    for _ in 0..5 {
        let answer = by_nats(&cluster, device).await;
        assert_eq!(answer["status"], "failed", "{answer}");
        let reason = answer["error"].as_str().expect("a reason");
        assert!(
            reason.contains("CONFIG_BACKUP_CONNECTION_LIMIT"),
            "{reason}"
        );
        let wait = answer["retry_after"].as_u64().expect("seconds");
        assert!((3500..=3700).contains(&wait), "{wait}");
        for replica in [&one, &two] {
            let answer = by_http(replica, device).await;
            assert!(answer.problem(429).contains("brute-force"));
            assert!((3500..=3700).contains(&retry_after(&answer)), "{answer:?}");
        }
    }
    // Nor does an operator who breaks and repairs the row, or resets the host key.
    let limited = one.metric(LIMITED).await + two.metric(LIMITED).await;
    assert!(limited >= 15.0, "{limited}");
    let other = sealed(&router.username(), "another");
    for credentials in [&other, &good] {
        sqlx::query(
            "UPDATE devices SET encrypted_credentials = $2, ssh_host_key_fingerprint = NULL \
             WHERE id = $1",
        )
        .bind(device)
        .bind(credentials)
        .execute(cluster.pool())
        .await
        .expect("edit the row");
        let answer = by_nats(&cluster, device).await;
        assert!(answer["retry_after"].is_u64(), "{answer}");
    }
    assert_eq!(router.stats().connections, ENOUGH);
    assert_eq!(
        cluster.attempts("true").await,
        3,
        "what was refused is no attempt"
    );
    let state = cluster.state(device).await.expect("a state");
    assert_eq!((state.status.as_str(), state.failures), ("success", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_at_each_connection_does_not_make_a_fourth() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("deadly", [127, 91, 0, 2]);
    router.set_fault(Fault::StallAfterAuth);
    let device = cluster.insert(&router).await;
    let mut refused = 0;
    for life in 1..=6 {
        let mut replica = cluster.replica(&format!("life-{life}"), &[]).await;
        let before = router.stats().connections;
        // Somebody asks in every life: that is more than the service would dare by itself.
        let asked = async {
            until("the device is known", || async {
                let answer = by_http(&replica, device).await;
                (answer.status != 503 && answer.status != 404).then_some(answer)
            })
            .await
        };
        let connected = until("a connection", || async {
            (router.stats().connections > before).then_some(())
        });
        tokio::select! {
            () = connected => {}
            answer = asked => {
                answer.problem(429);
                refused += 1;
            }
        }
        replica.signal(Signal::SIGKILL);
        replica.exit_code().await;
        // As if the lock of the dead had expired.
        let mut redis = cluster.redis.client().await;
        redis::cmd("DEL")
            .arg(format!("backup:device:{device}"))
            .exec_async(&mut redis)
            .await
            .expect("expire the lock");
    }
    assert_eq!(router.stats().connections, ENOUGH);
    assert_eq!(refused, 3);
    assert_eq!(cluster.attempts("status = 'interrupted'").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_rows_for_one_router_make_three_connections_to_it() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("shared", [127, 91, 0, 3]);
    let (first, second) = (cluster.insert(&router).await, cluster.insert(&router).await);
    let (_one, two) = tokio::join!(cluster.replica("one", &[]), cluster.replica("two", &[]));
    // The service's own: one for each row.
    for device in [first, second] {
        cluster
            .state_when(device, "a success", |state| state.status == "success")
            .await;
    }
    assert_eq!(router.stats().connections, 2);
    let answer = by_nats(&cluster, first).await;
    assert_eq!(answer["status"], "success", "{answer}");
    assert_eq!(router.stats().connections, ENOUGH);

    // The other tenant learns that it has to wait, and nothing else.
    let answer = by_nats(&cluster, second).await;
    assert_eq!(answer["status"], "failed", "{answer}");
    let wait = answer["retry_after"].as_u64().expect("seconds");
    assert!((3500..=3700).contains(&wait), "{wait}");
    let told = by_http(&two, second).await;
    let told = format!("{answer} {}", told.problem(429));
    let tenant: Uuid = sqlx::query_scalar("SELECT tenant_id FROM devices WHERE id = $1")
        .bind(first)
        .fetch_one(cluster.pool())
        .await
        .expect("the other tenant");
    for secret in [first.to_string(), tenant.to_string()] {
        assert!(!told.contains(&secret), "{told}");
    }
    assert_eq!(router.stats().connections, ENOUGH);
}
