//! What every process of the service tells of itself.

use prometheus::IntGauge;

use super::build::Build;

/// Version, open files and memory.
#[derive(Debug)]
pub(super) struct Process {
    open_files: IntGauge,
    resident_bytes: IntGauge,
}

impl Process {
    pub(super) fn new(new: &Build<'_>) -> prometheus::Result<Self> {
        new.gauges(
            "mikrotik_backup_build_info",
            "Always 1; the label tells the version.",
            "version",
        )?
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
        Ok(Self {
            open_files: new.gauge("process_open_fds", "Open file descriptors.")?,
            resident_bytes: new
                .gauge("process_resident_memory_bytes", "Resident memory in bytes.")?,
        })
    }

    /// Linux tells these in files; elsewhere they stay zero.
    pub(super) fn look(&self) {
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            let files = i64::try_from(files.count()).unwrap_or(i64::MAX);
            self.open_files.set(files);
        }
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
            self.resident_bytes
                .set(kibibytes.map_or(0, |kibibytes: i64| kibibytes.saturating_mul(1024)));
        }
    }
}
