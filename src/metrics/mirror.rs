//! The metrics of the git mirror, on the page of whichever role has one.

use prometheus::{IntCounterVec, IntGauge};

use super::build::Build;

/// What the mirror counts. Clones count the same.
#[derive(Clone, Debug)]
pub struct MirrorMetrics {
    commits: IntCounterVec,
    pending: IntGauge,
}

impl MirrorMetrics {
    pub(super) fn new(new: &Build<'_>) -> prometheus::Result<Self> {
        let commits = new.counters(
            "mikrotik_git_mirror_commits_total",
            "Commits to the git mirror, by result: an error is retried, and the archive has the \
             version all the same.",
            &["status"],
        )?;
        for status in ["success", "error"] {
            commits.with_label_values(&[status]);
        }
        let pending = new.gauge(
            "mikrotik_git_mirror_pending_devices",
            "Devices whose newest version is in the archive and not in the git mirror yet.",
        )?;
        Ok(Self { commits, pending })
    }

    /// Counts a commit, or that it failed.
    pub fn committed(&self, written: bool) {
        let status = if written { "success" } else { "error" };
        self.commits.with_label_values(&[status]).inc();
    }

    /// Sets how many devices the mirror is behind with.
    pub fn set_pending(&self, devices: usize) {
        self.pending.set(i64::try_from(devices).unwrap_or(i64::MAX));
    }
}
