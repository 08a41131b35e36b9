//! Begins attempts and records how they ended, each in one statement.

mod statements;

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use super::PostgresStore;
use super::rows::{self, bigint, storable, stored};
use crate::adapters::stored::{LOST, milliseconds, shortened};
use crate::domain::Timestamp;
use crate::domain::attempt::{AttemptId, AttemptRecord, Outcome};
use crate::domain::backoff::rung;
use crate::domain::contact::{Bound, Dial, Room};
use crate::domain::device::{Device, DeviceId};
use crate::domain::failure::FailureKind;
use crate::domain::host_key::Fingerprint;
use crate::ports::{Begun, Claim, Claimed, HELD_FOR, StoreError};

use statements::{CLAIM, PLAIN, PUT_OFF, RECORD, UNCLAIM};

/// How many microseconds ago a connection was permitted, and its attempt ended.
type Ages = (i64, Option<i64>);

impl PostgresStore {
    pub(super) async fn begin_attempt(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let unreadable = |error: sqlx::Error| StoreError::Failed {
            operation: format!("read device {}", claim.device),
            source: error.into(),
        };
        let mut row = self.claimed(claim, None).await?;
        while let Some(unsure) = &row
            && unsure.try_get("unsure").map_err(unreadable)?
        {
            // Nothing has begun. Once more only if the row is edited in between.
            let told: String = unsure.try_get("told").map_err(unreadable)?;
            let endpoint = rows::device(unsure).map_err(unreadable)?.endpoint;
            row = self
                .claimed(claim, Some((endpoint.counted_at(), told)))
                .await?;
        }
        let Some(row) = row else {
            return Ok(Claimed::Gone);
        };
        if row.try_get("held").map_err(unreadable)? {
            return Ok(Claimed::HeldElsewhere);
        }
        if row.try_get("deadly").map_err(unreadable)? {
            let lost: uuid::Uuid = row.try_get("lost").map_err(unreadable)?;
            let device = rows::device(&row).map_err(unreadable)?;
            let deaths: i32 = row.try_get("deaths").map_err(unreadable)?;
            return self.put_off(&device, lost, deaths).await;
        }
        let go: bool = row.try_get("go").map_err(unreadable)?;
        if go && let Some(wait) = self.must_wait(claim, &row).map_err(unreadable)? {
            // The mark came first: two claims that were made at once have seen each other.
            self.take_back_claim(claim.device, claim.attempt).await?;
            return Ok(Claimed::TooSoon(wait));
        }
        let answer = || -> sqlx::Result<Claimed> {
            if go {
                let bytes: Option<i64> = row.try_get("last_bytes")?;
                let begun = Begun {
                    device: rows::device(&row)?,
                    last_shape: rows::shape(&row)?,
                    last_bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
                    last_incomplete_menus: rows::texts(&row, "incomplete_menus")?,
                    missing_menus: rows::missing_menus(&row)?,
                    suspects: rows::suspects(&row)?,
                    now: row.try_get("now")?,
                };
                let last = rows::last_attempt(&row, self.clock.now())?;
                let last = last.as_ref().map(|last| &last.revision);
                let begun = begun.beside(last, row.try_get("last_endpoint")?);
                return Ok(Claimed::Begun(Box::new(begun)));
            }
            let last = rows::last_attempt(&row, self.clock.now())?
                .ok_or_else(|| rows::unreadable("device_state.last_attempt_id", "no value"))?;
            Ok(Claimed::Superseded(Box::new(last)))
        };
        answer().map_err(unreadable)
    }

    /// What [`CLAIM`] answers, `None` when there is no such device; counted where the row says, or, where
    /// SQL tells that wrong, at the first of `counted_at` while it still tells the second.
    async fn claimed(
        &self,
        claim: &Claim,
        counted_at: Option<(String, String)>,
    ) -> Result<Option<PgRow>, StoreError> {
        let horizon = claim.bound.map_or(Duration::ZERO, Bound::horizon);
        let (counted_at, told) = counted_at.unzip();
        self.run(
            || format!("begin an attempt at device {}", claim.device),
            async |connection| {
                sqlx::query(CLAIM)
                    .bind(claim.device.0)
                    .bind(claim.attempt.0)
                    .bind(claim.known_last.map(|id| id.0))
                    .bind(claim.any_last)
                    .bind(storable(&claim.replica))
                    .bind(claim.cause.as_str())
                    .bind(LOST)
                    .bind(microseconds(horizon))
                    .bind(claim.held_here)
                    .bind(claim.bound.is_some_and(Bound::spans_rows))
                    .bind(counted_at.as_deref())
                    .bind(told.as_deref())
                    .bind(PLAIN)
                    .fetch_optional(connection)
                    .await
            },
        )
        .await
    }

    /// How long the bound of `claim` forbids another connection.
    fn must_wait(&self, claim: &Claim, row: &PgRow) -> sqlx::Result<Option<Duration>> {
        let Some(bound) = claim.bound else {
            return Ok(None);
        };
        let dials: Option<Json<Vec<Ages>>> = row.try_get("dials")?;
        let now = self.clock.now();
        let ago = |ago| now.saturating_sub(time::Duration::microseconds(ago));
        let lost: Option<i64> = row.try_get("lost_ago")?;
        let dials: Vec<_> = dials
            .map_or(Vec::new(), |dials| dials.0)
            .into_iter()
            .chain(lost.map(|permitted| (permitted, None)))
            .map(|(permitted, ended)| Dial {
                permitted: ago(permitted),
                ended: ended.map(ago),
            })
            .collect();
        let room = Room::of(claim.cause, counts_connections(row, now)?);
        let until = bound.not_before(&dials, room, now);
        Ok(until.and_then(|until| Duration::try_from(until - now).ok()))
    }

    /// The process has died in the last attempts at `device`, `deaths` of them before this one.
    async fn put_off(
        &self,
        device: &Device,
        lost: uuid::Uuid,
        deaths: i32,
    ) -> Result<Claimed, StoreError> {
        let (revision, counted_at) = (device.revision(), device.endpoint.counted_at());
        let device = device.id;
        let wait = rung(u32::try_from(deaths).unwrap_or(1));
        let row = self
            .run(
                || format!("put device {device} off, whose attempts end with the process"),
                async |connection| {
                    sqlx::query(PUT_OFF)
                        .bind(device.0)
                        .bind(lost)
                        .bind(LOST)
                        .bind(revision.endpoint.to_string())
                        .bind(revision.credentials.to_string())
                        .bind(revision.pin.to_string())
                        .bind(microseconds(wait))
                        .bind(&counted_at)
                        .fetch_optional(connection)
                        .await
                },
            )
            .await?;
        let last = row.map(|row| rows::last_attempt(&row, self.clock.now()));
        let last = last.transpose().map_err(|error| StoreError::Failed {
            operation: format!("read device {device}"),
            source: error.into(),
        })?;
        // The lease is held, so nobody else takes the mark away.
        let last = last.flatten().ok_or_else(|| StoreError::NotFound {
            what: format!("the mark of attempt {lost} at device {device}"),
        })?;
        Ok(Claimed::Superseded(Box::new(last)))
    }

    pub(super) async fn take_back_claim(
        &self,
        device: DeviceId,
        attempt: AttemptId,
    ) -> Result<(), StoreError> {
        self.run(
            || format!("take back the claim of device {device}"),
            async |connection| {
                sqlx::query(UNCLAIM)
                    .bind(device.0)
                    .bind(attempt.0)
                    .execute(connection)
                    .await
            },
        )
        .await
        .map(drop)
    }

    pub(super) async fn record_attempt(
        &self,
        record: &AttemptRecord,
        replica: &str,
    ) -> Result<(), StoreError> {
        self.run(
            || format!("record attempt {} at device {}", record.id, record.device),
            async |connection| bind(record, replica).execute(connection).await,
        )
        .await
        .map(drop)
    }
}

/// What the last good export showed, if it is of the address that the device has now.
fn counts_connections(row: &PgRow, now: Timestamp) -> sqlx::Result<Option<bool>> {
    let last = rows::last_attempt(row, now)?.map(|last| last.revision);
    let same = rows::device(row)?.is_where(last.as_ref(), row.try_get("last_endpoint")?);
    let counts: Option<bool> = row.try_get("counts_connections")?;
    Ok(counts.filter(|_| same))
}

/// `RECORD` with its 34 parameters.
fn bind(
    record: &AttemptRecord,
    replica: &str,
) -> sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments> {
    let outcome = &record.outcome;
    let (failure, taken) = (outcome.failure(), outcome.taken());
    let offered = record
        .offered_key
        .as_ref()
        .map(Fingerprint::as_str)
        .map(str::to_owned);
    let mismatch = failure.is_some_and(|failure| failure.kind == FailureKind::HostKeyMismatch);
    let error = failure.map(|failure| shortened(&storable(&failure.message)));
    let interrupted = match outcome {
        Outcome::Interrupted { reason } => Some(shortened(&storable(reason))),
        Outcome::Delivered(_) | Outcome::Queued(_) | Outcome::Failed(_) => None,
    };
    let blocked_by = record
        .standing
        .map(|(kind, _)| kind)
        .filter(|kind| kind.blocks());
    let older_block = blocked_by.is_some() && failure.map(|failure| failure.kind) != blocked_by;
    let ledger: serde_json::Map<_, _> = record
        .ledger
        .iter()
        .map(|(rule, count)| (storable(rule), (*count).into()))
        .collect();
    let (steps, milliseconds): (Vec<String>, Vec<i64>) = record
        .steps
        .iter()
        .map(|step| (step.step.as_str().to_owned(), milliseconds(step.took)))
        .unzip();
    sqlx::query(RECORD)
        .bind(record.id.0)
        .bind(record.device.0)
        .bind(record.tenant.0)
        .bind(record.cause.as_str())
        .bind(microseconds(record.elapsed + record.ended_ago))
        .bind(outcome.status().as_str())
        .bind(failure.map(|failure| failure.kind.as_str()))
        .bind(error.or(interrupted))
        .bind(taken.map(|taken| taken.hash.to_string()))
        .bind(taken.map(|taken| bigint(taken.bytes)))
        .bind(taken.map(|taken| storable(&taken.routeros_version)))
        .bind(offered.clone())
        .bind(Json(serde_json::Value::Object(ledger)))
        .bind(storable(replica))
        .bind(steps)
        .bind(milliseconds)
        .bind(i32::try_from(record.consecutive_failures).unwrap_or(i32::MAX))
        .bind(microseconds(record.next_due_in))
        .bind(blocked_by.is_some())
        .bind(offered.filter(|_| mismatch))
        .bind(taken.map(|taken| Json(stored::of_shape(&taken.shape))))
        .bind(taken.map(|taken| i64::from(taken.shape.secrets)))
        .bind(record.revision.endpoint.to_string())
        .bind(record.revision.credentials.to_string())
        .bind(record.revision.pin.to_string())
        .bind(older_block)
        .bind(microseconds(record.ended_ago))
        .bind(Json(stored::of_texts(
            taken.map_or(&[], |taken| taken.incomplete_menus.as_slice()),
        )))
        .bind(taken.and_then(|taken| taken.warning.as_deref().map(storable)))
        .bind(stored::of_missing(&record.observed).map(Json))
        .bind(stored::of_weak(&record.observed).map(Json))
        .bind(record.held.then(|| microseconds(HELD_FOR)))
        .bind(record.observed.counts_connections)
        .bind(stored::of_suspects(&record.observed).map(Json))
}

/// Microseconds, at most a thousand years: PostgreSQL's timestamps end somewhere.
pub(super) fn microseconds(duration: Duration) -> i64 {
    const MOST: Duration = Duration::from_secs(1000 * 365 * 86_400);
    i64::try_from(duration.min(MOST).as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::device::Endpoint;
    use proptest::prelude::*;

    proptest! {
        /// What matches `PLAIN` counts where SQL says: it blanks, brackets, dots and capitals away.
        #[test]
        fn plain_addresses_are_written_one_way(
            host in "[ \\]\\[]{0,2}([0-9]{1,3}\\.){0,4}[ -9;-~]{0,9}[. \\]]{0,3}",
            port in any::<i32>(),
        ) {
            let told = host.trim_matches([' ', '[', ']']).trim_end_matches('.').to_ascii_lowercase();
            let endpoint = Endpoint { host, port };
            prop_assert_eq!(endpoint.counted_at(), format!("{told} port {port}"));
        }

        #[test]
        fn no_duration_overflows_a_timestamp(seconds in any::<u64>()) {
            let years = microseconds(Duration::from_secs(seconds)) / 1_000_000 / 86_400 / 365;
            prop_assert!((0..=1000).contains(&years));
        }
    }
}
