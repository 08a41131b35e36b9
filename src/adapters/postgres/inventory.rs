//! Reads the inventory, and pins host keys.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::postgres::PgRow;
use tracing::warn;
use uuid::Uuid;

use super::PostgresStore;
use super::rows::{self, device_columns, devices_with_profiles, is_ours, last_attempt_columns};
use crate::domain::device::{Device, DeviceId};
use crate::domain::host_key::{Fingerprint, Pin};
use crate::ports::{Bucket, Listed, StoreError};

/// One row per bucket. The last byte of an id is random in UUID versions 4 and 7. The text of a
/// record quotes its fields, so no two different rows give the same text.
const INVENTORY: &str = concat!(
    "SELECT get_byte(uuid_send(d.id), 15) AS bucket, \
     encode(sha256(convert_to(string_agg(ROW(d.id, d.tenant_id, d.hostname, d.ip_address, \
     d.ssh_port, d.device_type, d.encrypted_credentials, d.encrypted_credentials_transit, \
     d.credential_profile_id, p.encrypted_credentials, p.encrypted_credentials_transit, \
     d.ssh_host_key_fingerprint, t.command_timeout_seconds, t.ssh_algorithms)::text, E'\\n' ORDER BY d.id), 'UTF8')), 'hex') AS digest \
     FROM ",
    devices_with_profiles!(),
    " WHERE ",
    is_ours!(),
    " GROUP BY 1"
);

const DEVICES: &str = concat!(
    "SELECT get_byte(uuid_send(d.id), 15) AS bucket, ",
    device_columns!(),
    ", ",
    last_attempt_columns!(),
    ", (extract(epoch FROM statement_timestamp() - s.first_seen) * 1000000)::bigint AS seen_age FROM ",
    devices_with_profiles!(),
    " LEFT JOIN mikrotik_backup.device_state s ON s.device_id = d.id \
      WHERE get_byte(uuid_send(d.id), 15) = ANY($1) AND ",
    is_ours!(),
);

const FIND: &str = concat!(
    "SELECT ",
    device_columns!(),
    " FROM ",
    devices_with_profiles!(),
    " LEFT JOIN mikrotik_backup.device_state s ON s.device_id = d.id \
      WHERE $1 IN (d.id::text, d.hostname::text, format('%s', d.ip_address)) AND ",
    is_ours!(),
    " ORDER BY d.id LIMIT 20"
);

/// Devices without a tenant are not readable anyway.
const NOTE_SEEN: &str = "INSERT INTO mikrotik_backup.device_state (device_id, tenant_id) \
     SELECT d.id, d.tenant_id FROM devices d WHERE d.id = ANY($1) AND d.tenant_id IS NOT NULL \
     ON CONFLICT (device_id) DO NOTHING";

/// Writers queue up on the row, and each sees what the one before it stored.
const PIN: &str = "UPDATE devices SET \
     ssh_host_key_fingerprint = coalesce(ssh_host_key_fingerprint, $2), \
     ssh_host_key_first_seen = CASE WHEN ssh_host_key_fingerprint IS NULL THEN now() \
         WHEN ssh_host_key_fingerprint = $2 THEN coalesce(ssh_host_key_first_seen, now()) \
         ELSE ssh_host_key_first_seen END, \
     ssh_host_key_last_verified = CASE WHEN coalesce(ssh_host_key_fingerprint, $2) = $2 THEN now() \
         ELSE ssh_host_key_last_verified END \
     WHERE id = $1 RETURNING ssh_host_key_fingerprint::text AS fingerprint";

/// Buckets per statement: an eighth of the fleet, so that even a large one passes in pieces.
const BUCKETS_PER_PAGE: usize = 32;

impl PostgresStore {
    pub(super) async fn read_inventory(&self) -> Result<BTreeMap<Bucket, String>, StoreError> {
        self.run(
            || "read the digests of the inventory".into(),
            async |connection| {
                let rows = sqlx::query(INVENTORY).fetch_all(connection).await?;
                rows.iter()
                    .map(|row| Ok((bucket(row)?, row.try_get("digest")?)))
                    .collect()
            },
        )
        .await
    }

    /// The devices of the inventory whose id, name or address is `text`; at most 20.
    ///
    /// # Errors
    /// When the database is away or refuses.
    pub async fn find(&self, text: &str) -> Result<Vec<Device>, StoreError> {
        let rows = self
            .run(
                || format!("look for device {text:?}"),
                async |connection| sqlx::query(FIND).bind(text).fetch_all(connection).await,
            )
            .await?;
        let devices = rows.iter().map(rows::device).collect::<sqlx::Result<_>>();
        devices.map_err(|error| StoreError::Failed {
            operation: format!("read device {text:?}"),
            source: error.into(),
        })
    }

    pub(super) async fn read_devices(&self, buckets: &[Bucket]) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        for page in buckets.chunks(BUCKETS_PER_PAGE) {
            let wanted: Vec<i32> = page.iter().copied().map(i32::from).collect();
            let rows = self
                .run(
                    || format!("read the devices of {} buckets", page.len()),
                    async |connection| {
                        sqlx::query(DEVICES)
                            .bind(wanted)
                            .fetch_all(connection)
                            .await
                    },
                )
                .await?;
            self.unreadable.forget(page);
            listed.extend(rows.iter().filter_map(|row| self.listed(row)));
        }
        Ok(listed)
    }

    pub(super) async fn note_first_seen(&self, devices: &[DeviceId]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = devices.iter().map(|device| device.0).collect();
        self.run(
            || format!("note since when {} devices are known", ids.len()),
            async |connection| sqlx::query(NOTE_SEEN).bind(&ids).execute(connection).await,
        )
        .await
        .map(drop)
    }

    /// One row, or nothing and a warning: a row that cannot be read must not hide the others.
    fn listed(&self, row: &PgRow) -> Option<Listed> {
        let now = self.clock.now();
        let read = || -> sqlx::Result<Listed> {
            let seen_age: Option<i64> = row.try_get("seen_age")?;
            Ok(Listed {
                bucket: bucket(row)?,
                device: rows::device(row)?,
                last: rows::last_attempt(row, now)?,
                first_seen: seen_age.map(|age| now - time::Duration::microseconds(age)),
            })
        };
        match read() {
            Ok(listed) => Some(listed),
            Err(error) => {
                let id: Uuid = row.try_get("id").unwrap_or_default();
                warn!(device.id = %id, %error, "Leaving out a device whose row cannot be read; correct the row");
                // The bucket is computed, so that it can be read of any row.
                self.unreadable.add(bucket(row).unwrap_or_default());
                None
            }
        }
    }

    pub(super) async fn pin_first_key(
        &self,
        device: DeviceId,
        seen: &Fingerprint,
    ) -> Result<Pin, StoreError> {
        let pinned: Option<Option<String>> = self
            .run(
                || format!("pin the host key of device {device}"),
                async |connection| {
                    sqlx::query_scalar(PIN)
                        .bind(device.0)
                        .bind(seen.as_str())
                        .fetch_optional(connection)
                        .await
                },
            )
            .await?;
        pinned
            .map(|stored| Pin::from_column(stored.as_deref()))
            .ok_or_else(|| StoreError::NotFound {
                what: format!("device {device}"),
            })
    }
}

fn bucket(row: &PgRow) -> sqlx::Result<Bucket> {
    let byte: i32 = row.try_get("bucket")?;
    Bucket::try_from(byte).map_err(|_| rows::unreadable("bucket", "a value outside 0 to 255"))
}
