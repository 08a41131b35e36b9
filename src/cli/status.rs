//! `status` and `failed`: the fleet on one screen, and what needs somebody's attention.

use std::cmp::Reverse;
use std::process::ExitCode;

use clap::Args;

use super::reading::{Reading, colored, emit, emit_json, walk};
use crate::app::AppError;
use crate::clock::Clock;
use crate::config::Config;
use crate::report::{Failed, Summary, render_failed};

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup status
  mikrotik-backup status --json | jq .conditions

CONFIG_BACKUP_INTERVAL must be that of the service: a device without a success for more than two
intervals is stale. Works beside a running service; nothing is changed.")]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `failed`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup failed
  mikrotik-backup failed --json | jq -r '.[] | select(.blocked) | .device.name'

Works beside a running service; nothing is changed. Exit code 0 whether or not something has
failed, 3 when the database cannot be reached or DATA_DIR holds no store.")]
pub(super) struct FailedArgs {
    /// Show at most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the fleet on one screen.
pub(super) async fn status(config: &Config, args: &StatusArgs) -> Result<ExitCode, AppError> {
    let reading = Reading::open(config).await?;
    let mut summary = Summary::new(config.interval, Clock::System.now());
    walk(reading.store(), false, |status| summary.add(status)).await?;
    reading.close().await;
    match args.json {
        true => emit_json(&summary),
        false => Ok(emit(&summary.render(colored(config)))),
    }
}

/// Prints what failed or is blocked, the newest first.
pub(super) async fn failed(config: &Config, args: &FailedArgs) -> Result<ExitCode, AppError> {
    let reading = Reading::open(config).await?;
    let advice = reading.advice();
    let mut entries = Vec::new();
    walk(reading.store(), true, |status| {
        entries.extend(Failed::of(status, advice));
    })
    .await?;
    reading.close().await;
    entries.sort_by_key(|entry| (Reverse(entry.last_attempt_at), entry.device.id));
    let left_out = entries.len().saturating_sub(usize::from(args.limit));
    entries.truncate(usize::from(args.limit));
    if args.json {
        return emit_json(&entries);
    }
    let mut text = render_failed(&entries, Clock::System.now(), colored(config));
    if left_out > 0 {
        text.push_str(&format!("and {left_out} more, which --limit leaves out\n"));
    }
    Ok(emit(&text))
}
