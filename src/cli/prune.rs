//! `prune`: deletes old versions by a retention, and old rows of the journal; or lists what it would.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use serde::Serialize;

use super::hand::{Hand, Missing};
use super::output::{emit_json, say};
use super::reading::{Reading, unreadable, unreadable_archive};
use crate::adapters::archive::SealedArchive;
use crate::app::AppError;
use crate::archive::{self, Expired, Pruned};
use crate::clock::Clock;
use crate::config::{Config, Mode};
use crate::control::wire::PruneBody;
use crate::domain::Timestamp;
use crate::domain::archive::{Period, Retention, Tier, VersionId};
use crate::domain::device::DeviceId;
use crate::ports::{Archive as _, Store, VersionPage};
use crate::report::{ago, count, moment};

/// How many journal rows one statement deletes.
const JOURNAL_BATCH: u32 = 500;

/// Arguments of `prune`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup prune                                            the journal only
  mikrotik-backup prune --keep-all 90 --daily 365 --monthly 3650 --dry-run
  mikrotik-backup prune --keep-all 90 --dry-run --json | jq '[.versions[].bytes] | add'

Attempts older than CONFIG_BACKUP_JOURNAL_DAYS leave the journal. Versions go only when --keep-all
is given: one that was replaced more days ago than that, unless it is the last of its day, week or
month and younger than --daily, --weekly or --monthly say. The newest version of a device always
stays. A running service of embedded mode is asked to do it, and goes on meanwhile.")]
pub(super) struct PruneArgs {
    /// Keep every version for so many days
    #[arg(long, value_name = "DAYS")]
    keep_all: Option<u32>,
    /// Then the last one of each day, for so many days
    #[arg(long, value_name = "DAYS", requires = "keep_all")]
    daily: Option<u32>,
    /// The last one of each week
    #[arg(long, value_name = "DAYS", requires = "keep_all")]
    weekly: Option<u32>,
    /// The last one of each month
    #[arg(long, value_name = "DAYS", requires = "keep_all")]
    monthly: Option<u32>,
    /// Delete nothing, and list the versions that would go
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: print JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
}

impl PruneArgs {
    fn retention(&self) -> Option<Retention> {
        let tiers = [
            (Period::Day, self.daily),
            (Period::Week, self.weekly),
            (Period::Month, self.monthly),
        ];
        let tier = |(every, days): (Period, Option<u32>)| days.map(|days| Tier { every, days });
        Some(Retention {
            all_days: self.keep_all?,
            then: tiers.into_iter().filter_map(tier).collect(),
        })
    }
}

/// Prunes, or tells what it would.
pub(super) async fn prune(config: &Config, args: &PruneArgs) -> Result<ExitCode, AppError> {
    if args.dry_run {
        return dry_run(config, args).await;
    }
    match &config.mode {
        Mode::Embedded { .. } => {
            let hand = Hand::open(config, Missing::Refuse).await?;
            let wanted = PruneBody {
                retention: args.retention(),
                journal_days: config.journal_days,
            };
            let pruned = hand.prune(&wanted).await;
            hand.close().await;
            let pruned = pruned?;
            if let Some(versions) = &pruned.versions {
                tell_versions(versions);
            }
            tell_journal(pruned.attempts, config);
        }
        Mode::Cluster(_) => {
            let reading = Reading::open(config).await?;
            if let Some(retention) = args.retention() {
                let archive = reading.archive().await?;
                let now = Clock::System.now();
                let pruned = archive::prune(&archive, &retention, now).await;
                tell_versions(&pruned.map_err(unreadable_archive)?);
            }
            tell_journal(journal(reading.store(), config).await?, config);
            reading.close().await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A version that would go.
#[derive(Serialize)]
struct Doomed {
    device: DeviceId,
    name: String,
    version: VersionId,
    #[serde(with = "time::serde::rfc3339")]
    collected_at: Timestamp,
    /// From when on it was no longer the device's configuration: its age counts from then.
    #[serde(with = "time::serde::rfc3339")]
    replaced_at: Timestamp,
    age_seconds: i64,
    /// Size of its text.
    bytes: u64,
}

/// What would go.
#[derive(Serialize, Default)]
struct Plan {
    versions: Vec<Doomed>,
    /// Devices looked at.
    devices: u64,
    /// Versions looked at.
    examined: u64,
    /// Attempts older than so many days would leave the journal.
    journal_days: u64,
}

async fn dry_run(config: &Config, args: &PruneArgs) -> Result<ExitCode, AppError> {
    let reading = Reading::open(config).await?;
    let planned = plan(config, &reading, args).await;
    reading.close().await;
    let plan = planned?;
    if args.json {
        return emit_json(&plan);
    }
    let days = config.journal_days;
    say(&format!(
        "the journal would lose attempts older than {days} days"
    ));
    Ok(ExitCode::SUCCESS)
}

/// Tells of each version as it is found, or keeps them for JSON.
async fn plan(config: &Config, reading: &Reading, args: &PruneArgs) -> Result<Plan, AppError> {
    let mut plan = Plan {
        journal_days: config.journal_days,
        ..Plan::default()
    };
    let Some(retention) = args.retention() else {
        return Ok(plan);
    };
    let names = reading.names().await?;
    let archive = reading.archive().await?;
    let now = Clock::System.now();
    let mut doomed = 0;
    let mut found = std::pin::pin!(archive::expired(&archive, &retention, now));
    while let Some(expired) = found.next().await {
        let expired = expired.map_err(unreadable_archive)?;
        plan.devices += 1;
        plan.examined += expired.examined;
        if expired.versions.is_empty() {
            continue;
        }
        doomed += expired.versions.len();
        let name = names.get(&expired.device).cloned();
        let name = name.unwrap_or_else(|| expired.device.to_string());
        let rows = rows(&archive, &expired, &name, now).await?;
        if args.json {
            plan.versions.extend(rows);
            continue;
        }
        let what = count(expired.versions.len(), "version");
        say(&format!("{name}: {what} would go"));
        for row in rows {
            say(&format!(
                "  {}  collected {}, replaced {}, {} bytes",
                row.version,
                moment(row.collected_at),
                ago(row.replaced_at, now),
                row.bytes
            ));
        }
    }
    if !args.json {
        say(&format!(
            "{doomed} of {} versions of {} would be deleted",
            plan.examined,
            devices(plan.devices)
        ));
    }
    Ok(plan)
}

/// The versions that would go, oldest first.
async fn rows(
    archive: &SealedArchive,
    expired: &Expired,
    name: &str,
    now: Timestamp,
) -> Result<Vec<Doomed>, AppError> {
    let wanted: BTreeSet<VersionId> = expired.versions.iter().copied().collect();
    let mut rows = Vec::with_capacity(wanted.len());
    let mut page = VersionPage::first(VersionPage::MAX);
    // When the version was collected that replaced the one in hand.
    let mut replaced_at = None;
    while rows.len() < wanted.len() {
        let versions = archive.versions(expired.device, page).await;
        let versions = versions.map_err(unreadable_archive)?;
        let Some(last) = versions.last() else { break };
        page = VersionPage::after(last, VersionPage::MAX);
        for version in versions {
            let collected_at = version.first.position.at;
            let replaced_at = replaced_at.replace(collected_at).unwrap_or(now);
            if wanted.contains(&version.id) {
                rows.push(Doomed {
                    device: version.device,
                    name: name.to_owned(),
                    version: version.id,
                    collected_at,
                    replaced_at,
                    age_seconds: (now - replaced_at).whole_seconds(),
                    bytes: version.bytes,
                });
            }
        }
    }
    rows.reverse();
    Ok(rows)
}

fn tell_versions(pruned: &Pruned) {
    let Pruned {
        devices: number,
        examined,
        versions,
        texts,
    } = pruned;
    say(&format!(
        "{versions} of {examined} versions of {} deleted, and {texts} texts that no other version \
         has",
        devices(*number)
    ));
}

fn devices(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "device")
}

fn tell_journal(attempts: u64, config: &Config) {
    say(&format!(
        "{attempts} attempts older than {} days left the journal",
        config.journal_days
    ));
}

async fn journal(store: &dyn Store, config: &Config) -> Result<u64, AppError> {
    let age = Duration::from_secs(config.journal_days * 86_400);
    let mut total = 0;
    loop {
        match store.prune(age, JOURNAL_BATCH).await.map_err(unreadable)? {
            0 => return Ok(total),
            pruned => total += pruned,
        }
    }
}
