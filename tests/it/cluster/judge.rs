//! Judges whether anything was lost: what the simulated routers served in full, against the
//! stream, the outbox and the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mikrotik_backup::adapters::jetstream::SnapshotEvent;
use mikrotik_backup::domain::digest::Digest;
use mikrotik_backup::routeros::normalize_text;
use mikrotik_backup::sim::{Fleet, Router};
use sqlx::Row as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::harness::Cluster;

/// How far the moment at which a router is done may lie outside of what the journal says of the
/// attempt: it is taken in another process.
const SLACK: time::Duration = time::Duration::seconds(1);

/// Lists of entries that wait to be published, and of those that a replica is working on.
const OUTBOX: &str = "backup:outbox*";

/// A row of the journal.
#[derive(Clone)]
pub struct Attempt {
    pub id: Uuid,
    pub started_at: OffsetDateTime,
    pub finished_at: OffsetDateTime,
    pub cause: String,
    pub status: String,
    pub kind: Option<String>,
    /// What was wrong, and how long each step took.
    pub error: Option<String>,
    pub hash: Option<String>,
    pub replica: String,
}

/// One line: lists of attempts are what a failed test shows.
impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            status,
            replica,
            ..
        } = self;
        let (start, end) = (self.started_at.time(), self.finished_at.time());
        write!(f, "{start} to {end} {status} by {replica} ({id}")?;
        for more in self.kind.iter().chain(&self.error).chain(&self.hash) {
            write!(f, ", {more}")?;
        }
        f.write_str(")")
    }
}

/// An export that a router served in full: as the service must have made it.
struct Served {
    device: Uuid,
    at: OffsetDateTime,
    hash: String,
}

/// A message of the stream.
struct Message {
    id: Uuid,
    device: Uuid,
    hash: String,
}

/// Everything there is to judge by, read once.
pub struct Evidence {
    served: Vec<Served>,
    stream: Vec<Message>,
    outbox: String,
    journal: BTreeMap<Uuid, Vec<Attempt>>,
}

/// Where the exports that were served in full have come to.
#[derive(Default)]
pub struct Tally {
    pub served: usize,
    pub in_stream: usize,
    pub in_outbox: usize,
    /// The attempt is recorded as failed or interrupted, and another one followed.
    pub tried_again: usize,
    /// Nowhere: with what is known of each.
    pub lost: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} exports served in full: {} in the stream, {} in the outbox, {} recorded as not \
             delivered and tried again, {} lost",
            self.served,
            self.in_stream,
            self.in_outbox,
            self.tried_again,
            self.lost.len()
        )
    }
}

/// The devices of a fleet whose exports are kept.
pub async fn insert_all(cluster: &Cluster, fleet: &Fleet) -> BTreeMap<Uuid, Router> {
    let mut devices = BTreeMap::new();
    for router in fleet.routers() {
        router.keep_exports();
        devices.insert(cluster.insert(router).await, router.clone());
    }
    devices
}

/// The journal by device, oldest first.
pub async fn journal(cluster: &Cluster) -> BTreeMap<Uuid, Vec<Attempt>> {
    let rows = sqlx::query(
        "SELECT device_id, id, started_at, finished_at, cause, status, error_kind, sha256_hash, \
             replica, \
             error || (SELECT coalesce(string_agg(format('; %s %s ms', step, milliseconds), '' \
                                                  ORDER BY ordinal), '') \
                       FROM mikrotik_backup.attempt_steps s WHERE s.attempt_id = a.id) AS error \
         FROM mikrotik_backup.attempts a ORDER BY started_at",
    )
    .fetch_all(cluster.pool())
    .await
    .expect("read the journal");
    let mut journal = BTreeMap::<_, Vec<_>>::new();
    for row in rows {
        journal
            .entry(row.get("device_id"))
            .or_default()
            .push(Attempt {
                id: row.get("id"),
                started_at: row.get("started_at"),
                finished_at: row.get("finished_at"),
                cause: row.get("cause"),
                status: row.get("status"),
                kind: row.get("error_kind"),
                error: row.get("error"),
                hash: row.get("sha256_hash"),
                replica: row.get("replica"),
            });
    }
    journal
}

impl Evidence {
    /// Reads all of it; `devices` are those of [`insert_all`].
    pub async fn gather(cluster: &Cluster, devices: &BTreeMap<Uuid, Router>) -> Self {
        Self::gather_with(cluster, devices, Vec::new()).await
    }

    /// The same, with messages that were in the stream before somebody removed them.
    pub async fn gather_with(
        cluster: &Cluster,
        devices: &BTreeMap<Uuid, Router>,
        removed: Vec<(String, SnapshotEvent)>,
    ) -> Self {
        // First what the routers did: everything that it must be found in comes later.
        let mut served = Vec::new();
        for (device, router) in devices {
            for export in router.served() {
                served.push(Served {
                    device: *device,
                    at: export.at,
                    hash: Digest::of(normalize_text(&export.text)).to_string(),
                });
            }
        }
        let outbox = outbox(cluster).await;
        let messages = cluster.messages().await;
        let stream = removed
            .into_iter()
            .chain(messages)
            .map(|(id, event)| Message {
                id: id.parse().expect("an attempt's id"),
                device: event.device_id.0,
                hash: event.sha256_hash.to_string(),
            });
        Self {
            served,
            stream: stream.collect(),
            outbox,
            journal: journal(cluster).await,
        }
    }

    /// The journal by device, oldest first.
    pub fn journal(&self) -> &BTreeMap<Uuid, Vec<Attempt>> {
        &self.journal
    }

    /// The ids of all messages.
    pub fn published(&self) -> BTreeSet<Uuid> {
        self.stream.iter().map(|message| message.id).collect()
    }

    /// Where each export has come to that was served before `before`.
    pub fn tally(&self, before: OffsetDateTime) -> Tally {
        let in_stream: BTreeSet<_> = self
            .stream
            .iter()
            .map(|message| (message.device, message.hash.as_str()))
            .collect();
        let mut tally = Tally::default();
        for served in self.served.iter().filter(|served| served.at < before) {
            tally.served += 1;
            let made = self.journal.get(&served.device);
            let made = made.map_or(&[][..], Vec::as_slice);
            if in_stream.contains(&(served.device, served.hash.as_str())) {
                tally.in_stream += 1;
            } else if made.iter().any(|attempt| self.holds(attempt, served)) {
                tally.in_outbox += 1;
            } else if was_tried_again(made, served) {
                tally.tried_again += 1;
            } else {
                tally.lost.push(format!(
                    "device {} served {} at {}; its attempts: {made:#?}",
                    served.device, served.hash, served.at
                ));
            }
        }
        tally
    }

    /// Whether `attempt` took this export and left it in the outbox.
    fn holds(&self, attempt: &Attempt, served: &Served) -> bool {
        attempt.status == "queued"
            && attempt.hash.as_deref() == Some(served.hash.as_str())
            && self.outbox.contains(&attempt.id.to_string())
    }

    /// What holds whatever went wrong: the journal, the stream and the routers tell the same.
    pub fn assert_sound(&self) {
        let mut messages = BTreeMap::new();
        for message in &self.stream {
            let again = messages.insert(message.id, message);
            assert!(again.is_none(), "{} was published twice", message.id);
            let served = self
                .served
                .iter()
                .any(|served| served.device == message.device && served.hash == message.hash);
            assert!(served, "no router ever served what {} says", message.id);
            let made = self.journal.get(&message.device);
            let known = made.is_some_and(|made| made.iter().any(|a| a.id == message.id));
            assert!(known, "the journal does not know of {}", message.id);
        }
        for (device, attempts) in &self.journal {
            for attempt in attempts.iter().filter(|made| made.status == "success") {
                let message = messages.get(&attempt.id);
                let same = message.is_some_and(|message| {
                    message.device == *device && Some(&message.hash) == attempt.hash.as_ref()
                });
                assert!(same, "{device}: not in the stream as it says: {attempt:?}");
            }
        }
    }
}

/// Whether the journal has an attempt that was on when the export was served and came to nothing,
/// and one after it.
fn was_tried_again(made: &[Attempt], served: &Served) -> bool {
    made.iter().any(|attempt| {
        let on = attempt.started_at - SLACK..=attempt.finished_at + SLACK;
        on.contains(&served.at)
            && matches!(attempt.status.as_str(), "failed" | "interrupted")
            && made.iter().any(|next| next.started_at > attempt.started_at)
    })
}

/// All that is in the outbox's lists, one after the other. What is sealed does not matter here.
async fn outbox(cluster: &Cluster) -> String {
    let mut client = cluster.redis.client().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(OUTBOX)
        .query_async(&mut client)
        .await
        .expect("list the outbox");
    let mut entries = String::new();
    for key in keys {
        let listed: redis::RedisResult<Vec<String>> = redis::cmd("LRANGE")
            .arg(&key)
            .arg(0)
            .arg(-1)
            .query_async(&mut client)
            .await;
        // A lease and the like is no list.
        entries.push_str(&listed.unwrap_or_default().join("\n"));
    }
    entries
}
