//! NATS away, or its stream full: backups go on, and everything arrives later.

use async_nats::jetstream::stream;
use mikrotik_backup::sim::SECRET_MARK;
use nix::sys::signal::Signal;

use super::{
    BUSY, ONCE, drained, exactly_once_in_order, fleet, journaled_hash, leftovers, letters, queued,
    shows,
};
use crate::cluster::harness::{Cluster, base64, get};
use crate::cluster::poll::until;

const LETTERS: &str = "mikrotik_config_backup_outbox_snapshots";

#[tokio::test(flavor = "multi_thread")]
async fn backups_go_on_without_nats_and_arrive_in_order_once_it_is_back() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(&cluster, 71, 2).await;
    cluster.nats.stop();
    let mut replica = cluster.replica("outage", &BUSY).await;
    queued(&cluster, 6).await;
    for (_, device) in &fleet {
        let what = "to be queued, and to be due like after a success";
        let state = cluster
            .state_when(*device, what, |state| state.status == "queued")
            .await;
        assert_eq!((state.error_kind, state.failures), (None, 0));
        assert!(state.due_in.is_some_and(|due| due < 3.0));
    }
    assert_eq!(cluster.attempts("status NOT IN ('queued')").await, 0);
    until("the metrics to show what waits", || async {
        (replica.metric(LETTERS).await >= 6.0).then_some(())
    })
    .await;
    let oldest = "mikrotik_config_backup_outbox_oldest_age_seconds";
    assert!(replica.metric(oldest).await > 0.0);
    assert!(replica.metric("mikrotik_config_backup_outbox_bytes").await > 1000.0);
    let ready = get(&replica.http, "/readyz").await.expect("a page");
    assert!(
        ready.contains("nats") && !ready.contains("redis"),
        "{ready}"
    );
    no_secret_in_redis(&cluster).await;

    cluster.nats.start().await;
    drained(&cluster).await;
    replica.signal(Signal::SIGTERM);
    assert_eq!(replica.exit_code().await, 0, "{}", replica.log());
    exactly_once_in_order(&cluster).await;
    assert_eq!(leftovers(&cluster).await, [""; 0]);
    for (id, event) in cluster.messages().await.iter().take(4) {
        journaled_hash(&cluster, id, event).await;
    }
}

/// A pause of ten minutes has begun when NATS comes back.
#[tokio::test(flavor = "multi_thread")]
async fn the_relay_does_not_sit_out_its_pause_once_nats_is_back() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let _fleet = fleet(&cluster, 105, 2).await;
    cluster.nats.stop();
    let patient = [
        ("OUTBOX_RETRY_INTERVAL", "600"),
        ("CONFIG_BACKUP_INTERVAL", "21600"),
    ];
    let replica = cluster.replica("patient", &patient).await;
    queued(&cluster, 2).await;
    until("the relay to have tried in vain", || async {
        let log = replica.log();
        log.contains("snapshots stay in the outbox until they can be published")
            .then_some(())
    })
    .await;
    cluster.nats.start().await;
    drained(&cluster).await;
    exactly_once_in_order(&cluster).await;
}

/// Every value of every type that is in Redis, as one text.
async fn no_secret_in_redis(cluster: &Cluster) {
    let mut client = cluster.redis.client().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut client)
        .await
        .expect("list keys");
    assert!(keys.iter().any(|key| key == "backup:outbox"), "{keys:?}");
    let mut all = Vec::new();
    for key in keys {
        let kind: String = redis::cmd("TYPE")
            .arg(&key)
            .query_async(&mut client)
            .await
            .expect("a type");
        let mut command = match kind.as_str() {
            "list" => redis::cmd("LRANGE"),
            "zset" => redis::cmd("ZRANGE"),
            "hash" => redis::cmd("HGETALL"),
            "set" => redis::cmd("SMEMBERS"),
            _ => redis::cmd("GET"),
        };
        command.arg(&key);
        if matches!(kind.as_str(), "list" | "zset") {
            command.arg(0).arg(-1);
        }
        let value: redis::Value = command.query_async(&mut client).await.expect("a value");
        let flat: Vec<Vec<u8>> = match value {
            redis::Value::Array(values) | redis::Value::Set(values) => values
                .into_iter()
                .map(|value| redis::from_redis_value(value).expect("bytes"))
                .collect(),
            value => redis::from_redis_value(value)
                .map(|bytes| vec![bytes])
                .unwrap_or_default(),
        };
        all.extend(flat.concat());
    }
    let all = String::from_utf8_lossy(&all);
    assert!(
        all.contains(r#""type":"config_snapshot""#),
        "letters were read"
    );
    for secret in [SECRET_MARK, "/ip ", "admin-mac", "add address"] {
        assert!(!all.contains(secret), "{secret} is in Redis");
    }
    // Nor what base64 makes of the beginning of an export.
    let encoded = base64(b"# ");
    assert!(!all.contains(&format!("\"payload\":\"{}", &encoded[..2])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_is_waited_for() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(&cluster, 72, 2).await;
    let jetstream = cluster.nats.jetstream().await;
    let mut config = stream::Config {
        name: "CONFIG_SNAPSHOTS".to_owned(),
        subjects: vec!["config.snapshot.>".to_owned()],
        max_bytes: 1024,
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    };
    jetstream
        .create_stream(config.clone())
        .await
        .expect("a small stream");
    let replica = cluster.replica("full", &ONCE).await;
    queued(&cluster, 2).await;
    shows(&replica, LETTERS, 2.0).await;
    assert_eq!(cluster.messages().await.len(), 0);
    config.max_bytes = 10 << 20;
    jetstream.update_stream(config).await.expect("more room");
    drained(&cluster).await;
    exactly_once_in_order(&cluster).await;
    for (router, device) in &fleet {
        let state = cluster.state(*device).await.expect("a state");
        assert_eq!((state.status.as_str(), state.failures), ("success", 0));
        assert_eq!(
            router.stats().exports_begun,
            1,
            "never exported again for that"
        );
    }
    shows(
        &replica,
        "mikrotik_config_backup_total{status=\"success\"}",
        2.0,
    )
    .await;
    shows(&replica, "mikrotik_config_backup_outbox_relayed_total", 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_puts_backups_off_and_loses_nothing() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(&cluster, 73, 1).await;
    cluster.nats.stop();
    let bounded = [BUSY[0], BUSY[1], ("OUTBOX_MAX_BYTES", "4096")];
    let replica = cluster.replica("bounded", &bounded).await;
    let line = until("backups to be put off", || async {
        let log = replica.log();
        log.lines()
            .find(|line| line.contains("Backups are put off"))
            .map(str::to_owned)
    })
    .await;
    assert!(line.contains("OUTBOX_MAX_BYTES allows 4096"), "{line}");
    let waiting = letters(&cluster).await;
    let exports = fleet[0].0.stats().exports_begun;
    assert_eq!(i64::try_from(exports), Ok(waiting), "every export is kept");
    shows(&replica, LETTERS, waiting as f64).await;
    assert_eq!(letters(&cluster).await, waiting, "no further backup");

    cluster.nats.start().await;
    until("backups to be made again", || async {
        (fleet[0].0.stats().exports_begun > exports).then_some(())
    })
    .await;
    drained(&cluster).await;
    assert_eq!(cluster.attempts("status <> 'success'").await, 0);
}
