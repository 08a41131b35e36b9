//! A device as the command line gives it: checked, and sealed.

use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use crate::credentials::{Key, Login, LoginError};
use crate::domain::Timestamp;
use crate::domain::device::{DeviceId, Endpoint, InvalidEndpoint, TenantId};
use crate::domain::host_key::{Fingerprint, Pin};
use crate::domain::session::{DeviceSettings, SshAlgorithms};
use crate::ports::StoreError;

/// Whom a device belongs to when nobody says otherwise.
pub const DEFAULT_TENANT: TenantId = TenantId(Uuid::nil());

/// Longest name of a device, in characters: that of a DNS name.
const LONGEST_NAME: usize = 253;

/// A device to add.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name, unique within the tenant.
    pub name: String,
    /// IPv4 address, IPv6 address or DNS name.
    pub address: String,
    /// The SSH port; `None` means 22.
    pub port: Option<u16>,
    /// A group, for lists and for the folders of a git mirror.
    pub group: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What differs for it from the service's own settings.
    pub settings: DeviceSettings,
    /// The host key to trust; `None` trusts the next one seen.
    pub host_key: Option<Fingerprint>,
    /// What to log in with; stored sealed.
    pub login: Login,
}

/// What to change of a device; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct DeviceEdit {
    /// A new owner.
    pub tenant: Option<TenantId>,
    /// A new name.
    pub name: Option<String>,
    /// A new address.
    pub address: Option<String>,
    /// A new port; `Some(None)` is the default one.
    pub port: Option<Option<u16>>,
    /// A new group; `Some(None)` is none.
    pub group: Option<Option<String>>,
    /// New tags.
    pub tags: Option<Vec<String>>,
    /// A new command timeout; `Some(None)` is the service's.
    pub command_timeout: Option<Option<Duration>>,
    /// New algorithms; `Some(None)` are the service's.
    pub ssh_algorithms: Option<Option<SshAlgorithms>>,
    /// New credentials. Storing the same ones again is an edit, too: it lifts an auth block.
    pub login: Option<Login>,
    /// Takes the warning of its last good backup away: somebody has looked.
    pub warning_seen: bool,
}

/// A device as a list shows it; also one that is not backed up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceEntry {
    /// Its id.
    pub id: DeviceId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// `None` means `routeros`; anything else is not backed up.
    pub device_type: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether credentials are stored; without them it is not backed up.
    pub has_credentials: bool,
    /// Its trusted host key.
    pub pin: Pin,
    /// When the trusted host key was seen first.
    pub pin_first_seen: Option<Timestamp>,
    /// When it was seen last.
    pub pin_last_verified: Option<Timestamp>,
    /// The RouterOS version of its last good export.
    pub routeros_version: Option<String>,
    /// What differs for it from the service's own settings.
    pub settings: DeviceSettings,
}

/// Which devices to list, by name and then by id.
#[derive(Clone, Debug)]
pub struct ListDevices {
    /// Only those whose id, name or address this is.
    pub named: Option<String>,
    /// Only those of this owner.
    pub tenant: Option<TenantId>,
    /// Only those of this group.
    pub group: Option<String>,
    /// Only those after this one, the last of the page before.
    pub after: Option<(String, DeviceId)>,
    /// At most so many; capped at [`ListDevices::MAX`].
    pub limit: u32,
}

impl ListDevices {
    /// The largest page.
    pub const MAX: u32 = 1000;
    /// The page of [`ListDevices::default`].
    pub const DEFAULT: u32 = 100;
}

impl Default for ListDevices {
    fn default() -> Self {
        Self {
            named: None,
            tenant: None,
            group: None,
            after: None,
            limit: Self::DEFAULT,
        }
    }
}

const INSERT: &str = "INSERT INTO devices \
         (id, tenant_id, hostname, ip_address, ssh_port, device_group, tags, \
          encrypted_credentials, ssh_host_key_fingerprint) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// `?2` and `?4` tell whether there is anything to set; a row that says nothing is none.
const SET: &str = "INSERT INTO device_settings (device_id, command_timeout_seconds, ssh_algorithms) \
     VALUES (?1, ?3, ?5) \
     ON CONFLICT (device_id) DO UPDATE SET \
         command_timeout_seconds = CASE WHEN ?2 THEN ?3 ELSE command_timeout_seconds END, \
         ssh_algorithms = CASE WHEN ?4 THEN ?5 ELSE ssh_algorithms END";
const UNSET: &str = "DELETE FROM device_settings \
     WHERE device_id = ?1 AND command_timeout_seconds IS NULL AND ssh_algorithms IS NULL";

/// Sets what `edit` sets for `device`.
pub(super) async fn set_settings(
    connection: &mut SqliteConnection,
    device: DeviceId,
    edit: &DeviceEdit,
) -> sqlx::Result<()> {
    if edit.command_timeout.is_none() && edit.ssh_algorithms.is_none() {
        return Ok(());
    }
    let seconds = edit.command_timeout.flatten();
    let seconds = seconds.map(|timeout| i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX));
    sqlx::query(SET)
        .bind(device.0.hyphenated())
        .bind(edit.command_timeout.is_some())
        .bind(seconds)
        .bind(edit.ssh_algorithms.is_some())
        .bind(edit.ssh_algorithms.flatten().map(SshAlgorithms::as_str))
        .execute(&mut *connection)
        .await?;
    sqlx::query(UNSET)
        .bind(device.0.hyphenated())
        .execute(connection)
        .await
        .map(drop)
}

/// A checked device, sealed and ready to insert.
pub(super) struct Checked {
    pub(super) id: DeviceId,
    pub(super) tenant: TenantId,
    pub(super) name: String,
    address: String,
    port: Option<u16>,
    group: Option<String>,
    tags: String,
    settings: DeviceEdit,
    host_key: Option<Fingerprint>,
    sealed: Vec<u8>,
}

impl Checked {
    pub(super) fn of(device: &NewDevice, key: &Key) -> Result<Self, EditError> {
        checked_name(&device.name)?;
        checked_address(&device.address)?;
        if let Some(port) = device.port {
            checked_port(port)?;
        }
        checked_timeout(device.settings.command_timeout)?;
        checked_tags(&device.tags)?;
        Ok(Self {
            id: DeviceId(Uuid::new_v4()),
            tenant: device.tenant,
            name: device.name.clone(),
            address: device.address.trim().to_owned(),
            port: device.port,
            group: device.group.clone(),
            tags: tags_to_json(&device.tags),
            settings: DeviceEdit {
                command_timeout: device.settings.command_timeout.map(Some),
                ssh_algorithms: device.settings.ssh_algorithms.map(Some),
                ..DeviceEdit::default()
            },
            host_key: device.host_key.clone(),
            sealed: seal(&device.login, key)?,
        })
    }

    pub(super) async fn insert(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        sqlx::query(INSERT)
            .bind(self.id.0.hyphenated())
            .bind(self.tenant.0.hyphenated())
            .bind(&self.name)
            .bind(&self.address)
            .bind(self.port.map(i64::from))
            .bind(self.group.as_deref())
            .bind(&self.tags)
            .bind(&self.sealed)
            .bind(self.host_key.as_ref().map(Fingerprint::as_str))
            .execute(&mut *connection)
            .await?;
        set_settings(connection, self.id, &self.settings).await
    }
}

pub(super) fn checked_name(name: &str) -> Result<(), EditError> {
    let fits = !name.is_empty()
        && name.trim() == name
        && name.chars().count() <= LONGEST_NAME
        && !name.chars().any(char::is_control);
    fits.then_some(()).ok_or_else(|| EditError::Name {
        name: name.to_owned(),
    })
}

pub(super) fn checked_address(address: &str) -> Result<(), EditError> {
    let endpoint = Endpoint {
        host: address.to_owned(),
        port: 22,
    };
    endpoint.target().map(drop).map_err(EditError::Address)
}

pub(super) fn checked_port(port: u16) -> Result<(), EditError> {
    if port == 0 {
        return Err(EditError::Address(InvalidEndpoint::Port { port: 0 }));
    }
    Ok(())
}

pub(super) fn checked_timeout(timeout: Option<Duration>) -> Result<(), EditError> {
    let seconds = timeout.map(|timeout| i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX));
    match seconds {
        Some(seconds) if DeviceSettings::timeout_of(seconds).is_none() => {
            Err(EditError::Timeout { seconds })
        }
        _ => Ok(()),
    }
}

pub(super) fn checked_tags(tags: &[String]) -> Result<(), EditError> {
    let bad =
        |tag: &&String| tag.is_empty() || tag.trim() != **tag || tag.chars().any(char::is_control);
    match tags.iter().find(bad) {
        Some(tag) => Err(EditError::Tag { tag: tag.clone() }),
        None => Ok(()),
    }
}

pub(super) fn tags_to_json(tags: &[String]) -> String {
    serde_json::Value::from(tags).to_string()
}

/// The sealed JSON of a login, as every reader of `encrypted_credentials` expects it.
pub(super) fn seal(login: &Login, key: &Key) -> Result<Vec<u8>, EditError> {
    #[derive(Serialize)]
    struct Plain<'a> {
        username: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        private_key: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        private_key_passphrase: Option<&'a str>,
    }
    login.check().map_err(EditError::Login)?;
    fn exposed(secret: Option<&SecretString>) -> Option<&str> {
        secret.map(ExposeSecret::expose_secret)
    }
    let plain = Plain {
        username: &login.username,
        password: exposed(login.password.as_ref()),
        private_key: exposed(login.key_text()),
        private_key_passphrase: exposed(login.passphrase()),
    };
    // Large enough for any key, so that the text is not left behind by a buffer that grew.
    let mut json = Zeroizing::new(Vec::with_capacity(64 * 1024));
    serde_json::to_writer(&mut *json, &plain).map_err(|_| EditError::Login(LoginError::NoUser))?;
    Ok(key.seal(rand::random(), &json))
}

/// The inventory could not be edited.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Another device has the name.
    #[error("there is a device {name:?} already ({other}); choose another name, or edit that one")]
    Duplicate {
        /// The name.
        name: String,
        /// Who has it.
        other: DeviceId,
    },
    /// No such device.
    #[error("there is no device {device}; list the devices to see which there are")]
    NotFound {
        /// What was asked for.
        device: DeviceId,
    },
    /// No name for a device.
    #[error(
        "{name:?} is no name for a device: 1 to 253 characters, none of them a control character, \
         no blanks around them"
    )]
    Name {
        /// The text.
        name: String,
    },
    /// No address, or no port.
    #[error(transparent)]
    Address(InvalidEndpoint),
    /// No command timeout.
    #[error(
        "a command timeout of {seconds} seconds is outside 1 to {}",
        DeviceSettings::LONGEST_TIMEOUT
    )]
    Timeout {
        /// What was given.
        seconds: i64,
    },
    /// No tag.
    #[error(
        "{tag:?} is no tag: it has at least one character, none of them a control character, and no \
         blanks around it"
    )]
    Tag {
        /// The text.
        tag: String,
    },
    /// No usable login.
    #[error(transparent)]
    Login(LoginError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Devices could not be imported; none has been.
#[derive(Debug, thiserror::Error)]
#[error("failed to add device number {}", index + 1)]
pub struct ImportError {
    /// Which of them, counted from 0; 0 also when it was no single one's fault.
    pub index: usize,
    /// What is wrong.
    pub source: EditError,
}
