//! One replica is cut off from Redis and NATS, and holds a snapshot; the others are not.

use super::super::{BUSY, drained, exactly_once_in_order, fleet, shows};
use super::{HELD, ON_DISK, SLOW, exporting};
use crate::cluster::harness::Cluster;
use crate::cluster::poll::until;
use crate::services::proxy::Proxy;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_overtakes_what_another_replica_holds() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(&cluster, 89, 1).await;
    let (router, device) = &fleet[0];
    router.set_fault_for(SLOW, 1);
    let redis = Proxy::start(cluster.redis.port()).await;
    let nats = Proxy::start(cluster.nats.port()).await;
    let redis_url = format!("redis://127.0.0.1:{}", redis.port());
    let nats_url = format!("nats://127.0.0.1:{}", nats.port());
    let overrides = [
        &BUSY[..],
        &[
            ("REDIS_URL", redis_url.as_str()),
            ("NATS_URL", nats_url.as_str()),
        ],
    ]
    .concat();
    let holder = cluster.replica("holder", &overrides).await;
    exporting(&fleet).await;
    redis.cut();
    nats.cut();
    shows(&holder, ON_DISK, 1.0).await;
    until("the attempt to be recorded as held", || async {
        (cluster.attempts(HELD).await == 1).then_some(())
    })
    .await;
    // The holder could not give the lock back: as if its time were over.
    let mut client = cluster.redis.client().await;
    let lock = format!("backup:device:{device}");
    redis::cmd("DEL")
        .arg(lock)
        .exec_async(&mut client)
        .await
        .expect("delete the lock");
    let other = cluster.replica("other", &BUSY).await;
    until("the other replica to put the device off", || async {
        let log = other.log();
        log.contains("another replica holds the device's last snapshot")
            .then_some(())
    })
    .await;
    assert_eq!(router.stats().exports_begun, 1, "nobody has overtaken it");

    redis.give_back();
    nats.give_back();
    until("backups to go on", || async {
        (router.stats().exports_begun > 2).then_some(())
    })
    .await;
    drop((holder, other));
    let _relay = cluster.replica("relay", &super::ONCE).await;
    drained(&cluster).await;
    exactly_once_in_order(&cluster).await;
}
