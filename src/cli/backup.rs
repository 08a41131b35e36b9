//! `backup` and `retry`: devices are backed up now, and what came of it is told.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Args;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use uuid::Uuid;

use super::hand::{Hand, Missing};
use super::login::SecretArgs;
use super::output::{emit_json, say};
use super::progress::Progress;
use super::{ad_hoc, exit};
use crate::app::AppError;
use crate::config::Config;
use crate::control::wire::{Backup, Change};
use crate::domain::attempt::Status;
use crate::domain::device::DeviceId;
use crate::domain::host_key::Fingerprint;
use crate::ports::Listed;
use crate::report::count;

/// Arguments of `backup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup backup edge-1 edge-2        devices of the inventory
  mikrotik-backup backup --all                every device
  mikrotik-backup backup admin@192.0.2.1      any router, without adding it: prints the export
  mikrotik-backup backup admin@192.0.2.1 --output router.rsc

A running service is asked to do it; without one it is done here. One of user@host is one connection;
it is two where the password is typed and no --host-key is given: the key is shown before. A terminal
shows a bar, anything else a line for each device. Exit code 1 if any failed.")]
pub(super) struct BackupArgs {
    /// Ids, names or addresses of devices; or user@host for one router that is not in the inventory
    #[arg(required_unless_present_any = ["all", "tenant"], value_name = "DEVICE|USER@HOST")]
    devices: Vec<String>,
    /// Every device
    #[arg(long, conflicts_with_all = ["devices", "tenant"])]
    all: bool,
    /// Every device of this tenant
    #[arg(long, value_name = "UUID", conflicts_with = "devices")]
    tenant: Option<Uuid>,
    /// Print what came of each device as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ad_hoc: AdHocArgs,
}

/// Arguments for a router that is not in the inventory.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for USER@HOST")]
pub(super) struct AdHocArgs {
    /// SSH port [default: 22]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
    #[command(flatten)]
    pub(super) secrets: SecretArgs,
    /// The router's host key fingerprint: any other key gets no password
    #[arg(long, value_name = "SHA256:…", value_parser = super::host_key::fingerprint)]
    pub(super) host_key: Option<Fingerprint>,
    /// Write the export to this file, readable by you only, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<std::path::PathBuf>,
}

/// Arguments of `retry`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup retry edge-1
  mikrotik-backup retry --all-failed

A device whose login was refused gets one try. One with a changed host key stays blocked until
`host-key accept`. Exit code 1 if any failed again.

  mikrotik-backup retry --dead-letters
  mikrotik-backup retry --dead-letters 01900000-0000-7000-8000-000000000001

puts the snapshots back into the outbox of a cluster that JetStream refused too often, as `failed`
lists them: all, or those of an attempt or a device, by its id; once whatever it complained about is
corrected. Needs REDIS_URL.")]
pub(super) struct RetryArgs {
    /// Ids, names or addresses; with --dead-letters ids of attempts or devices
    #[arg(required_unless_present_any = ["all_failed", "dead_letters"], value_name = "DEVICE")]
    devices: Vec<String>,
    /// Every device that failed last or is blocked
    #[arg(long, conflicts_with = "devices")]
    all_failed: bool,
    /// Publish again what the outbox of a cluster gave up
    #[arg(long, conflicts_with_all = ["all_failed", "json"])]
    dead_letters: bool,
    /// Print what came of each device as JSON
    #[arg(long)]
    json: bool,
}

/// Backs up now.
pub(super) async fn backup(config: &Config, args: &BackupArgs) -> Result<ExitCode, AppError> {
    if let [target] = args.devices.as_slice()
        && let Some((user, host)) = target.rsplit_once('@')
    {
        if args.json {
            return Err(AppError::Usage(anyhow::anyhow!(
                "--json is for devices of the inventory: user@host prints the export itself"
            )));
        }
        return ad_hoc::backup(config, user, host, &args.ad_hoc).await;
    }
    if args.devices.iter().any(|device| device.contains('@')) {
        return Err(AppError::Usage(anyhow::anyhow!(
            "one router that is not in the inventory at a time: user@host must stand alone"
        )));
    }
    let given = &args.ad_hoc;
    if given.port.is_some()
        || given.secrets.given()
        || given.host_key.is_some()
        || given.output.is_some()
    {
        return Err(AppError::Usage(anyhow::anyhow!(
            "--port, --host-key, --output and the options for a login are for USER@HOST; devices \
             of the inventory have theirs in it"
        )));
    }
    let hand = Hand::open(config, Missing::Refuse).await?;
    let done = async {
        let wanted = if args.all {
            hand.backed_up().await?
        } else if let Some(tenant) = args.tenant {
            let mut wanted = hand.backed_up().await?;
            wanted.retain(|listed| listed.device.tenant.0 == tenant);
            if wanted.is_empty() {
                return Err(AppError::Failed(anyhow::anyhow!(
                    "tenant {tenant} has no device to back up"
                )));
            }
            wanted
        } else {
            named(&hand, &args.devices).await?
        };
        if wanted.is_empty() && !args.json {
            say("there is no device to back up");
        }
        run(config, &hand, wanted, args.json).await
    }
    .await;
    hand.close().await;
    done
}

/// Tries again what failed.
pub(super) async fn retry(config: &Config, args: &RetryArgs) -> Result<ExitCode, AppError> {
    if args.dead_letters {
        return super::dead_letters::put_back(config, &args.devices).await;
    }
    let hand = Hand::open(config, Missing::Refuse).await?;
    let done = async {
        let wanted = if args.all_failed {
            let mut wanted = hand.backed_up().await?;
            wanted.retain(has_failed);
            wanted
        } else {
            named(&hand, &args.devices).await?
        };
        if wanted.is_empty() && !args.json {
            say("nothing has failed");
        }
        run(config, &hand, wanted, args.json).await
    }
    .await;
    hand.close().await;
    done
}

fn has_failed(listed: &Listed) -> bool {
    let last = listed.last.as_ref();
    last.is_some_and(|last| last.failure.is_some() || last.status == Status::Failed)
}

/// The devices that were named, each once.
async fn named(hand: &Hand, names: &[String]) -> Result<Vec<Listed>, AppError> {
    let all = hand.backed_up().await?;
    let mut wanted: Vec<Listed> = Vec::new();
    for name in names {
        let entry = hand.find(name).await?;
        let listed = all.iter().find(|listed| listed.device.id == entry.id);
        let Some(listed) = listed else {
            return Err(AppError::Failed(anyhow::anyhow!(
                "{} is in the inventory, but is not backed up: it has no credentials, or is of \
                 another device_type",
                entry.name
            )));
        };
        if !wanted.iter().any(|known| known.device.id == entry.id) {
            wanted.push(listed.clone());
        }
    }
    Ok(wanted)
}

/// What came of one device.
#[derive(Serialize)]
struct Row {
    device_id: DeviceId,
    name: String,
    #[serde(flatten)]
    backup: Backup,
}

/// Backs up `wanted` and tells of each as soon as it is done, then of all.
async fn run(
    config: &Config,
    hand: &Hand,
    wanted: Vec<Listed>,
    json: bool,
) -> Result<ExitCode, AppError> {
    let total = wanted.len();
    let mut progress = Progress::new(config, total);
    // Where a bar is seen, lines would only push it up; in a file they stay.
    let bar_is_seen = progress.is_some() && std::io::stdout().is_terminal();
    let lines = !json && !bar_is_seen;
    let backups = wanted.iter().map(async |listed| {
        let backup = match hand.back_up(config, listed).await {
            Ok(backup) => backup,
            Err(refused) => Backup::refused(refused.text),
        };
        Row {
            device_id: listed.device.id,
            name: listed.device.name.clone(),
            backup,
        }
    });
    let mut backups = stream::iter(backups).buffer_unordered(hand.width(config));
    let mut rows = Vec::with_capacity(total);
    while let Some(row) = backups.next().await {
        if let Some(progress) = &mut progress {
            progress.done(row.backup.succeeded());
        }
        if lines {
            let number = match total {
                1 => String::new(),
                _ => format!("[{}/{total}] ", rows.len() + 1),
            };
            say(&format!("{number}{}", line(&row)));
        }
        rows.push(row);
    }
    drop(backups);
    drop(progress);
    rows.sort_by(|a, b| (&a.name, a.device_id).cmp(&(&b.name, b.device_id)));
    if json {
        emit_json(&rows)?;
    } else if total > 1 {
        summary(&rows);
    }
    let failed = rows.iter().any(|row| !row.backup.succeeded());
    Ok(if failed {
        ExitCode::from(exit::FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn line(row: &Row) -> String {
    format!("{}: {}", row.name, told(&row.backup))
}

/// What came of it, in a few words.
fn told(backup: &Backup) -> String {
    let what = in_short(backup);
    match &backup.message {
        Some(remark) if backup.succeeded() => format!("{what}; {remark}"),
        _ => what,
    }
}

fn in_short(backup: &Backup) -> String {
    let reason = backup.message.as_deref().unwrap_or("no reason was given");
    match (backup.succeeded(), backup.change) {
        (true, Some(Change::First)) => "backed up for the first time".to_owned(),
        (true, Some(Change::Changed { added, removed })) => {
            format!("changed, +{added} -{removed} lines")
        }
        (true, Some(Change::Unchanged)) => "unchanged".to_owned(),
        (true, None) => "backed up".to_owned(),
        (false, _) => match &backup.error_kind {
            Some(kind) => format!("{}: {kind}: {reason}", backup.status),
            None => format!("{}: {reason}", backup.status),
        },
    }
}

/// How many came to what; then those that changed, and those that failed with why.
fn summary(rows: &[Row]) {
    let number = |holds: fn(&Backup) -> bool| rows.iter().filter(|row| holds(&row.backup)).count();
    let parts = [
        (number(|b| b.change == Some(Change::First)), "new"),
        (number(changed), "changed"),
        (number(|b| b.change == Some(Change::Unchanged)), "unchanged"),
        (number(|b| !b.succeeded()), "failed"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    say("");
    say(&format!(
        "{}: {}",
        count(rows.len(), "device"),
        parts.join(", ")
    ));
    let width = rows.iter().map(|row| row.name.chars().count()).max();
    let width = width.unwrap_or(0).min(40);
    for row in rows.iter().filter(|row| changed(&row.backup)) {
        say(&format!("  {:<width$}  {}", row.name, told(&row.backup)));
    }
    for row in rows.iter().filter(|row| !row.backup.succeeded()) {
        say(&format!("  {:<width$}  {}", row.name, told(&row.backup)));
    }
}

fn changed(backup: &Backup) -> bool {
    matches!(backup.change, Some(Change::Changed { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_a_backup_fits_on_a_line() {
        let mut backup = Backup::refused("no answer".into());
        assert_eq!(told(&backup), "failed: no answer");
        backup.error_kind = Some("timeout".into());
        assert_eq!(told(&backup), "failed: timeout: no answer");
        backup.status = "success".into();
        let (added, removed) = (3, 1);
        backup.change = Some(Change::Changed { added, removed });
        backup.message = Some("incomplete: …".into());
        assert_eq!(told(&backup), "changed, +3 -1 lines; incomplete: …");
        backup.message = None;
        assert_eq!(told(&backup), "changed, +3 -1 lines");
    }
}
