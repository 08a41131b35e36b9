//! Reads what is known of each device: the inventory beside its state, a page per statement.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tracing::warn;

use super::SqliteStore;
use super::rows::{
    self, device_columns, devices_with_profiles, id, is_ours, last_attempt_columns, time,
};
use crate::domain::Timestamp;
use crate::domain::device::DeviceId;
use crate::ports::{DeviceStatus, StatusPage, Statuses, StoreError};

const STATUSES: &str = concat!(
    "SELECT ",
    device_columns!(),
    ", ",
    last_attempt_columns!(),
    ", s.error, s.offered_fingerprint, s.incomplete_menus, s.warning, s.weak_ssh, s.blocked_since, s.next_due, s.running_since, \
     CASE WHEN s.error_kind IS NOT NULL THEN ( \
         SELECT a.started_at FROM attempts a \
         WHERE a.device_id = d.id AND a.status = 'failed' \
           AND a.started_at > coalesce(s.last_success_at, '') \
         ORDER BY a.started_at LIMIT 1) END AS failing_since \
     FROM ",
    devices_with_profiles!(),
    " LEFT JOIN device_state s ON s.device_id = d.id \
      WHERE d.id > coalesce(?1, '') AND (NOT ?2 OR s.error_kind IS NOT NULL) AND ",
    is_ours!(),
    " ORDER BY d.id LIMIT ?3"
);

impl SqliteStore {
    pub(super) async fn read_statuses(&self, page: StatusPage) -> Result<Statuses, StoreError> {
        let limit = page.limit.min(StatusPage::MAX);
        let now = self.clock.now();
        self.read(
            || "read the state of the devices".to_owned(),
            async |connection| {
                let rows = sqlx::query(STATUSES)
                    .bind(page.after.map(|id| id.0.hyphenated()))
                    .bind(page.failing)
                    .bind(i64::from(limit))
                    .fetch_all(connection)
                    .await?;
                let next = match rows.last() {
                    Some(last) if rows.len() == limit as usize => Some(DeviceId(id(last, "id")?)),
                    _ => None,
                };
                let devices = rows.iter().filter_map(|row| match status(row, now) {
                    Ok(status) => Some(status),
                    Err(error) => {
                        let id = row.try_get("id").unwrap_or("");
                        warn!(device.id = %id, %error, "Leaving out a device whose row cannot be read; correct the row");
                        None
                    }
                });
                Ok(Statuses {
                    devices: devices.collect(),
                    next,
                })
            },
        )
        .await
    }
}

fn status(row: &SqliteRow, now: Timestamp) -> sqlx::Result<DeviceStatus> {
    Ok(DeviceStatus {
        device: rows::device(row)?,
        last: rows::last_attempt(row, now)?,
        error: row.try_get("error")?,
        failing_since: time(row, "failing_since")?,
        blocked_since: time(row, "blocked_since")?,
        next_due: time(row, "next_due")?,
        offered_key: row.try_get("offered_fingerprint")?,
        running_since: time(row, "running_since")?,
        incomplete_menus: rows::texts(row, "incomplete_menus")?,
        warning: row.try_get("warning")?,
        weak_ssh: rows::texts(row, "weak_ssh")?,
    })
}
