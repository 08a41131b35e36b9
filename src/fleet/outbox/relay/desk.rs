//! The relay's desk: the letters in its hands, offered one after the other, while one that is too large
//! to come along is fetched beside them.

mod fetching;

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::fetching::Outcome;
use super::give_up;
use crate::domain::attempt::AttemptId;
use crate::domain::device::DeviceId;
use crate::domain::failure::{Failure, FailureKind, chain};
use crate::domain::outbox::{Answer, Lanes, Offer, Rests, Stage, Verdict};
use crate::fleet::attempt::on_a_thread;
use crate::fleet::outbox::Queue;
use crate::fleet::outbox::letter::{Filed, Label};
use crate::fleet::{Context, draw, fence};
use crate::ports::{Large, Letter, Next, OutboxError, RelayLease, SinkError};

/// Letters that rest, that are still to be fetched, or that are behind such ones, are kept in hands up
/// to so many, and so many bytes; beyond, all others wait until one of them is dealt with. The help
/// of the metric of stuck ones, ARCHITECTURE.md and deploy/README.md name the number.
const MOST_LETTERS: usize = 500;
const MOST_BYTES: usize = 64 << 20;

/// What the relay has in its hands.
pub(super) struct Desk<'a> {
    context: &'a Context,
    queue: &'a Queue,
    expires: watch::Receiver<Instant>,
    lanes: Lanes,
    letters: HashMap<AttemptId, Held>,
    bytes: usize,
    /// Those whose texts are still in the outbox.
    large: HashMap<AttemptId, Large>,
    /// One at a time: each may be large, and shares the way with the others.
    fetching: JoinSet<Outcome>,
    fetched: Option<Result<Outcome, JoinError>>,
    origin: Instant,
    /// Why letters are not published now, so that it is said once.
    away: Option<String>,
}

/// What came of [`Desk::serve`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Served {
    /// Something was done, and there may be more to do.
    Something,
    /// There is nothing to do now.
    Nothing,
    /// The lease is another's by now: nothing may be done any more.
    LeaseLost,
}

struct Held {
    filed: Filed,
    /// With the text that lies in the outbox, byte by byte.
    letter: Letter,
    refusal: String,
}

impl<'a> Desk<'a> {
    pub(super) fn new(
        context: &'a Context,
        queue: &'a Queue,
        expires: watch::Receiver<Instant>,
        origin: Instant,
        rests: Rests,
    ) -> Self {
        Self {
            context,
            queue,
            expires,
            lanes: Lanes::new(queue.policy(), rests),
            letters: HashMap::new(),
            bytes: 0,
            large: HashMap::new(),
            fetching: JoinSet::new(),
            fetched: None,
            origin,
            away: None,
        }
    }

    /// The sink is connected again.
    pub(super) fn came_back(&mut self) {
        self.lanes.came_back();
    }

    /// What is left alone, and for how long.
    pub(super) fn rests(&self) -> &Rests {
        self.lanes.rests()
    }

    /// How many letters could not be fetched so far.
    pub(super) fn stuck(&self) -> usize {
        self.lanes.stuck()
    }

    /// How long nothing can be done unless something happens.
    pub(super) fn idle_for(&self) -> Duration {
        let now = self.origin.elapsed();
        let wakes = self.lanes.wakes_at(now, self.may_fetch());
        wakes.map_or(Duration::MAX, |at| at.saturating_sub(now))
    }

    /// Offers one letter, or takes one in.
    pub(super) async fn serve(&mut self, lease: &RelayLease) -> Result<Served, OutboxError> {
        let fetched = self.fetched.take();
        if let Some(fetched) = fetched.or_else(|| self.fetching.try_join_next()) {
            return self.unpack(fetched).await;
        }
        let now = self.origin.elapsed();
        if let Some(offer) = self.lanes.next(now, self.may_fetch()) {
            match offer.stage {
                Stage::Announced => self.fetch(offer, lease),
                Stage::Here | Stage::Delivered => self.offer(offer).await?,
            }
            return Ok(Served::Something);
        }
        let letters = self.letters.len() + self.large.len();
        let full = letters >= MOST_LETTERS || self.bytes >= MOST_BYTES;
        if full || self.lanes.rests().pauses(now) {
            return Ok(Served::Nothing);
        }
        let taken = tokio::select! {
            biased;
            // Whatever is in our hands is put back at the end.
            () = self.context.shutdown.soft().cancelled() => return Ok(Served::Nothing),
            taken = self.queue.letters.take(lease) => taken?,
        };
        match taken {
            Next::Letter(text) => {
                self.take_in(text).await?;
                Ok(Served::Something)
            }
            Next::Large(large) => {
                let label = Label::read(&large.head);
                self.lanes.announce(label.id, label.device_id);
                self.large.insert(label.id, large);
                Ok(Served::Something)
            }
            Next::Empty => Ok(Served::Nothing),
            Next::LeaseLost => Ok(Served::LeaseLost),
        }
    }

    async fn take_in(&mut self, text: Vec<u8>) -> Result<(), OutboxError> {
        match Filed::read(&text) {
            Ok(filed) => {
                self.lanes
                    .take_in(filed.id, filed.device_id, filed.attempts);
                self.hold(filed, text);
                Ok(())
            }
            Err(error) => {
                // Not ours, and nobody's to delete: kept as it is, out of the way.
                warn!(
                    error = chain(&error),
                    "something in the outbox is no letter; it is put among the dead ones as it is"
                );
                self.context.metrics.dead_lettered();
                self.queue.letters.bury(&text, None, &text).await
            }
        }
    }

    fn hold(&mut self, filed: Filed, text: Vec<u8>) {
        self.bytes += text.len();
        let letter = Letter {
            text,
            ..filed.letter()
        };
        let refusal = String::new();
        let held = Held {
            filed,
            letter,
            refusal,
        };
        self.letters.insert(held.filed.id, held);
    }

    async fn offer(&mut self, offer: Offer) -> Result<(), OutboxError> {
        let answer = if offer.stage == Stage::Delivered {
            Answer::Delivered
        } else {
            self.publish(offer.attempt).await
        };
        let verdict = self.answered(offer.device, answer);
        match verdict {
            Verdict::Settle => self.settle(offer).await,
            Verdict::Count => self.count(offer.attempt).await,
            Verdict::Bury => self.bury(offer).await,
            Verdict::Keep => Ok(()),
        }
    }

    fn answered(&mut self, device: DeviceId, answer: Answer) -> Verdict {
        let now = self.origin.elapsed();
        self.lanes.answered(device, answer, now, draw())
    }

    /// Publishes a letter, unless the stream has it already.
    async fn publish(&mut self, attempt: AttemptId) -> Answer {
        let Some(held) = self.letters.get(&attempt) else {
            return Answer::Delivered;
        };
        let (filed, key) = (held.filed.clone(), self.queue.key.clone());
        let snapshot = match on_a_thread(move || filed.open(&key)).await {
            Ok(snapshot) => snapshot,
            Err(error) => return self.refused(attempt, chain(&error)),
        };
        let age = self.context.clock.now() - snapshot.collected_at;
        let age = Duration::try_from(age).unwrap_or_default();
        let work = async {
            if self.context.sink.has(&snapshot, age).await? {
                debug!(attempt.id = %attempt, "it is in the stream already");
                return Ok(());
            }
            let delivered = self.context.sink.deliver(&snapshot).await;
            self.context.metrics.published(delivered.is_ok());
            delivered
        };
        // A large one may take longer than the lease, which is renewed meanwhile.
        match fence::until_renewed(&self.expires, work).await {
            Some(Ok(())) => {
                if self.away.take().is_some() {
                    info!("snapshots that were kept are being published");
                }
                Answer::Delivered
            }
            Some(Err(error @ SinkError::Refused { .. })) => self.refused(attempt, chain(&error)),
            Some(Err(error @ SinkError::Unavailable { .. })) => {
                let error = chain(&error);
                if self.away.replace(error.clone()).is_none() {
                    warn!(
                        error,
                        "snapshots stay in the outbox until they can be published"
                    );
                }
                Answer::Away
            }
            Some(Err(error @ SinkError::NoRoom { .. })) => {
                warn!(
                    attempt.id = %attempt,
                    error = chain(&error),
                    "a snapshot stays in the outbox until there is room for it"
                );
                Answer::NoRoom
            }
            None => {
                warn!(attempt.id = %attempt, "the relay's lease ended while it published");
                Answer::Away
            }
        }
    }

    fn refused(&mut self, attempt: AttemptId, reason: String) -> Answer {
        if let Some(held) = self.letters.get_mut(&attempt) {
            warn!(
                attempt.id = %attempt, device.id = %held.filed.device_id,
                refusals = held.filed.attempts + 1, allowed = self.queue.limits.max_attempts,
                error = reason, "a snapshot from the outbox was refused"
            );
            held.refusal = reason;
        }
        Answer::Refused
    }

    /// Notes the success in the database, then removes the letter.
    async fn settle(&mut self, offer: Offer) -> Result<(), OutboxError> {
        let Some(held) = self.letters.get(&offer.attempt) else {
            self.lanes.done(offer.device);
            return Ok(());
        };
        let news = match held.filed.delivered() {
            Some(delivered) => self.queue.settlements.delivered(&delivered).await,
            // Its hash is not one, although it was published: it is settled as far as can be.
            None => Ok(false),
        };
        match news {
            Ok(news) => {
                let before = self.lanes.before(offer.device);
                self.queue.letters.remove(&held.letter, before).await?;
                if news {
                    self.context.metrics.backup_success();
                }
                self.context.metrics.relayed();
                let waited = self.context.clock.now() - held.filed.created_at;
                info!(
                    attempt.id = %offer.attempt, device.id = %offer.device,
                    waited_s = waited.whole_seconds(), settled = news,
                    "Published a snapshot from the outbox"
                );
                self.done(offer);
            }
            Err(error) => self.unsettled(offer, &chain(&error)),
        }
        Ok(())
    }

    fn unsettled(&mut self, offer: Offer, error: &str) {
        warn!(
            attempt.id = %offer.attempt, error,
            "the end of a queued attempt could not be recorded yet; tried again"
        );
        self.answered(offer.device, Answer::Unsettled);
    }

    async fn count(&mut self, attempt: AttemptId) -> Result<(), OutboxError> {
        let Some(held) = self.letters.get_mut(&attempt) else {
            return Ok(());
        };
        let refused = held.filed.refused();
        let letter = refused.letter();
        self.queue
            .letters
            .replace(&held.letter, &letter.text)
            .await?;
        held.filed = refused;
        held.letter = letter;
        Ok(())
    }

    /// Notes the failure in the database, then puts the letter among the dead ones.
    async fn bury(&mut self, offer: Offer) -> Result<(), OutboxError> {
        let Some(held) = self.letters.get(&offer.attempt) else {
            self.lanes.done(offer.device);
            return Ok(());
        };
        let text = format!(
            "{}; refused {} times, so the snapshot was put among the dead letters of the outbox: \
             `mikrotik-backup retry --dead-letters` puts it back",
            held.refusal, self.queue.limits.max_attempts
        );
        let failure = Failure::new(FailureKind::PublishFailed, text);
        let given_up = give_up(
            self.context,
            self.queue,
            offer.attempt,
            offer.device,
            &failure,
        );
        if let Err(error) = given_up.await {
            self.unsettled(offer, &chain(&error));
            return Ok(());
        }
        let dead = held
            .filed
            .dead(held.refusal.clone(), self.context.clock.now());
        let text = dead.letter().text;
        let letter = &held.letter;
        self.queue
            .letters
            .bury(&letter.text, Some(letter), &text)
            .await?;
        self.context.metrics.dead_lettered();
        warn!(
            attempt.id = %offer.attempt, device.id = %offer.device, reason = held.refusal,
            "a snapshot was put among the dead letters of the outbox"
        );
        self.done(offer);
        Ok(())
    }

    fn done(&mut self, offer: Offer) {
        if let Some(held) = self.letters.remove(&offer.attempt) {
            self.bytes = self.bytes.saturating_sub(held.letter.text.len());
        }
        self.lanes.done(offer.device);
    }
}
