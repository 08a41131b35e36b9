//! `prune`: deletes old versions by a retention, and old rows of the journal.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::hand::{Hand, Missing};
use super::output::say;
use super::reading::{Reading, unreadable, unreadable_archive};
use crate::app::AppError;
use crate::archive::{self, Pruned, Pruning};
use crate::clock::Clock;
use crate::config::{Config, Mode};
use crate::control::wire::PruneBody;
use crate::domain::archive::{Period, Retention, Tier};
use crate::ports::Store;
use crate::report::count;

/// How many journal rows one statement deletes.
const JOURNAL_BATCH: u32 = 500;

/// Arguments of `prune`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup prune                                            the journal only
  mikrotik-backup prune --keep-all 90 --daily 365 --monthly 3650 --dry-run

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
    /// Delete nothing, and tell which versions would go
    #[arg(long)]
    dry_run: bool,
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
                tell_versions(versions, Pruning::Delete);
            }
            tell_journal(pruned.attempts, config);
        }
        Mode::Cluster(_) => {
            let reading = Reading::open(config).await?;
            if let Some(retention) = args.retention() {
                let archive = reading.archive().await?;
                let now = Clock::System.now();
                let pruned = archive::prune(&archive, &retention, now, Pruning::Delete, |_, _| ());
                let pruned = pruned.await.map_err(unreadable_archive)?;
                tell_versions(&pruned, Pruning::Delete);
            }
            tell_journal(journal(reading.store(), config).await?, config);
            reading.close().await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn dry_run(config: &Config, args: &PruneArgs) -> Result<ExitCode, AppError> {
    let reading = Reading::open(config).await?;
    if let Some(retention) = args.retention() {
        let names = reading.names().await?;
        let archive = reading.archive().await?;
        let report = |device, expired: &[_]| {
            let unnamed = || format!("{device}");
            let name = names.get(&device).cloned().unwrap_or_else(unnamed);
            let what = count(expired.len(), "version");
            say(&format!("{name}: {what} would go"));
        };
        let now = Clock::System.now();
        let pruned = archive::prune(&archive, &retention, now, Pruning::DryRun, report).await;
        tell_versions(&pruned.map_err(unreadable_archive)?, Pruning::DryRun);
    }
    let days = config.journal_days;
    say(&format!(
        "the journal would lose attempts older than {days} days"
    ));
    reading.close().await;
    Ok(ExitCode::SUCCESS)
}

fn tell_versions(pruned: &Pruned, pruning: Pruning) {
    let Pruned {
        devices,
        examined,
        versions,
        texts,
    } = pruned;
    let verb = match pruning {
        Pruning::Delete => format!("deleted, and {texts} texts that no other version has"),
        Pruning::DryRun => "would be deleted".to_owned(),
    };
    say(&format!(
        "{versions} of {examined} versions of {} {verb}",
        count(usize::try_from(*devices).unwrap_or(usize::MAX), "device")
    ));
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
