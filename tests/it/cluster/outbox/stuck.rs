//! A letter that Redis cannot hand out in its time waits alone; the others go past it.

use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mikrotik_backup::sim::{Router, RouterOptions};

use super::{
    ONCE, drained, exactly_once_in_order, fleet, leftovers, nobody_relays, queued, shows,
    somebody_may_relay,
};
use crate::cluster::harness::Cluster;
use crate::cluster::poll::until;
use crate::services::proxy::Proxy;

const STUCK: &str = "mikrotik_config_backup_outbox_stuck_snapshots";

/// So large is the letter, about: by the rule it may take eight seconds.
const LARGE: usize = 3 << 20;
/// At so many bytes a second it takes more than twice as long.
const SLOW: u32 = 160 << 10;

/// An export of about `bytes` that does not compress.
fn dense(bytes: usize) -> String {
    let mut text =
        "# 2026-01-02 03:04:05 by RouterOS 7.16.2\n#\n/ip firewall address-list\n".to_owned();
    while text.len() < bytes {
        let noise = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 30]>());
        text.push_str(&format!(
            "add address=192.0.2.1 comment=a{noise} list=a{noise}\n"
        ));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_redis_cannot_hand_out_in_time_holds_no_other_device_up() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let proxy = Proxy::start(cluster.redis.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let large = Router::start_one(RouterOptions {
        name: "large".to_owned(),
        address: SocketAddr::from((Ipv4Addr::new(127, 106, 1, 1), 0)),
        fixture: Some(dense(LARGE)),
        ..RouterOptions::default()
    })
    .expect("start a router");
    let large = cluster.insert(&large).await;
    nobody_relays(&cluster).await;
    cluster.nats.stop();
    let settings = [ONCE[0], ONCE[1], ("REDIS_URL", url.as_str())];
    let replica = cluster.replica("patient", &settings).await;
    queued(&cluster, 1).await;
    let small = fleet(&cluster, 106, 2).await;
    queued(&cluster, 3).await;

    proxy.slow_down(SLOW);
    cluster.nats.start().await;
    somebody_may_relay(&cluster).await;
    for (_, device) in &small {
        until("what is small to be published", || async {
            let arrived = !cluster.messages_of(*device).await.is_empty();
            arrived.then_some(())
        })
        .await;
    }
    shows(&replica, STUCK, 1.0).await;
    assert_eq!(cluster.messages_of(large).await.len(), 0);
    let told = replica
        .events()
        .into_iter()
        .find(|event| event["level"] == "warn" && event["device.id"] == large.to_string());
    let told = told.expect("a warning that names the device").to_string();
    assert!(
        told.contains("could not hand out") && told.contains("no answer within"),
        "{told}"
    );

    proxy.give_back();
    drained(&cluster).await;
    shows(&replica, STUCK, 0.0).await;
    exactly_once_in_order(&cluster).await;
    assert_eq!(cluster.attempts("status = 'success'").await, 3);
    assert_eq!(leftovers(&cluster).await, [""; 0]);
}
