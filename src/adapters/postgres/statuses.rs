//! Reads what is known of each device: the inventory beside its state, a page per statement.

use sqlx::Row;
use sqlx::postgres::PgRow;
use tracing::warn;
use uuid::Uuid;

use super::PostgresStore;
use super::rows::{self, device_columns, devices_with_profiles, is_ours, last_attempt_columns};
use crate::domain::Timestamp;
use crate::domain::device::DeviceId;
use crate::ports::{DeviceStatus, StatusPage, Statuses, StoreError};

/// Times are ages in microseconds, so that the difference between the two clocks cancels.
const STATUSES: &str = concat!(
    "SELECT ",
    device_columns!(),
    ", ",
    last_attempt_columns!(),
    ", s.error, s.offered_fingerprint, s.incomplete_menus, s.warning, s.weak_ssh, \
     (extract(epoch FROM statement_timestamp() - s.blocked_since) * 1000000)::bigint AS blocked_age, \
     (extract(epoch FROM statement_timestamp() - s.next_due) * 1000000)::bigint AS due_age, \
     (extract(epoch FROM statement_timestamp() - s.running_since) * 1000000)::bigint AS running_age, \
     CASE WHEN s.error_kind IS NOT NULL THEN ( \
         SELECT (extract(epoch FROM statement_timestamp() - a.started_at) * 1000000)::bigint \
         FROM mikrotik_backup.attempts a \
         WHERE a.device_id = d.id AND a.status = 'failed' \
           AND a.started_at > coalesce(s.last_success_at, '-infinity') \
         ORDER BY a.started_at LIMIT 1) END AS failing_age \
     FROM ",
    devices_with_profiles!(),
    " LEFT JOIN mikrotik_backup.device_state s ON s.device_id = d.id \
      WHERE ($1::uuid IS NULL OR d.id > $1) AND (NOT $2 OR s.error_kind IS NOT NULL) AND ",
    is_ours!(),
    " ORDER BY d.id LIMIT $3"
);

impl PostgresStore {
    pub(super) async fn read_statuses(&self, page: StatusPage) -> Result<Statuses, StoreError> {
        let limit = page.limit.min(StatusPage::MAX);
        let operation = || "read the state of the devices".to_owned();
        let rows = self
            .run(operation, async |connection| {
                sqlx::query(STATUSES)
                    .bind(page.after.map(|id| id.0))
                    .bind(page.failing)
                    .bind(i64::from(limit))
                    .fetch_all(connection)
                    .await
            })
            .await?;
        let now = self.clock.now();
        let next = match rows.last() {
            Some(last) if rows.len() == limit as usize => {
                let id = last.try_get("id").map_err(|error| StoreError::Failed {
                    operation: operation(),
                    source: error.into(),
                })?;
                Some(DeviceId(id))
            }
            _ => None,
        };
        let devices = rows.iter().filter_map(|row| match status(row, now) {
            Ok(status) => Some(status),
            Err(error) => {
                let id: Uuid = row.try_get("id").unwrap_or_default();
                warn!(device.id = %id, %error, "Leaving out a device whose row cannot be read; correct the row");
                None
            }
        });
        Ok(Statuses {
            devices: devices.collect(),
            next,
        })
    }
}

fn status(row: &PgRow, now: Timestamp) -> sqlx::Result<DeviceStatus> {
    let at = |column| -> sqlx::Result<Option<Timestamp>> {
        let age: Option<i64> = row.try_get(column)?;
        Ok(age.and_then(|age| now.checked_sub(time::Duration::microseconds(age))))
    };
    Ok(DeviceStatus {
        device: rows::device(row)?,
        last: rows::last_attempt(row, now)?,
        error: row.try_get("error")?,
        failing_since: at("failing_age")?,
        blocked_since: at("blocked_age")?,
        next_due: at("due_age")?,
        offered_key: row.try_get("offered_fingerprint")?,
        running_since: at("running_age")?,
        incomplete_menus: rows::texts(row, "incomplete_menus")?,
        warning: row.try_get("warning")?,
        weak_ssh: rows::texts(row, "weak_ssh")?,
    })
}
