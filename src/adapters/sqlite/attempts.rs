//! Begins attempts and records how they ended, each in one transaction.

use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqliteRow};

use super::SqliteStore;
use super::rows::{
    self, bigint, device_columns, devices_with_profiles, is_ours, last_attempt_columns, span,
    storable, stored, stored_time,
};
use crate::domain::Timestamp;
use crate::domain::attempt::{AttemptId, AttemptRecord, Outcome};
use crate::domain::backoff::rung;
use crate::domain::contact::{Dial, Room};
use crate::domain::device::DeviceId;
use crate::domain::failure::FailureKind;
use crate::domain::host_key::Fingerprint;
use crate::ports::{Begun, Claim, Claimed, StoreError};

/// Where the last attempt at the device `s` went, if its row tells, and the state's digests are of that
/// attempt: those of one that was put off need not be.
macro_rules! last_endpoint {
    ($state:literal) => {
        concat!(
            "(SELECT p.endpoint FROM attempts p WHERE p.id = ",
            $state,
            ".last_attempt_id AND (p.status <> 'interrupted' OR ",
            $state,
            ".deaths = 0))"
        )
    };
}

/// The device as it is, and whether the caller's wish is not out of date.
const WANTED: &str = concat!(
    "SELECT ?3 OR s.last_attempt_id IS NULL OR s.last_attempt_id IS ?2 AS go, \
            s.running_attempt_id, s.running_since, s.running_endpoint, s.menu_digests, s.secret_count, s.last_bytes, s.missing_menus, \
            s.incomplete_menus, s.counts_connections, s.suspect, ",
    last_endpoint!("s"),
    " AS last_endpoint, ",
    device_columns!(),
    ", ",
    last_attempt_columns!(),
    " FROM ",
    devices_with_profiles!(),
    " LEFT JOIN device_state s ON s.device_id = d.id WHERE d.id = ?1 AND ",
    is_ours!(),
);

/// The attempts since `?4` at the endpoint `?5` that dialled or may have, whichever row they were for;
/// of one without steps nobody knows when it ended. Those without an endpoint are of an older program,
/// and count for their own row. Without `?5` only the row's own count.
const DIALS: &str = "SELECT started_at, CASE WHEN dialled THEN finished_at END AS ended FROM ( \
         SELECT a.started_at, a.finished_at, \
                (SELECT max(t.step = 'connect') FROM attempt_steps t WHERE t.attempt_id = a.id) \
                    AS dialled \
         FROM ( \
             SELECT e.id, e.started_at, e.finished_at FROM attempts e \
             WHERE e.endpoint = ?5 AND e.started_at > ?4 \
             UNION ALL \
             SELECT e.id, e.started_at, e.finished_at FROM attempts e \
             WHERE e.device_id = ?1 AND (e.endpoint IS NULL OR ?5 IS NULL) AND e.started_at > ?4 \
         ) a WHERE a.id <> ?2 AND a.id IS NOT ?3 \
     ) WHERE dialled IS NOT FALSE ORDER BY started_at DESC LIMIT 200";

/// The attempts that run at an endpoint for other rows.
const ELSEWHERE: &str = "SELECT running_since FROM device_state \
     WHERE running_endpoint = ?1 AND device_id <> ?2 AND running_since > ?3";

/// A mark that another attempt left becomes a journal row.
const ORPHAN: &str = "INSERT INTO attempts \
         (id, device_id, tenant_id, cause, started_at, finished_at, status, error, replica, endpoint) \
     SELECT s.running_attempt_id, s.device_id, s.tenant_id, s.running_cause, s.running_since, \
            max(?3, s.running_since), 'interrupted', ?4, s.running_replica, s.running_endpoint \
     FROM device_state s WHERE s.device_id = ?1 AND s.running_attempt_id <> ?2 \
     ON CONFLICT (id) DO NOTHING";

/// `column = …` for what the router showed, if the device is put off at the address of the attempt before.
macro_rules! unless_put_off_elsewhere {
    ($column:literal) => {
        concat!(
            $column,
            " = CASE WHEN error_kind IS NOT NULL OR endpoint_digest = ?3 OR ",
            last_endpoint!("device_state"),
            " = ?7 THEN ",
            $column,
            " END, "
        )
    };
}

/// The attempt of the mark is the last one, and kept as the state of the device, whose failure, if
/// one stands, goes on to be compared with what it was.
const PUT_OFF: &str = concat!(
    "UPDATE device_state SET \
         last_attempt_id = running_attempt_id, last_attempt_at = running_since, \
         last_finished_at = max(?2, running_since), status = 'interrupted', deaths = deaths + 1, \
         counts_connections = NULL, ",
    unless_put_off_elsewhere!("menu_digests"),
    unless_put_off_elsewhere!("missing_menus"),
    unless_put_off_elsewhere!("suspect"),
    "    next_due = ?6, \
         endpoint_digest = CASE WHEN error_kind IS NULL THEN ?3 ELSE endpoint_digest END, \
         credentials_digest = CASE WHEN error_kind IS NULL THEN ?4 ELSE credentials_digest END, \
         pin_digest = CASE WHEN error_kind IS NULL THEN ?5 ELSE pin_digest END, \
         running_attempt_id = NULL, running_since = NULL, running_replica = NULL, \
         running_cause = NULL, running_endpoint = NULL \
     WHERE device_id = ?1",
);

const MARK: &str = "INSERT INTO device_state AS s \
         (device_id, tenant_id, running_attempt_id, running_since, running_replica, running_cause, \
          running_endpoint) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
     ON CONFLICT (device_id) DO UPDATE SET \
         tenant_id = excluded.tenant_id, running_attempt_id = excluded.running_attempt_id, \
         running_since = excluded.running_since, running_replica = excluded.running_replica, \
         running_cause = excluded.running_cause, running_endpoint = excluded.running_endpoint, \
         deaths = s.deaths + (s.running_attempt_id IS NOT NULL \
             AND s.running_attempt_id <> excluded.running_attempt_id)";

const DIED: &str = "the process that made this attempt died, or lost its lease, before it \
                    recorded how the attempt ended";

/// An attempt that was taken for interrupted may still report its true outcome; anything else
/// that is there already stays, and then no row comes back. Where it went is in its mark, or in the
/// row that was made of it.
const ATTEMPT: &str = "INSERT INTO attempts AS a \
         (id, device_id, tenant_id, cause, started_at, finished_at, status, error_kind, error, \
          sha256_hash, bytes, routeros_version, offered_fingerprint, ledger, replica, \
          incomplete_menus, warning, endpoint) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, \
             (SELECT m.running_endpoint FROM device_state m \
              WHERE m.device_id = ?2 AND m.running_attempt_id = ?1)) \
     ON CONFLICT (id) DO UPDATE SET \
         started_at = excluded.started_at, finished_at = excluded.finished_at, \
         status = excluded.status, error_kind = excluded.error_kind, error = excluded.error, \
         sha256_hash = excluded.sha256_hash, bytes = excluded.bytes, \
         routeros_version = excluded.routeros_version, \
         offered_fingerprint = excluded.offered_fingerprint, ledger = excluded.ledger, \
         incomplete_menus = excluded.incomplete_menus, warning = excluded.warning, \
         endpoint = coalesce(a.endpoint, excluded.endpoint) \
         WHERE a.status = 'interrupted' AND a.device_id = excluded.device_id \
     RETURNING 1";

const STEP: &str = "INSERT INTO attempt_steps (attempt_id, ordinal, step, milliseconds) \
     VALUES (?1, ?2, ?3, ?4) ON CONFLICT (attempt_id, ordinal) DO NOTHING";

/// `column = …` for what describes the failure that counts: an attempt that ended otherwise does
/// not lift a block, so the block outlives it, together with what the device looked like to the
/// attempt that was blocked.
macro_rules! unless_an_older_block_stands {
    ($column:literal) => {
        concat!(
            $column,
            " = CASE WHEN ?21 AND s.blocked_since IS NOT NULL THEN s.",
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
        concat!(
            $column,
            " = coalesce(excluded.",
            $column,
            ", CASE WHEN s.endpoint_digest = excluded.endpoint_digest \
               OR s.last_attempt_id <> excluded.last_attempt_id AND ",
            last_endpoint!("s"),
            " = (SELECT a.endpoint FROM attempts a WHERE a.id = excluded.last_attempt_id) THEN s.",
            $column,
            " END), "
        )
    };
}

/// State only moves forward, by the time at which attempts started; but a state from the future
/// was stored while the clock was wrong, and holds nothing up.
const STATE: &str = concat!(
    "INSERT INTO device_state AS s \
         (device_id, tenant_id, last_attempt_id, last_attempt_at, last_finished_at, \
          last_success_at, status, error_kind, error, consecutive_failures, next_due, \
          blocked_since, offered_fingerprint, last_hash, last_bytes, routeros_version, \
          menu_digests, secret_count, endpoint_digest, credentials_digest, pin_digest, \
          incomplete_menus, warning, missing_menus, weak_ssh, counts_connections, suspect) \
     VALUES (?1, ?2, ?3, ?4, ?5, CASE WHEN ?6 IS NOT NULL THEN ?4 END, ?7, ?8, ?9, ?10, ?11, \
             CASE WHEN ?12 THEN ?5 END, ?13, ?6, ?14, ?15, ?16, ?17, ?18, ?19, ?20, \
             ?22, ?23, ?24, ?25, ?26, ?27) \
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
    kept_at_the_same_place!("suspect"),
    "    incomplete_menus = coalesce(excluded.incomplete_menus, s.incomplete_menus), \
         warning = CASE \
             WHEN excluded.last_hash IS NULL THEN s.warning \
             WHEN excluded.warning IS NULL AND excluded.last_hash = s.last_hash THEN s.warning \
             ELSE excluded.warning END, \
         weak_ssh = coalesce(excluded.weak_ssh, s.weak_ssh), \
         running_attempt_id = nullif(s.running_attempt_id, excluded.last_attempt_id), \
         running_since = CASE WHEN s.running_attempt_id <> excluded.last_attempt_id THEN s.running_since END, \
         running_replica = CASE WHEN s.running_attempt_id <> excluded.last_attempt_id THEN s.running_replica END, \
         running_cause = CASE WHEN s.running_attempt_id <> excluded.last_attempt_id THEN s.running_cause END, \
         running_endpoint = CASE WHEN s.running_attempt_id <> excluded.last_attempt_id THEN s.running_endpoint END \
     WHERE s.last_attempt_id IS NULL OR s.last_attempt_at > excluded.last_finished_at \
        OR (s.last_attempt_at, s.last_attempt_id) <= (excluded.last_attempt_at, excluded.last_attempt_id)",
);

/// Longest stored error text in bytes; a source chain is far shorter.
const MAX_ERROR: usize = 16 * 1024;

const UNCLAIM: &str = "UPDATE device_state SET running_attempt_id = NULL, running_since = NULL, \
     running_replica = NULL, running_cause = NULL, running_endpoint = NULL \
     WHERE device_id = ?1 AND running_attempt_id = ?2";

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
        .bind(DIED)
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
