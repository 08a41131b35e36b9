//! Several replicas and one relay: taken over when it dies, by one of the others.

use std::time::Duration;

use mikrotik_backup::sim::Router;
use nix::sys::signal::Signal;
use uuid::Uuid;

use super::{ONCE, drained, exactly_once_in_order, fleet, leftovers, queued};
use crate::cluster::harness::{Cluster, Replica};
use crate::cluster::poll::until;
use crate::services::redis;

const RELAYS: &str = "this replica relays the outbox";

fn relays(replica: &Replica) -> bool {
    replica.log().contains(RELAYS)
}

/// A cluster with queued attempts at all of `fleet`, and NATS away.
async fn with_letters(net: u8, count: u8) -> Option<(Cluster, Replica, Vec<(Router, Uuid)>)> {
    let mut cluster = Cluster::start().await?;
    let fleet = fleet(&cluster, net, count).await;
    cluster.nats.stop();
    let replica = cluster.replica("first", &ONCE).await;
    until("the first replica to relay", || async {
        relays(&replica).then_some(())
    })
    .await;
    queued(&cluster, count.into()).await;
    Some((cluster, replica, fleet))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_killed_is_taken_over_and_nothing_comes_twice() {
    let Some((mut cluster, first, fleet)) = with_letters(74, 12).await else {
        return;
    };
    let second = cluster.replica("second", &ONCE).await;
    cluster.nats.start().await;
    until("the first snapshots to arrive", || async {
        (!cluster.messages().await.is_empty()).then_some(())
    })
    .await;
    first.signal(Signal::SIGKILL);
    drained(&cluster).await;
    exactly_once_in_order(&cluster).await;
    assert_eq!(cluster.attempts("status = 'success'").await, 12);
    for (router, _) in &fleet {
        assert_eq!(router.stats().exports_begun, 1);
    }
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_in_the_hands_of_a_relay_that_was_killed_are_found() {
    let Some((mut cluster, first, _fleet)) = with_letters(75, 3).await else {
        return;
    };
    // It has offered the first letter and waits for NATS: that one is in its hands.
    until("a letter in the relay's hands", || async {
        let keys = leftovers(&cluster).await;
        keys.iter()
            .any(|key| key.starts_with("backup:outbox:processing:first:"))
            .then_some(())
    })
    .await;
    first.signal(Signal::SIGKILL);
    cluster.nats.start().await;
    let second = cluster.replica("second", &ONCE).await;
    drained(&cluster).await;
    assert!(
        second
            .log()
            .contains("took over what another relay left behind")
    );
    exactly_once_in_order(&cluster).await;
    assert_eq!(cluster.attempts("status = 'success'").await, 3);
    assert_eq!(leftovers(&cluster).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_have_one_relay_and_a_stop_hands_over() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let _fleet = fleet(&cluster, 76, 3).await;
    let mut first = cluster.replica("first", &ONCE).await;
    until("the first replica to relay", || async {
        relays(&first).then_some(())
    })
    .await;
    let second = cluster.replica("second", &ONCE).await;
    // Longer than the lease lives, and than the second one waits between two looks.
    let whole = Duration::from_secs(11);
    let began = std::time::Instant::now();
    until("the lease to have been renewed many times", || async {
        (began.elapsed() > whole).then_some(())
    })
    .await;
    assert!(relays(&first) && !relays(&second));
    first.signal(Signal::SIGTERM);
    assert_eq!(first.exit_code().await, 0);
    until("the second one to relay", || async {
        relays(&second).then_some(())
    })
    .await;
    assert!(began.elapsed() < 2 * whole, "the lease was given back");
}

/// The relay's own way to NATS is cut: it gives the lease to one whose way is open.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_cannot_publish_lets_others() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let _fleet = fleet(&cluster, 80, 3).await;
    let nowhere = format!("nats://127.0.0.1:{}", redis::free_port());
    let [retry, interval] = ONCE;
    let cut_off = [retry, interval, ("NATS_URL", nowhere.as_str())];
    let first = cluster.replica("cut-off", &cut_off).await;
    queued(&cluster, 3).await;
    assert!(relays(&first));
    let _second = cluster.replica("open", &ONCE).await;
    drained(&cluster).await;
    exactly_once_in_order(&cluster).await;
}

/// The stream has the letters and has forgotten their ids, and nobody has settled their attempts.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_published_and_did_not_settle_is_not_published_again_days_later() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    cluster.create_stream().await;
    let _fleet = fleet(&cluster, 83, 2).await;
    cluster.nats.stop();
    let first = cluster.replica("first", &ONCE).await;
    queued(&cluster, 2).await;
    // What is queued can be read, and nothing can be settled.
    let mut held = cluster.pool().begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE mikrotik_backup.attempts IN EXCLUSIVE MODE")
        .execute(&mut *held)
        .await
        .expect("lock the journal");
    cluster.nats.start().await;
    until("a message in the stream", || async {
        (!cluster.messages().await.is_empty()).then_some(())
    })
    .await;
    assert_eq!(cluster.attempts("status = 'queued'").await, 2);
    first.signal(Signal::SIGKILL);
    held.rollback().await.expect("let go of the journal");
    cluster.ids_are_forgotten().await;

    let second = cluster.replica("second", &ONCE).await;
    drained(&cluster).await;
    assert!(
        second.log().contains("it is in the stream already"),
        "it was found"
    );
    exactly_once_in_order(&cluster).await;
    assert_eq!(cluster.attempts("status = 'success'").await, 2);
}
