//! The end of an attempt: what the schedule is told, the journal keeps and the log says.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::delivery::{Kept, Place};
use super::{Ask, Report, Stop};
use crate::domain::attempt::{AttemptId, AttemptRecord, Deferral, Outcome};
use crate::domain::device::{Device, DeviceId};
use crate::domain::failure::{Advice, Failure, chain};
use crate::domain::request::Reply;
use crate::domain::schedule::{Event, Finish, Made};
use crate::fleet::progress::{ClaimedAt, Progress};
use crate::fleet::{Context, draw};

/// How long after a hard stop an attempt may still try to write down how it ended: less than the
/// process waits for its tasks then, so that the lease is given back all the same.
const RECORD_AFTER_HARD_STOP: Duration = Duration::from_secs(2);

impl Context {
    /// Turns the result into what the schedule is told, the journal keeps and the log says.
    pub(super) async fn conclude(
        &self,
        id: AttemptId,
        ask: &Ask,
        result: Result<Kept, Stop>,
        progress: &mut Progress,
    ) -> Report {
        let outcome = match result {
            Ok(Kept {
                taken,
                place: Place::Sink,
            }) => Outcome::Delivered(taken),
            Ok(Kept {
                taken,
                place: Place::Outbox | Place::Held,
            }) => Outcome::Queued(taken),
            Err(Stop::Failed(failure)) => Outcome::Failed(with_remedy(failure, self.advice, ask)),
            Err(Stop::Interrupted(reason)) => Outcome::Interrupted { reason },
            Err(Stop::Deferred(deferral)) => {
                // Nothing was asked of the router yet: what opens its credentials is away.
                if progress.claimed.take().is_some() {
                    self.take_back(id, ask.device).await;
                }
                return self.deferred(deferral);
            }
        };
        let Some(claimed) = progress.claimed.take() else {
            return match outcome {
                Outcome::Failed(failure) => self.deferred(Deferral::Unavailable {
                    reason: failure.message,
                }),
                _ => self.deferred(Deferral::Stopping),
            };
        };
        let finish = Finish::Made {
            started_at: claimed.at,
            revision: claimed.device.revision(),
            result: match &outcome {
                Outcome::Delivered(_) | Outcome::Queued(_) => Made::Taken,
                Outcome::Failed(failure) => Made::Failed(failure.kind),
                Outcome::Interrupted { .. } => Made::Interrupted,
            },
        };
        let report = Report {
            finish,
            at: self.clock.now(),
            draw: draw(),
            made: Some(id),
            reply: Reply::of_attempt(id, &outcome),
        };
        self.record(ask, &claimed, outcome, progress, &report).await;
        report
    }

    async fn record(
        &self,
        ask: &Ask,
        claimed: &ClaimedAt,
        outcome: Outcome,
        progress: &mut Progress,
        report: &Report,
    ) {
        let Some(id) = report.made else { return };
        let mut after = ask.schedule.clone();
        after.handle(
            Event::Finished(report.finish.clone()),
            report.at,
            report.draw,
        );
        let record = AttemptRecord {
            id,
            device: claimed.device.id,
            tenant: claimed.device.tenant,
            cause: ask.cause,
            elapsed: claimed.instant.elapsed(),
            ended_ago: Duration::ZERO,
            revision: claimed.device.revision(),
            outcome,
            offered_key: progress.offered_key.take(),
            steps: progress.steps().to_vec(),
            ledger: std::mem::take(&mut progress.ledger),
            consecutive_failures: after.consecutive_failures(),
            standing: after.standing_failure(),
            next_due_in: after.due_in(report.at),
            observed: std::mem::take(&mut progress.observed),
            held: self.outbox.as_ref().is_some_and(|outbox| outbox.holds(id)),
        };
        self.observe(&record, &claimed.device);
        let ended = Instant::now();
        let recorded = tokio::select! {
            biased;
            recorded = self.store.record(&record, &self.replica) => {
                recorded.map_err(|error| chain(&error))
            }
            () = self.long_after_hard_stop() => Err("no answer while the process stops".to_owned()),
        };
        if let Err(error) = recorded {
            warn!(
                error,
                "the attempt could not be recorded yet; kept in memory"
            );
            self.backlog.push(ended, record);
        }
    }

    /// The claim is taken back, for no attempt was made under it.
    async fn take_back(&self, id: AttemptId, device: DeviceId) {
        let taken_back = tokio::select! {
            biased;
            taken_back = self.store.unclaim(device, id) => taken_back,
            () = self.long_after_hard_stop() => return,
        };
        if let Err(error) = taken_back {
            let error = chain(&error);
            // The next claim journals it as an attempt that was interrupted.
            warn!(
                error,
                "the mark of an attempt that was not made could not be taken away"
            );
        }
    }

    async fn long_after_hard_stop(&self) {
        self.shutdown.hard().cancelled().await;
        tokio::time::sleep(RECORD_AFTER_HARD_STOP).await;
    }

    /// The one place where the end of an attempt is counted and logged.
    fn observe(&self, record: &AttemptRecord, device: &Device) {
        self.metrics.finished(&record.outcome, record.elapsed);
        for step in &record.steps {
            self.metrics.stage(step.step, step.took);
        }
        let duration_ms = u64::try_from(record.elapsed.as_millis()).unwrap_or(u64::MAX);
        let next_due_s = record.next_due_in.as_secs();
        match &record.outcome {
            Outcome::Delivered(taken) | Outcome::Queued(taken) => info!(
                status = record.outcome.status().as_str(),
                snapshot.sha256 = %taken.hash,
                size_bytes = taken.bytes,
                routeros.version = taken.routeros_version,
                duration_ms,
                next_due_s,
                "Backed up {}", device.name
            ),
            Outcome::Failed(failure) => {
                warn!(
                    status = record.outcome.status().as_str(),
                    failure.kind = %failure.kind,
                    device.address = %device.endpoint,
                    error = failure.message,
                    consecutive_failures = record.consecutive_failures,
                    duration_ms,
                    next_due_s,
                    "Failed to back up {}{}",
                    device.name,
                    if failure.kind.blocks() { "; blocked until an operator acts" } else { "" }
                );
            }
            Outcome::Interrupted { reason } => warn!(
                status = record.outcome.status().as_str(),
                reason, duration_ms, "Interrupted the backup of {}", device.name
            ),
        }
    }
}

/// Whoever reads the journal or the device's state finds there what to do, too.
fn with_remedy(failure: Failure, advice: Advice, ask: &Ask) -> Failure {
    match failure.kind.remedy(advice, ask.device, &ask.name) {
        Some(remedy) => Failure::new(failure.kind, format!("{}; {remedy}", failure.message)),
        None => failure,
    }
}
