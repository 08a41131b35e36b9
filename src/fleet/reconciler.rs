//! Keeps one worker per device of the inventory: compares digests on a period and on a hint, reads
//! what differs, and starts, tells or stops workers accordingly.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::Context;
use super::worker::{Edit, Mail, Worker};
use crate::domain::device::DeviceId;
use crate::domain::failure::chain;
use crate::domain::plan::{self, Action, Known};
use crate::domain::schedule::Policy;
use crate::ports::{Bucket, Listed, StoreError};

/// Buckets whose devices are read with one statement; a changed fleet of 20,000 devices comes in
/// chunks of about 1,250 rows.
const BUCKETS_PER_READ: usize = 16;

/// Hints within this time are answered by one look: an import of ten thousand rows is ten thousand
/// hints.
const HINT_PAUSE: Duration = Duration::from_millis(250);

/// After a look that took long, hints wait for so many times as long: an import touches every
/// bucket, and the whole fleet is read at each look.
const HINT_REST: u32 = 4;

/// Owns the workers.
pub struct Reconciler {
    context: Arc<Context>,
    policy: Policy,
    period: Duration,
    buckets: BTreeMap<Bucket, String>,
    known: BTreeMap<DeviceId, Known>,
    mailboxes: BTreeMap<DeviceId, mpsc::UnboundedSender<Mail>>,
    workers: JoinSet<(DeviceId, Ended)>,
    away: bool,
    last_look: Duration,
}

/// How a worker's task ended.
enum Ended {
    Done,
    Panicked,
}

/// What one look at the inventory changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Workers started.
    pub started: usize,
    /// Workers told of an edit.
    pub edited: usize,
    /// Workers stopped.
    pub stopped: usize,
}

impl Reconciler {
    /// A reconciler that looks every `period`.
    pub fn new(context: Arc<Context>, policy: Policy, period: Duration) -> Self {
        Self {
            context,
            policy,
            period,
            buckets: BTreeMap::new(),
            known: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            workers: JoinSet::new(),
            away: false,
            last_look: Duration::ZERO,
        }
    }

    /// Reconciles until the process is told to stop, then waits for the workers to end.
    pub async fn run(mut self) {
        let soft = self.context.shutdown.soft().clone();
        let looking = async {
            loop {
                self.look().await;
                self.wait().await;
            }
        };
        // A look may be dropped anywhere: what it has started, it knows of.
        tokio::select! {
            biased;
            () = soft.cancelled() => {}
            () = looking => {}
        }
        // Workers end by themselves on the soft stop, after the attempt that they are in.
        while self.workers.join_next().await.is_some() {}
    }

    /// Waits for the next reason to look.
    async fn wait(&mut self) {
        let period = tokio::time::sleep(self.period);
        tokio::pin!(period);
        loop {
            tokio::select! {
                () = &mut period => return,
                () = self.context.store.changed() => {
                    let pause = HINT_PAUSE.max(self.last_look * HINT_REST);
                    tokio::time::sleep(pause.min(self.period)).await;
                    return;
                }
                Some(ended) = self.workers.join_next() => {
                    if let Ok((device, ended)) = ended {
                        self.worker_ended(device, ended);
                    }
                }
            }
        }
    }

    /// One look, with the database's coming and going logged once each.
    async fn look(&mut self) {
        let began = Instant::now();
        let result = self.reconcile().await;
        self.last_look = began.elapsed();
        match result {
            Ok(changes) => {
                self.context.requests.is_loaded();
                if std::mem::take(&mut self.away) {
                    info!("the database is back; the inventory is compared again");
                }
                if changes == Changes::default() {
                    debug!(devices = self.known.len(), "the inventory is unchanged");
                } else {
                    info!(
                        started = changes.started,
                        edited = changes.edited,
                        stopped = changes.stopped,
                        devices = self.known.len(),
                        "Reconciled the inventory"
                    );
                }
                self.context.metrics.reconciled(self.last_look);
                let unreadable = self.context.store.unreadable();
                self.context.metrics.set_unreadable_rows(unreadable);
            }
            Err(error) if self.away => {
                debug!(error = chain(&error), "the inventory still cannot be read");
            }
            Err(error) => {
                self.away = true;
                warn!(
                    error = chain(&error),
                    "the inventory cannot be read; running workers go on, and it is tried again \
                     every {} s",
                    self.period.as_secs()
                );
            }
        }
    }

    /// Compares digests, reads the buckets that differ, and makes the workers match.
    pub async fn reconcile(&mut self) -> Result<Changes, StoreError> {
        let digests = self.context.store.inventory().await?;
        let changed: Vec<Bucket> = plan::changed_buckets(&self.buckets, &digests)
            .into_iter()
            .collect();
        let mut changes = Changes::default();
        for buckets in changed.chunks(BUCKETS_PER_READ) {
            let listed = self.context.store.devices(buckets).await?;
            self.apply(buckets, &listed, &mut changes);
            self.note_new(&listed).await;
            for bucket in buckets {
                match digests.get(bucket) {
                    Some(digest) => self.buckets.insert(*bucket, digest.clone()),
                    None => self.buckets.remove(bucket),
                };
            }
        }
        Ok(changes)
    }

    /// Keeps since when a device is known: without a success its age counts from then, and must not
    /// begin anew with each process. What cannot be noted now is noted by the next process.
    async fn note_new(&self, listed: &[Listed]) {
        let new = listed.iter().filter(|row| row.first_seen.is_none());
        let new: Vec<DeviceId> = new.map(|row| row.device.id).collect();
        if new.is_empty() {
            return;
        }
        if let Err(error) = self.context.store.note_seen(&new).await {
            debug!(
                error = chain(&error),
                "could not note since when {} devices are known",
                new.len()
            );
        }
    }

    fn apply(&mut self, buckets: &[Bucket], listed: &[Listed], changes: &mut Changes) {
        let rows: BTreeMap<DeviceId, &Listed> =
            listed.iter().map(|row| (row.device.id, row)).collect();
        let desired = rows.iter().map(|(id, row)| (*id, known(row))).collect();
        let buckets: BTreeSet<Bucket> = buckets.iter().copied().collect();
        for action in plan::plan(&self.known, desired, &buckets) {
            match &action {
                Action::Start(id, _) => {
                    changes.started += 1;
                    self.start(rows[id]);
                }
                Action::Edit(id, known) => {
                    changes.edited += 1;
                    self.context.requests.hand_over(*id, known.tenant);
                    self.tell(*id, Mail::Edited(Box::new(Edit::from(known))));
                }
                Action::Stop(id) => {
                    changes.stopped += 1;
                    self.tell(*id, Mail::Removed);
                    self.mailboxes.remove(id);
                    self.context.requests.leave(*id);
                }
            }
            action.apply(&mut self.known);
        }
    }

    fn start(&mut self, row: &Listed) {
        let id = row.device.id;
        let (mailbox, mail) = mpsc::unbounded_channel();
        let worker = Worker::new(Arc::clone(&self.context), self.policy, row, mail);
        let tenant = row.device.tenant;
        self.context.requests.enter(id, tenant, mailbox.downgrade());
        self.mailboxes.insert(id, mailbox);
        let running = AssertUnwindSafe(worker.run()).catch_unwind();
        self.workers.spawn(running.map(move |ended| match ended {
            Ok(()) => (id, Ended::Done),
            Err(_) => (id, Ended::Panicked),
        }));
    }

    fn tell(&self, id: DeviceId, mail: Mail) {
        if let Some(mailbox) = self.mailboxes.get(&id) {
            // A worker that has just ended is dealt with by `worker_ended`.
            let _ = mailbox.send(mail);
        }
    }

    /// A worker that panicked is forgotten, together with its bucket's digest, so that the next
    /// look starts it again.
    fn worker_ended(&mut self, device: DeviceId, ended: Ended) {
        if matches!(ended, Ended::Panicked) {
            self.context.metrics.worker_restarted();
            error!(device.id = %device, "a worker panicked; it is started again at the next look");
            self.mailboxes.remove(&device);
            self.context.requests.leave(device);
            if let Some(known) = self.known.remove(&device) {
                self.buckets.remove(&known.bucket);
            }
        }
    }
}

fn known(row: &Listed) -> Known {
    Known {
        bucket: row.bucket,
        revision: row.device.revision(),
        name: row.device.name.clone(),
        tenant: row.device.tenant,
        settings: row.device.settings,
    }
}

#[cfg(test)]
mod tests;
