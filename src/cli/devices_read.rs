//! `devices list`, `show` and `export`: the inventory as it is, with what is known of each device.

mod export;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use uuid::Uuid;

use super::output::{colored, emit, emit_json};
use super::reading::{Inventory, Reading, unreadable, walk};
use crate::adapters::sqlite::{DeviceEntry, ListDevices};
use crate::app::AppError;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::Timestamp;
use crate::domain::device::{Device, DeviceId, TenantId};
use crate::domain::session::{DeviceSettings, SshAlgorithms};
use crate::ports::DeviceStatus;
use crate::report::{Condition, Failed, RemarkKind, ago, printable, render_failed, table};

/// The subcommands of `devices` that change nothing.
#[derive(Debug, Subcommand)]
pub(super) enum Devices {
    /// List the devices by name, with the condition that each is in
    #[command(after_help = "Examples:
  mikrotik-backup devices list
  mikrotik-backup devices list --group core --json

With DATABASE_URL these are the devices that are backed up; one without credentials, or of another
device_type, is the platform's alone.")]
    List(ListArgs),
    /// Show one device and its state; never its credentials
    Show(ShowArgs),
    /// Write the devices as CSV, in the form that `devices import` reads
    #[command(after_help = "Examples:
  mikrotik-backup devices export > devices.csv
  mikrotik-backup devices export --secrets --output devices.csv

User names come from the stored credentials. With --secrets the file, which only you can read,
also holds every password and private key in clear text.")]
    Export(export::ExportArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only those of this tenant
    #[arg(long, value_name = "ID")]
    tenant: Option<Uuid>,
    /// Only those of this group (embedded mode)
    #[arg(long)]
    group: Option<String>,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Begin after the device of this name
    #[arg(long, value_name = "NAME")]
    after: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// A device: its id, name or address
    device: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs one of them.
pub(super) async fn devices(config: &Config, command: &Devices) -> Result<ExitCode, AppError> {
    let reading = Reading::open(config).await?;
    let done = match command {
        Devices::List(args) => list(config, &reading, args).await,
        Devices::Show(args) => show(config, &reading, args).await,
        Devices::Export(args) => export::export(config, &reading, args).await,
    };
    reading.close().await;
    done
}

/// A device as lists show it.
#[derive(Serialize)]
struct Entry {
    id: DeviceId,
    name: String,
    tenant: TenantId,
    address: String,
    /// Embedded mode only.
    group: Option<String>,
    tags: Vec<String>,
    routeros_version: Option<String>,
    host_key: Option<String>,
    /// None for a device that is not backed up: without credentials, or of another type.
    condition: Option<Condition>,
    #[serde(with = "time::serde::rfc3339::option")]
    last_success_at: Option<Timestamp>,
    #[serde(with = "time::serde::rfc3339::option")]
    last_attempt_at: Option<Timestamp>,
    /// Seconds; none means the service's.
    command_timeout_seconds: Option<u64>,
    /// None means the service's.
    ssh_algorithms: Option<&'static str>,
    /// Menus that are missing in the last good export.
    incomplete_menus: Vec<String>,
    /// What was odd about the last good export.
    warning: Option<String>,
    /// Weak algorithms of the last key exchange and login.
    weak_ssh: Vec<String>,
    /// What these three come to, in the list.
    #[serde(skip)]
    remarks: String,
}

impl Entry {
    fn of(status: &DeviceStatus, interval: Duration, now: Timestamp) -> Self {
        let Device {
            id,
            tenant,
            name,
            endpoint,
            pin,
            routeros_version,
            settings,
            ..
        } = &status.device;
        let last = status.last.as_ref();
        Self {
            id: *id,
            name: name.clone(),
            tenant: *tenant,
            address: endpoint.to_string(),
            group: None,
            tags: Vec::new(),
            routeros_version: routeros_version.clone(),
            host_key: pin.as_column().map(str::to_owned),
            condition: Some(Condition::of(status, interval, now)),
            last_success_at: last.and_then(|last| last.last_success_at),
            last_attempt_at: last.map(|last| last.started_at),
            command_timeout_seconds: seconds(settings),
            ssh_algorithms: settings.ssh_algorithms.map(SshAlgorithms::as_str),
            incomplete_menus: status.incomplete_menus.clone(),
            warning: status.warning.clone(),
            weak_ssh: status.weak_ssh.clone(),
            remarks: RemarkKind::of(status)
                .map(RemarkKind::word)
                .collect::<Vec<_>>()
                .join(", "),
        }
    }

    /// One that is not backed up.
    fn idle(entry: DeviceEntry) -> Self {
        Self {
            id: entry.id,
            name: entry.name,
            tenant: entry.tenant,
            address: entry.endpoint.to_string(),
            group: entry.group,
            tags: entry.tags,
            routeros_version: entry.routeros_version,
            host_key: entry.pin.as_column().map(str::to_owned),
            condition: None,
            last_success_at: None,
            last_attempt_at: None,
            command_timeout_seconds: seconds(&entry.settings),
            ssh_algorithms: entry.settings.ssh_algorithms.map(SshAlgorithms::as_str),
            incomplete_menus: Vec::new(),
            warning: None,
            weak_ssh: Vec::new(),
            remarks: String::new(),
        }
    }

    fn row(&self, now: Timestamp) -> Vec<String> {
        let text = |text: Option<&str>| printable(text.unwrap_or("-")).into_owned();
        vec![
            text(Some(&self.name)),
            text(Some(&self.address)),
            text(Some(
                self.condition.map_or("not backed up", Condition::as_str),
            )),
            self.last_success_at
                .map_or_else(|| "-".into(), |at| ago(at, now)),
            text(self.routeros_version.as_deref()),
            text(self.group.as_deref()),
            self.id.to_string(),
            self.remarks.clone(),
        ]
    }
}

fn seconds(settings: &DeviceSettings) -> Option<u64> {
    settings.command_timeout.map(|timeout| timeout.as_secs())
}

/// Everything of the inventory, by name.
async fn entries(config: &Config, reading: &Reading) -> Result<Vec<Entry>, AppError> {
    let now = Clock::System.now();
    let mut entries = BTreeMap::new();
    walk(reading.store(), false, |status| {
        entries.insert(status.device.id, Entry::of(status, config.interval, now));
    })
    .await?;
    for listed in embedded(reading).await? {
        match entries.get_mut(&listed.id) {
            Some(entry) => (entry.group, entry.tags) = (listed.group, listed.tags),
            None => drop(entries.insert(listed.id, Entry::idle(listed))),
        }
    }
    let mut entries: Vec<_> = entries.into_values().collect();
    entries.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(entries)
}

/// What only embedded mode keeps of devices; nothing for a shared database.
async fn embedded(reading: &Reading) -> Result<Vec<DeviceEntry>, AppError> {
    let Inventory::Embedded(store) = &reading.inventory else {
        return Ok(Vec::new());
    };
    let mut all: Vec<DeviceEntry> = Vec::new();
    loop {
        let page = ListDevices {
            after: all.last().map(|last| (last.name.clone(), last.id)),
            limit: ListDevices::MAX,
            ..ListDevices::default()
        };
        let read = store.list(&page).await.map_err(unreadable)?;
        let done = read.is_empty();
        all.extend(read);
        if done {
            return Ok(all);
        }
    }
}

async fn list(config: &Config, reading: &Reading, args: &ListArgs) -> Result<ExitCode, AppError> {
    let mut entries = entries(config, reading).await?;
    entries.retain(|entry| {
        args.tenant.is_none_or(|tenant| entry.tenant.0 == tenant)
            && (args.group.is_none() || entry.group == args.group)
            && args.after.as_ref().is_none_or(|after| entry.name > *after)
    });
    let left_out = entries.len().saturating_sub(usize::from(args.limit));
    entries.truncate(usize::from(args.limit));
    if args.json {
        return emit_json(&entries);
    }
    if entries.is_empty() {
        return Ok(emit("no devices\n"));
    }
    let head = [
        "NAME",
        "ADDRESS",
        "STATE",
        "LAST SUCCESS",
        "ROUTEROS",
        "GROUP",
        "ID",
        "REMARKS",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let now = Clock::System.now();
    rows.extend(entries.iter().map(|entry| entry.row(now)));
    let mut text = table(&rows).join("\n") + "\n";
    if let Some(last) = entries.last().filter(|_| left_out > 0) {
        let name = printable(&last.name);
        text.push_str(&format!(
            "and {left_out} more: --limit, or --after {name}\n"
        ));
    }
    Ok(emit(&text))
}

async fn show(config: &Config, reading: &Reading, args: &ShowArgs) -> Result<ExitCode, AppError> {
    let device = reading.device(&args.device).await;
    let all = entries(config, reading).await?;
    // One that is not backed up is found by its exact name or id only.
    let entry = match device {
        Ok(device) => all.into_iter().find(|entry| entry.id == device.id),
        Err(error) => {
            let wanted =
                |entry: &Entry| entry.name == args.device || entry.id.to_string() == args.device;
            let mut idle = all
                .into_iter()
                .filter(|it| it.condition.is_none() && wanted(it));
            Some(idle.next().ok_or(error)?)
        }
    };
    let Some(entry) = entry else {
        return Ok(emit("the device has just been removed\n"));
    };
    if args.json {
        return emit_json(&entry);
    }
    let now = Clock::System.now();
    let text = |text: Option<&str>| printable(text.unwrap_or("-")).into_owned();
    let mut rows = vec![
        ("name", text(Some(&entry.name))),
        ("id", entry.id.to_string()),
        ("tenant", entry.tenant.to_string()),
        ("address", text(Some(&entry.address))),
        ("group", text(entry.group.as_deref())),
        ("tags", text(Some(&entry.tags.join(", ")))),
        ("RouterOS", text(entry.routeros_version.as_deref())),
        ("host key", text(entry.host_key.as_deref())),
    ];
    let condition = entry.condition.map_or("not backed up", Condition::as_str);
    rows.push(("state", condition.to_owned()));
    if let Some(at) = entry.last_success_at {
        rows.push(("last success", ago(at, now)));
    }
    if let Some(seconds) = entry.command_timeout_seconds {
        rows.push(("command timeout", format!("{seconds} s")));
    }
    rows.push(("SSH algorithms", text(entry.ssh_algorithms)));
    let menus = entry.incomplete_menus.join(", ");
    rows.push(("incomplete", text(Some(&menus))));
    rows.push(("warning", text(entry.warning.as_deref())));
    if !entry.weak_ssh.is_empty() {
        // The setting above may have been changed since.
        let weak = format!("{}, in the last session", entry.weak_ssh.join(", "));
        rows.push(("weak SSH", text(Some(&weak))));
    }
    let rows: Vec<_> = rows
        .into_iter()
        .filter(|(_, value)| !value.is_empty() && value != "-")
        .map(|(label, value)| vec![label.to_owned(), value])
        .collect();
    let mut shown = table(&rows).join("\n") + "\n";
    let mut failed = Vec::new();
    walk(reading.store(), true, |status| {
        if status.device.id == entry.id {
            failed.extend(Failed::of(status, reading.advice()));
        }
    })
    .await?;
    if !failed.is_empty() {
        shown.push('\n');
        shown.push_str(&render_failed(&failed, now, colored(config)));
    }
    Ok(emit(&shown))
}
