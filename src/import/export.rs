//! Devices written as our CSV.

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::csv::{Column, tags_cell};
use super::{ImportedDevice, PrivateKey, records};
use crate::domain::host_key::Fingerprint;
use crate::domain::session::SshAlgorithms;

/// Whether an export holds passwords and keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Secrets {
    /// Without: user names and paths of keys only.
    Omit,
    /// With every password, private key and passphrase in clear text.
    Include,
}

/// Writes devices in the form that [`super::from_csv`] reads back.
pub fn to_csv(devices: &[ImportedDevice], secrets: Secrets) -> Zeroizing<String> {
    let mut columns = vec![
        Column::Name,
        Column::Address,
        Column::Port,
        Column::Username,
        Column::Tenant,
        Column::Group,
        Column::Tags,
        Column::HostKey,
        Column::CommandTimeout,
        Column::SshAlgorithms,
        Column::PrivateKeyFile,
    ];
    if secrets == Secrets::Include {
        columns.extend([Column::Password, Column::PrivateKey, Column::Passphrase]);
    }
    let mut out = Zeroizing::new(String::new());
    let header: Vec<_> = columns.iter().map(|column| Some(column.name())).collect();
    records::write(&header, &mut out);
    for device in devices {
        let port = device.port.to_string();
        let timeout = device.settings.command_timeout;
        let timeout = timeout.map(|timeout| timeout.as_secs().to_string());
        let tags = tags_cell(&device.tags);
        let row: Vec<_> = columns
            .iter()
            .map(|column| match column {
                Column::CommandTimeout => timeout.as_deref(),
                Column::Tags => tags.as_deref(),
                column => value(device, *column, &port),
            })
            .collect();
        records::write(&row, &mut out);
    }
    out
}

fn value<'a>(device: &'a ImportedDevice, column: Column, port: &'a str) -> Option<&'a str> {
    fn exposed(secret: &Option<SecretString>) -> Option<&str> {
        secret.as_ref().map(ExposeSecret::expose_secret)
    }
    match column {
        Column::Name => Some(&device.name),
        Column::Address => Some(&device.address),
        Column::Port => Some(port),
        Column::Username => device.username.as_deref(),
        Column::Password => exposed(&device.password),
        Column::PrivateKeyFile => match &device.private_key {
            Some(PrivateKey::File(path)) => Some(path),
            Some(PrivateKey::Text(_)) | None => None,
        },
        Column::PrivateKey => match &device.private_key {
            Some(PrivateKey::Text(key)) => Some(key.expose_secret()),
            Some(PrivateKey::File(_)) | None => None,
        },
        Column::Passphrase => exposed(&device.private_key_passphrase),
        Column::Tenant => device.tenant.as_deref(),
        Column::Group => device.group.as_deref(),
        Column::HostKey => device.host_key.as_ref().map(Fingerprint::as_str),
        Column::SshAlgorithms => device.settings.ssh_algorithms.map(SshAlgorithms::as_str),
        // Made by the caller.
        Column::CommandTimeout | Column::Tags | Column::Other => None,
    }
}
