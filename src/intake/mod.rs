//! From the stream into the archive: takes messages, stores what they hold, and only then
//! acknowledges them.
//!
//! A message is settled in one of three ways. Stored: acknowledged. Bad for its own sake: set aside
//! with its reason, and never delivered again. Neither, because something is away: given back, to
//! come again later. What a killed process had taken comes again by itself, and storing twice is
//! storing once, so nothing is lost and nothing is there twice.

mod gate;
mod settle;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use crate::adapters::archive::{Aside, SetAside};
use crate::adapters::jetstream::{Arrival, Rejection, SIGN_OF_LIFE, SnapshotSource};
use crate::clock::Clock;
use crate::domain::archive::Arrived;
use crate::domain::backoff::Draw;
use crate::domain::failure::chain;
use crate::lifecycle::Shutdown;
use crate::metrics::archive::{ArchiveMetrics, Backlog, Settled};
use crate::ports::Archive;

pub use gate::Gate;
use gate::{Next, pause};
pub use settle::{Settler, Verdict};

/// Messages at once in one process. More of them only wait for the database.
const AT_ONCE: usize = 16;
/// How many are asked for at once, so that others are worked on while these come.
const BATCH: usize = AT_ONCE / 2;
/// Messages and texts at once in memory, in KiB. Working on one takes a few times its size.
const ROOM: u32 = 64 * 1024;
/// How much of it is kept for messages that are asked for.
const BATCH_ROOM: u32 = 16 * 1024;
/// What a message has beside its payload: subject and headers.
const HEAD: u64 = 64 * 1024;
/// How long one request for messages waits for some.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries at a NATS that does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// A NATS that goes on not answering is said again after so long.
const SAY_AGAIN: Duration = Duration::from_secs(600);
/// Between two looks at what is before the consumer.
const LOOK: Duration = Duration::from_secs(5);

/// Everything that the role works with.
pub struct Intake {
    source: Arc<SnapshotSource>,
    archive: Arc<dyn Archive>,
    set_aside: SetAside,
    settler: Settler,
    slots: Arc<Semaphore>,
    gate: Gate,
    metrics: Arc<ArchiveMetrics>,
    clock: Clock,
    shutdown: Shutdown,
}

impl Intake {
    /// Takes from `source`, stores in `archive`; texts of more than `limit` bytes are not taken
    /// from an object store.
    pub fn new(
        source: Arc<SnapshotSource>,
        archive: Arc<dyn Archive>,
        set_aside: SetAside,
        limit: u64,
        metrics: Arc<ArchiveMetrics>,
        clock: Clock,
        shutdown: Shutdown,
    ) -> Self {
        // A server may take messages that are larger than what is usual.
        let room = Arc::new(Semaphore::new(ROOM as usize));
        Self {
            settler: Settler {
                archive: archive.clone(),
                source: Some(source.clone()),
                limit,
                room,
                all_room: ROOM,
            },
            source,
            archive,
            set_aside,
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            gate: Gate::default(),
            metrics,
            clock,
            shutdown,
        }
    }

    /// Why nothing is stored now, if that is so.
    pub fn trouble(&self) -> Option<String> {
        self.gate.reason()
    }

    /// Works until the soft stop. What is being worked on then goes on as tracked tasks.
    pub async fn run(self: &Arc<Self>) {
        let looking = tokio::spawn({
            let intake = Arc::clone(self);
            async move { intake.look().await }
        });
        self.take_all().await;
        looking.abort();
    }

    async fn take_all(self: &Arc<Self>) {
        let soft = self.shutdown.soft().clone();
        let (mut alone, mut said) = (false, None::<Instant>);
        loop {
            let prepared = tokio::select! {
                biased;
                () = soft.cancelled() => return,
                prepared = self.prepare() => prepared,
            };
            let Some((probing, slots, room)) = prepared else {
                return;
            };
            // Ends by itself at the soft stop, with what it has received given back.
            let outcome = self.take(slots, room, probing, alone).await;
            match outcome {
                Ok(taken) => {
                    (alone, said) = (false, None);
                    if taken == 0 && probing {
                        // Nothing is left that could not be stored.
                        self.gate.open();
                    }
                }
                Err(reason) => {
                    self.metrics.fetch_failed();
                    debug!(reason, "No messages");
                    // The next one may be larger than what was asked for: take it by itself. Or
                    // something has gone: look for it.
                    self.source.look_again();
                    if std::mem::replace(&mut alone, true) {
                        if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                            warn!(
                                reason,
                                "Snapshots cannot be read; trying again until they can"
                            );
                            said = Some(Instant::now());
                        }
                        let _ = timeout(RETRY, soft.cancelled()).await;
                    }
                }
            }
        }
    }

    /// Waits until the archive is there and until there is room for a batch; tells whether only one
    /// message is to be tried.
    async fn prepare(&self) -> Option<(bool, OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let probing = loop {
            match self.gate.next() {
                Next::Take => break false,
                Next::Wait(until) => sleep_until(until).await,
            }
            match self.archive.check_key().await {
                Ok(()) => break true,
                Err(error) => self.gate.close(chain(&error), Instant::now(), draw()),
            }
        };
        let (slots, room) = self.make_room().await?;
        Some((probing, slots, room))
    }

    async fn make_room(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let slots = Arc::clone(&self.slots).acquire_many_owned(u32::try_from(BATCH).ok()?);
        let slots = slots.await.ok()?;
        let room = Arc::clone(&self.settler.room);
        let room = room.acquire_many_owned(self.batch_room()).await.ok()?;
        Some((slots, room))
    }

    /// In KiB: the usual, or more where the server takes larger messages.
    fn batch_room(&self) -> u32 {
        let largest = (self.source.max_message() + HEAD) / 1024 + 1;
        let largest = u32::try_from(largest).unwrap_or(u32::MAX);
        BATCH_ROOM.max(largest).min(ROOM)
    }

    /// One batch; how many messages came.
    async fn take(
        self: &Arc<Self>,
        mut slots: OwnedSemaphorePermit,
        mut room: OwnedSemaphorePermit,
        probing: bool,
        alone: bool,
    ) -> Result<usize, String> {
        let messages = if probing || alone { 1 } else { BATCH };
        let bytes = usize::try_from(u64::from(self.batch_room()) * 1024).unwrap_or(usize::MAX);
        let bytes = (!alone).then_some(bytes);
        let fetched = self.source.fetch(messages, bytes, PATIENCE).await;
        let mut batch = fetched.map_err(|error| error.to_string())?;
        let soft = self.shutdown.soft();
        let mut taken = 0;
        loop {
            let next = tokio::select! {
                biased;
                () = soft.cancelled() => {
                    // Somebody else need not wait until they come again by themselves.
                    for arrival in batch.rest() {
                        arrival.later(Duration::ZERO).await;
                    }
                    return Ok(taken);
                }
                next = batch.next() => next,
                () = self.source.lost() => return Err("the connection to NATS was lost".to_owned()),
            };
            let arrival = match next {
                None => return Ok(taken),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(arrival)) => arrival,
            };
            taken += 1;
            let size = arrival.received.payload.len() / 1024 + 1;
            let held = room.split(size.min(room.num_permits()));
            let Some(slot) = slots.split(1) else {
                // More than was asked for: not this server's way.
                arrival.later(Duration::ZERO).await;
                continue;
            };
            let (intake, hard) = (Arc::clone(self), self.shutdown.hard().clone());
            self.shutdown.spawn(async move {
                let _slot = slot;
                tokio::select! {
                    () = hard.cancelled() => {}
                    () = intake.work(&arrival, held) => {}
                }
            });
        }
    }

    /// Settles one message, saying meanwhile that it is worked on.
    async fn work(&self, arrival: &Arrival, held: Option<OwnedSemaphorePermit>) {
        let began = Instant::now();
        let _working = self.metrics.working();
        let mut settling = std::pin::pin!(self.settle(arrival, held));
        let settled = loop {
            match timeout(SIGN_OF_LIFE, settling.as_mut()).await {
                Ok(settled) => break settled,
                Err(_) => arrival.alive().await,
            }
        };
        self.metrics.settled(settled, began.elapsed());
    }

    async fn settle(&self, arrival: &Arrival, held: Option<OwnedSemaphorePermit>) -> Settled {
        let received = arrival.received.clone();
        let verdict = self.settler.settle(received, arrival.deliveries, held);
        match verdict.await {
            Verdict::Stored(arrived) => {
                arrival.done().await;
                self.gate.open();
                match arrived {
                    Arrived::Change | Arrived::OutOfOrder => Settled::Version,
                    Arrived::SeenAgain | Arrived::SeenEarlier | Arrived::Duplicate => {
                        Settled::SeenAgain
                    }
                }
            }
            Verdict::Bad(rejection) => self.put_aside(arrival, &rejection).await,
            Verdict::ArchiveAway(reason) => {
                self.gate.close(reason, Instant::now(), draw());
                self.put_off(arrival).await
            }
            Verdict::TextAway(reason) => {
                warn!(
                    error = reason,
                    nats.sequence = arrival.sequence,
                    "A snapshot's text could not be read; it is tried again later"
                );
                self.put_off(arrival).await
            }
        }
    }

    async fn put_off(&self, arrival: &Arrival) -> Settled {
        arrival.later(pause(arrival.deliveries, draw())).await;
        Settled::PutOff
    }

    async fn put_aside(&self, arrival: &Arrival, rejection: &Rejection) -> Settled {
        let payload = arrival.received.payload.clone();
        match self
            .set_aside
            .put(&aside(arrival, rejection), payload)
            .await
        {
            Ok(new) => {
                arrival.never().await;
                if new {
                    warn!(
                        nats.stream = arrival.stream,
                        nats.sequence = arrival.sequence,
                        nats.subject = arrival.received.subject,
                        flaw = rejection.flaw.as_str(),
                        reason = rejection.reason,
                        "Set a message aside; `mikrotik-backup archive set-aside` lists them"
                    );
                    return Settled::SetAside;
                }
                Settled::SeenAgain
            }
            Err(error) => {
                self.gate.close(chain(&error), Instant::now(), draw());
                self.put_off(arrival).await
            }
        }
    }

    /// Tells now and then what is before the consumer and what lies aside.
    async fn look(&self) {
        loop {
            let free = self.settler.room.available_permits() as u64;
            let held = u64::from(ROOM).saturating_sub(free) * 1024;
            self.metrics.set_bytes_in_flight(held);
            self.metrics.set_storing(self.gate.reason().is_none());
            match self.source.lag().await {
                Ok(lag) => {
                    let age = lag.oldest.map(|oldest| self.clock.now() - oldest);
                    let age = age.and_then(|age| Duration::try_from(age).ok());
                    self.metrics.set_backlog(&Backlog {
                        pending: lag.pending,
                        unsettled: lag.unsettled,
                        redelivered: lag.redelivered,
                        oldest: age.unwrap_or_default(),
                    });
                }
                Err(error) => debug!(error = chain(&error), "No look at the consumer"),
            }
            match self.set_aside.count().await {
                Ok(count) => self.metrics.set_set_aside(count),
                Err(error) => debug!(error = chain(&error), "No look at what lies aside"),
            }
            sleep(LOOK).await;
        }
    }
}

/// What is kept of a message that is set aside, beside its payload.
fn aside(arrival: &Arrival, rejection: &Rejection) -> Aside {
    Aside {
        id: 0,
        stream: arrival.stream.clone(),
        stream_sequence: i64::try_from(arrival.sequence).unwrap_or(i64::MAX),
        published_at: arrival.published,
        subject: arrival.received.subject.clone(),
        message_id: arrival.received.message_id.clone(),
        flaw: rejection.flaw.as_str().to_owned(),
        reason: rejection.reason.clone(),
        set_aside_at: arrival.published,
        tries: 1,
        bytes: i64::try_from(arrival.received.payload.len()).unwrap_or(i64::MAX),
    }
}

fn draw() -> Draw {
    Draw::new(rand::random())
}
