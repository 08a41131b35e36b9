//! `check`: a doctor that takes one router through every step of a backup, shows what it finds at
//! each, and neither stores nor publishes anything.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use tokio::time::Instant;

use super::chart::Chart;
use super::login::SecretArgs;
use super::reading::{only, unreadable};
use crate::adapters::postgres::PostgresStore;
use crate::adapters::sqlite::{OpenError, SqliteStore};
use crate::app::{self, AppError};
use crate::clock::Clock;
use crate::config::{Cluster, Config, Mode};
use crate::credentials::{CredentialError, Credentials, Key, Login, Transit};
use crate::domain::device::{Device, DeviceId, Endpoint};
use crate::domain::failure::{FailureKind, chain};
use crate::domain::host_key::Pin;
use crate::domain::session::{DeviceSettings, MissingMenus};
use crate::fleet::attempt::take_export;
use crate::metrics::Metrics;
use crate::routeros;
use crate::ssh::{self, Host, Session};

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mikrotik-backup check edge-7                     a device of the inventory, its login and pin
  mikrotik-backup check edge-7 --user admin        the same with another login
  mikrotik-backup check 192.0.2.1 --user backup    any router
  mikrotik-backup check 192.0.2.1                  without a login: name, TCP, algorithms, key

With --user the password is asked for, unless an option says where it is.

The target is looked for in the inventory first, that of DATABASE_URL or else of DATA_DIR, if there
is one; the key in DATA_DIR, CREDENTIAL_ENCRYPTION_KEY or OPENBAO_ADDR opens the login that is stored
there. Nothing is stored, published or pinned, no lock is taken, and no secret is printed.

One run is one connection, as a backup is one. As nothing is stored, the service does not know
of it: a router with MikroTik's recipe against brute force, which has just been backed up twice, may
lock this address out. README.md has the rule that accepts it.

Exit code 0 if every step that was tried succeeded, 1 if one failed.")]
pub(super) struct CheckArgs {
    /// A device of the inventory (its id, name or address), or any host name or address
    target: String,
    /// SSH port, instead of the inventory's or 22
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// User to log in as; without it the login is taken from the inventory, or left out
    #[arg(long)]
    user: Option<String>,
    /// File whose first line is the password
    #[arg(
        long,
        value_name = "FILE",
        requires = "user",
        conflicts_with = "password_stdin"
    )]
    password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input
    #[arg(long, requires = "user")]
    password_stdin: bool,
    /// Private key file (OpenSSH or PEM)
    #[arg(long, value_name = "FILE", requires = "user")]
    key_file: Option<PathBuf>,
}

impl CheckArgs {
    fn secrets(&self) -> SecretArgs {
        SecretArgs {
            password_file: self.password_file.clone(),
            password_stdin: self.password_stdin,
            key_file: self.key_file.clone(),
            key_passphrase_file: None,
        }
    }
}

/// What is examined: from the inventory, or as named on the command line.
struct Patient {
    label: String,
    /// Where the inventory has it.
    device: Option<DeviceId>,
    endpoint: Endpoint,
    pin: Pin,
    access: Access,
    version_hint: Option<String>,
    settings: DeviceSettings,
    /// What the operator should know before the first step.
    remark: Option<String>,
}

/// How to log in.
enum Access {
    Login(Login),
    /// The stored credentials cannot be used.
    Unusable(CredentialError),
    /// Nobody said as whom.
    NotGiven,
}

/// Examines one router and prints a line per step.
pub(super) async fn check(config: &Config, args: &CheckArgs) -> Result<ExitCode, AppError> {
    let patient = find(config, args).await?;
    let known = patient.device.map(|device| (device, patient.label.clone()));
    let mut chart = Chart::new(known, config.mode.advice());
    chart.title(&format!("{} ({})", patient.label, patient.endpoint));
    if let Some(remark) = &patient.remark {
        chart.note("inventory", remark);
    }
    examine(config, &patient, &mut chart).await;
    Ok(chart.conclude())
}

/// The steps, each only if the one before succeeded.
async fn examine(config: &Config, patient: &Patient, chart: &mut Chart) {
    let settings = &patient.settings;
    let limit = settings.command_timeout.unwrap_or(config.command_timeout);
    let deadline = Instant::now() + limit;
    let options = ssh::Options {
        connect_timeout: config.connect_timeout,
        max_output: config.max_export_bytes,
        idle_timeout: config.idle_timeout,
        algorithms: settings.ssh_algorithms.unwrap_or(config.ssh_algorithms),
    };
    let dialled = ssh::dial(&patient.endpoint, &patient.pin, deadline, &options).await;
    let host = match dialled {
        Ok(host) => host,
        Err(error) => return chart.fail(error.step(), error.kind(), &chain(&error)),
    };
    show_host(&host, &patient.pin, chart);
    let login = match &patient.access {
        Access::Login(login) => login,
        Access::Unusable(error) => {
            return chart.fail("credentials", error.kind(), &chain(error));
        }
        Access::NotGiven => return chart.leave_out("login", "no user was named (--user)"),
    };
    chart.begin();
    let mut session = match host.authenticate(login).await {
        Ok(session) => session,
        Err(error) => return chart.fail("login", error.kind(), &chain(&error)),
    };
    chart.ok("login", &format!("accepted for user {}", login.username));
    let weak = session.weak_login().map(std::slice::from_ref);
    for told in ssh::remedies(weak.unwrap_or_default()) {
        chart.note("login", &told);
    }
    // First what a backup does, which so has all the time that a backup has.
    let hint = patient.version_hint.as_deref();
    let known = patient.device.is_some();
    show_export(config, &mut session, hint, known, chart).await;
    show_version(&mut session, chart).await;
    session.close().await;
}

fn show_host(host: &Host, pin: &Pin, chart: &mut Chart) {
    let times = host.times();
    chart.timed("resolve", &host.address().ip().to_string(), times.resolve);
    chart.timed("connect", &host.address().to_string(), times.connect);
    let banner = host
        .server_id()
        .unwrap_or_else(|| "(no identification)".to_owned());
    chart.timed("key exchange", &banner, times.key_exchange);
    chart.note("algorithms", &host.negotiated().to_string());
    for told in ssh::remedies(&host.negotiated().weak()) {
        chart.note("algorithms", &told);
    }
    let fingerprint = host.fingerprint();
    match pin {
        Pin::Unpinned => chart.note("host key", &format!("{fingerprint}, nothing is pinned yet")),
        Pin::Pinned(_) | Pin::Unreadable(_) => {
            chart.note("host key", &format!("{fingerprint}, as pinned"));
        }
    }
}

async fn show_version(session: &mut Session, chart: &mut Chart) {
    chart.begin();
    match session.run("/system resource print").await {
        Ok(output) => {
            let text = routeros::decode(&output.stdout);
            match routeros::version_in_resource_print(&text) {
                Some(version) => chart.ok("version", &format!("RouterOS {version}")),
                None => chart.note("version", "not shown by /system resource print"),
            }
        }
        // A backup does not ask for it.
        Err(error) => chart.note("version", &format!("not shown: {}", chain(&error))),
    }
}

async fn show_export(
    config: &Config,
    session: &mut Session,
    version_hint: Option<&str>,
    known: bool,
    chart: &mut Chart,
) {
    chart.begin();
    let export = match take_export(session, version_hint, &config.normalizer).await {
        Ok(export) => export,
        Err(error) => {
            let failure = error.into_failure();
            return chart.fail("export", failure.kind, &failure.message);
        }
    };
    if let Some(gap) = export.gap() {
        let (patience, longest) = (MissingMenus::PATIENCE, MissingMenus::LONGEST);
        let text = format!(
            "{gap}; a backup is taken without what {patience} exports in a row lack, or the last of \
             {longest}, and marked as incomplete; before that it fails"
        );
        return chart.fail("export", FailureKind::TruncatedOutput, &text);
    }
    let normalized = config.normalizer.normalize(&export);
    let (raw, kept) = (export.text.len(), normalized.text.expose().len());
    chart.ok(
        "export",
        &format!(
            "whole: RouterOS {}, {raw} bytes, {} menus; normalised {kept} bytes, sha256 {}",
            export.header.routeros_version,
            normalized.shape.different_menus(),
            normalized.hash
        ),
    );
    if normalized.shape.secrets == 0 {
        chart.note(
            "policy",
            "the export holds no secret values: if the router has any, the user's group lacks the \
             `sensitive` policy and a restore would lose them",
        );
    }
    for menu in &export.unavailable_menus {
        chart.note("export", &format!("the router could not export {menu}"));
    }
    let doubt = routeros::suspicion_of_first((&normalized).into());
    if let Some(doubt) = doubt.as_ref().or(export.doubt.as_deref()) {
        chart.note("export", &format!("a backup would read it twice: {doubt}"));
    }
    for comment in &normalized.unknown_comments {
        chart.note(
            "export",
            &format!("state comment that no rule knows, kept: {comment}"),
        );
    }
    if known {
        chart.note(
            "export",
            "not compared with the last good one: where it looks cut beside that, a backup reads it \
             again, and takes what is equal",
        );
    }
}

/// Finds what to examine; a target that the inventory does not know is taken as a host.
async fn find(config: &Config, args: &CheckArgs) -> Result<Patient, AppError> {
    let inventory = match &config.mode {
        Mode::Cluster(cluster) => Inventory {
            asked: true,
            found: look_up(cluster, &config.replica, &args.target).await?,
            key: cluster.key().ok().cloned(),
        },
        Mode::Embedded { data_dir, key } => Inventory::in_folder(data_dir, key, args).await?,
    };
    let Inventory { asked, found, key } = inventory;
    let device = only(&args.target, found, |device| {
        format!("{} ({})", device.id, device.endpoint)
    })?;
    let credentials = Credentials::new(key).with_transit(transit(config)?);
    let access = match (&args.user, &device) {
        (Some(user), _) => Access::Login(args.secrets().read(user).map_err(AppError::Failed)?),
        (None, Some(device)) => match credentials.open(device).await {
            Ok(login) => Access::Login(login),
            Err(error) => Access::Unusable(error),
        },
        (None, None) => Access::NotGiven,
    };
    Ok(match device {
        Some(device) => Patient {
            label: device.name.clone(),
            device: Some(device.id),
            endpoint: Endpoint {
                port: args.port.map_or(device.endpoint.port, i32::from),
                ..device.endpoint
            },
            pin: device.pin,
            access,
            version_hint: device.routeros_version,
            settings: device.settings,
            remark: None,
        },
        None => Patient {
            label: args.target.clone(),
            device: None,
            endpoint: Endpoint {
                host: args.target.clone(),
                port: i32::from(args.port.unwrap_or(22)),
            },
            pin: Pin::Unpinned,
            access,
            version_hint: None,
            settings: DeviceSettings::default(),
            remark: asked.then(|| {
                "no device has this id, name or address (one without credentials, or of another \
                 device_type, is not ours); taken as a host"
                    .to_owned()
            }),
        },
    })
}

/// What opens Transit ciphertexts, for a command.
pub(super) fn transit(config: &Config) -> Result<Option<Arc<Transit>>, AppError> {
    let metrics = Metrics::new().map_err(|error| AppError::Failed(error.into()))?;
    app::transit(config, &Arc::new(metrics))
}

/// What the inventory says of a target.
struct Inventory {
    /// Whether there is one.
    asked: bool,
    found: Vec<Device>,
    /// What opens its credentials.
    key: Option<Key>,
}

impl Inventory {
    /// That of embedded mode; a folder without a store has none, and none is made.
    async fn in_folder(
        data_dir: &Path,
        given: &Option<Key>,
        args: &CheckArgs,
    ) -> Result<Self, AppError> {
        const INSTEAD: &str = "the inventory in DATA_DIR cannot be read; with DATA_DIR set to a \
                               directory without a store any host can be examined, with --user";
        let wrong = |error: OpenError| {
            let error = anyhow::Error::from(error).context(INSTEAD);
            AppError::Configuration(error)
        };
        let store = match SqliteStore::open_reading(data_dir, Clock::System).await {
            Ok(store) => store,
            Err(OpenError::Missing { .. }) => {
                return Ok(Self {
                    asked: false,
                    found: Vec::new(),
                    key: None,
                });
            }
            Err(error) => return Err(wrong(error)),
        };
        let found = store.find(&args.target).await.map_err(unreadable);
        // A login that is named needs no key.
        let key = match (&found, &args.user) {
            (Ok(found), None) if !found.is_empty() => {
                let key = store.unlock(given.clone()).await;
                key.map(Some)
                    .map_err(|error| AppError::Configuration(error.into()))
            }
            _ => Ok(None),
        };
        store.close().await;
        Ok(Self {
            asked: true,
            found: found?,
            key: key?,
        })
    }
}

/// The devices of the shared inventory that `target` may mean.
async fn look_up(cluster: &Cluster, replica: &str, target: &str) -> Result<Vec<Device>, AppError> {
    let store = PostgresStore::connect(&cluster.database_url, Clock::System, replica)
        .map_err(|error| AppError::Configuration(error.into()))?;
    let found = store
        .find(target)
        .await
        .context(
            "the inventory cannot be read; without DATABASE_URL any host can be examined, with \
             --user",
        )
        .map_err(AppError::Failed)?;
    store.close().await;
    Ok(found)
}
