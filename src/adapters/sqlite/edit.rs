//! Edits the inventory: in embedded mode it is ours, and the command line's.

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uuid::Uuid;

use super::SqliteStore;
use super::error::reading_only;
use super::rows::{self, id, stored_time, time};
use crate::credentials::{Key, Login, LoginError};
use crate::domain::Timestamp;
use crate::domain::device::{DeviceId, Endpoint, InvalidEndpoint, TenantId};
use crate::domain::host_key::{Fingerprint, Pin};
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
    /// New credentials. Storing the same ones again is an edit, too: it lifts an auth block.
    pub login: Option<Login>,
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
         (id, tenant_id, hostname, ip_address, ssh_port, device_group, tags, encrypted_credentials) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

const EDIT: &str = "UPDATE devices SET \
         tenant_id = coalesce(?2, tenant_id), hostname = coalesce(?3, hostname), \
         ip_address = coalesce(?4, ip_address), \
         ssh_port = CASE WHEN ?5 THEN ?6 ELSE ssh_port END, \
         device_group = CASE WHEN ?7 THEN ?8 ELSE device_group END, \
         tags = coalesce(?9, tags), \
         encrypted_credentials = coalesce(?10, encrypted_credentials), \
         encrypted_credentials_transit = \
             CASE WHEN ?10 IS NULL THEN encrypted_credentials_transit END \
     WHERE id = ?1";

const SET_PIN: &str = "UPDATE devices SET ssh_host_key_fingerprint = ?2, \
         ssh_host_key_first_seen = CASE WHEN ?2 IS NOT NULL THEN ?3 END, \
         ssh_host_key_last_verified = NULL \
     WHERE id = ?1 AND ssh_host_key_fingerprint IS NOT ?2";

const NAMESAKE: &str = "SELECT id FROM devices WHERE tenant_id = ?1 AND hostname = ?2 AND id <> ?3";

const LIST: &str = "SELECT d.id, d.tenant_id, d.hostname, d.ip_address, d.ssh_port, d.device_type, \
         d.device_group, d.tags, d.ssh_host_key_fingerprint, d.ssh_host_key_first_seen, \
         d.ssh_host_key_last_verified, \
         coalesce(s.routeros_version, d.routeros_version) AS routeros_version, \
         coalesce(d.encrypted_credentials_transit, d.encrypted_credentials, \
                  p.encrypted_credentials_transit, p.encrypted_credentials) IS NOT NULL \
             AS has_credentials \
     FROM devices d LEFT JOIN credential_profiles p ON p.id = d.credential_profile_id \
         LEFT JOIN device_state s ON s.device_id = d.id \
     WHERE (?1 IS NULL OR ?1 IN (d.id, d.hostname, d.ip_address)) \
       AND (?2 IS NULL OR d.tenant_id = ?2) AND (?3 IS NULL OR d.device_group = ?3) \
       AND (?4 IS NULL OR (d.hostname, d.id) > (?4, ?5)) \
     ORDER BY d.hostname, d.id LIMIT ?6";

impl SqliteStore {
    /// Adds a device.
    ///
    /// # Errors
    /// [`EditError`] names what is wrong with it.
    pub async fn add_device(&self, device: &NewDevice) -> Result<DeviceId, EditError> {
        match self.import_devices(std::slice::from_ref(device)).await {
            Ok(ids) => Ok(ids[0]),
            Err(error) => Err(error.source),
        }
    }

    /// Adds devices: all of them or, when one cannot be added, none. The ids are in their order.
    ///
    /// # Errors
    /// [`ImportError`] tells which one, and what is wrong with it.
    pub async fn import_devices(
        &self,
        devices: &[NewDevice],
    ) -> Result<Vec<DeviceId>, ImportError> {
        let operation = || match devices {
            [device] => format!("add device {:?}", device.name),
            devices => format!("add {} devices", devices.len()),
        };
        let refused = |index, source| ImportError { index, source };
        let Some(key) = self.key() else {
            return Err(refused(0, reading_only(operation(), self.file()).into()));
        };
        let mut rows = Vec::with_capacity(devices.len());
        for (index, device) in devices.iter().enumerate() {
            rows.push(Checked::of(device, key).map_err(|error| refused(index, error))?);
        }
        let done = self
            .write_unless(operation, async |connection| {
                for (index, row) in rows.iter().enumerate() {
                    let other = namesake(connection, row.id, row.tenant, &row.name).await?;
                    if let Some(other) = other {
                        let name = row.name.clone();
                        return Ok(Err(refused(index, EditError::Duplicate { name, other })));
                    }
                    row.insert(connection).await?;
                }
                Ok(Ok(()))
            })
            .await;
        done.map_err(|error| refused(0, error.into()))??;
        self.edited.notify_one();
        Ok(rows.iter().map(|row| row.id).collect())
    }

    /// Changes a device.
    ///
    /// # Errors
    /// [`EditError`] names what is wrong with it; nothing has been changed then.
    pub async fn edit_device(&self, device: DeviceId, edit: &DeviceEdit) -> Result<(), EditError> {
        let operation = || format!("edit device {device}");
        let key = self
            .key()
            .ok_or_else(|| reading_only(operation(), self.file()))?;
        if let Some(name) = &edit.name {
            checked_name(name)?;
        }
        if let Some(address) = &edit.address {
            checked_address(address)?;
        }
        if let Some(Some(port)) = edit.port {
            checked_port(port)?;
        }
        let sealed = edit
            .login
            .as_ref()
            .map(|login| seal(login, key))
            .transpose()?;
        let done = self
            .write_unless(operation, async |connection| {
                let old = sqlx::query("SELECT tenant_id, hostname FROM devices WHERE id = ?1")
                    .bind(device.0.hyphenated())
                    .fetch_optional(&mut *connection)
                    .await?;
                let Some(old) = old else {
                    return Ok(Err(EditError::NotFound { device }));
                };
                let tenant = match edit.tenant {
                    Some(tenant) => tenant,
                    None => TenantId(id(&old, "tenant_id")?),
                };
                let name = match &edit.name {
                    Some(name) => name.clone(),
                    None => old.try_get("hostname")?,
                };
                if let Some(other) = namesake(connection, device, tenant, &name).await? {
                    return Ok(Err(EditError::Duplicate { name, other }));
                }
                sqlx::query(EDIT)
                    .bind(device.0.hyphenated())
                    .bind(tenant.0.hyphenated())
                    .bind(name)
                    .bind(edit.address.as_deref().map(str::trim))
                    .bind(edit.port.is_some())
                    .bind(edit.port.flatten().map(i64::from))
                    .bind(edit.group.is_some())
                    .bind(edit.group.clone().flatten())
                    .bind(edit.tags.as_deref().map(tags_to_json))
                    .bind(sealed)
                    .execute(connection)
                    .await?;
                Ok(Ok(()))
            })
            .await;
        done??;
        self.edited.notify_one();
        Ok(())
    }

    /// Removes a device. Its journal and its stored configurations stay until they are pruned.
    ///
    /// # Errors
    /// [`EditError::NotFound`] when there is none.
    pub async fn remove_device(&self, device: DeviceId) -> Result<(), EditError> {
        let removed = self
            .write(
                || format!("remove device {device}"),
                async |connection| {
                    sqlx::query("DELETE FROM devices WHERE id = ?1")
                        .bind(device.0.hyphenated())
                        .execute(connection)
                        .await
                },
            )
            .await?;
        if removed.rows_affected() == 0 {
            return Err(EditError::NotFound { device });
        }
        self.edited.notify_one();
        Ok(())
    }

    /// Trusts `pin` from now on, or with `None` the next key that is seen; either lifts a host-key
    /// block. Trusting what is trusted already changes nothing.
    ///
    /// # Errors
    /// [`EditError::NotFound`] when there is no such device.
    pub async fn set_pin(
        &self,
        device: DeviceId,
        pin: Option<&Fingerprint>,
    ) -> Result<(), EditError> {
        let now = stored_time(self.clock.now());
        let found: bool = self
            .write(
                || format!("pin the host key of device {device}"),
                async |connection| {
                    sqlx::query(SET_PIN)
                        .bind(device.0.hyphenated())
                        .bind(pin.map(Fingerprint::as_str))
                        .bind(now)
                        .execute(&mut *connection)
                        .await?;
                    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM devices WHERE id = ?1)")
                        .bind(device.0.hyphenated())
                        .fetch_one(connection)
                        .await
                },
            )
            .await?;
        if !found {
            return Err(EditError::NotFound { device });
        }
        self.edited.notify_one();
        Ok(())
    }

    /// A page of all devices, also of those that are not backed up.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn list(&self, wanted: &ListDevices) -> Result<Vec<DeviceEntry>, StoreError> {
        let (after_name, after_id) = wanted.after.clone().unzip();
        self.read(
            || "list the devices".into(),
            async |connection| {
                let rows = sqlx::query(LIST)
                    .bind(wanted.named.as_deref())
                    .bind(wanted.tenant.map(|tenant| tenant.0.hyphenated()))
                    .bind(wanted.group.as_deref())
                    .bind(after_name)
                    .bind(after_id.map(|id| id.0.hyphenated()))
                    .bind(i64::from(wanted.limit.min(ListDevices::MAX)))
                    .fetch_all(connection)
                    .await?;
                rows.iter().map(entry).collect()
            },
        )
        .await
    }
}

fn entry(row: &SqliteRow) -> sqlx::Result<DeviceEntry> {
    let pin: Option<&str> = row.try_get("ssh_host_key_fingerprint")?;
    let tags: &str = row.try_get("tags")?;
    Ok(DeviceEntry {
        id: DeviceId(id(row, "id")?),
        tenant: TenantId(id(row, "tenant_id")?),
        name: row.try_get("hostname")?,
        endpoint: Endpoint {
            host: row.try_get("ip_address")?,
            port: rows::port(row.try_get("ssh_port")?),
        },
        device_type: row.try_get("device_type")?,
        group: row.try_get("device_group")?,
        // Whatever else an operator has put into the array is no tag.
        tags: serde_json::from_str(tags).unwrap_or_default(),
        has_credentials: row.try_get("has_credentials")?,
        pin: Pin::from_column(pin),
        pin_first_seen: time(row, "ssh_host_key_first_seen")?,
        pin_last_verified: time(row, "ssh_host_key_last_verified")?,
        routeros_version: row.try_get("routeros_version")?,
    })
}

/// A checked device, sealed and ready to insert.
struct Checked {
    id: DeviceId,
    tenant: TenantId,
    name: String,
    address: String,
    port: Option<u16>,
    group: Option<String>,
    tags: String,
    sealed: Vec<u8>,
}

impl Checked {
    fn of(device: &NewDevice, key: &Key) -> Result<Self, EditError> {
        checked_name(&device.name)?;
        checked_address(&device.address)?;
        if let Some(port) = device.port {
            checked_port(port)?;
        }
        Ok(Self {
            id: DeviceId(Uuid::new_v4()),
            tenant: device.tenant,
            name: device.name.clone(),
            address: device.address.trim().to_owned(),
            port: device.port,
            group: device.group.clone(),
            tags: tags_to_json(&device.tags),
            sealed: seal(&device.login, key)?,
        })
    }

    async fn insert(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        sqlx::query(INSERT)
            .bind(self.id.0.hyphenated())
            .bind(self.tenant.0.hyphenated())
            .bind(&self.name)
            .bind(&self.address)
            .bind(self.port.map(i64::from))
            .bind(self.group.as_deref())
            .bind(&self.tags)
            .bind(&self.sealed)
            .execute(connection)
            .await
            .map(drop)
    }
}

/// Another device of the tenant that has this name.
async fn namesake(
    connection: &mut SqliteConnection,
    device: DeviceId,
    tenant: TenantId,
    name: &str,
) -> sqlx::Result<Option<DeviceId>> {
    let found = sqlx::query(NAMESAKE)
        .bind(tenant.0.hyphenated())
        .bind(name)
        .bind(device.0.hyphenated())
        .fetch_optional(connection)
        .await?;
    found.map(|row| Ok(DeviceId(id(&row, "id")?))).transpose()
}

fn checked_name(name: &str) -> Result<(), EditError> {
    let fits = !name.is_empty()
        && name.trim() == name
        && name.chars().count() <= LONGEST_NAME
        && !name.chars().any(char::is_control);
    fits.then_some(()).ok_or_else(|| EditError::Name {
        name: name.to_owned(),
    })
}

fn checked_address(address: &str) -> Result<(), EditError> {
    let endpoint = Endpoint {
        host: address.to_owned(),
        port: 22,
    };
    endpoint.target().map(drop).map_err(EditError::Address)
}

fn checked_port(port: u16) -> Result<(), EditError> {
    if port == 0 {
        return Err(EditError::Address(InvalidEndpoint::Port { port: 0 }));
    }
    Ok(())
}

fn tags_to_json(tags: &[String]) -> String {
    serde_json::Value::from(tags).to_string()
}

/// The sealed JSON of a login, as every reader of `encrypted_credentials` expects it.
fn seal(login: &Login, key: &Key) -> Result<Vec<u8>, EditError> {
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
