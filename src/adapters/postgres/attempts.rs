//! Begins attempts and records how they ended, each in one statement.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use super::PostgresStore;
use super::rows::{
    self, bigint, device_columns, devices_with_profiles, is_ours, last_attempt_columns, storable,
    stored,
};
use crate::domain::Timestamp;
use crate::domain::attempt::{AttemptId, AttemptRecord, Outcome};
use crate::domain::backoff::rung;
use crate::domain::contact::{Bound, Dial, Room};
use crate::domain::device::{Device, DeviceId};
use crate::domain::failure::FailureKind;
use crate::domain::host_key::Fingerprint;
use crate::ports::{Begun, Claim, Claimed, HELD_FOR, StoreError};

/// Where connections are counted, by the row, as far as SQL can tell: it is
/// [`Endpoint::counted_at`](crate::domain::device::Endpoint::counted_at) where [`PLAIN`] matches it.
macro_rules! endpoint {
    () => {
        "lower(rtrim(btrim(format('%s', d.ip_address), ' []'), '.')) \
         || ' port ' || coalesce(d.ssh_port::text, '22')"
    };
}

/// Addresses without a colon or a letter beyond ASCII, with a port that is written as a number is: there
/// is no other way to write them than those that SQL knows.
const PLAIN: &str = "^[ -9;-~]* port (0|-?[1-9][0-9]{0,8})$";

/// Where the last attempt at the device `s` went, if its row tells, and the state's digests are of that
/// attempt: those of one that was put off need not be.
macro_rules! last_endpoint {
    ($state:literal) => {
        concat!(
            "(SELECT p.endpoint FROM mikrotik_backup.attempts p WHERE p.id = ",
            $state,
            ".last_attempt_id AND (p.status <> 'interrupted' OR ",
            $state,
            ".deaths = 0))"
        )
    };
}

/// `prior` locks the state first, so two claims of one device take turns. A mark that another
/// attempt left becomes a journal row; if the one before it did, too, the device is deadly, and
/// nothing begins. Nor does it while another process holds the last snapshot. Parts of one statement
/// do not see each other's writes, nor what was committed while it waited for the lock: the answer is
/// made of what was there before, and one that had to wait is older, by `now()`, than the mark that
/// it finds. But `is_held` and `connections_to` look when they are called: after the lock, and, with
/// what the last `$8` microseconds saw, after the turn at the endpoint, if rows count together (`$10`).
/// Nothing begins where SQL may tell that endpoint wrong (it is not [`PLAIN`], `$13`), unless it is told
/// (`$11`) for the row as it is (`$12`, what SQL tells of it).
const CLAIM: &str = concat!(
    "WITH prior AS MATERIALIZED ( \
         SELECT * FROM mikrotik_backup.device_state WHERE device_id = $1 FOR UPDATE \
     ), wanted AS MATERIALIZED ( \
         SELECT w.*, coalesce(told = $12, false) OR told ~ $13 AS sure, \
                CASE WHEN told = $12 THEN $11 ELSE told END AS endpoint, \
                w.current AND NOT w.deadly AND NOT w.held AS may, \
                w.current AND NOT w.deadly AND NOT w.held \
                    AND (coalesce(told = $12, false) OR told ~ $13) AS go FROM ( \
             SELECT d.id, d.tenant_id, \
                    $4 OR s.last_attempt_id IS NULL OR s.last_attempt_id IS NOT DISTINCT FROM $3 \
                        AS current, \
                    coalesce(NOT $4 AND s.deaths > 0 AND s.running_attempt_id <> $2, false) \
                        AS deadly, \
                    NOT $9 AND mikrotik_backup.is_held(coalesce(s.device_id, d.id)) AS held, \
                    ",
    endpoint!(),
    " AS told FROM ",
    devices_with_profiles!(),
    "    LEFT JOIN prior s ON true \
         WHERE d.id = $1 AND ",
    is_ours!(),
    ") w), orphan AS ( \
         INSERT INTO mikrotik_backup.attempts \
             (id, device_id, tenant_id, cause, started_at, finished_at, status, error, replica, \
              endpoint) \
         SELECT s.running_attempt_id, s.device_id, s.tenant_id, s.running_cause, s.running_since, \
                greatest(now(), s.running_since), 'interrupted', $7, s.running_replica, \
                s.running_endpoint \
         FROM prior s, wanted w WHERE w.go AND s.running_attempt_id <> $2 \
         ON CONFLICT (id) DO NOTHING \
     ), mark AS ( \
         INSERT INTO mikrotik_backup.device_state AS s \
             (device_id, tenant_id, running_attempt_id, running_since, running_replica, running_cause, \
              running_endpoint) \
         SELECT w.id, w.tenant_id, $2, now(), $5, $6, w.endpoint FROM wanted w WHERE w.go \
         ON CONFLICT (device_id) DO UPDATE SET \
             tenant_id = excluded.tenant_id, running_attempt_id = excluded.running_attempt_id, \
             running_since = excluded.running_since, running_replica = excluded.running_replica, \
             running_cause = excluded.running_cause, \
             running_endpoint = excluded.running_endpoint, \
             deaths = s.deaths + (s.running_attempt_id IS NOT NULL \
                 AND s.running_attempt_id <> excluded.running_attempt_id)::int \
     ) SELECT w.go, w.may AND NOT w.sure AS unsure, w.current AND w.held AS held, \
         w.current AND w.deadly AND NOT w.held AS deadly, \
         s.running_attempt_id AS lost, now() AS now, w.told, \
         s.menu_digests, s.secret_count, s.last_bytes, s.missing_menus, s.incomplete_menus, \
         s.counts_connections, ",
    last_endpoint!("s"),
    " AS last_endpoint, \
         CASE WHEN s.suspect_as_of = s.last_attempt_id THEN s.suspect END AS suspect, \
         CASE WHEN s.running_attempt_id <> $2 \
                   AND coalesce(s.running_endpoint, w.endpoint) = w.endpoint \
             THEN (extract(epoch FROM now() - s.running_since) * 1000000)::bigint END AS lost_ago, \
         CASE WHEN w.go AND $8 > 0 THEN mikrotik_backup.connections_to( \
             CASE WHEN $10 THEN w.endpoint END, w.id, $2, s.running_attempt_id, $8 * interval '1 microsecond') END AS dials, ",
    device_columns!(),
    ", ",
    last_attempt_columns!(),
    " FROM wanted w CROSS JOIN ",
    devices_with_profiles!(),
    " LEFT JOIN prior s ON true WHERE d.id = w.id",
);

/// The attempt of the mark is the last one: journaled, and kept as the state of the device,
/// whose failure, if one stands, goes on to be compared with what it was.
const PUT_OFF: &str = concat!(
    "WITH lost AS MATERIALIZED ( \
         SELECT o.*, o.error_kind IS NOT NULL OR o.endpoint_digest = $4 \
             OR coalesce(",
    last_endpoint!("o"),
    " = $8, false) AS stays \
         FROM mikrotik_backup.device_state o \
         WHERE o.device_id = $1 AND o.running_attempt_id = $2 FOR UPDATE \
     ), orphan AS ( \
         INSERT INTO mikrotik_backup.attempts \
             (id, device_id, tenant_id, cause, started_at, finished_at, status, error, replica, \
              endpoint) \
         SELECT l.running_attempt_id, l.device_id, l.tenant_id, l.running_cause, l.running_since, \
                greatest(now(), l.running_since), 'interrupted', $3, l.running_replica, \
                l.running_endpoint \
         FROM lost l \
         ON CONFLICT (id) DO NOTHING \
     ) UPDATE mikrotik_backup.device_state s SET \
         last_attempt_id = l.running_attempt_id, last_attempt_at = l.running_since, \
         last_finished_at = now(), status = 'interrupted', deaths = l.deaths + 1, \
         counts_connections = NULL, \
         menu_digests = CASE WHEN l.stays THEN l.menu_digests END, \
         missing_menus = CASE WHEN l.stays THEN l.missing_menus END, \
         suspect_as_of = CASE WHEN l.suspect_as_of = l.last_attempt_id AND l.stays \
             THEN l.running_attempt_id END, \
         next_due = now() + $7 * interval '1 microsecond', \
         endpoint_digest = CASE WHEN l.error_kind IS NULL THEN $4 ELSE l.endpoint_digest END, \
         credentials_digest = CASE WHEN l.error_kind IS NULL THEN $5 ELSE l.credentials_digest END, \
         pin_digest = CASE WHEN l.error_kind IS NULL THEN $6 ELSE l.pin_digest END, \
         running_attempt_id = NULL, running_since = NULL, running_replica = NULL, \
         running_cause = NULL, running_endpoint = NULL \
     FROM lost l WHERE s.device_id = l.device_id RETURNING ",
    last_attempt_columns!(),
);

const UNCLAIM: &str = "UPDATE mikrotik_backup.device_state SET running_attempt_id = NULL, \
     running_since = NULL, running_replica = NULL, running_cause = NULL, running_endpoint = NULL \
     WHERE device_id = $1 AND running_attempt_id = $2";

const ORPHAN: &str = "the process that made this attempt died, or lost its lease, before it \
                      recorded how the attempt ended";

/// `column = …` for what describes the failure that counts: an attempt that ended otherwise does
/// not lift a block, so the block outlives it, together with what the device looked like to the
/// attempt that was blocked.
macro_rules! unless_an_older_block_stands {
    ($column:literal) => {
        concat!(
            $column,
            " = CASE WHEN $26 AND s.blocked_since IS NOT NULL THEN s.",
            $column,
            " ELSE excluded.",
            $column,
            " END, "
        )
    };
}

/// `column = …` for what the router showed: it stays where an attempt that shows nothing of it went to the
/// same router, by what the row said of its address.
macro_rules! kept_at_the_same_place {
    ($column:literal) => {
        kept_at_the_same_place!($column, concat!("s.", $column))
    };
    ($column:literal, $kept:expr) => {
        concat!(
            $column,
            " = coalesce(excluded.",
            $column,
            ", CASE WHEN s.endpoint_digest = excluded.endpoint_digest OR ",
            last_endpoint!("s"),
            " = (SELECT a.endpoint FROM attempt a) THEN ",
            $kept,
            " END), "
        )
    };
}

/// An attempt that was taken for interrupted may still report its true outcome. One that was queued
/// may have been delivered by the relay before it is recorded here: then its mark is still there,
/// and it is recorded as the success that it is. Anything else that is there already stays. Where it
/// went is in its mark, or in the row that was made of it. State only moves forward, by the time at
/// which attempts started.
const RECORD: &str = concat!(
    "WITH attempt AS ( \
         INSERT INTO mikrotik_backup.attempts AS a \
             (id, device_id, tenant_id, cause, started_at, finished_at, status, error_kind, error, \
              sha256_hash, bytes, routeros_version, offered_fingerprint, ledger, replica, \
              incomplete_menus, warning, held_until, endpoint) \
         VALUES ($1, $2, $3, $4, now() - $5 * interval '1 microsecond', \
                 now() - $27 * interval '1 microsecond', $6, $7, $8, \
                 $9, $10, $11, $12, $13, $14, $28, $29, now() + $32 * interval '1 microsecond', \
                 (SELECT m.running_endpoint FROM mikrotik_backup.device_state m \
                  WHERE m.device_id = $2 AND m.running_attempt_id = $1)) \
         ON CONFLICT (id) DO UPDATE SET \
             started_at = excluded.started_at, finished_at = excluded.finished_at, \
             status = CASE WHEN a.status = 'success' THEN a.status ELSE excluded.status END, \
             error_kind = excluded.error_kind, error = excluded.error, \
             sha256_hash = excluded.sha256_hash, bytes = excluded.bytes, \
             routeros_version = excluded.routeros_version, \
             offered_fingerprint = excluded.offered_fingerprint, ledger = excluded.ledger, \
             incomplete_menus = excluded.incomplete_menus, warning = excluded.warning, \
             held_until = excluded.held_until, \
             endpoint = coalesce(a.endpoint, excluded.endpoint) \
             WHERE a.device_id = excluded.device_id AND (a.status = 'interrupted' \
                 OR a.status = 'success' AND excluded.status = 'queued' AND EXISTS ( \
                     SELECT FROM mikrotik_backup.device_state m \
                     WHERE m.device_id = excluded.device_id AND m.running_attempt_id = excluded.id)) \
         RETURNING a.* \
     ), steps AS ( \
         INSERT INTO mikrotik_backup.attempt_steps (attempt_id, ordinal, step, milliseconds) \
         SELECT a.id, taken.ordinal, taken.step, taken.milliseconds FROM attempt a, \
             unnest($15::text[], $16::bigint[]) WITH ORDINALITY AS taken (step, milliseconds, ordinal) \
         ON CONFLICT (attempt_id, ordinal) DO NOTHING \
     ) \
     INSERT INTO mikrotik_backup.device_state AS s \
         (device_id, tenant_id, last_attempt_id, last_attempt_at, last_finished_at, \
          last_success_at, status, error_kind, error, consecutive_failures, next_due, \
          blocked_since, offered_fingerprint, last_hash, last_bytes, routeros_version, \
          menu_digests, secret_count, endpoint_digest, credentials_digest, pin_digest, \
          incomplete_menus, warning, missing_menus, weak_ssh, counts_connections, \
          suspect, suspect_as_of) \
     SELECT a.device_id, a.tenant_id, a.id, a.started_at, a.finished_at, \
            CASE WHEN a.status = 'success' THEN a.started_at END, a.status, a.error_kind, \
            a.error, $17, a.finished_at + $18 * interval '1 microsecond', \
            CASE WHEN $19 THEN now() END, $20, a.sha256_hash, a.bytes, a.routeros_version, \
            $21, $22, $23, $24, $25, \
            CASE WHEN a.sha256_hash IS NOT NULL THEN a.incomplete_menus END, a.warning, $30, $31, $33, \
            $34, a.id \
     FROM attempt a \
     ON CONFLICT (device_id) DO UPDATE SET \
         tenant_id = excluded.tenant_id, last_attempt_id = excluded.last_attempt_id, \
         last_attempt_at = excluded.last_attempt_at, last_finished_at = excluded.last_finished_at, \
         last_success_at = coalesce(excluded.last_success_at, s.last_success_at), \
         status = excluded.status, consecutive_failures = excluded.consecutive_failures, \
         next_due = excluded.next_due, deaths = 0, ",
    unless_an_older_block_stands!("error_kind"),
    unless_an_older_block_stands!("error"),
    unless_an_older_block_stands!("offered_fingerprint"),
    unless_an_older_block_stands!("endpoint_digest"),
    unless_an_older_block_stands!("credentials_digest"),
    unless_an_older_block_stands!("pin_digest"),
    "    blocked_since = CASE WHEN excluded.blocked_since IS NOT NULL \
             THEN coalesce(s.blocked_since, excluded.blocked_since) END, \
         last_hash = coalesce(excluded.last_hash, s.last_hash), \
         last_bytes = coalesce(excluded.last_bytes, s.last_bytes), \
         routeros_version = coalesce(excluded.routeros_version, s.routeros_version), ",
    kept_at_the_same_place!("menu_digests"),
    kept_at_the_same_place!("secret_count"),
    kept_at_the_same_place!("missing_menus"),
    kept_at_the_same_place!("counts_connections"),
    kept_at_the_same_place!(
        "suspect",
        "CASE WHEN s.suspect_as_of = s.last_attempt_id THEN s.suspect END"
    ),
    "    incomplete_menus = coalesce(excluded.incomplete_menus, s.incomplete_menus), \
         warning = CASE \
             WHEN excluded.last_hash IS NULL THEN s.warning \
             WHEN excluded.warning IS NULL AND excluded.last_hash = s.last_hash THEN s.warning \
             ELSE excluded.warning END, \
         weak_ssh = coalesce(excluded.weak_ssh, s.weak_ssh), \
         suspect_as_of = excluded.suspect_as_of, \
         running_attempt_id = nullif(s.running_attempt_id, excluded.last_attempt_id), \
         running_since = CASE WHEN s.running_attempt_id <> excluded.last_attempt_id THEN s.running_since END, \
         running_replica = CASE WHEN s.running_attempt_id <> excluded.last_attempt_id THEN s.running_replica END, \
         running_cause = CASE WHEN s.running_attempt_id <> excluded.last_attempt_id THEN s.running_cause END, \
         running_endpoint = CASE WHEN s.running_attempt_id <> excluded.last_attempt_id THEN s.running_endpoint END \
     WHERE s.last_attempt_id IS NULL \
        OR (s.last_attempt_at, s.last_attempt_id) <= (excluded.last_attempt_at, excluded.last_attempt_id)",
);

/// How many microseconds ago a connection was permitted, and its attempt ended.
type Ages = (i64, Option<i64>);

/// Longest stored error text in bytes; a source chain is far shorter.
const MAX_ERROR: usize = 16 * 1024;

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
                    .bind(ORPHAN)
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
                        .bind(ORPHAN)
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

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// `text`, cut at a character boundary when it is unreasonably long.
fn shortened(text: &str) -> String {
    if text.len() <= MAX_ERROR {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_ERROR)])
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
        fn long_errors_are_cut_between_characters(text in "[a\u{f6}\u{1f600}]{0,9000}") {
            let short = shortened(&text);
            prop_assert!(short.len() <= MAX_ERROR + '…'.len_utf8());
            prop_assert!(text.starts_with(short.trim_end_matches('…')));
        }

        #[test]
        fn no_duration_overflows_a_timestamp(seconds in any::<u64>()) {
            let years = microseconds(Duration::from_secs(seconds)) / 1_000_000 / 86_400 / 365;
            prop_assert!((0..=1000).contains(&years));
        }
    }
}
