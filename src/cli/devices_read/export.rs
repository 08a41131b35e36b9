//! `devices export`: the inventory as CSV, with its secrets only where they are asked for.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use secrecy::ExposeSecret as _;

use super::embedded;
use crate::adapters::sqlite::DEFAULT_TENANT;
use crate::app::AppError;
use crate::cli::complain;
use crate::cli::output::emit;
use crate::cli::reading::{Inventory, Reading, walk};
use crate::config::Config;
use crate::credentials::Credentials;
use crate::domain::failure::chain;
use crate::domain::host_key::Pin;
use crate::import::{ImportedDevice, PrivateKey, Secrets, to_csv};

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// The file to write, for you alone; it must not exist yet
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// With passwords and keys in clear text
    #[arg(long, requires = "output")]
    secrets: bool,
}

pub(super) async fn export(
    config: &Config,
    reading: &Reading,
    args: &ExportArgs,
) -> Result<ExitCode, AppError> {
    let credentials = Credentials::new(reading.key().await?);
    let credentials = credentials.with_transit(crate::cli::check::transit(config)?);
    let mut devices = Vec::new();
    walk(reading.store(), false, |status| {
        devices.push(status.device.clone())
    })
    .await?;
    devices.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    let listed = embedded(reading).await?;
    let mut labels: BTreeMap<_, _> = listed
        .into_iter()
        .map(|it| (it.id, (it.group, it.tags)))
        .collect();
    let mut rows = Vec::new();
    for (index, device) in devices.into_iter().enumerate() {
        let login = match credentials.open(&device).await {
            Ok(login) => Some(login),
            Err(error) => {
                complain(&format!(
                    "{} is written without a login: {}",
                    device.name,
                    chain(&error)
                ));
                None
            }
        };
        let (group, tags) = labels.remove(&device.id).unwrap_or_default();
        let host_key = match device.pin {
            Pin::Pinned(key) => Some(key),
            Pin::Unpinned => None,
            // It matches no key; without it, the next one seen would be trusted.
            Pin::Unreadable(_) => {
                complain(&format!(
                    "{} is written without its host key, so that an import trusts the next one \
                     seen: what is stored is no fingerprint",
                    device.name
                ));
                None
            }
        };
        let shared = !matches!(reading.inventory, Inventory::Embedded(_));
        rows.push(ImportedDevice {
            line: index + 2,
            address: device.endpoint.host,
            port: u16::try_from(device.endpoint.port).unwrap_or(22),
            username: login.as_ref().map(|login| login.username.clone()),
            password: login.as_ref().and_then(|login| login.password.clone()),
            private_key: login.as_ref().and_then(|login| {
                let key = login.key_text()?.expose_secret().to_owned();
                Some(PrivateKey::Text(key.into()))
            }),
            private_key_passphrase: login.as_ref().and_then(|login| login.passphrase().cloned()),
            tenant: (shared || device.tenant != DEFAULT_TENANT).then(|| device.tenant.to_string()),
            group,
            tags,
            host_key,
            settings: device.settings,
            name: device.name,
        });
    }
    let secrets = match args.secrets {
        true => Secrets::Include,
        false => Secrets::Omit,
    };
    let text = to_csv(&rows, secrets);
    let Some(path) = &args.output else {
        return Ok(emit(&text));
    };
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written
        .with_context(|| format!("failed to write {}", path.display()))
        .map_err(AppError::Failed)?;
    Ok(ExitCode::SUCCESS)
}
