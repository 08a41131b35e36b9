//! Begins attempts and records how they ended, each in one transaction.

mod statements;

use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqliteRow};

use super::SqliteStore;
use super::rows::{self, bigint, span, storable, stored, stored_time};
use crate::adapters::stored::{LOST, milliseconds, shortened};
use crate::domain::Timestamp;
use crate::domain::attempt::{AttemptId, AttemptRecord, Outcome};
use crate::domain::backoff::rung;
use crate::domain::contact::{Dial, Room};
use crate::domain::device::DeviceId;
use crate::domain::failure::FailureKind;
use crate::domain::host_key::Fingerprint;
use crate::ports::{Begun, Claim, Claimed, StoreError};

use statements::{ATTEMPT, DIALS, ELSEWHERE, MARK, ORPHAN, PUT_OFF, STATE, STEP, UNCLAIM, WANTED};

impl SqliteStore {
    pub(super) async fn begin_attempt(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let now = self.clock.now();
        self.write(
            || format!("begin an attempt at device {}", claim.device),
            async |connection| {
                let Some(row) = wanted(connection, claim).await? else {
                    return Ok(Claimed::Gone);
                };
                if !row.try_get("go")? {
                    let last = rows::last_attempt(&row, now)?.ok_or_else(|| {
                        rows::unreadable("device_state.last_attempt_id", "no value")
                    })?;
                    return Ok(Claimed::Superseded(Box::new(last)));
                }
                if !claim.any_last && is_deadly(&row, claim)? {
                    put_off(connection, claim, &row, now).await?;
                    let row = wanted(connection, claim).await?;
                    let last = row.map(|row| rows::last_attempt(&row, now)).transpose()?;
                    let last = last.flatten().ok_or_else(|| {
                        rows::unreadable("device_state.last_attempt_id", "no value")
                    })?;
                    return Ok(Claimed::Superseded(Box::new(last)));
                }
                let begun = begun(&row, now)?;
                let endpoint = begun.device.endpoint.counted_at();
                let wait = must_wait(connection, claim, &row, &endpoint, now).await?;
                mark(connection, claim, &begun, &endpoint).await?;
                if let Some(wait) = wait {
                    // The mark of an attempt that was lost is gone, and ours has never been.
                    take_back(connection, claim.device, claim.attempt).await?;
                    return Ok(Claimed::TooSoon(wait));
                }
                Ok(Claimed::Begun(Box::new(begun)))
            },
        )
        .await
    }

    pub(super) async fn take_back_claim(
        &self,
        device: DeviceId,
        attempt: AttemptId,
    ) -> Result<(), StoreError> {
        self.write(
            || format!("take back the claim of device {device}"),
            async |connection| take_back(connection, device, attempt).await,
        )
        .await
    }

    pub(super) async fn record_attempt(
        &self,
        record: &AttemptRecord,
        replica: &str,
    ) -> Result<(), StoreError> {
        let row = Written::of(record, self.clock.now());
        self.write(
            || format!("record attempt {} at device {}", record.id, record.device),
            async |connection| {
                let new = row
                    .attempt(record, replica)
                    .fetch_optional(&mut *connection)
                    .await?;
                if new.is_none() {
                    return Ok(()); // It is recorded already.
                }
                for (ordinal, step) in (1_i64..).zip(&record.steps) {
                    sqlx::query(STEP)
                        .bind(record.id.0.hyphenated())
                        .bind(ordinal)
                        .bind(step.step.as_str())
                        .bind(milliseconds(step.took))
                        .execute(&mut *connection)
                        .await?;
                }
                row.state(record).execute(connection).await.map(drop)
            },
        )
        .await
    }
}

async fn take_back(
    connection: &mut SqliteConnection,
    device: DeviceId,
    attempt: AttemptId,
) -> sqlx::Result<()> {
    sqlx::query(UNCLAIM)
        .bind(device.0.hyphenated())
        .bind(attempt.0.hyphenated())
        .execute(connection)
        .await
        .map(drop)
}

/// How long the bound of `claim` forbids another connection.
async fn must_wait(
    connection: &mut SqliteConnection,
    claim: &Claim,
    state: &SqliteRow,
    endpoint: &str,
    now: Timestamp,
) -> sqlx::Result<Option<Duration>> {
    let Some(bound) = claim.bound else {
        return Ok(None);
    };
    let lost: Option<String> = state.try_get("running_attempt_id")?;
    let together = bound.spans_rows().then_some(endpoint);
    let horizon = stored_time(now - span(bound.horizon()));
    let rows = sqlx::query(DIALS)
        .bind(claim.device.0.hyphenated())
        .bind(claim.attempt.0.hyphenated())
        .bind(lost.as_deref())
        .bind(horizon.clone())
        .bind(together)
        .fetch_all(&mut *connection)
        .await?;
    let elsewhere = sqlx::query(ELSEWHERE)
        .bind(together)
        .bind(claim.device.0.hyphenated())
        .bind(horizon)
        .fetch_all(connection)
        .await?;
    let mut dials = Vec::with_capacity(rows.len() + elsewhere.len() + 1);
    for row in &rows {
        dials.push(Dial {
            permitted: rows::needed_time(row, "started_at")?,
            ended: rows::time(row, "ended")?,
        });
    }
    let lost_at: Option<String> = state.try_get("running_endpoint")?;
    let lost_here = lost.is_some_and(|lost| lost != claim.attempt.to_string())
        && lost_at.is_none_or(|lost_at| lost_at == endpoint);
    for row in elsewhere.iter().chain(lost_here.then_some(state)) {
        dials.push(Dial {
            permitted: rows::needed_time(row, "running_since")?,
            ended: None,
        });
    }
    let room = Room::of(claim.cause, counts_connections(state, now)?);
    let until = bound.not_before(&dials, room, now);
    Ok(until.and_then(|until| Duration::try_from(until - now).ok()))
}

/// What the last good export showed, if it is of the address that the device has now.
fn counts_connections(row: &SqliteRow, now: Timestamp) -> sqlx::Result<Option<bool>> {
    let last = rows::last_attempt(row, now)?.map(|last| last.revision);
    let same = rows::device(row)?.is_where(last.as_ref(), row.try_get("last_endpoint")?);
    let counts: Option<bool> = row.try_get("counts_connections")?;
    Ok(counts.filter(|_| same))
}

async fn wanted(
    connection: &mut SqliteConnection,
    claim: &Claim,
) -> sqlx::Result<Option<SqliteRow>> {
    sqlx::query(WANTED)
        .bind(claim.device.0.hyphenated())
        .bind(claim.known_last.map(|id| id.0.hyphenated()))
        .bind(claim.any_last)
        .fetch_optional(connection)
        .await
}

/// Whether the process has died in the last attempt, and in the one before it.
fn is_deadly(row: &SqliteRow, claim: &Claim) -> sqlx::Result<bool> {
    let lost: Option<String> = row.try_get("running_attempt_id")?;
    let lost = lost.is_some_and(|lost| lost != claim.attempt.to_string());
    Ok(lost && row.try_get::<i64, _>("deaths")? > 0)
}

async fn put_off(
    connection: &mut SqliteConnection,
    claim: &Claim,
    row: &SqliteRow,
    now: Timestamp,
) -> sqlx::Result<()> {
    orphan(connection, claim, now).await?;
    let device = rows::device(row)?;
    let revision = device.revision();
    let deaths: i64 = row.try_get("deaths")?;
    let wait = rung(u32::try_from(deaths).unwrap_or(1));
    sqlx::query(PUT_OFF)
        .bind(claim.device.0.hyphenated())
        .bind(stored_time(now))
        .bind(revision.endpoint.to_string())
        .bind(revision.credentials.to_string())
        .bind(revision.pin.to_string())
        .bind(stored_time(now + span(wait)))
        .bind(device.endpoint.counted_at())
        .execute(connection)
        .await
        .map(drop)
}

async fn orphan(
    connection: &mut SqliteConnection,
    claim: &Claim,
    now: Timestamp,
) -> sqlx::Result<()> {
    sqlx::query(ORPHAN)
        .bind(claim.device.0.hyphenated())
        .bind(claim.attempt.0.hyphenated())
        .bind(stored_time(now))
        .bind(LOST)
        .execute(connection)
        .await
        .map(drop)
}

fn begun(row: &SqliteRow, now: Timestamp) -> sqlx::Result<Begun> {
    let bytes: Option<i64> = row.try_get("last_bytes")?;
    let begun = Begun {
        device: rows::device(row)?,
        last_shape: rows::shape(row)?,
        last_bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        last_incomplete_menus: rows::texts(row, "incomplete_menus")?,
        missing_menus: rows::missing_menus(row)?,
        suspects: rows::suspects(row)?,
        now,
    };
    let last = rows::last_attempt(row, now)?.map(|last| last.revision);
    Ok(begun.beside(last.as_ref(), row.try_get("last_endpoint")?))
}

async fn mark(
    connection: &mut SqliteConnection,
    claim: &Claim,
    begun: &Begun,
    endpoint: &str,
) -> sqlx::Result<()> {
    let now = stored_time(begun.now);
    orphan(connection, claim, begun.now).await?;
    sqlx::query(MARK)
        .bind(claim.device.0.hyphenated())
        .bind(begun.device.tenant.0.hyphenated())
        .bind(claim.attempt.0.hyphenated())
        .bind(&now)
        .bind(storable(&claim.replica))
        .bind(claim.cause.as_str())
        .bind(endpoint)
        .execute(connection)
        .await
        .map(drop)
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// What the journal row and the state of a device have in common.
struct Written {
    started_at: String,
    finished_at: String,
    next_due: String,
    error_kind: Option<&'static str>,
    error: Option<String>,
    hash: Option<String>,
    bytes: Option<i64>,
    routeros_version: Option<String>,
    offered: Option<String>,
}

impl Written {
    fn of(record: &AttemptRecord, now: Timestamp) -> Self {
        let (failure, taken) = (record.outcome.failure(), record.outcome.taken());
        let ended = now - span(record.ended_ago);
        let error = match &record.outcome {
            Outcome::Failed(failure) => Some(&failure.message),
            Outcome::Interrupted { reason } => Some(reason),
            Outcome::Delivered(_) | Outcome::Queued(_) => None,
        };
        Self {
            started_at: stored_time(ended - span(record.elapsed)),
            finished_at: stored_time(ended),
            next_due: stored_time(ended + span(record.next_due_in)),
            error_kind: failure.map(|failure| failure.kind.as_str()),
            error: error.map(|text| shortened(&storable(text))),
            hash: taken.map(|taken| taken.hash.to_string()),
            bytes: taken.map(|taken| bigint(taken.bytes)),
            routeros_version: taken.map(|taken| storable(&taken.routeros_version)),
            offered: record
                .offered_key
                .as_ref()
                .map(Fingerprint::as_str)
                .map(str::to_owned),
        }
    }

    fn attempt<'q>(&self, record: &AttemptRecord, replica: &str) -> Query<'q> {
        let ledger: serde_json::Map<_, _> = record
            .ledger
            .iter()
            .map(|(rule, count)| (storable(rule), (*count).into()))
            .collect();
        sqlx::query(ATTEMPT)
            .bind(record.id.0.hyphenated())
            .bind(record.device.0.hyphenated())
            .bind(record.tenant.0.hyphenated())
            .bind(record.cause.as_str())
            .bind(self.started_at.clone())
            .bind(self.finished_at.clone())
            .bind(record.outcome.status().as_str())
            .bind(self.error_kind)
            .bind(self.error.clone())
            .bind(self.hash.clone())
            .bind(self.bytes)
            .bind(self.routeros_version.clone())
            .bind(self.offered.clone())
            .bind(serde_json::Value::Object(ledger).to_string())
            .bind(storable(replica))
            .bind(stored::of_texts(incomplete_menus(record)).to_string())
            .bind(warning(record))
    }

    fn state<'q>(&self, record: &AttemptRecord) -> Query<'q> {
        let (failure, taken) = (record.outcome.failure(), record.outcome.taken());
        let mismatch = failure.is_some_and(|failure| failure.kind == FailureKind::HostKeyMismatch);
        let blocked_by = record
            .standing
            .map(|(kind, _)| kind)
            .filter(|kind| kind.blocks());
        let older_block = blocked_by.is_some() && failure.map(|failure| failure.kind) != blocked_by;
        sqlx::query(STATE)
            .bind(record.device.0.hyphenated())
            .bind(record.tenant.0.hyphenated())
            .bind(record.id.0.hyphenated())
            .bind(self.started_at.clone())
            .bind(self.finished_at.clone())
            .bind(self.hash.clone())
            .bind(record.outcome.status().as_str())
            .bind(self.error_kind)
            .bind(self.error.clone())
            .bind(i64::from(record.consecutive_failures))
            .bind(self.next_due.clone())
            .bind(blocked_by.is_some())
            .bind(self.offered.clone().filter(|_| mismatch))
            .bind(self.bytes)
            .bind(self.routeros_version.clone())
            .bind(taken.map(|taken| stored::of_shape(&taken.shape).to_string()))
            .bind(taken.map(|taken| i64::from(taken.shape.secrets)))
            .bind(record.revision.endpoint.to_string())
            .bind(record.revision.credentials.to_string())
            .bind(record.revision.pin.to_string())
            .bind(older_block)
            .bind(taken.map(|taken| stored::of_texts(&taken.incomplete_menus).to_string()))
            .bind(warning(record))
            .bind(stored::of_missing(&record.observed).map(|menus| menus.to_string()))
            .bind(stored::of_weak(&record.observed).map(|weak| weak.to_string()))
            .bind(record.observed.counts_connections)
            .bind(stored::of_suspects(&record.observed).map(|suspect| suspect.to_string()))
    }
}

fn incomplete_menus(record: &AttemptRecord) -> &[String] {
    let taken = record.outcome.taken();
    taken.map_or(&[], |taken| taken.incomplete_menus.as_slice())
}

fn warning(record: &AttemptRecord) -> Option<String> {
    record.outcome.taken()?.warning.as_deref().map(storable)
}
