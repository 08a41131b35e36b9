-- The archive: a version per change of a device's configuration, by the same design as in
-- PostgreSQL, where migration 0004_archive.sql describes every column. Ids are UUIDs in lower-case
-- text, times RFC 3339 in UTC with six decimals, which sort as they read.

CREATE TABLE archive_devices (
    device_id TEXT NOT NULL PRIMARY KEY,
    generation  INTEGER NOT NULL CHECK (generation >= 1)
) STRICT, WITHOUT ROWID;

CREATE TABLE archive_contents (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256_hash TEXT NOT NULL CHECK (length(sha256_hash) = 64),
    key_id      TEXT NOT NULL CHECK (length(key_id) = 16),
    stored_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
    sealed      BLOB NOT NULL,
    UNIQUE (sha256_hash, key_id)
) STRICT;

CREATE TABLE archive_versions (
    id                         TEXT NOT NULL PRIMARY KEY,
    device_id                  TEXT NOT NULL,
    tenant_id                  TEXT NOT NULL,
    attempt_id                 TEXT NOT NULL,
    collected_at               TEXT NOT NULL,
    last_seen_attempt_id       TEXT NOT NULL,
    last_seen_at               TEXT NOT NULL,
    routeros_version           TEXT NOT NULL,
    last_routeros_version      TEXT NOT NULL,
    sha256_hash                TEXT NOT NULL CHECK (length(sha256_hash) = 64),
    last_sha256_hash           TEXT NOT NULL CHECK (length(last_sha256_hash) = 64),
    normalization_version      INTEGER NOT NULL CHECK (normalization_version >= 0),
    normalization_rules        TEXT NOT NULL,
    last_normalization_version INTEGER NOT NULL CHECK (last_normalization_version >= 0),
    last_normalization_rules   TEXT NOT NULL,
    bytes                      INTEGER NOT NULL CHECK (bytes >= 0),
    lines_added                INTEGER CHECK (lines_added >= 0),
    lines_removed              INTEGER CHECK (lines_removed >= 0),
    incomplete_menus           TEXT NOT NULL CHECK (json_type(incomplete_menus) = 'array'),
    ledger                     TEXT NOT NULL CHECK (json_type(ledger) = 'object'),
    content_id                 INTEGER NOT NULL REFERENCES archive_contents (id),
    CHECK (last_seen_at >= collected_at),
    CHECK ((lines_added IS NULL) = (lines_removed IS NULL))
) STRICT;

CREATE UNIQUE INDEX archive_versions_of_device
    ON archive_versions (device_id, collected_at DESC, attempt_id DESC);
CREATE INDEX archive_versions_of_content ON archive_versions (content_id);

CREATE TABLE archive_unreferenced (
    content_id INTEGER PRIMARY KEY
) STRICT;
