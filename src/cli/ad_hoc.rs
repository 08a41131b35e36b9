//! `backup user@host`: the export of a router that is not in the inventory.

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::time::Instant;

use super::backup::AdHocArgs;
use super::{complain, exit, printable};
use crate::adapters::sqlite::{ListDevices, SqliteStore};
use crate::app::AppError;
use crate::clock::Clock;
use crate::config::{Config, Mode};
use crate::control::client::Client;
use crate::domain::device::Endpoint;
use crate::domain::failure::chain;
use crate::domain::host_key::Pin;
use crate::fleet::attempt::take_export;
use crate::routeros;
use crate::ssh::{self, Host};

/// Takes the export and prints it, or writes it to a file. Nothing else is stored.
pub(super) async fn backup(
    config: &Config,
    user: &str,
    host: &str,
    args: &AdHocArgs,
) -> Result<ExitCode, AppError> {
    let endpoint = Endpoint {
        host: host.to_owned(),
        port: i32::from(args.port.unwrap_or(22)),
    };
    // An IPv6 address has colons; a name or an IPv4 address with one has a port behind it.
    let with_port = host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err();
    if with_port || endpoint.target().is_err() {
        return Err(AppError::Usage(anyhow::anyhow!(
            "{host:?} is no IP address or DNS name; a port goes into --port"
        )));
    }
    leave_to_the_service(config, &endpoint).await?;
    match take(config, user, &endpoint, args).await {
        Ok(text) => deliver(&text, args.output.as_deref()).map_err(failed),
        Err(error) => {
            complain(&format!("{endpoint}: {error:#}"));
            Ok(ExitCode::from(exit::FAILED))
        }
    }
}

/// A router that a running service backs up is left to it: two processes never talk to one router.
async fn leave_to_the_service(config: &Config, endpoint: &Endpoint) -> Result<(), AppError> {
    let Mode::Embedded { data_dir, .. } = &config.mode else {
        return Ok(());
    };
    if !matches!(Client::find(data_dir).await, Ok(Some(_))) {
        return Ok(());
    }
    let store = SqliteStore::open_reading(data_dir, Clock::System).await;
    let store = store.map_err(|error| AppError::Configuration(error.into()))?;
    let wanted = ListDevices {
        named: Some(endpoint.host.clone()),
        ..ListDevices::default()
    };
    let listed = store.list(&wanted).await.map_err(failed)?;
    store.close().await;
    match listed.iter().find(|device| device.endpoint == *endpoint) {
        Some(device) => Err(failed(anyhow::anyhow!(
            "{endpoint} is device {name} of the running service; `mikrotik-backup backup {name}` \
             asks it",
            name = device.name
        ))),
        None => Ok(()),
    }
}

async fn take(
    config: &Config,
    user: &str,
    endpoint: &Endpoint,
    args: &AdHocArgs,
) -> anyhow::Result<String> {
    let options = ssh::Options {
        connect_timeout: config.connect_timeout,
        max_output: config.max_export_bytes,
        idle_timeout: config.idle_timeout,
        algorithms: config.ssh_algorithms,
    };
    let pin = args.host_key.clone().map_or(Pin::Unpinned, Pin::Pinned);
    let dial = async |pin: Pin| {
        let deadline = Instant::now() + config.command_timeout;
        ssh::dial(endpoint, &pin, deadline, &options).await
    };
    let show = |host: &Host| complain(&format!("{endpoint} has host key {}", host.fingerprint()));
    let (login, host) = if args.secrets.is_asked_for() && pin == Pin::Unpinned {
        // Who types the password decides by the key. A router does not wait for that long, so it is
        // dialled anew, and must show the same key.
        let first = dial(pin).await.map_err(told)?;
        show(&first);
        let seen = Pin::Pinned(first.fingerprint().clone());
        drop(first);
        let login = args.secrets.read(user)?;
        (login, dial(seen).await.map_err(told)?)
    } else {
        // Each connection counts for a router with a recipe against brute force.
        let login = args.secrets.read(user)?;
        let host = dial(pin).await.map_err(told)?;
        show(&host);
        (login, host)
    };
    let mut session = host.authenticate(&login).await.map_err(told)?;
    let export = take_export(&mut session, None, &config.normalizer)
        .await
        .map_err(|error| anyhow::anyhow!(error.into_failure().message))?;
    session.close().await;
    if let Some(gap) = export.gap() {
        anyhow::bail!("{gap}; try again when it is less busy");
    }
    if let Some(doubt) = &export.doubt {
        complain(&format!(
            "{endpoint}: {doubt}; export it again, and compare"
        ));
    }
    Ok(config
        .normalizer
        .normalize(&export)
        .text
        .expose()
        .to_owned())
}

fn told(error: ssh::SshError) -> anyhow::Error {
    anyhow::anyhow!("{}: {}", error.kind(), chain(&error))
}

fn deliver(text: &str, output: Option<&Path>) -> anyhow::Result<ExitCode> {
    let Some(file) = output else {
        let mut stdout = std::io::stdout();
        if stdout.is_terminal() {
            // A router must not steer the terminal that its export is shown on.
            for line in routeros::redact(text).lines() {
                let _ = writeln!(stdout, "{}", printable(line));
            }
            complain("secrets are masked on a terminal; --output FILE writes the whole export");
        } else {
            stdout
                .write_all(&routeros::encode(text))
                .context("failed to print the export")?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    // Never over a file that is there: it may be open to others, or another router's.
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(&routeros::encode(text)));
    written.with_context(|| {
        let file = file.display();
        format!("failed to write {file}; it must be a new file in a directory you may write")
    })?;
    complain(&format!("written to {}", file.display()));
    Ok(ExitCode::SUCCESS)
}

fn failed(error: impl Into<anyhow::Error>) -> AppError {
    AppError::Failed(error.into())
}
