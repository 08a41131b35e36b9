//! The metrics of the service: what happened is counted here, and the page of them is made.
//!
//! All label sets are closed and every value exists at zero from the start, so that a rate or an
//! alert never waits for a first event. Devices are named in logs, not here.

pub mod archive;
mod build;
mod definitions;
mod labels;
pub mod mirror;
mod process;

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, TextEncoder,
};

use crate::domain::attempt::{Deferral, Outcome, Step};
use crate::domain::failure::FailureKind;
use crate::domain::hold::{Amount, Place};
use crate::domain::schedule::Condition;
use crate::domain::session::WeakAlgorithm;

pub use labels::{Answered, Asked, Decrypted, LockResult, Skip, Suspected};
use mirror::MirrorMetrics;
use process::Process;

/// The content type of [`Metrics::render`]: the Prometheus text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of the process, in a registry of their own.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    backups: IntCounterVec,
    duration: Histogram,
    active: IntGauge,
    waiting: IntGaugeVec,
    publishes: IntCounterVec,
    locks: IntCounterVec,
    failures: IntCounterVec,
    queued: IntCounter,
    interrupted: IntCounter,
    outbox_letters: IntGauge,
    outbox_bytes: IntGauge,
    outbox_oldest: Gauge,
    outbox_dead: IntGauge,
    outbox_stuck: IntGauge,
    held_letters: IntGaugeVec,
    held_bytes: IntGaugeVec,
    outbox_relayed: IntCounter,
    outbox_dead_lettered: IntCounter,
    deferrals: IntCounterVec,
    devices: IntGaugeVec,
    oldest_success: Gauge,
    unreadable_rows: IntGauge,
    queue_wait: Histogram,
    stages: HistogramVec,
    reconcile: Histogram,
    worker_restarts: IntCounter,
    comments: IntCounterVec,
    incomplete: IntCounter,
    suspicions: IntCounterVec,
    weak_ssh: IntCounterVec,
    requests: IntCounterVec,
    credential_changes: IntCounterVec,
    decrypts: IntCounterVec,
    credential_cache: IntCounterVec,
    cached_credentials: IntGauge,
    mirror: MirrorMetrics,
    process: Process,
}

impl Metrics {
    /// Counts a finished attempt and its time.
    pub fn finished(&self, outcome: &Outcome, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        match outcome {
            Outcome::Delivered(_) => self.backup_success(),
            Outcome::Queued(_) => self.queued.inc(),
            Outcome::Failed(failure) => self.backup_failed(failure.kind),
            Outcome::Interrupted { .. } => self.interrupted.inc(),
        }
    }

    /// Counts a backup that was acknowledged; for one that was queued, when its time came.
    pub fn backup_success(&self) {
        self.backups.with_label_values(&["success"]).inc();
    }

    /// Counts a failed attempt.
    pub fn backup_failed(&self, kind: FailureKind) {
        self.backups.with_label_values(&["error"]).inc();
        self.failures.with_label_values(&[kind.as_str()]).inc();
    }

    /// Counts a device that came due and was not tried.
    pub fn skipped(&self, skip: Skip) {
        self.backups.with_label_values(&[skip.label()]).inc();
    }

    /// Counts a deferral, and as skipped those that the contract counts so.
    pub fn deferred(&self, deferral: &Deferral) {
        self.deferrals.with_label_values(&[deferral.as_str()]).inc();
        match deferral {
            Deferral::Offline => self.skipped(Skip::Offline),
            Deferral::Contended => self.skipped(Skip::Locked),
            Deferral::Gone
            | Deferral::Superseded(_)
            | Deferral::Unavailable { .. }
            | Deferral::RateLimited { .. }
            | Deferral::Stopping => {}
        }
    }

    /// Counts an attempt as running until the guard is dropped.
    #[must_use = "the attempt counts as running only while the guard lives"]
    pub fn attempt_running(&self) -> Running {
        self.active.inc();
        Running(self.active.clone())
    }

    /// Counts a publication of a snapshot.
    pub fn published(&self, acknowledged: bool) {
        let status = if acknowledged { "success" } else { "error" };
        let labels = ["config_snapshot", status];
        self.publishes.with_label_values(&labels).inc();
    }

    /// Shows how much is in the outbox.
    pub fn set_outbox(&self, letters: u64, bytes: u64, oldest: Option<Duration>, dead: u64) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.outbox_letters.set(gauge(letters));
        self.outbox_bytes.set(gauge(bytes));
        self.outbox_oldest
            .set(oldest.unwrap_or_default().as_secs_f64());
        self.outbox_dead.set(gauge(dead));
    }

    /// Shows how many letters of the outbox this relay could not fetch; 0 while it does not relay.
    pub fn set_outbox_stuck(&self, letters: usize) {
        self.outbox_stuck
            .set(i64::try_from(letters).unwrap_or(i64::MAX));
    }

    /// Shows how much this process holds in `place`.
    pub fn set_held(&self, place: Place, amount: Amount) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let place = [place.as_str()];
        let letters = self.held_letters.with_label_values(&place);
        letters.set(gauge(amount.letters));
        self.held_bytes
            .with_label_values(&place)
            .set(gauge(amount.bytes));
    }

    /// Counts a snapshot that came out of the outbox into the stream.
    pub fn relayed(&self) {
        self.outbox_relayed.inc();
    }

    /// Counts a snapshot that became a dead letter.
    pub fn dead_lettered(&self) {
        self.outbox_dead_lettered.inc();
    }

    /// Counts a request for a lock.
    pub fn lock(&self, result: LockResult) {
        self.locks.with_label_values(&[result.label()]).inc();
    }

    /// Observes how long an attempt waited for its slot.
    pub fn waited_for_slot(&self, took: Duration) {
        self.queue_wait.observe(took.as_secs_f64());
    }

    /// Observes one step of an attempt.
    pub fn stage(&self, step: Step, took: Duration) {
        let stage = self.stages.with_label_values(&[step.as_str()]);
        stage.observe(took.as_secs_f64());
    }

    /// Observes one reconciliation.
    pub fn reconciled(&self, took: Duration) {
        self.reconcile.observe(took.as_secs_f64());
    }

    /// Counts a device task that was started again after a fault.
    pub fn worker_restarted(&self) {
        self.worker_restarts.inc();
    }

    /// Counts the state comments of one export.
    pub fn comments(&self, known: u64, unknown: u64) {
        self.comments.with_label_values(&["true"]).inc_by(known);
        self.comments.with_label_values(&["false"]).inc_by(unknown);
    }

    /// Counts a snapshot that lacks menus.
    pub fn incomplete(&self) {
        self.incomplete.inc();
    }

    /// Counts an export that looked cut and was read again.
    pub fn suspected(&self, result: Suspected) {
        self.suspicions.with_label_values(&[result.label()]).inc();
    }

    /// Counts what of a key exchange or a login is weak.
    pub fn weak_ssh(&self, weak: &[WeakAlgorithm]) {
        for algorithm in weak {
            let part = algorithm.part.as_str();
            self.weak_ssh.with_label_values(&[part]).inc();
        }
    }

    /// Counts a backup that somebody asked for, once they are answered.
    pub fn asked(&self, source: Asked, result: Answered) {
        let labels = [source.label(), result.label()];
        self.requests.with_label_values(&labels).inc();
    }

    /// Counts a notice that credentials changed.
    pub fn credentials_changed(&self, applied: bool) {
        let status = if applied { "applied" } else { "ignored" };
        self.credential_changes.with_label_values(&[status]).inc();
    }

    /// Counts a ciphertext that the cache did not know.
    pub fn decrypted(&self, result: Decrypted) {
        self.decrypts.with_label_values(&[result.label()]).inc();
    }

    /// Counts a look into the cache of opened ciphertexts.
    pub fn credential_cache(&self, hit: bool) {
        let result = if hit { "hit" } else { "miss" };
        self.credential_cache.with_label_values(&[result]).inc();
    }

    /// Sets how many opened ciphertexts are kept.
    pub fn set_cached_credentials(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.cached_credentials.set(count);
    }

    /// What the git mirror counts.
    pub fn mirror(&self) -> MirrorMetrics {
        self.mirror.clone()
    }

    /// Sets how many attempts wait for a slot: those that came due, and those that were asked for.
    pub fn set_waiting(&self, scheduled: usize, requested: usize) {
        for (lane, attempts) in [("scheduled", scheduled), ("requested", requested)] {
            let attempts = i64::try_from(attempts).unwrap_or(i64::MAX);
            self.waiting.with_label_values(&[lane]).set(attempts);
        }
    }

    /// Sets the number of devices in each state; states that `counts` leaves out are empty.
    pub fn set_devices(&self, counts: &BTreeMap<Condition, usize>) {
        for state in Condition::ALL {
            let total = counts.get(state).copied().unwrap_or_default();
            let total = i64::try_from(total).unwrap_or(i64::MAX);
            self.devices.with_label_values(&[state.as_str()]).set(total);
        }
    }

    /// Sets the age of the oldest last success; `None`, while no device has one, is shown as zero.
    pub fn set_oldest_success_age(&self, age: Option<Duration>) {
        self.oldest_success
            .set(age.unwrap_or_default().as_secs_f64());
    }

    /// Sets how many rows of the inventory cannot be read.
    pub fn set_unreadable_rows(&self, rows: usize) {
        self.unreadable_rows
            .set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// The page for Prometheus, in its text format.
    ///
    /// # Errors
    /// When the encoder finds a metric without samples: a fault of this file.
    pub fn render(&self) -> prometheus::Result<String> {
        self.process.look();
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }
}

/// An attempt that is counted as running.
#[derive(Debug)]
pub struct Running(IntGauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
