//! One task per device: it sleeps until the schedule says so, makes one attempt at a time, and
//! listens to edits and requests meanwhile.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::attempt::{Ask, Report};
use super::view::{DeviceView, Seat};
use super::{Context, draw};
use crate::domain::Timestamp;
use crate::domain::attempt::{AttemptId, Cause, Deferral, LastAttempt};
use crate::domain::device::{DeviceId, Revision};
use crate::domain::failure::FailureKind;
use crate::domain::plan::Known;
use crate::domain::request::{Reply, answered_by};
use crate::domain::schedule::{Condition, Event, Finish, Made, Next, Policy, Schedule};
use crate::domain::session::DeviceSettings;
use crate::metrics::Skip;
use crate::ports::{Listed, Presence};

/// A sleep is cut into pieces of at most this length, so that a wall clock that was set is
/// followed soon: tokio's timers run on the monotonic clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// What a worker is told.
#[derive(Debug)]
pub enum Mail {
    /// The device's row was edited.
    Edited(Box<Edit>),
    /// What is stored of the device's last attempt changed after its end.
    Revised(Box<LastAttempt>),
    /// The device left the inventory.
    Removed,
    /// Somebody asks for a backup now.
    Requested {
        /// Where to tell what came of it. Whoever gives up drops the other end.
        reply: oneshot::Sender<Reply>,
        /// Where to tell which attempt answers it.
        taken: oneshot::Sender<AttemptId>,
    },
}

/// The edited part of a device that a worker keeps.
#[derive(Debug)]
pub struct Edit {
    /// Its name now.
    pub name: String,
    /// Its revision now.
    pub revision: Revision,
    /// What differs for it from the service's own settings, now.
    pub settings: DeviceSettings,
}

impl From<&Known> for Edit {
    fn from(known: &Known) -> Self {
        Self {
            name: known.name.clone(),
            revision: known.revision,
            settings: known.settings,
        }
    }
}

/// One device's loop.
pub struct Worker {
    context: Arc<Context>,
    device: DeviceId,
    name: String,
    settings: DeviceSettings,
    schedule: Schedule,
    known_last: Option<AttemptId>,
    last_success_at: Option<Timestamp>,
    known_since: Timestamp,
    seat: Seat,
    mailbox: mpsc::UnboundedReceiver<Mail>,
    /// Who is to be told what comes of the next attempt.
    waiting: Vec<oneshot::Sender<Reply>>,
    /// The next attempt, or the one that runs, once somebody was told its id or it began.
    upcoming: Option<AttemptId>,
}

impl Worker {
    /// A worker that goes on where the stored last attempt left off.
    pub fn new(
        context: Arc<Context>,
        policy: Policy,
        listed: &Listed,
        mailbox: mpsc::UnboundedReceiver<Mail>,
    ) -> Self {
        let now = context.clock.now();
        let device = &listed.device;
        let last = listed.last.as_ref();
        Self {
            device: device.id,
            name: device.name.clone(),
            settings: device.settings,
            schedule: Schedule::resume(policy, device.id, device.revision(), last, now, draw()),
            known_last: last.map(|last| last.id),
            last_success_at: last.and_then(|last| last.last_success_at),
            known_since: listed.first_seen.unwrap_or(now),
            seat: context.view.enter(device.id),
            mailbox,
            waiting: Vec::new(),
            upcoming: None,
            context,
        }
    }

    /// Works until the device is removed or the process stops.
    pub fn run(self) -> impl Future<Output = ()> + Send {
        let context = Arc::clone(&self.context);
        self.run_with(move |ask| {
            let context = Arc::clone(&context);
            async move { context.attempt(ask).await }
        })
    }

    /// [`Worker::run`] with another way to make an attempt.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice, and there is one of these per device"
    )]
    fn run_with<A, F>(mut self, mut attempt: A) -> impl Future<Output = ()>
    where
        A: FnMut(Ask) -> F,
        F: Future<Output = Report>,
    {
        async move {
            while let Some((at, due)) = self.due() {
                self.show(None);
                tokio::select! {
                    biased;
                    () = self.context.shutdown.soft().cancelled() => break,
                    mail = self.mailbox.recv() => self.read(mail),
                    woke = sleep_until(&self.context, at) => if woke == Woke::Due {
                        match due {
                            Due::Attempt(cause) => self.work(cause, &mut attempt).await,
                            Due::Skip(kind) => self.skip(kind).await,
                        }
                    },
                }
            }
        }
    }

    /// What comes next, and when; `None` once the device is gone.
    fn due(&self) -> Option<(Timestamp, Due)> {
        match self.schedule.next() {
            Next::Attempt { at, cause } => Some((at, Due::Attempt(cause))),
            Next::Skip { at, kind } => Some((at, Due::Skip(kind))),
            // Only `work` makes the schedule wait, and it ends every attempt that it begins.
            Next::Wait | Next::Done => None,
        }
    }

    /// Makes one attempt, reading mail meanwhile.
    async fn work<A, F>(&mut self, cause: Cause, attempt: &mut A)
    where
        A: FnMut(Ask) -> F,
        F: Future<Output = Report>,
    {
        let slot_held = Arc::new(AtomicBool::new(false));
        self.show(Some(&slot_held));
        self.schedule
            .handle(Event::Began, self.context.clock.now(), draw());
        // Boxed, so that a sleeping worker does not carry the attempt's state.
        let mut attempt = Box::pin(attempt(Ask {
            id: self.upcoming(),
            device: self.device,
            name: self.name.clone(),
            settings: self.settings,
            cause,
            known_last: self.known_last,
            schedule: self.schedule.clone(),
            slot_held: Arc::clone(&slot_held),
        }));
        let ended = loop {
            // The mailbox of a device that was removed is closed, and would be read for ever.
            let removed = self.schedule.next() == Next::Done;
            tokio::select! {
                biased;
                report = &mut attempt => break Ended::By(Box::new(report)),
                mail = self.mailbox.recv(), if !removed => self.read(mail),
                () = given_up(&mut self.waiting) => {
                    // One that queues, and that nobody waits for any more, is not made.
                    if cause == Cause::Manual && !slot_held.load(Ordering::Relaxed) {
                        break Ended::Withdrawn;
                    }
                }
            }
            // One that still queues behind other scheduled work makes way for one that need not.
            let queues = !slot_held.load(Ordering::Relaxed);
            if cause != Cause::Manual && !self.waiting.is_empty() && queues {
                break Ended::MadeWay;
            }
        };
        drop(attempt);
        match ended {
            Ended::By(report) => self.finish(cause, *report),
            Ended::MadeWay => self.make_way(),
            Ended::Withdrawn => self.withdraw(),
        }
    }

    /// The attempt that runs, or the next one.
    fn upcoming(&mut self) -> AttemptId {
        *self.upcoming.get_or_insert_with(AttemptId::generate)
    }

    /// A request was taken back: the device is where it was before, and if it is due meanwhile,
    /// it is a recheck later.
    fn withdraw(&mut self) {
        self.upcoming = None;
        let put_off = Finish::Deferred(Deferral::Contended);
        let now = self.context.clock.now();
        self.schedule.handle(Event::Finished(put_off), now, draw());
    }

    /// An attempt that had not got a slot was dropped for one that somebody asked for.
    fn make_way(&mut self) {
        let now = self.context.clock.now();
        self.schedule.handle(Event::Requested, now, draw());
        let put_off = Finish::Deferred(Deferral::Contended);
        self.schedule.handle(Event::Finished(put_off), now, draw());
    }

    fn finish(&mut self, cause: Cause, report: Report) {
        let answers = match &report.finish {
            Finish::Deferred(deferral) => answered_by(cause, deferral),
            Finish::Made { .. } => true,
        };
        // What was told whoever waits on holds: their attempt is still to come, and no other attempt
        // was begun under its id.
        if answers || report.made.is_some() {
            self.upcoming = None;
        }
        if answers {
            for waiting in self.waiting.drain(..) {
                // Who no longer listens is not told.
                let _ = waiting.send(report.reply.clone());
            }
        } else if !self.waiting.is_empty() {
            self.schedule.handle(Event::Requested, report.at, draw());
        }
        if let Some(id) = report.made {
            self.known_last = Some(id);
        }
        match &report.finish {
            Finish::Made {
                started_at,
                result: Made::Taken,
                ..
            } => {
                self.last_success_at = Some(*started_at);
            }
            Finish::Deferred(Deferral::Superseded(last)) => self.adopt(last),
            Finish::Made { .. } | Finish::Deferred(_) => {}
        }
        self.schedule
            .handle(Event::Finished(report.finish), report.at, report.draw);
    }

    /// Another replica's attempt is the last one now.
    fn adopt(&mut self, last: &LastAttempt) {
        self.known_last = Some(last.id);
        self.last_success_at = last.last_success_at.or(self.last_success_at);
    }

    /// A blocked device came due: count it and say what the operator should do.
    ///
    /// Every replica counts and says it for itself. The device's lock cannot tell them who does:
    /// held for a moment it is free again when the next replica comes due, and held for longer it
    /// would keep away the operator's request. A key for this alone would cost a round trip per
    /// blocked device and replica, for a counter that is only ever compared with zero.
    async fn skip(&mut self, kind: FailureKind) {
        if self.context.coordinator.presence(self.device).await == Presence::Offline {
            self.context.metrics.skipped(Skip::Offline);
        } else {
            if let Some(skip) = Skip::blocked_by(kind) {
                self.context.metrics.skipped(skip);
            }
            let remedy = kind.remedy(self.context.advice, self.device, &self.name);
            let remedy = remedy.unwrap_or_default();
            warn!(
                device.id = %self.device,
                device.name = self.name,
                failure.kind = %kind,
                "Skipped {}: blocked by {kind} until an operator acts: {remedy}", self.name
            );
        }
        let now = self.context.clock.now();
        self.schedule.handle(Event::Skipped, now, draw());
    }

    fn read(&mut self, mail: Option<Mail>) {
        let now = self.context.clock.now();
        match mail {
            Some(Mail::Edited(edit)) => {
                debug!(device.id = %self.device, "the row of {} was edited", edit.name);
                self.name = edit.name;
                self.settings = edit.settings;
                self.schedule
                    .handle(Event::Edited(edit.revision), now, draw());
            }
            Some(Mail::Revised(last)) => {
                // Ids made later sort later: what is older than the attempt that this worker knows
                // of is no news.
                if self.known_last.is_none_or(|known| known <= last.id) {
                    self.known_last = Some(last.id);
                    self.last_success_at = last.last_success_at;
                    self.schedule.handle(Event::Revised(last), now, draw());
                }
            }
            Some(Mail::Requested { reply, taken }) => {
                // Who gave up already is noticed by `given_up`.
                let _ = taken.send(self.upcoming());
                self.waiting.push(reply);
                // What runs already is shared.
                if self.schedule.condition() != Some(Condition::Running) {
                    self.schedule.handle(Event::Requested, now, draw());
                }
            }
            // A reconciler that is gone will not have its devices backed up any more.
            Some(Mail::Removed) | None => self.schedule.handle(Event::Removed, now, draw()),
        }
    }

    /// Shows the state at rest, and `slot_held`, which tells when an attempt is more than waiting.
    fn show(&self, slot_held: Option<&Arc<AtomicBool>>) {
        let Some(state) = self.schedule.condition() else {
            return;
        };
        self.seat.show(DeviceView {
            at_rest: state,
            slot_held: slot_held.cloned(),
            last_success_at: self.last_success_at,
            known_since: self.known_since,
        });
    }
}

/// How the time of an attempt ended.
enum Ended {
    By(Box<Report>),
    /// Dropped for one that somebody asked for.
    MadeWay,
    /// Dropped, for nobody waits for it any more.
    Withdrawn,
}

/// Forgets whoever gave up, and resolves when the last one has. Never does for nobody. Cancel safe.
async fn given_up(waiting: &mut Vec<oneshot::Sender<Reply>>) {
    if waiting.is_empty() {
        return std::future::pending().await;
    }
    std::future::poll_fn(|context| {
        waiting.retain_mut(|reply| reply.poll_closed(context).is_pending());
        match waiting.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

#[derive(Clone, Copy)]
enum Due {
    Attempt(Cause),
    Skip(FailureKind),
}

#[derive(PartialEq)]
enum Woke {
    Due,
    Early,
}

/// Sleeps until the wall clock shows `at`, or for [`LONGEST_SLEEP`].
async fn sleep_until(context: &Context, at: Timestamp) -> Woke {
    let left = context.clock.until(at);
    if left > LONGEST_SLEEP {
        tokio::time::sleep(LONGEST_SLEEP).await;
        return Woke::Early;
    }
    tokio::time::sleep(left).await;
    Woke::Due
}

#[cfg(test)]
mod tests;
