//! The archive's statements in PostgreSQL's dialect.

use super::super::tables::version_columns;

pub(super) const GENERATION: &str =
    "SELECT generation FROM mikrotik_backup.archive_devices WHERE device_id = $1";

pub(super) const HOLDER: &str =
    "SELECT device_id FROM mikrotik_backup.archive_versions WHERE id = $1";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            version_columns!(),
            " FROM mikrotik_backup.archive_versions ",
            $rest
        )
    };
}

pub(super) const PAGE: &str = select!(
    "WHERE device_id = $1 AND (collected_at, attempt_id) < ($2, $3) \
     ORDER BY collected_at DESC, attempt_id DESC LIMIT $4"
);

pub(super) const BEFORE: &str = select!(
    "WHERE device_id = $1 AND (collected_at, attempt_id) <= ($2, $3) \
     ORDER BY collected_at DESC, attempt_id DESC LIMIT 1"
);

pub(super) const AFTER: &str = select!(
    "WHERE device_id = $1 AND (collected_at, attempt_id) > ($2, $3) \
     ORDER BY collected_at, attempt_id LIMIT 1"
);

pub(super) const SEALED: &str = concat!(
    "SELECT ",
    version_columns!(),
    ", key_id, sealed FROM (SELECT * FROM mikrotik_backup.archive_versions WHERE id = $1) AS v \
     JOIN (SELECT id AS content, key_id, sealed FROM mikrotik_backup.archive_contents) AS c \
     ON c.content = v.content_id"
);

macro_rules! newest {
    ($condition:literal) => {
        concat!(
            "SELECT ",
            version_columns!(),
            " FROM (SELECT device_id AS of FROM mikrotik_backup.archive_devices ",
            $condition,
            ") AS d CROSS JOIN LATERAL (SELECT * FROM mikrotik_backup.archive_versions \
             WHERE device_id = d.of ORDER BY collected_at DESC, attempt_id DESC LIMIT 1) AS v \
             ORDER BY device_id"
        )
    };
}

pub(super) const NEWEST: &str = newest!("ORDER BY device_id LIMIT $1");
pub(super) const NEWEST_AFTER: &str = newest!("WHERE device_id > $2 ORDER BY device_id LIMIT $1");

pub(super) const MOMENTS: &str = "SELECT id, collected_at FROM mikrotik_backup.archive_versions \
     WHERE device_id = $1 ORDER BY collected_at, attempt_id";

pub(super) const BEGIN_DEVICE: &str = "INSERT INTO mikrotik_backup.archive_devices (device_id, generation) \
     VALUES ($1, 1) ON CONFLICT (device_id) DO NOTHING";

/// Also locks the row until the change is committed.
pub(super) const NEXT_GENERATION: &str = "UPDATE mikrotik_backup.archive_devices SET generation = generation + 1 \
     WHERE device_id = $1 AND generation = $2";

pub(super) const TOUCH: &str = "UPDATE mikrotik_backup.archive_devices SET generation = generation + 1 \
     WHERE device_id = $1";

/// Where the text is there already, the update locks it against garbage collection.
pub(super) const KEEP_CONTENT: &str = "INSERT INTO mikrotik_backup.archive_contents AS c (sha256_hash, key_id, sealed) \
     VALUES ($1, $2, $3) ON CONFLICT (sha256_hash, key_id) DO UPDATE SET stored_at = c.stored_at \
     RETURNING id";

pub(super) const CONTENT_OF: &str =
    "SELECT content_id FROM mikrotik_backup.archive_versions WHERE id = $1";

pub(super) const INSERT: &str = concat!(
    "INSERT INTO mikrotik_backup.archive_versions (",
    version_columns!(),
    ", content_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, \
     $17, $18, $19, $20, $21, $22, $23)"
);

pub(super) const FIRST_SEEN: &str = "UPDATE mikrotik_backup.archive_versions \
     SET collected_at = $2, attempt_id = $3 WHERE id = $1";

pub(super) const LAST_SEEN: &str = "UPDATE mikrotik_backup.archive_versions SET last_seen_at = $2, \
     last_seen_attempt_id = $3, last_sha256_hash = $4, last_normalization_version = $5, \
     last_normalization_rules = $6, last_routeros_version = $7, last_ledger = $8 WHERE id = $1";

pub(super) const RECOUNT: &str = "UPDATE mikrotik_backup.archive_versions \
     SET lines_added = $2, lines_removed = $3 WHERE id = $1";

pub(super) const DELETE: &str = "DELETE FROM mikrotik_backup.archive_versions \
     WHERE device_id = $1 AND id = ANY($2) AND id <> ( \
         SELECT id FROM mikrotik_backup.archive_versions WHERE device_id = $1 \
         ORDER BY collected_at DESC, attempt_id DESC LIMIT 1) \
     RETURNING content_id";

/// The update locks a candidate that is there already, so that garbage collection does not strike
/// it off before this deletion is committed.
pub(super) const SUSPECT: &str = "INSERT INTO mikrotik_backup.archive_unreferenced (content_id) SELECT DISTINCT unnest($1) \
     ON CONFLICT (content_id) DO UPDATE SET content_id = excluded.content_id";

pub(super) const TAKE_SUSPECTS: &str = "DELETE FROM mikrotik_backup.archive_unreferenced WHERE content_id IN ( \
         SELECT content_id FROM mikrotik_backup.archive_unreferenced \
         ORDER BY content_id LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING content_id";

/// A statement of its own, so that the next one sees what was committed while this one waited.
pub(super) const LOCK_CONTENTS: &str = "SELECT 1 FROM mikrotik_backup.archive_contents \
     WHERE id = ANY($1) ORDER BY id FOR UPDATE";

pub(super) const DELETE_CONTENTS: &str = "DELETE FROM mikrotik_backup.archive_contents AS c \
     WHERE id = ANY($1) AND NOT EXISTS ( \
         SELECT FROM mikrotik_backup.archive_versions AS v WHERE v.content_id = c.id)";

pub(super) const LAST_KEY: &str = "SELECT v.id, v.device_id, c.key_id \
     FROM mikrotik_backup.archive_contents AS c \
     JOIN mikrotik_backup.archive_versions AS v ON v.content_id = c.id \
     ORDER BY c.id DESC LIMIT 1";
