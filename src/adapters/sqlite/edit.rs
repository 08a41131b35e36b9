//! Edits the inventory: in embedded mode it is ours, and the command line's.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::SqliteStore;
use super::device::{
    Checked, DeviceEdit, DeviceEntry, EditError, ImportError, ListDevices, NewDevice,
    checked_address, checked_name, checked_port, checked_tags, checked_timeout, seal, set_settings,
    tags_to_json,
};
use super::error::reading_only;
use super::rows::{self, id, stored_time, time};
use crate::domain::device::{DeviceId, Endpoint, TenantId};
use crate::domain::host_key::{Fingerprint, Pin};
use crate::ports::StoreError;

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

const FORGET_WARNING: &str = "UPDATE device_state SET warning = NULL WHERE device_id = ?1";

const SET_PIN: &str = "UPDATE devices SET ssh_host_key_fingerprint = ?2, \
         ssh_host_key_first_seen = CASE WHEN ?2 IS NOT NULL THEN ?3 END, \
         ssh_host_key_last_verified = NULL \
     WHERE id = ?1 AND ssh_host_key_fingerprint IS NOT ?2";

const NOTE_PIN: &str = "INSERT INTO operator_actions (at, device_id, action, before, after) \
     SELECT ?3, id, iif(?2 IS NULL, 'host_key_reset', 'host_key_accepted'), \
         ssh_host_key_fingerprint, ?2 \
     FROM devices WHERE id = ?1 AND ssh_host_key_fingerprint IS NOT ?2";

const OFFERED: &str = "SELECT offered_fingerprint FROM attempts \
     WHERE device_id = ?1 AND offered_fingerprint IS NOT NULL ORDER BY id DESC LIMIT 1";

const NAMESAKE: &str = "SELECT id FROM devices WHERE tenant_id = ?1 AND hostname = ?2 AND id <> ?3";

const LIST: &str = "SELECT d.id, d.tenant_id, d.hostname, d.ip_address, d.ssh_port, d.device_type, \
         d.device_group, d.tags, d.ssh_host_key_fingerprint, d.ssh_host_key_first_seen, \
         d.ssh_host_key_last_verified, t.command_timeout_seconds, t.ssh_algorithms, \
         coalesce(s.routeros_version, d.routeros_version) AS routeros_version, \
         coalesce(d.encrypted_credentials_transit, d.encrypted_credentials, \
                  p.encrypted_credentials_transit, p.encrypted_credentials) IS NOT NULL \
             AS has_credentials \
     FROM devices d LEFT JOIN credential_profiles p ON p.id = d.credential_profile_id \
         LEFT JOIN device_settings t ON t.device_id = d.id \
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
        checked_timeout(edit.command_timeout.flatten())?;
        checked_tags(edit.tags.as_deref().unwrap_or_default())?;
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
                    .execute(&mut *connection)
                    .await?;
                set_settings(connection, device, edit).await?;
                if edit.warning_seen {
                    sqlx::query(FORGET_WARNING)
                        .bind(device.0.hyphenated())
                        .execute(connection)
                        .await?;
                }
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
    /// block. What was trusted before is kept in `operator_actions`. Trusting what is trusted already
    /// changes nothing.
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
                    for statement in [NOTE_PIN, SET_PIN] {
                        sqlx::query(statement)
                            .bind(device.0.hyphenated())
                            .bind(pin.map(Fingerprint::as_str))
                            .bind(now.clone())
                            .execute(&mut *connection)
                            .await?;
                    }
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

    /// The host key that a device offered last, whether or not it was trusted.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn offered_host_key(&self, device: DeviceId) -> Result<Option<String>, StoreError> {
        self.read(
            || format!("read the host key that device {device} offered"),
            async |connection| {
                sqlx::query_scalar(OFFERED)
                    .bind(device.0.hyphenated())
                    .fetch_optional(connection)
                    .await
            },
        )
        .await
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
        settings: rows::settings(row)?,
    })
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
