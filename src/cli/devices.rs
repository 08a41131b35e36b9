//! `devices`: `add`, `edit`, `remove` and `import` of embedded mode; what only reads is beside.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::hand::{Hand, Missing, Refused};
use super::login::{SecretArgs, read_key};
use super::output::say;
use super::{complain, devices_read};
use crate::adapters::sqlite::{DEFAULT_TENANT, NewDevice};
use crate::app::AppError;
use crate::config::Config;
use crate::control::wire::{DeviceBody, EditBody, LoginBody};
use crate::credentials::Login;
use crate::domain::device::TenantId;
use crate::domain::session::{DeviceSettings, SshAlgorithms};
use crate::import::{self, CSV_FORMAT, Import, ImportedDevice, PrivateKey};
use crate::report::count;

/// The subcommands of `devices`.
#[derive(Debug, Subcommand)]
pub(super) enum Devices {
    /// Add a router
    Add(AddArgs),
    /// Change a router's name, address, login …; a new login lifts a block of a refused one
    Edit(EditArgs),
    /// Remove a router; what is stored of it stays until it is pruned
    Remove(RemoveArgs),
    /// Add the routers of a CSV file, or of an Oxidized installation: all of them, or none
    Import(ImportArgs),
    /// What only reads.
    #[command(flatten)]
    Read(devices_read::Devices),
}

/// Arguments of `devices add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup devices add edge-1 192.0.2.1 --user backup
  mikrotik-backup devices add edge-2 192.0.2.2 --user backup --password-file secret.txt
  mikrotik-backup devices add edge-3 edge-3.example.net --port 2222 --user backup --key-file id

The password is asked for, unless an option says where it is. A running service is told, and backs
the router up soon; without one, `mikrotik-backup backup NAME` does it now.")]
pub(super) struct AddArgs {
    /// Its name, unique within the tenant
    name: String,
    /// IPv4 address, IPv6 address or DNS name
    address: String,
    /// SSH port [default: 22]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// User on the router
    #[arg(long, default_value = "admin")]
    user: String,
    #[command(flatten)]
    secrets: SecretArgs,
    /// Whose it is
    #[arg(long, value_name = "UUID")]
    tenant: Option<Uuid>,
    /// A group, for lists
    #[arg(long)]
    group: Option<String>,
    /// A word to find it by; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Seconds for one whole session, instead of CONFIG_BACKUP_COMMAND_TIMEOUT
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    command_timeout: Option<u32>,
    /// What may be offered to it, instead of SSH_ALGORITHMS: modern or compatible
    #[arg(long, value_name = "WHICH", value_parser = algorithms)]
    ssh_algorithms: Option<SshAlgorithms>,
}

/// Arguments of `devices edit`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup devices edit edge-1 --address 192.0.2.9
  mikrotik-backup devices edit edge-1 --user backup --password-file secret.txt

A new login is a user and a secret: without --password-file, --password-stdin or --key-file the
password is asked for.")]
pub(super) struct EditArgs {
    /// Its id, name or address
    device: String,
    /// A new name
    #[arg(long)]
    name: Option<String>,
    /// A new address
    #[arg(long)]
    address: Option<String>,
    /// A new SSH port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The user of a new login
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    secrets: SecretArgs,
    /// A new owner
    #[arg(long, value_name = "UUID")]
    tenant: Option<Uuid>,
    /// A new group; an empty one is none
    #[arg(long)]
    group: Option<String>,
    /// A tag; those given replace all that were there
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Seconds for one whole session; `default` is CONFIG_BACKUP_COMMAND_TIMEOUT
    #[arg(long, value_name = "SECONDS", value_parser = timeout_or_default)]
    command_timeout: Option<OrDefault<u32>>,
    /// What may be offered to it: modern or compatible; `default` is SSH_ALGORITHMS
    #[arg(long, value_name = "WHICH", value_parser = algorithms_or_default)]
    ssh_algorithms: Option<OrDefault<SshAlgorithms>>,
    /// You have looked at the warning of its last backup: it goes
    #[arg(long)]
    warning_seen: bool,
}

/// A value of an option, or back to the service's own.
#[derive(Clone, Copy, Debug)]
struct OrDefault<T>(Option<T>);

fn algorithms(text: &str) -> Result<SshAlgorithms, String> {
    SshAlgorithms::from_name(text)
        .ok_or_else(|| format!("one of {}", SshAlgorithms::NAMES.join(", ")))
}

fn algorithms_or_default(text: &str) -> Result<OrDefault<SshAlgorithms>, String> {
    match text {
        "default" => Ok(OrDefault(None)),
        text => algorithms(text).map(|algorithms| OrDefault(Some(algorithms))),
    }
}

fn timeout_or_default(text: &str) -> Result<OrDefault<u32>, String> {
    if text == "default" {
        return Ok(OrDefault(None));
    }
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds: &u32| (1..=DeviceSettings::LONGEST_TIMEOUT).contains(seconds));
    seconds
        .map(|seconds| OrDefault(Some(seconds)))
        .ok_or_else(|| {
            format!(
                "seconds from 1 to {}, or default",
                DeviceSettings::LONGEST_TIMEOUT
            )
        })
}

/// Arguments of `devices remove`.
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Their ids, names or addresses
    #[arg(required = true)]
    devices: Vec<String>,
}

/// Arguments of `devices import`.
#[derive(Debug, Args)]
#[command(after_help = after_import())]
pub(super) struct ImportArgs {
    /// The CSV file, or Oxidized's router.db with --oxidized-config
    file: Option<PathBuf>,
    /// Oxidized's `config`, which says how its router.db is read
    #[arg(long, value_name = "FILE")]
    oxidized_config: Option<PathBuf>,
    /// Say what would be imported, and import nothing
    #[arg(long)]
    dry_run: bool,
}

fn after_import() -> String {
    format!(
        "Examples:\n  mikrotik-backup devices import routers.csv\n  mikrotik-backup devices import \
         --oxidized-config ~/.config/oxidized/config\n\n{CSV_FORMAT}"
    )
}

/// Runs a subcommand of `devices`.
pub(super) async fn devices(config: &Config, command: Devices) -> Result<ExitCode, AppError> {
    match command {
        Devices::Add(args) => add(config, args).await,
        Devices::Edit(args) => edit(config, args).await,
        Devices::Remove(args) => remove(config, &args).await,
        Devices::Import(args) => import(config, &args).await,
        Devices::Read(command) => devices_read::devices(config, &command).await,
    }
}

async fn add(config: &Config, args: AddArgs) -> Result<ExitCode, AppError> {
    // Before the store is taken: a prompt may stand for long.
    let login = args.secrets.read(&args.user).map_err(AppError::Failed)?;
    let device = NewDevice {
        tenant: args.tenant.map_or(DEFAULT_TENANT, TenantId),
        name: args.name,
        address: args.address,
        port: args.port,
        group: args.group,
        tags: args.tags,
        settings: DeviceSettings {
            command_timeout: args
                .command_timeout
                .map(|seconds| Duration::from_secs(seconds.into())),
            ssh_algorithms: args.ssh_algorithms,
        },
        host_key: None,
        login,
    };
    let name = device.name.clone();
    let hand = Hand::open(config, Missing::Create).await?;
    let added = hand.add(vec![device.into()]).await;
    hand.close().await;
    let id = added?.first().map(ToString::to_string).unwrap_or_default();
    say(&format!("added {name} ({id})"));
    Ok(ExitCode::SUCCESS)
}

async fn edit(config: &Config, args: EditArgs) -> Result<ExitCode, AppError> {
    let login = match (&args.user, args.secrets.given()) {
        (Some(user), _) => Some(args.secrets.read(user).map_err(AppError::Failed)?),
        (None, true) => {
            return Err(AppError::Usage(anyhow::anyhow!(
                "a new password or key needs --user, too: the two are stored together"
            )));
        }
        (None, false) => None,
    };
    let edit = EditBody {
        tenant: args.tenant,
        name: args.name,
        address: args.address,
        port: args.port.map(Some),
        group: args.group.map(|group| (!group.is_empty()).then_some(group)),
        tags: (!args.tags.is_empty()).then_some(args.tags),
        command_timeout: args.command_timeout.map(|timeout| timeout.0),
        ssh_algorithms: args.ssh_algorithms.map(|algorithms| algorithms.0),
        login: login.map(LoginBody::from),
        warning_seen: args.warning_seen,
    };
    if edit.is_empty() {
        return Err(AppError::Usage(anyhow::anyhow!(
            "there is nothing to change: say what, as in `devices edit {} --address 192.0.2.9`",
            args.device
        )));
    }
    let hand = Hand::open(config, Missing::Refuse).await?;
    let edited = async {
        let device = hand.find(&args.device).await?;
        hand.edit(device.id, edit).await?;
        Ok::<_, AppError>(device)
    }
    .await;
    hand.close().await;
    say(&format!("edited {}", edited?.name));
    Ok(ExitCode::SUCCESS)
}

async fn remove(config: &Config, args: &RemoveArgs) -> Result<ExitCode, AppError> {
    let hand = Hand::open(config, Missing::Refuse).await?;
    let removed = async {
        // All of them are found before the first goes: a mistyped one removes nothing.
        let mut found = Vec::new();
        for device in &args.devices {
            found.push(hand.find(device).await?);
        }
        for device in &found {
            hand.remove(device.id).await?;
            say(&format!("removed {} ({})", device.name, device.id));
        }
        Ok::<_, AppError>(())
    }
    .await;
    hand.close().await;
    removed.map(|()| ExitCode::SUCCESS)
}

async fn import(config: &Config, args: &ImportArgs) -> Result<ExitCode, AppError> {
    let import = read_import(args).map_err(AppError::Failed)?;
    for finding in &import.notes {
        complain(&finding.to_string());
    }
    for skipped in &import.skipped {
        complain(&skipped.to_string());
    }
    let mut problems: Vec<String> = import.problems.iter().map(ToString::to_string).collect();
    let mut bodies = Vec::new();
    for device in &import.devices {
        match new_device(device) {
            Ok(device) => bodies.push(DeviceBody::from(device)),
            Err(error) => problems.push(format!("line {}: {error:#}", device.line)),
        }
    }
    if !problems.is_empty() {
        for problem in &problems {
            complain(problem);
        }
        return Err(AppError::Failed(anyhow::anyhow!(
            "nothing was imported: {} to correct",
            count(problems.len(), "problem")
        )));
    }
    let what = count(bodies.len(), "device");
    let skipped = match import.skipped.len() {
        0 => String::new(),
        skipped => format!(", {skipped} skipped"),
    };
    if args.dry_run || bodies.is_empty() {
        say(&format!("{what} to import{skipped}"));
        return Ok(ExitCode::SUCCESS);
    }
    let hand = Hand::open(config, Missing::Create).await?;
    let added = hand.add(bodies).await;
    hand.close().await;
    added.map_err(|refused| not_imported(&import.devices, refused))?;
    say(&format!("imported {what}{skipped}"));
    Ok(ExitCode::SUCCESS)
}

fn not_imported(devices: &[ImportedDevice], refused: Refused) -> AppError {
    let line = refused.index.and_then(|index| devices.get(index));
    let line = line.map_or_else(String::new, |device| format!("line {}: ", device.line));
    AppError::Failed(anyhow::anyhow!(
        "nothing was imported: {line}{}",
        refused.text
    ))
}

fn read_import(args: &ImportArgs) -> anyhow::Result<Import> {
    let read = |file: &Path| {
        std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))
    };
    let Some(config) = &args.oxidized_config else {
        let file = args.file.as_ref();
        let file =
            file.context("name the CSV file, or Oxidized's config with --oxidized-config")?;
        return Ok(import::from_csv(&read(file)?));
    };
    let text = String::from_utf8(read(config)?)
        .with_context(|| format!("{} is not UTF-8", config.display()))?;
    let router_db = match &args.file {
        Some(file) => file.clone(),
        None => match import::router_db_path(&text) {
            Ok(path) => expand(path.as_deref().unwrap_or("~/.config/oxidized/router.db"))?,
            Err(problems) => {
                return Ok(Import {
                    problems,
                    ..Import::default()
                });
            }
        },
    };
    Ok(import::from_oxidized(&text, &read(&router_db)?))
}

/// The device to store; its key is read from where the file says it is.
fn new_device(device: &ImportedDevice) -> anyhow::Result<NewDevice> {
    let tenant = match &device.tenant {
        None => DEFAULT_TENANT,
        Some(tenant) => TenantId(
            tenant
                .parse()
                .context("the tenant is not a UUID, as embedded mode needs it")?,
        ),
    };
    anyhow::ensure!(
        device.has_login(),
        "there is no username with a password or a private key"
    );
    let private_key = match &device.private_key {
        None => None,
        Some(PrivateKey::Text(key)) => Some(key.clone()),
        Some(PrivateKey::File(file)) => Some(read_key(&expand(file)?)?),
    };
    Ok(NewDevice {
        tenant,
        name: device.name.clone(),
        address: device.address.clone(),
        port: (device.port != 22).then_some(device.port),
        group: device.group.clone(),
        tags: device.tags.clone(),
        settings: device.settings,
        host_key: device.host_key.clone(),
        login: Login {
            username: device.username.clone().unwrap_or_default(),
            password: device.password.clone(),
            private_key,
            private_key_passphrase: device.private_key_passphrase.clone(),
        },
    })
}

/// `path` with a leading `~` as the home of whoever runs this.
fn expand(path: &str) -> anyhow::Result<PathBuf> {
    let Some(rest) = path.strip_prefix("~/") else {
        return Ok(path.into());
    };
    let home = std::env::home_dir().context("there is no home directory to look in for ~")?;
    Ok(home.join(rest))
}
