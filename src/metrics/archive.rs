//! The metrics of the `archive` role: a page of their own, so that nobody counts its processes as
//! pollers.

use std::time::Duration;

use prometheus::{
    Encoder as _, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder,
};

use super::build::Build;
use super::mirror::MirrorMetrics;
use super::process::Process;

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// It is a new version.
    Version,
    /// It is a further sighting of one, or was stored before.
    SeenAgain,
    /// It was set aside.
    SetAside,
    /// It was given back, to be tried later.
    PutOff,
}

impl Settled {
    const ALL: [Self; 4] = [Self::Version, Self::SeenAgain, Self::SetAside, Self::PutOff];

    fn label(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::SeenAgain => "seen_again",
            Self::SetAside => "set_aside",
            Self::PutOff => "put_off",
        }
    }
}

/// What is before the consumer, and what lies aside.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Backlog {
    /// Messages that nobody has been given yet.
    pub pending: u64,
    /// Messages that somebody was given and has not settled.
    pub unsettled: u64,
    /// Those of them that were given more than once.
    pub redelivered: u64,
    /// How long the oldest of all of them has been in the stream.
    pub oldest: Duration,
}

/// All metrics of the role, in a registry of their own.
#[derive(Debug)]
pub struct ArchiveMetrics {
    registry: Registry,
    messages: IntCounterVec,
    duration: Histogram,
    fetches_failed: IntCounter,
    in_flight: IntGauge,
    bytes_in_flight: IntGauge,
    pending: IntGauge,
    unsettled: IntGauge,
    redelivered: IntGauge,
    oldest: Gauge,
    set_aside: IntGauge,
    storing: IntGauge,
    mirror: MirrorMetrics,
    process: Process,
}

/// A small version takes some milliseconds, a large one seconds.
const BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

impl ArchiveMetrics {
    /// Creates every metric with every label value at zero.
    ///
    /// # Errors
    /// When a name or label is not valid or comes twice: a fault of this file.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let new = Build(&registry);
        let metrics = Self {
            messages: new.counters(
                "mikrotik_archive_messages_total",
                "Messages of the stream that were settled, by result.",
                &["result"],
            )?,
            duration: new.histogram(
                "mikrotik_archive_message_duration_seconds",
                "Time from receiving a message to settling it.",
                BUCKETS,
            )?,
            fetches_failed: new.counter(
                "mikrotik_archive_fetch_errors_total",
                "Requests for messages that failed: NATS is away, or stream or consumer is gone.",
            )?,
            in_flight: new.gauge(
                "mikrotik_archive_messages_in_flight",
                "Messages that this process works on.",
            )?,
            bytes_in_flight: new.gauge(
                "mikrotik_archive_bytes_in_flight",
                "Size of the messages and texts that this process works on or has room for.",
            )?,
            pending: new.gauge(
                "mikrotik_archive_pending_messages",
                "Messages of the stream that no replica has been given yet.",
            )?,
            unsettled: new.gauge(
                "mikrotik_archive_unsettled_messages",
                "Messages that a replica was given and has not settled.",
            )?,
            redelivered: new.gauge(
                "mikrotik_archive_redelivered_messages",
                "Messages that are not settled and were given more than once.",
            )?,
            oldest: new.gauge_f64(
                "mikrotik_archive_oldest_pending_age_seconds",
                "How long the oldest message that is not settled has been in the stream.",
            )?,
            set_aside: new.gauge(
                "mikrotik_archive_set_aside_messages",
                "Messages that lie set aside and wait for an operator.",
            )?,
            storing: new.gauge(
                "mikrotik_archive_storing",
                "1 while snapshots can be stored, 0 while messages are put off.",
            )?,
            mirror: MirrorMetrics::new(&new)?,
            process: Process::new(&new)?,
            registry,
        };
        for result in Settled::ALL {
            metrics.messages.with_label_values(&[result.label()]);
        }
        Ok(metrics)
    }

    /// What the git mirror counts.
    pub fn mirror(&self) -> MirrorMetrics {
        self.mirror.clone()
    }

    /// Counts a message and its time.
    pub fn settled(&self, settled: Settled, took: Duration) {
        self.messages.with_label_values(&[settled.label()]).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a request for messages that failed.
    pub fn fetch_failed(&self) {
        self.fetches_failed.inc();
    }

    /// Counts a message as being worked on until the guard is dropped.
    #[must_use = "the message counts as being worked on only while the guard lives"]
    pub fn working(&self) -> super::Running {
        self.in_flight.inc();
        super::Running(self.in_flight.clone())
    }

    /// Sets what is held in memory, in bytes.
    pub fn set_bytes_in_flight(&self, bytes: u64) {
        self.bytes_in_flight.set(number(bytes));
    }

    /// Sets what is before the consumer.
    pub fn set_backlog(&self, backlog: &Backlog) {
        self.pending.set(number(backlog.pending));
        self.unsettled.set(number(backlog.unsettled));
        self.redelivered.set(number(backlog.redelivered));
        self.oldest.set(backlog.oldest.as_secs_f64());
    }

    /// Sets how many messages lie aside.
    pub fn set_set_aside(&self, count: u64) {
        self.set_aside.set(number(count));
    }

    /// Sets whether snapshots can be stored.
    pub fn set_storing(&self, storing: bool) {
        self.storing.set(storing.into());
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

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
