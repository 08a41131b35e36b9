//! The statements that begin attempts in PostgreSQL and record how they ended.

use super::super::rows::{device_columns, devices_with_profiles, is_ours, last_attempt_columns};
use crate::adapters::moves_on::moves_on;

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
pub(super) const PLAIN: &str = "^[ -9;-~]* port (0|-?[1-9][0-9]{0,8})$";

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
pub(super) const CLAIM: &str = concat!(
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
pub(super) const PUT_OFF: &str = concat!(
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

pub(super) const UNCLAIM: &str = "UPDATE mikrotik_backup.device_state SET running_attempt_id = NULL, \
     running_since = NULL, running_replica = NULL, running_cause = NULL, running_endpoint = NULL \
     WHERE device_id = $1 AND running_attempt_id = $2";

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
pub(super) const RECORD: &str = concat!(
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
     ON CONFLICT (device_id) DO UPDATE SET ",
    kept_at_the_same_place!("menu_digests"),
    kept_at_the_same_place!("secret_count"),
    kept_at_the_same_place!("missing_menus"),
    kept_at_the_same_place!("counts_connections"),
    kept_at_the_same_place!(
        "suspect",
        "CASE WHEN s.suspect_as_of = s.last_attempt_id THEN s.suspect END"
    ),
    "suspect_as_of = excluded.suspect_as_of, ",
    moves_on!("$26"),
    " WHERE s.last_attempt_id IS NULL \
        OR (s.last_attempt_at, s.last_attempt_id) <= (excluded.last_attempt_at, excluded.last_attempt_id)",
);
