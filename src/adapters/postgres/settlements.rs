//! Settles attempts whose snapshots went to the outbox, each in one statement.

use async_trait::async_trait;
use sqlx::Row;
use uuid::Uuid;

use super::PostgresStore;
use super::attempts::microseconds;
use super::rows::{self, bigint, last_attempt_columns, storable};
use crate::domain::attempt::AttemptId;
use crate::domain::device::DeviceId;
use crate::domain::failure::Failure;
use crate::ports::{Delivered, GivenUp, HELD_FOR, Settlements, StoreError};

/// An attempt without a journal row is still being recorded, or its process died before it was:
/// its mark says what is known. The mark stays, so that whoever records it, or claims after it,
/// finds it. A block that stands is not lifted: it is older than this attempt.
const DELIVERED: &str = "WITH known AS ( \
         UPDATE mikrotik_backup.attempts a SET status = 'success', error_kind = NULL, error = NULL, \
             sha256_hash = $3, bytes = $4 \
         WHERE a.id = $1 AND a.device_id = $2 AND a.status <> 'success' \
         RETURNING a.id, a.device_id, a.started_at \
     ), unrecorded AS ( \
         INSERT INTO mikrotik_backup.attempts \
             (id, device_id, tenant_id, cause, started_at, finished_at, status, sha256_hash, bytes, \
              replica, endpoint) \
         SELECT s.running_attempt_id, s.device_id, s.tenant_id, s.running_cause, s.running_since, \
                greatest(now(), s.running_since), 'success', $3, $4, s.running_replica, \
                s.running_endpoint \
         FROM mikrotik_backup.device_state s \
         WHERE s.device_id = $2 AND s.running_attempt_id = $1 \
         ON CONFLICT (id) DO NOTHING \
         RETURNING id, device_id, started_at \
     ), settled AS ( \
         SELECT * FROM known UNION ALL SELECT * FROM unrecorded \
     ), state AS ( \
         UPDATE mikrotik_backup.device_state s SET \
             last_success_at = greatest(s.last_success_at, t.started_at), \
             last_hash = CASE WHEN t.last THEN $3 ELSE s.last_hash END, \
             last_bytes = CASE WHEN t.last THEN $4 ELSE s.last_bytes END, \
             status = CASE WHEN t.last THEN 'success' ELSE s.status END, \
             error_kind = CASE WHEN t.cured THEN NULL ELSE s.error_kind END, \
             error = CASE WHEN t.cured THEN NULL ELSE s.error END, \
             consecutive_failures = CASE WHEN t.cured THEN 0 ELSE s.consecutive_failures END \
         FROM (SELECT d.device_id, d.last_attempt_id = a.id AS last, \
                      d.last_attempt_id = a.id AND d.blocked_since IS NULL AS cured, a.started_at \
               FROM settled a JOIN mikrotik_backup.device_state d ON d.device_id = a.device_id) t \
         WHERE s.device_id = t.device_id \
     ) SELECT count(*) FROM settled";

const GIVE_UP: &str = concat!(
    "WITH given AS ( \
         UPDATE mikrotik_backup.attempts a SET status = 'failed', error_kind = $3, error = $4, \
             sha256_hash = NULL, bytes = NULL \
         WHERE a.id = $1 AND a.device_id = $2 AND a.status = 'queued' \
         RETURNING a.id, a.device_id \
     ), state AS ( \
         UPDATE mikrotik_backup.device_state s SET status = 'failed', error_kind = $3, error = $4, \
             consecutive_failures = s.consecutive_failures + 1, next_due = now() \
         FROM given g WHERE s.device_id = g.device_id AND s.last_attempt_id = g.id \
         RETURNING s.* \
     ) SELECT (SELECT count(*) FROM given) AS given, ",
    last_attempt_columns!(),
    " FROM (SELECT 1) AS one LEFT JOIN state s ON true",
);

const QUEUED: &str = "SELECT id, device_id FROM mikrotik_backup.attempts \
     WHERE status = 'queued' AND (held_until IS NULL OR held_until <= now()) \
       AND ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2";

const STILL_HELD: &str = "UPDATE mikrotik_backup.attempts \
     SET held_until = now() + $2 * interval '1 microsecond' \
     WHERE id = ANY($1) AND status = 'queued'";

const LET_GO: &str = "UPDATE mikrotik_backup.attempts SET held_until = NULL \
     WHERE id = ANY($1) AND held_until IS NOT NULL";

fn uuids(attempts: &[AttemptId]) -> Vec<Uuid> {
    attempts.iter().map(|id| id.0).collect()
}

#[async_trait]
impl Settlements for PostgresStore {
    async fn delivered(&self, delivered: &Delivered) -> Result<bool, StoreError> {
        // The first try may have come upon a record that was being written and wait for it without
        // seeing it; the second one sees it.
        for _ in 0..2 {
            let settled: i64 = self
                .run(
                    || format!("settle the delivered attempt {}", delivered.attempt),
                    async |connection| {
                        sqlx::query_scalar(DELIVERED)
                            .bind(delivered.attempt.0)
                            .bind(delivered.device.0)
                            .bind(delivered.hash.to_string())
                            .bind(bigint(delivered.bytes))
                            .fetch_one(connection)
                            .await
                    },
                )
                .await?;
            if settled > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn give_up(
        &self,
        attempt: AttemptId,
        device: DeviceId,
        failure: &Failure,
    ) -> Result<GivenUp, StoreError> {
        let row = self
            .run(
                || format!("give up the queued attempt {attempt}"),
                async |connection| {
                    sqlx::query(GIVE_UP)
                        .bind(attempt.0)
                        .bind(device.0)
                        .bind(failure.kind.as_str())
                        .bind(storable(&failure.message))
                        .fetch_one(connection)
                        .await
                },
            )
            .await?;
        let answer = || -> sqlx::Result<GivenUp> {
            if row.try_get::<i64, _>("given")? == 0 {
                return Ok(GivenUp::NotQueued);
            }
            let last = rows::last_attempt(&row, self.clock.now())?;
            Ok(last.map_or(GivenUp::Older, |last| GivenUp::Last(Box::new(last))))
        };
        answer().map_err(|error| StoreError::Failed {
            operation: format!("read the state of device {device}"),
            source: error.into(),
        })
    }

    async fn still_held(&self, attempts: &[AttemptId]) -> Result<(), StoreError> {
        self.run(
            || "note that snapshots are still held".to_owned(),
            async |connection| {
                sqlx::query(STILL_HELD)
                    .bind(uuids(attempts))
                    .bind(microseconds(HELD_FOR))
                    .execute(connection)
                    .await
            },
        )
        .await
        .map(drop)
    }

    async fn let_go(&self, attempts: &[AttemptId]) -> Result<(), StoreError> {
        self.run(
            || "note that snapshots are in the outbox now".to_owned(),
            async |connection| {
                sqlx::query(LET_GO)
                    .bind(uuids(attempts))
                    .execute(connection)
                    .await
            },
        )
        .await
        .map(drop)
    }

    async fn queued(
        &self,
        after: Option<AttemptId>,
        limit: u32,
    ) -> Result<Vec<(AttemptId, DeviceId)>, StoreError> {
        let rows: Vec<(Uuid, Uuid)> = self
            .run(
                || "list the queued attempts".to_owned(),
                async |connection| {
                    sqlx::query_as(QUEUED)
                        .bind(after.map(|id| id.0))
                        .bind(i64::from(limit))
                        .fetch_all(connection)
                        .await
                },
            )
            .await?;
        let ids = rows.into_iter();
        Ok(ids
            .map(|(id, device)| (AttemptId(id), DeviceId(device)))
            .collect())
    }
}
