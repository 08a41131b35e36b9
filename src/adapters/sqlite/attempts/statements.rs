//! The statements that begin attempts in SQLite and record how they ended.

use super::super::rows::{device_columns, devices_with_profiles, is_ours, last_attempt_columns};
use crate::adapters::moves_on::moves_on;

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
pub(super) const WANTED: &str = concat!(
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
pub(super) const DIALS: &str = "SELECT started_at, CASE WHEN dialled THEN finished_at END AS ended FROM ( \
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
pub(super) const ELSEWHERE: &str = "SELECT running_since FROM device_state \
     WHERE running_endpoint = ?1 AND device_id <> ?2 AND running_since > ?3";

/// A mark that another attempt left becomes a journal row.
pub(super) const ORPHAN: &str = "INSERT INTO attempts \
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
pub(super) const PUT_OFF: &str = concat!(
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

pub(super) const MARK: &str = "INSERT INTO device_state AS s \
         (device_id, tenant_id, running_attempt_id, running_since, running_replica, running_cause, \
          running_endpoint) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
     ON CONFLICT (device_id) DO UPDATE SET \
         tenant_id = excluded.tenant_id, running_attempt_id = excluded.running_attempt_id, \
         running_since = excluded.running_since, running_replica = excluded.running_replica, \
         running_cause = excluded.running_cause, running_endpoint = excluded.running_endpoint, \
         deaths = s.deaths + (s.running_attempt_id IS NOT NULL \
             AND s.running_attempt_id <> excluded.running_attempt_id)";

/// An attempt that was taken for interrupted may still report its true outcome; anything else
/// that is there already stays, and then no row comes back. Where it went is in its mark, or in the
/// row that was made of it.
pub(super) const ATTEMPT: &str = "INSERT INTO attempts AS a \
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

pub(super) const STEP: &str = "INSERT INTO attempt_steps (attempt_id, ordinal, step, milliseconds) \
     VALUES (?1, ?2, ?3, ?4) ON CONFLICT (attempt_id, ordinal) DO NOTHING";

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
pub(super) const STATE: &str = concat!(
    "INSERT INTO device_state AS s \
         (device_id, tenant_id, last_attempt_id, last_attempt_at, last_finished_at, \
          last_success_at, status, error_kind, error, consecutive_failures, next_due, \
          blocked_since, offered_fingerprint, last_hash, last_bytes, routeros_version, \
          menu_digests, secret_count, endpoint_digest, credentials_digest, pin_digest, \
          incomplete_menus, warning, missing_menus, weak_ssh, counts_connections, suspect) \
     VALUES (?1, ?2, ?3, ?4, ?5, CASE WHEN ?6 IS NOT NULL THEN ?4 END, ?7, ?8, ?9, ?10, ?11, \
             CASE WHEN ?12 THEN ?5 END, ?13, ?6, ?14, ?15, ?16, ?17, ?18, ?19, ?20, \
             ?22, ?23, ?24, ?25, ?26, ?27) \
     ON CONFLICT (device_id) DO UPDATE SET ",
    kept_at_the_same_place!("menu_digests"),
    kept_at_the_same_place!("secret_count"),
    kept_at_the_same_place!("missing_menus"),
    kept_at_the_same_place!("counts_connections"),
    kept_at_the_same_place!("suspect"),
    moves_on!("?21"),
    " WHERE s.last_attempt_id IS NULL OR s.last_attempt_at > excluded.last_finished_at \
        OR (s.last_attempt_at, s.last_attempt_id) <= (excluded.last_attempt_at, excluded.last_attempt_id)",
);

pub(super) const UNCLAIM: &str = "UPDATE device_state SET running_attempt_id = NULL, running_since = NULL, \
     running_replica = NULL, running_cause = NULL, running_endpoint = NULL \
     WHERE device_id = ?1 AND running_attempt_id = ?2";
