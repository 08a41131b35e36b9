//! Reads the journal of attempts and keeps it short.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::rows;
use crate::domain::attempt::{AttemptId, Cause, Status, Step, StepTime};
use crate::domain::device::{DeviceId, TenantId};
use crate::ports::{JournalEntry, JournalPage, Running, StoreError};

macro_rules! entry_columns {
    () => {
        "a.id, a.device_id, a.tenant_id, a.cause, a.started_at, a.finished_at, a.status, \
         a.error_kind, a.error, a.sha256_hash, a.bytes, a.replica, a.incomplete_menus, a.warning, \
         (SELECT count(*) FROM mikrotik_backup.attempt_steps s WHERE s.attempt_id = a.id) AS step_count"
    };
}

/// One row per step, or one without a step.
const ATTEMPT: &str = concat!(
    "SELECT ",
    entry_columns!(),
    ", t.step, t.milliseconds FROM mikrotik_backup.attempts a \
      LEFT JOIN mikrotik_backup.attempt_steps t ON t.attempt_id = a.id \
      WHERE a.id = $1 ORDER BY t.ordinal",
);

/// One row a device is few enough to look at each; it is asked for what the journal does not have.
const RUNNING: &str = "SELECT device_id, tenant_id, running_cause AS cause, \
     running_since AS started_at, running_replica AS replica \
     FROM mikrotik_backup.device_state WHERE running_attempt_id = $1";

const ATTEMPTS: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM mikrotik_backup.attempts a \
      WHERE ($1::uuid IS NULL OR a.device_id = $1) \
        AND ($2::uuid IS NULL OR (a.started_at, a.id) < \
             (SELECT b.started_at, b.id FROM mikrotik_backup.attempts b WHERE b.id = $2)) \
      ORDER BY a.started_at DESC, a.id DESC LIMIT $3",
);

/// Replicas that prune at once pass over each other's rows.
const PRUNE: &str = "DELETE FROM mikrotik_backup.attempts WHERE id IN ( \
         SELECT id FROM mikrotik_backup.attempts WHERE started_at < now() - $1 * interval '1 second' \
         ORDER BY started_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

const FORGET: &str = "DELETE FROM mikrotik_backup.device_state WHERE device_id IN ( \
         SELECT s.device_id FROM mikrotik_backup.device_state s \
         WHERE NOT EXISTS (SELECT FROM devices d WHERE d.id = s.device_id) \
           AND coalesce(greatest(s.last_finished_at, s.running_since), s.first_seen) < now() - $1 * interval '1 second' \
         LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// The longest age in seconds, a thousand years: PostgreSQL's timestamps end somewhere.
const OLDEST: u64 = 1000 * 365 * 86_400;

impl PostgresStore {
    pub(super) async fn read_attempt(
        &self,
        id: AttemptId,
    ) -> Result<(JournalEntry, Vec<StepTime>), StoreError> {
        let found = self
            .run(
                || format!("read attempt {id}"),
                async |connection| {
                    let rows = sqlx::query(ATTEMPT)
                        .bind(id.0)
                        .fetch_all(connection)
                        .await?;
                    let Some(first) = rows.first() else {
                        return Ok(None);
                    };
                    let steps = rows.iter().filter_map(|row| step(row).transpose());
                    Ok(Some((entry(first)?, steps.collect::<sqlx::Result<_>>()?)))
                },
            )
            .await?;
        found.ok_or_else(|| StoreError::NotFound {
            what: format!("attempt {id}"),
        })
    }

    pub(super) async fn read_running(&self, id: AttemptId) -> Result<Option<Running>, StoreError> {
        self.run(
            || format!("look whether attempt {id} is being made"),
            async |connection| {
                let row = sqlx::query(RUNNING).bind(id.0);
                let row = row.fetch_optional(connection).await?;
                row.as_ref().map(running).transpose()
            },
        )
        .await
    }

    pub(super) async fn read_attempts(
        &self,
        page: JournalPage,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        self.run(
            || "read the journal of attempts".into(),
            async |connection| {
                let rows = sqlx::query(ATTEMPTS)
                    .bind(page.device.map(|id| id.0))
                    .bind(page.before.map(|id| id.0))
                    .bind(i64::from(page.limit.min(JournalPage::MAX)))
                    .fetch_all(connection)
                    .await?;
                rows.iter().map(entry).collect()
            },
        )
        .await
    }

    /// Also forgets the state of devices that have been gone for as long.
    pub(super) async fn prune_journal(&self, age: Duration, batch: u32) -> Result<u64, StoreError> {
        let seconds = rows::bigint(age.as_secs().min(OLDEST));
        self.run(
            || "prune the journal of attempts".into(),
            async |connection| {
                let pruned = sqlx::query(PRUNE)
                    .bind(seconds)
                    .bind(i64::from(batch))
                    .execute(&mut *connection)
                    .await?;
                sqlx::query(FORGET)
                    .bind(seconds)
                    .bind(i64::from(batch))
                    .execute(&mut *connection)
                    .await?;
                Ok(pruned.rows_affected())
            },
        )
        .await
    }
}

fn running(row: &PgRow) -> sqlx::Result<Running> {
    const NEWER: &str = "a value that this version does not know";
    Ok(Running {
        device: DeviceId(row.try_get("device_id")?),
        tenant: TenantId(row.try_get("tenant_id")?),
        cause: Cause::from_name(row.try_get("cause")?)
            .ok_or_else(|| rows::unreadable("device_state.running_cause", NEWER))?,
        started_at: row.try_get("started_at")?,
        replica: row.try_get("replica")?,
    })
}

fn entry(row: &PgRow) -> sqlx::Result<JournalEntry> {
    const NEWER: &str = "a value that this version does not know";
    let bytes: Option<i64> = row.try_get("bytes")?;
    let steps: i64 = row.try_get("step_count")?;
    Ok(JournalEntry {
        id: AttemptId(row.try_get("id")?),
        device: DeviceId(row.try_get("device_id")?),
        tenant: TenantId(row.try_get("tenant_id")?),
        cause: Cause::from_name(row.try_get("cause")?)
            .ok_or_else(|| rows::unreadable("attempts.cause", NEWER))?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
        status: Status::from_name(row.try_get("status")?)
            .ok_or_else(|| rows::unreadable("attempts.status", NEWER))?,
        error_kind: row.try_get("error_kind")?,
        error: row.try_get("error")?,
        sha256_hash: row.try_get("sha256_hash")?,
        bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        incomplete_menus: rows::texts(row, "incomplete_menus")?,
        warning: row.try_get("warning")?,
        replica: row.try_get("replica")?,
        step_count: u32::try_from(steps).unwrap_or(u32::MAX),
    })
}

fn step(row: &PgRow) -> sqlx::Result<Option<StepTime>> {
    let name: Option<&str> = row.try_get("step")?;
    let Some(name) = name else { return Ok(None) };
    let milliseconds: i64 = row.try_get("milliseconds")?;
    Ok(Some(StepTime {
        step: Step::from_name(name).ok_or_else(|| {
            rows::unreadable(
                "attempt_steps.step",
                "a value that this version does not know",
            )
        })?,
        took: Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0)),
    }))
}
