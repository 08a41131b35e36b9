//! Reads the inventory, tells of edits, and pins host keys.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use tracing::warn;

use super::SqliteStore;
use super::rows::{
    self, device_columns, devices_with_profiles, is_ours, last_attempt_columns, stored_time,
};
use crate::domain::device::{Device, DeviceId};
use crate::domain::host_key::{Fingerprint, Pin};
use crate::ports::{Bucket, Listed, StoreError};

/// One row per bucket: how many devices are in it, and the number of the latest edit of one of
/// them. Numbers never come back, so whatever is edited or added raises the greatest one, and what
/// is only removed lowers the count.
const INVENTORY: &str = concat!(
    "SELECT d.bucket, count(*) || ':' || max(max(d.change_number, coalesce(p.change_number, 0))) \
     AS digest FROM ",
    devices_with_profiles!(),
    " WHERE ",
    is_ours!(),
    " GROUP BY d.bucket"
);

const DEVICES: &str = concat!(
    "SELECT d.bucket, ",
    device_columns!(),
    ", ",
    last_attempt_columns!(),
    ", s.first_seen FROM ",
    devices_with_profiles!(),
    " LEFT JOIN device_state s ON s.device_id = d.id \
      WHERE d.bucket IN (SELECT value FROM json_each(?1)) AND ",
    is_ours!(),
);

const FIND: &str = concat!(
    "SELECT ",
    device_columns!(),
    " FROM ",
    devices_with_profiles!(),
    " LEFT JOIN device_state s ON s.device_id = d.id \
      WHERE ?1 IN (d.id, d.hostname, d.ip_address) AND ",
    is_ours!(),
    " ORDER BY d.id LIMIT 20"
);

const NOTE_SEEN: &str = "INSERT INTO device_state AS s (device_id, tenant_id, first_seen) \
     SELECT d.id, d.tenant_id, ?2 FROM devices d WHERE d.id IN (SELECT value FROM json_each(?1)) \
     ON CONFLICT (device_id) DO UPDATE SET first_seen = excluded.first_seen \
     WHERE s.first_seen IS NULL";

const PIN: &str = "UPDATE devices SET \
     ssh_host_key_fingerprint = coalesce(ssh_host_key_fingerprint, ?2), \
     ssh_host_key_first_seen = CASE WHEN ssh_host_key_fingerprint IS NULL THEN ?3 \
         WHEN ssh_host_key_fingerprint = ?2 THEN coalesce(ssh_host_key_first_seen, ?3) \
         ELSE ssh_host_key_first_seen END, \
     ssh_host_key_last_verified = CASE WHEN coalesce(ssh_host_key_fingerprint, ?2) = ?2 THEN ?3 \
         ELSE ssh_host_key_last_verified END \
     WHERE id = ?1 RETURNING ssh_host_key_fingerprint AS fingerprint";

const LATEST_CHANGE: &str = "SELECT latest_change FROM meta";

/// Buckets per statement: an eighth of the fleet, so that even a large one passes in pieces.
const BUCKETS_PER_PAGE: usize = 32;

/// How often to look for edits that another process made.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl SqliteStore {
    pub(super) async fn read_inventory(&self) -> Result<BTreeMap<Bucket, String>, StoreError> {
        self.read(
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

    /// The devices of the inventory that are ours to back up and whose id, name or address is
    /// `text`; at most 20.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn find(&self, text: &str) -> Result<Vec<Device>, StoreError> {
        self.read(
            || format!("look for device {text:?}"),
            async |connection| {
                let rows = sqlx::query(FIND).bind(text).fetch_all(connection).await?;
                rows.iter().map(rows::device).collect()
            },
        )
        .await
    }

    pub(super) async fn read_devices(&self, buckets: &[Bucket]) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        for page in buckets.chunks(BUCKETS_PER_PAGE) {
            let wanted: serde_json::Value = page.to_vec().into();
            let rows = self
                .read(
                    || format!("read the devices of {} buckets", page.len()),
                    async |connection| {
                        sqlx::query(DEVICES)
                            .bind(wanted.to_string())
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
        let now = stored_time(self.clock.now());
        let ids = devices.iter().map(|device| device.to_string());
        let ids: serde_json::Value = ids.collect::<Vec<_>>().into();
        self.write(
            || format!("note since when {} devices are known", devices.len()),
            async |connection| {
                sqlx::query(NOTE_SEEN)
                    .bind(ids.to_string())
                    .bind(now)
                    .execute(connection)
                    .await
            },
        )
        .await
        .map(drop)
    }

    /// One row, or nothing and a warning: a row that cannot be read must not hide the others.
    fn listed(&self, row: &SqliteRow) -> Option<Listed> {
        let now = self.clock.now();
        let read = || -> sqlx::Result<Listed> {
            Ok(Listed {
                bucket: bucket(row)?,
                device: rows::device(row)?,
                last: rows::last_attempt(row, now)?,
                // What lies ahead was stored while the clock was wrong.
                first_seen: rows::time(row, "first_seen")?.map(|at| at.min(now)),
            })
        };
        match read() {
            Ok(listed) => Some(listed),
            Err(error) => {
                let id = row.try_get("id").unwrap_or("");
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
        let now = stored_time(self.clock.now());
        let (pinned, before, after) = self
            .write(
                || format!("pin the host key of device {device}"),
                async |connection| {
                    let before = latest_change(connection).await?;
                    let pinned: Option<Option<String>> = sqlx::query_scalar(PIN)
                        .bind(device.0.hyphenated())
                        .bind(seen.as_str())
                        .bind(now)
                        .fetch_optional(&mut *connection)
                        .await?;
                    Ok((pinned, before, latest_change(connection).await?))
                },
            )
            .await?;
        // The first pin that the service itself makes is no edit to be told of.
        let mut told = self.told();
        if *told == before {
            *told = after;
        }
        drop(told);
        pinned
            .map(|stored| Pin::from_column(stored.as_deref()))
            .ok_or_else(|| StoreError::NotFound {
                what: format!("device {device}"),
            })
    }

    /// Resolves once somebody has edited a device since the last time it did: at once when it was
    /// done through this store, within a second when another process did it.
    pub(super) async fn next_edit(&self) {
        loop {
            let latest = self.read(|| "look for edits".into(), latest_change).await;
            // A database that cannot be read tells of no edit; whoever reads the inventory says so.
            if let Ok(latest) = latest {
                let mut told = self.told();
                if *told != latest {
                    *told = latest;
                    return;
                }
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, self.edited.notified()).await;
        }
    }

    fn told(&self) -> MutexGuard<'_, i64> {
        // It guards one number: there is no half-done change that a panic could leave.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of the latest edit.
pub(super) async fn latest_change(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(LATEST_CHANGE)
        .fetch_one(connection)
        .await
}

fn bucket(row: &SqliteRow) -> sqlx::Result<Bucket> {
    let byte: i64 = row.try_get("bucket")?;
    Bucket::try_from(byte).map_err(|_| rows::unreadable("bucket", "a value outside 0 to 255"))
}
