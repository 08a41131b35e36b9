//! Faults that are done while letters wait in the outbox, or are just being relayed.

use nix::sys::signal::Signal;

use super::scene::{NAMES, Scene, started};
use crate::cluster::harness::Cluster;
use crate::cluster::poll::until;

/// So many letters are a heap.
const HEAP: i64 = 12;

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
