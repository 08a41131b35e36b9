//! `prune`: deletes old versions by a retention, and old rows of the journal.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::reading::{
    Inventory, Reading, configuration, emit_line, unreadable, unreadable_archive,
};
use crate::adapters::archive::SealedArchive;
use crate::adapters::sqlite::{OpenError, SqliteStore};
use crate::app::AppError;
use crate::archive::{self, Pruned, Pruning};
use crate::clock::Clock;
use crate::config::{Config, Mode};
use crate::domain::archive::{Period, Retention, Tier};
use crate::ports::{Archive, Store};
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
stays. In embedded mode the service must not be running, except for --dry-run.")]
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
    // Looks before anything is opened for writing: pruning makes no store.
    let reading = Reading::open(config).await?;
    let names = reading.names().await?;
    if args.dry_run {
        if let Some(retention) = args.retention() {
            let archive = reading.archive().await?;
            versions(&archive, &retention, Pruning::DryRun, &names).await?;
        }
        let days = config.journal_days;
        emit_line(&format!(
            "the journal would lose attempts older than {days} days"
        ));
        reading.close().await;
        return Ok(ExitCode::SUCCESS);
    }
    match (&reading.inventory, &config.mode) {
        (Inventory::Embedded(_), Mode::Embedded { data_dir, key }) => {
            reading.close().await;
            let opened = SqliteStore::open(data_dir, key.clone(), Clock::System).await;
            let store = opened.map_err(not_opened)?;
            if let (Some(retention), Some(pool), Some(key)) =
                (args.retention(), store.writer(), store.key())
            {
                let archive = SealedArchive::sqlite(
                    pool.clone(),
                    key.clone(),
                    config.normalizer.renormalize(),
                );
                versions(&archive, &retention, Pruning::Delete, &names).await?;
            }
            journal(&store, config).await?;
            store.close().await;
        }
        _ => {
            if let Some(retention) = args.retention() {
                let archive = reading.archive().await?;
                versions(&archive, &retention, Pruning::Delete, &names).await?;
            }
            journal(reading.store(), config).await?;
            reading.close().await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn not_opened(error: OpenError) -> AppError {
    match error {
        OpenError::Lock(_) => AppError::Failed(
            anyhow::Error::new(error)
                .context("pruning needs the store for itself; stop the service first"),
        ),
        _ => configuration(error),
    }
}

async fn versions(
    archive: &dyn Archive,
    retention: &Retention,
    pruning: Pruning,
    names: &BTreeMap<crate::domain::device::DeviceId, String>,
) -> Result<(), AppError> {
    let report = |device, expired: &[_]| {
        if pruning == Pruning::DryRun {
            let unnamed = || format!("{device}");
            let name = names.get(&device).cloned().unwrap_or_else(unnamed);
            emit_line(&format!(
                "{name}: {} would go",
                count(expired.len(), "version")
            ));
        }
    };
    let now = Clock::System.now();
    let pruned = archive::prune(archive, retention, now, pruning, report).await;
    let Pruned {
        devices,
        examined,
        versions,
        texts,
    } = pruned.map_err(unreadable_archive)?;
    let verb = match pruning {
        Pruning::Delete => format!("deleted, and {texts} texts that no other version has"),
        Pruning::DryRun => "would be deleted".to_owned(),
    };
    emit_line(&format!(
        "{versions} of {examined} versions of {} {verb}",
        count(usize::try_from(devices).unwrap_or(usize::MAX), "device")
    ));
    Ok(())
}

async fn journal(store: &dyn Store, config: &Config) -> Result<(), AppError> {
    let age = Duration::from_secs(config.journal_days * 86_400);
    let mut total = 0;
    loop {
        match store.prune(age, JOURNAL_BATCH).await.map_err(unreadable)? {
            0 => break,
            pruned => total += pruned,
        }
    }
    emit_line(&format!(
        "{total} attempts older than {} days left the journal",
        config.journal_days
    ));
    Ok(())
}
