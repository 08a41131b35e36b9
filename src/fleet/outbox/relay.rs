//! The relay: publishes what waits in the outbox, one replica at a time, and settles the attempts.
//!
//! The order at the end of a letter is fixed: published, then settled in the database, then removed
//! from the outbox. So a letter that is missing although its attempt is queued was lost and is not
//! just being moved, and a relay that dies anywhere leaves a letter that is published once more under
//! the same id, which the stream recognises.

mod desk;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::Queue;
use crate::domain::attempt::AttemptId;
use crate::domain::device::DeviceId;
use crate::domain::failure::{Failure, FailureKind, chain};
use crate::domain::outbox::Rests;
use crate::fleet::Context;
use crate::ports::{GivenUp, OutboxError, RelayLease, StoreError};

use desk::{Desk, Served};

/// How long the lease lives unless it is renewed: so long after the end of a relay another one
/// takes over.
pub const LEASE: Duration = Duration::from_secs(10);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(3);
/// How often a replica looks whether it may relay, a relay whether another replica put something
/// in, and all of them how much there is.
const LOOK: Duration = Duration::from_secs(3);
/// How long a relay that cannot publish holds on to the lease before it gives the others a chance:
/// their way to the sink may be open.
const YIELD: Duration = Duration::from_secs(5);
/// How often queued attempts are compared with the outbox.
const COMPARE: Duration = Duration::from_secs(30);
/// How many queued attempts are compared at once.
const COMPARED: u32 = 500;

const LOST: &str = "the snapshot was taken and kept in the outbox, but the outbox does not have it \
                    any more: Redis was restarted without its data, or they were deleted; give Redis \
                    a disk (appendonly yes) and maxmemory-policy noeviction. The device is backed up \
                    again at once";

/// Relays whenever no other replica does, until the process is told to stop.
pub async fn run(context: &Context) {
    let Some(queue) = &context.outbox else {
        return;
    };
    let soft = context.shutdown.soft();
    let (origin, mut rests) = (Instant::now(), Rests::default());
    let mut compared = None;
    while !soft.is_cancelled() {
        let mut rest = LOOK;
        match queue.letters.try_lease(LEASE).await {
            Ok(Some(lease)) => {
                let mut hold = Hold {
                    context,
                    queue,
                    lease,
                    origin,
                    rests,
                    compared,
                };
                hold.relay().await;
                (rests, compared) = (hold.rests, hold.compared);
                if rests.pauses(origin.elapsed()) {
                    // Long enough for any other replica to look.
                    rest = 2 * LOOK;
                }
            }
            // Whoever relays shows what it cannot fetch.
            Ok(None) => context.metrics.set_outbox_stuck(0),
            Err(error) => debug!(error = chain(&error), "no relaying"),
        }
        tokio::select! {
            () = soft.cancelled() => {}
            () = context.sink.came_back() => rests.came_back(),
            () = sleep(rest) => {}
        }
    }
}

/// Keeps the metrics of the outbox up to date, until the process is told to stop.
pub async fn watch(context: &Context) {
    let Some(queue) = &context.outbox else {
        return;
    };
    let soft = context.shutdown.soft();
    while !soft.is_cancelled() {
        // While nobody can be asked, what was known last is as good as anything.
        if let Ok(state) = queue.letters.state().await {
            let age = state.oldest.map(|at| context.clock.now() - at);
            let age = age.and_then(|age| Duration::try_from(age).ok());
            context
                .metrics
                .set_outbox(state.letters, state.bytes, age, state.dead);
        }
        tokio::select! {
            () = soft.cancelled() => {}
            () = sleep(LOOK) => {}
        }
    }
}

/// Why a relay ended that Redis answered.
enum Ended {
    /// The process stops, or others should have their turn.
    Turn,
    /// The lease is another's.
    LeaseLost,
}

/// One time of holding the lease.
struct Hold<'a> {
    context: &'a Context,
    queue: &'a Queue,
    lease: RelayLease,
    /// What moments are counted from.
    origin: Instant,
    rests: Rests,
    /// When queued attempts were last compared with the outbox.
    compared: Option<Instant>,
}

impl Hold<'_> {
    /// Relays while the lease is held.
    async fn relay(&mut self) {
        debug!("this replica relays the outbox");
        let (queue, lease) = (self.queue, self.lease.clone());
        let (expires, expiry) = watch::channel(lease.expires);
        let ended = tokio::select! {
            biased;
            () = keep(queue, &lease, &expires) => Ok(Ended::LeaseLost),
            ended = self.work(expiry) => ended,
        };
        match ended {
            Ok(Ended::Turn) => {}
            Ok(Ended::LeaseLost) => {
                warn!("the relay's lease was lost; another replica goes on");
                // Whoever took it may have seen another Redis than we did.
                self.compared = None;
            }
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "the outbox cannot be relayed; tried again in a moment"
                );
                self.compared = None;
            }
        }
        // What this relay had in its hands is the next one's, at once if Redis is there.
        if let Err(error) = queue.letters.recover(&lease).await {
            debug!(
                error = chain(&error),
                "letters stay where the next relay finds them"
            );
        }
        queue.letters.release(&lease).await;
    }

    /// Takes, offers, settles and removes, until the process stops, Redis is in trouble, or others
    /// should have their turn. Whatever is not clear then is found by the next one that recovers.
    async fn work(&mut self, expires: watch::Receiver<Instant>) -> Result<Ended, OutboxError> {
        let Self { context, queue, .. } = *self;
        let recovered = queue.letters.recover(&self.lease).await?;
        if recovered > 0 {
            info!(
                letters = recovered,
                "took over what another relay left behind"
            );
        }
        let rests = self.rests.clone();
        let mut desk = Desk::new(context, queue, expires, self.origin, rests);
        let mut away_since: Option<Instant> = None;
        let soft = context.shutdown.soft();
        while !soft.is_cancelled() {
            if self.compared.is_none_or(|at| at.elapsed() >= COMPARE) {
                self.compared = Some(Instant::now());
                compare(context, queue).await;
            }
            let served = desk.serve(&self.lease).await?;
            self.rests = desk.rests().clone();
            context.metrics.set_outbox_stuck(desk.stuck());
            match served {
                Served::Something => continue,
                Served::Nothing => {}
                Served::LeaseLost => return Ok(Ended::LeaseLost),
            }
            if !self.rests.pauses(self.origin.elapsed()) {
                away_since = None;
            } else if away_since.get_or_insert_with(Instant::now).elapsed() >= YIELD {
                return Ok(Ended::Turn);
            }
            let idle = desk.idle_for().min(LOOK);
            tokio::select! {
                () = soft.cancelled() => {}
                () = context.sink.came_back() => desk.came_back(),
                () = queue.added.notified() => {}
                () = desk.fetched() => {}
                () = sleep(idle) => {}
            }
        }
        Ok(Ended::Turn)
    }
}

/// Renews the lease; returns when it is lost.
async fn keep(queue: &Queue, lease: &RelayLease, expires: &watch::Sender<Instant>) {
    loop {
        sleep(RENEW).await;
        match queue.letters.renew(lease, LEASE).await {
            Ok(Some(renewed)) => {
                expires.send_replace(renewed.expires);
            }
            Ok(None) => return,
            Err(error) => {
                debug!(error = chain(&error), "the relay's lease was not renewed");
                if Instant::now() >= *expires.borrow() {
                    return;
                }
            }
        }
    }
}

/// An attempt that is queued has its letter in the outbox, unless a process holds it: it is put in
/// before the attempt is recorded, and removed after the attempt is settled. So one that was queued before the outbox was
/// looked at, has no letter there, and is queued still, is lost. Whatever cannot be asked now is
/// asked the next time.
async fn compare(context: &Context, queue: &Queue) {
    let mut after = None;
    loop {
        let queued = match queue.settlements.queued(after, COMPARED).await {
            Ok(queued) => queued,
            Err(error) => return debug!(error = chain(&error), "queued attempts are not known"),
        };
        let Some((last, _)) = queued.last() else {
            return;
        };
        after = Some(*last);
        let ids: Vec<_> = queued.iter().map(|(id, _)| *id).collect();
        let mut missing = match queue.letters.missing(&ids).await {
            Ok(missing) => missing,
            Err(error) => return debug!(error = chain(&error), "the outbox cannot be looked at"),
        };
        // A database that was away may not know that we hold some of them ourselves.
        missing.retain(|id| !queue.holds(*id));
        for (id, device) in queued.into_iter().filter(|(id, _)| missing.contains(id)) {
            let failure = Failure::new(FailureKind::SnapshotLost, LOST);
            match give_up(context, queue, id, device, &failure).await {
                Ok(true) => warn!(
                    attempt.id = %id, device.id = %device,
                    "a snapshot that was kept in the outbox is not there any more; its device is \
                     backed up again"
                ),
                Ok(false) => {}
                Err(error) => return debug!(error = chain(&error), "an attempt was not given up"),
            }
        }
    }
}

/// Settles a queued attempt as failed and tells the device's worker; whether it was queued.
pub(super) async fn give_up(
    context: &Context,
    queue: &Queue,
    attempt: AttemptId,
    device: DeviceId,
    failure: &Failure,
) -> Result<bool, StoreError> {
    match queue.settlements.give_up(attempt, device, failure).await? {
        GivenUp::NotQueued => return Ok(false),
        GivenUp::Older => {}
        GivenUp::Last(last) => context.requests.revise(device, *last),
    }
    context.metrics.backup_failed(failure.kind);
    Ok(true)
}

#[cfg(test)]
mod tests;
