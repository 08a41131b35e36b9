//! With something of a device in the outbox, what is newer goes there too, although NATS would take
//! it: consumers see a device's snapshots in their order.

use nix::sys::signal::Signal;

use super::{
    BUSY, drained, exactly_once_in_order, fleet, leftovers, nobody_relays, queued,
    somebody_may_relay,
};
use crate::cluster::harness::{Cluster, get};
use crate::cluster::poll::until;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_newer_queues_up_behind_what_waits_although_nats_is_back() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let waits = fleet(&cluster, 103, 1).await;
    nobody_relays(&cluster).await;
    cluster.nats.stop();
    let mut replica = cluster.replica("behind", &BUSY).await;
    queued(&cluster, 1).await;
    cluster.nats.start().await;
    until("the replica to have everything that it needs", || async {
        let page = get(&replica.http, "/readyz").await.expect("a page");
        page.contains(r#""status":"ready""#).then_some(())
    })
    .await;
    // Those that are running may have found NATS away; those that begin now do not.
    let begun = waits[0].0.stats().exports_begun;
    let waiting = i64::try_from(begun).expect("a few") + 2;
    until("newer ones to be queued", || async {
        let early = cluster.messages().await.len();
        assert_eq!(early, 0, "published before what waits");
        (cluster.attempts("status = 'queued'").await >= waiting).then_some(())
    })
    .await;

    // A device that has nothing there has nothing to wait for.
    let free = fleet(&cluster, 104, 1).await;
    cluster
        .state_when(free[0].1, "to be published at once", |state| {
            state.status == "success"
        })
        .await;
    somebody_may_relay(&cluster).await;
    drained(&cluster).await;
    // Until then it goes on: what it has just published is not in the journal yet.
    replica.signal(Signal::SIGTERM);
    assert_eq!(replica.exit_code().await, 0, "{}", replica.log());
    exactly_once_in_order(&cluster).await;
    assert_eq!(leftovers(&cluster).await, [""; 0]);
}
