//! Faults that have to do with letters: while they wait, are just being relayed, or about to be made.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::stream;
use mikrotik_backup::sim::{Fault, Router};
use nix::sys::signal::Signal;

use super::scene::{NAMES, Scene, started};
use crate::cluster::harness::Cluster;
use crate::cluster::poll::until;

/// So many letters are a heap.
const HEAP: i64 = 12;
/// An answer stands still for so long in its middle.
const SLOW: Fault = Fault::PauseMidOutput(Duration::from_secs(2));
/// The last of so many has just begun.
const SEVERAL: usize = 4;

impl Scene {
    /// Stops NATS until many letters wait.
    pub(super) async fn pile_up(&mut self) {
        self.held = self.cluster.messages().await.len();
        self.cluster.nats.stop();
        until("letters to pile up", || async {
            (self.cluster.attempts("status = 'queued'").await >= HEAP).then_some(())
        })
        .await;
    }

    /// Waits until several routers have begun to answer and will be at it for a while.
    pub(super) async fn in_the_middle_of_answers(&self) {
        let connections = |router: &Router| router.stats().connections;
        let before: Vec<_> = self.fleet.routers().iter().map(connections).collect();
        for router in self.fleet.routers() {
            router.set_fault_for(SLOW, 1);
        }
        until("several routers to answer slowly", || async {
            let routers = self.fleet.routers().iter().zip(&before);
            let slow = routers.filter(|(router, before)| connections(router) > **before);
            (slow.count() >= SEVERAL).then_some(())
        })
        .await;
    }

    /// Waits until the journal says of something that its process holds it.
    pub(super) async fn something_is_held(&self) {
        until("a snapshot to be held", || async {
            let held = "status = 'queued' AND held_until > now()";
            (self.cluster.attempts(held).await > 0).then_some(())
        })
        .await;
    }

    /// Waits until the stream has something that it did not have when NATS was stopped.
    pub(super) async fn something_is_published(&self) {
        until("a letter to be published", || async {
            (self.cluster.messages().await.len() > self.held).then_some(())
        })
        .await;
    }

    /// Kills the replica that has letters in its hands.
    pub(super) async fn kill_the_relay(&mut self) {
        let relay = until("a relay with letters in its hands", || async {
            let hands = hands(&self.cluster).await;
            NAMES
                .iter()
                .position(|name| hands.contains(&(*name).to_owned()))
        })
        .await;
        self.replicas[relay].signal(Signal::SIGKILL);
        self.killed = Some(relay);
    }

    /// Starts it again.
    pub(super) async fn start_the_killed(&mut self) {
        let killed = self.killed.take().expect("one was killed");
        let settings = &self.settings[killed];
        self.replicas[killed] = started(&self.cluster, NAMES[killed], settings).await;
    }

    /// Nothing can be settled for a moment, so that the relay has published and not removed when
    /// Redis freezes.
    pub(super) async fn freeze_redis_while_relaying(&mut self) {
        let pool = self.cluster.pool().clone();
        let mut held = pool.begin().await.expect("a transaction");
        sqlx::query("LOCK TABLE mikrotik_backup.attempts IN EXCLUSIVE MODE")
            .execute(&mut *held)
            .await
            .expect("lock the journal");
        self.cluster.nats.start().await;
        self.something_is_published().await;
        self.cluster.redis.freeze();
        held.rollback().await.expect("let go of the journal");
    }

    /// Limits the stream to what it holds, or not at all.
    pub(super) async fn limit_stream(&mut self, to_what_it_holds: bool) {
        let js = self.cluster.nats.jetstream().await;
        let name = js.stream_by_subject("config.snapshot.create.>").await;
        let stream = js.get_stream(name.expect("a stream")).await;
        let mut stream = stream.expect("open the stream");
        let before = self.cluster.messages().await;
        let info = stream.info().await.expect("its configuration");
        let held = i64::try_from(info.state.bytes).expect("a small stream");
        let config = stream::Config {
            max_bytes: if to_what_it_holds { held } else { -1 },
            ..info.config.clone()
        };
        js.update_stream(config).await.expect("limit the stream");
        // What arrives between the question and the limit costs as many of the oldest their place.
        let after = self.cluster.messages().await;
        let kept: BTreeSet<&String> = after.iter().map(|(id, _)| id).collect();
        let lost = before.into_iter().filter(|(id, _)| !kept.contains(id));
        self.removed.extend(lost);
    }

    /// Removes everything from the stream, as an operator who makes room.
    pub(super) async fn purge_stream(&mut self) {
        self.removed.extend(self.cluster.messages().await);
        let js = self.cluster.nats.jetstream().await;
        let name = js.stream_by_subject("config.snapshot.create.>").await;
        let stream = js.get_stream(name.expect("a stream")).await;
        let purged = stream.expect("open the stream").purge().await;
        purged.expect("purge the stream");
    }
}

/// The names of the replicas that have letters in their hands.
async fn hands(cluster: &Cluster) -> Vec<String> {
    let mut client = cluster.redis.client().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("backup:outbox:processing:*")
        .query_async(&mut client)
        .await
        .expect("list the lists in hands");
    let name = |key: String| key.split(':').nth(3).map(str::to_owned);
    keys.into_iter().filter_map(name).collect()
}
