//! Nothing that was taken is lost: snapshots wait in Redis while NATS cannot take them, and are
//! published in their order, once, with no operator.

mod behind;
mod dead;
mod hold;
mod outage;
mod stuck;
mod takeover;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use mikrotik_backup::adapters::jetstream::SnapshotEvent;
use mikrotik_backup::sim::{Router, RouterOptions};
use uuid::Uuid;

use super::harness::{Cluster, Replica};
use super::poll::until;

/// Tries again soon; a device again after two seconds.
const BUSY: [(&str, &str); 2] = [
    ("OUTBOX_RETRY_INTERVAL", "1"),
    ("CONFIG_BACKUP_INTERVAL", "2"),
];
/// Tries again soon; each device once in a test.
const ONCE: [(&str, &str); 2] = [
    ("OUTBOX_RETRY_INTERVAL", "1"),
    ("CONFIG_BACKUP_INTERVAL", "21600"),
];

/// Routers at `127.{net}.0.1` and on, each with its device.
async fn fleet(cluster: &Cluster, net: u8, count: u8) -> Vec<(Router, Uuid)> {
    let mut fleet = Vec::new();
    for number in 1..=count {
        let options = RouterOptions {
            name: format!("outbox-{number}"),
            address: SocketAddr::from((Ipv4Addr::new(127, net, 0, number), 0)),
            seed: u64::from(net) * 1000 + u64::from(number),
            ..RouterOptions::default()
        };
        let router = Router::start_one(options).expect("start a router");
        let device = cluster.insert(&router).await;
        fleet.push((router, device));
    }
    fleet
}

const LEASE: &str = "backup:outbox:relay";

/// The relay's right is somebody else's, who does nothing with it.
async fn nobody_relays(cluster: &Cluster) {
    let mut client = cluster.redis.client().await;
    redis::cmd("SET")
        .arg(LEASE)
        .arg("somebody else")
        .exec_async(&mut client)
        .await
        .expect("take the lease");
}

async fn somebody_may_relay(cluster: &Cluster) {
    let mut client = cluster.redis.client().await;
    redis::cmd("DEL")
        .arg(LEASE)
        .exec_async(&mut client)
        .await
        .expect("give the lease back");
}

/// Waits until at least `count` attempts are queued.
async fn queued(cluster: &Cluster, count: i64) {
    until("attempts to be queued", || async {
        (cluster.attempts("status = 'queued'").await >= count).then_some(())
    })
    .await;
}

/// Waits until no attempt is queued and nothing is left in Redis.
async fn drained(cluster: &Cluster) {
    until("the outbox to be drained", || async {
        let waiting = cluster.attempts("status = 'queued'").await;
        (waiting == 0 && letters(cluster).await == 0).then_some(())
    })
    .await;
}

/// How many letters are in the outbox.
async fn letters(cluster: &Cluster) -> i64 {
    let mut client = cluster.redis.client().await;
    redis::cmd("ZCARD")
        .arg("backup:outbox:index")
        .query_async(&mut client)
        .await
        .expect("count letters")
}

/// What is left of the outbox's keys, without the lease and what names relays, and without a count
/// of bytes that is zero.
async fn leftovers(cluster: &Cluster) -> Vec<String> {
    let mut client = cluster.redis.client().await;
    let mut keys: Vec<String> = redis::cmd("KEYS")
        .arg("backup:outbox*")
        .query_async(&mut client)
        .await
        .expect("list keys");
    let bytes: Option<i64> = redis::cmd("GET")
        .arg("backup:outbox:bytes")
        .query_async(&mut client)
        .await
        .expect("read the count");
    keys.retain(|key| !key.ends_with(":relay") && !key.ends_with(":relays"));
    keys.retain(|key| !key.ends_with(":bytes") || bytes != Some(0));
    keys
}

/// Every attempt that succeeded is in the stream exactly once, those of a device in their order.
async fn exactly_once_in_order(cluster: &Cluster) {
    let messages = cluster.messages().await;
    let mut by_device: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
    for (id, event) in &messages {
        let ids = by_device.entry(event.device_id.0).or_default();
        ids.push(id.clone());
    }
    for ids in by_device.values() {
        // Ids are made at the start of attempts and sort by time.
        let mut sorted = ids.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(*ids, sorted, "in order, each once");
    }
    let succeeded: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM mikrotik_backup.attempts WHERE status = 'success'")
            .fetch_all(cluster.pool())
            .await
            .expect("read the journal");
    let mut succeeded: Vec<_> = succeeded.iter().map(Uuid::to_string).collect();
    let mut published: Vec<_> = messages.into_iter().map(|(id, _)| id).collect();
    succeeded.sort();
    published.sort();
    assert_eq!(
        published, succeeded,
        "what is in the stream, and what the journal says"
    );
}

/// The hash that the journal has for the attempt of `event`.
async fn journaled_hash(cluster: &Cluster, id: &str, event: &SnapshotEvent) {
    let hash: String =
        sqlx::query_scalar("SELECT sha256_hash FROM mikrotik_backup.attempts WHERE id = $1")
            .bind(Uuid::parse_str(id).expect("an id"))
            .fetch_one(cluster.pool())
            .await
            .expect("the attempt");
    assert_eq!(hash, event.sha256_hash.to_string());
}

/// Waits until the replica shows `value` for `series`.
async fn shows(replica: &Replica, series: &str, value: f64) {
    until(&format!("{series} to be {value}"), || async {
        (replica.metric(series).await == value).then_some(())
    })
    .await;
}
