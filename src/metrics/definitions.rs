//! Every metric in one place: name, help, labels, buckets.

use prometheus::Registry;

use super::Metrics;
use super::build::Build;
use super::labels::{Answered, Asked, Decrypted, LockResult, Skip, Suspected};
use super::mirror::MirrorMetrics;
use super::process::Process;
use crate::domain::attempt::Step;
use crate::domain::failure::FailureKind;
use crate::domain::hold::{Amount, Place};
use crate::domain::schedule::Condition;
use crate::domain::session::SshPart;

/// The contract's buckets, and finer ones below a second, in seconds.
const BACKUP_BUCKETS: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];
/// Steps last from a Redis round trip to a whole export, in seconds.
const STAGE_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];
/// Waits for a slot last from nothing to most of an interval, in seconds.
const WAIT_BUCKETS: &[f64] = &[
    0.001, 0.01, 0.1, 1.0, 5.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0,
];
/// A quiet inventory takes a round trip, a full one of a large fleet some seconds.
const RECONCILE_BUCKETS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0];

pub(super) const DEFERRALS: &[&str] = &[
    "offline",
    "contended",
    "gone",
    "superseded",
    "unavailable",
    "rate_limited",
    "stopping",
];

impl Metrics {
    /// Creates every metric with every label value at zero.
    ///
    /// # Errors
    /// When a name or label is not valid or comes twice: a fault of this file.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let new = Build(&registry);
        let metrics = Self {
            backups: new.counters(
                "mikrotik_config_backup_total",
                "Backups that came due, by result: success means acknowledged. A device that is \
                 blocked or offline comes due at each replica.",
                &["status"],
            )?,
            duration: new.histogram(
                "mikrotik_config_backup_duration_seconds",
                "Time of an attempt, from its claim to its end.",
                BACKUP_BUCKETS,
            )?,
            active: new.gauge(
                "mikrotik_config_backup_active",
                "Attempts that are running in this process.",
            )?,
            waiting: new.gauges(
                "mikrotik_config_backup_waiting",
                "Attempts that wait for one of this process's slots, by lane.",
                "lane",
            )?,
            publishes: new.counters(
                "mikrotik_nats_publish_total",
                "Messages published, by subject and result.",
                &["subject", "status"],
            )?,
            locks: new.counters(
                "mikrotik_redis_lock_total",
                "Requests for a device's lock, by result.",
                &["status"],
            )?,
            failures: new.counters(
                "mikrotik_config_backup_failures_total",
                "Failed attempts, by kind.",
                &["kind"],
            )?,
            queued: new.counter(
                "mikrotik_config_backup_queued_total",
                "Attempts whose snapshot went to the outbox because it could not be published.",
            )?,
            interrupted: new.counter(
                "mikrotik_config_backup_interrupted_total",
                "Attempts ended because the process was told to stop.",
            )?,
            outbox_letters: new.gauge(
                "mikrotik_config_backup_outbox_snapshots",
                "Snapshots in the outbox that wait to be published; every replica shows the same.",
            )?,
            outbox_bytes: new.gauge(
                "mikrotik_config_backup_outbox_bytes",
                "Size of the outbox, dead letters included; OUTBOX_MAX_BYTES stops new backups.",
            )?,
            outbox_oldest: new.gauge_f64(
                "mikrotik_config_backup_outbox_oldest_age_seconds",
                "How long the oldest snapshot in the outbox has waited; 0 when none does.",
            )?,
            outbox_dead: new.gauge(
                "mikrotik_config_backup_outbox_dead_letters",
                "Snapshots that were refused too often and wait for an operator.",
            )?,
            outbox_stuck: new.gauge(
                "mikrotik_config_backup_outbox_stuck_snapshots",
                "Snapshots in the outbox that Redis could not hand out to this replica in their time; each holds up its own device, and all others once the relay has 500 in its hands that it cannot publish yet.",
            )?,
            held_letters: new.gauges(
                "mikrotik_config_backup_outbox_held_snapshots",
                "Snapshots that this process holds itself, for the outbox cannot be reached.",
                "place",
            )?,
            held_bytes: new.gauges(
                "mikrotik_config_backup_outbox_held_bytes",
                "Size of the snapshots that this process holds itself.",
                "place",
            )?,
            outbox_relayed: new.counter(
                "mikrotik_config_backup_outbox_relayed_total",
                "Snapshots from the outbox that this replica published.",
            )?,
            outbox_dead_lettered: new.counter(
                "mikrotik_config_backup_outbox_dead_lettered_total",
                "Snapshots that this replica put among the dead letters.",
            )?,
            deferrals: new.counters(
                "mikrotik_config_backup_deferrals_total",
                "Attempts not made, through no fault of the device, by reason. rate_limited: one \
                 connection more might have looked like an attack to the router's firewall.",
                &["reason"],
            )?,
            devices: new.gauges(
                "mikrotik_config_backup_devices",
                "Devices by state, as this process knows them; running has a session's slot.",
                "state",
            )?,
            oldest_success: new.gauge_f64(
                "mikrotik_config_backup_oldest_success_age_seconds",
                "Age of the oldest last success; a device without one counts from when the service \
                 first saw it.",
            )?,
            unreadable_rows: new.gauge(
                "mikrotik_config_backup_unreadable_rows",
                "Rows of the inventory that cannot be read: these devices are not backed up.",
            )?,
            queue_wait: new.histogram(
                "mikrotik_config_backup_queue_wait_seconds",
                "Time that attempts waited for a slot.",
                WAIT_BUCKETS,
            )?,
            stages: new.histograms(
                "mikrotik_config_backup_stage_duration_seconds",
                "Time of one step of an attempt.",
                "stage",
                STAGE_BUCKETS,
            )?,
            reconcile: new.histogram(
                "mikrotik_config_backup_reconcile_duration_seconds",
                "Time of one comparison of the running tasks with the inventory.",
                RECONCILE_BUCKETS,
            )?,
            worker_restarts: new.counter(
                "mikrotik_config_backup_worker_restarts_total",
                "Device tasks that ended by a fault of the program and were started again.",
            )?,
            comments: new.counters(
                "mikrotik_config_backup_comments_total",
                "State comments in exports, by whether a rule knows them.",
                &["known"],
            )?,
            incomplete: new.counter(
                "mikrotik_config_backup_incomplete_total",
                "Snapshots taken without menus: three exports in a row lacked the same, or six lacked some.",
            )?,
            suspicions: new.counters(
                "mikrotik_config_backup_suspicions_total",
                "Exports that were read again, as they looked cut, had stray lines or were empty, by what came of it.",
                &["result"],
            )?,
            weak_ssh: new.counters(
                "mikrotik_config_backup_weak_ssh_total",
                "SSH sessions with a weak algorithm, by what it is used for: user_key signs the login.",
                &["part"],
            )?,
            requests: new.counters(
                "mikrotik_config_backup_requests_total",
                "Backups that somebody asked for, by way and by what they were told.",
                &["source", "result"],
            )?,
            credential_changes: new.counters(
                "mikrotik_credential_changes_total",
                "Notices that the credentials of a device changed, by whether they could be read.",
                &["status"],
            )?,
            decrypts: new.counters(
                "mikrotik_openbao_decrypt_total",
                "Transit ciphertexts to be opened that were not in the cache, by result.",
                &["status"],
            )?,
            credential_cache: new.counters(
                "mikrotik_openbao_cache_total",
                "Transit ciphertexts to be opened, by whether the cache knew them.",
                &["result"],
            )?,
            cached_credentials: new.gauge(
                "mikrotik_openbao_cache_entries",
                "Opened Transit ciphertexts that are kept in memory.",
            )?,
            mirror: MirrorMetrics::new(&new)?,
            process: Process::new(&new)?,
            registry,
        };
        metrics.create_label_values();
        Ok(metrics)
    }

    fn create_label_values(&self) {
        let skips = [
            Skip::Locked,
            Skip::Offline,
            Skip::AuthBlocked,
            Skip::HostKeyBlocked,
        ];
        for status in ["success", "error"]
            .into_iter()
            .chain(skips.map(Skip::label))
        {
            self.backups.with_label_values(&[status]);
        }
        for status in ["success", "error"] {
            self.publishes
                .with_label_values(&["config_snapshot", status]);
        }
        for result in [
            LockResult::Obtained,
            LockResult::NotObtained,
            LockResult::Error,
        ] {
            self.locks.with_label_values(&[result.label()]);
        }
        for kind in FailureKind::ALL {
            self.failures.with_label_values(&[kind.as_str()]);
        }
        for reason in DEFERRALS {
            self.deferrals.with_label_values(&[*reason]);
        }
        for place in Place::ALL {
            self.set_held(place, Amount::default());
        }
        for state in Condition::ALL {
            self.devices.with_label_values(&[state.as_str()]);
        }
        for step in Step::ALL {
            self.stages.with_label_values(&[step.as_str()]);
        }
        for result in Suspected::ALL {
            self.suspicions.with_label_values(&[result.label()]);
        }
        for part in SshPart::ALL {
            self.weak_ssh.with_label_values(&[part.as_str()]);
        }
        self.set_waiting(0, 0);
        for known in ["true", "false"] {
            self.comments.with_label_values(&[known]);
        }
        for status in ["applied", "ignored"] {
            self.credential_changes.with_label_values(&[status]);
        }
        for result in Decrypted::ALL {
            self.decrypts.with_label_values(&[result.label()]);
        }
        for result in ["hit", "miss"] {
            self.credential_cache.with_label_values(&[result]);
        }
        for source in Asked::ALL {
            for result in Answered::ALL {
                self.requests
                    .with_label_values(&[source.label(), result.label()]);
            }
        }
    }
}
