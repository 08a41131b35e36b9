-- One file for one process: the inventory, what the service keeps about each device, and the
-- journal of attempts. Names and meanings are those of the PostgreSQL schema. Ids are lower-case
-- UUIDs, times are UTC as 2026-01-02T03:04:05.678901Z: both sort as text.

-- "MKBP": tells our file from any other SQLite database.
PRAGMA application_id = 1296777808;

CREATE TABLE meta (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    latest_change INTEGER NOT NULL, -- counts the edits of devices and credential_profiles
    key_check     BLOB              -- a known text, sealed with the key that seals everything else
) STRICT;

INSERT INTO meta (only_row, latest_change) VALUES (1, 0);

-- Credentials that several devices share.
CREATE TABLE credential_profiles (
    id                            TEXT NOT NULL PRIMARY KEY DEFAULT (
        lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
              || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2)
              || '-' || hex(randomblob(6)))),
    encrypted_credentials         BLOB,
    encrypted_credentials_transit TEXT,
    change_number                 INTEGER NOT NULL DEFAULT 0, -- meta.latest_change at its last edit
    CONSTRAINT ids_are_lower_case_uuids CHECK (length(id) = 36 AND id NOT GLOB '*[^0-9a-f-]*')
) STRICT;

-- The routers to back up.
CREATE TABLE devices (
    id                            TEXT NOT NULL PRIMARY KEY DEFAULT (
        lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
              || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2)
              || '-' || hex(randomblob(6)))),
    tenant_id                     TEXT NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    hostname                      TEXT NOT NULL,
    ip_address                    TEXT NOT NULL, -- IPv4 address, IPv6 address or DNS name
    ssh_port                      INTEGER,       -- NULL means 22
    device_type                   TEXT,          -- NULL means routeros; anything else is not backed up
    device_group                  TEXT,          -- free text, for lists and the git mirror
    tags                          TEXT NOT NULL DEFAULT '[]', -- ["…", …], for lists
    routeros_version              TEXT,
    encrypted_credentials         BLOB, -- nonce, AES-256-GCM ciphertext and tag of {"username", "password", …}
    encrypted_credentials_transit TEXT,
    credential_profile_id         TEXT, -- credential_profiles.id
    ssh_host_key_fingerprint      TEXT, -- the trusted host key; NULL trusts the next one seen
    ssh_host_key_first_seen       TEXT,
    ssh_host_key_last_verified    TEXT,
    change_number                 INTEGER NOT NULL DEFAULT 0, -- meta.latest_change at its last edit
    bucket                        INTEGER NOT NULL GENERATED ALWAYS AS (
        (instr('0123456789abcdef', substr(id, 35, 1)) - 1) * 16
        + instr('0123456789abcdef', substr(id, 36, 1)) - 1) VIRTUAL, -- the last byte of the id
    CONSTRAINT ids_are_lower_case_uuids CHECK (
        length(id) = 36 AND id NOT GLOB '*[^0-9a-f-]*' AND bucket BETWEEN 0 AND 255
        AND length(tenant_id) = 36 AND tenant_id NOT GLOB '*[^0-9a-f-]*'),
    CONSTRAINT tags_are_a_json_array CHECK (json_valid(tags) AND json_type(tags) = 'array')
) STRICT;

CREATE INDEX devices_of_bucket ON devices (bucket);
CREATE INDEX devices_by_name ON devices (hostname, id);

-- An edit is a change of a column that the service reads, whoever makes it. The number of a row
-- never comes back, so the greatest number and the count of rows tell two inventories apart.
CREATE TRIGGER device_inserted AFTER INSERT ON devices
BEGIN
    UPDATE meta SET latest_change = latest_change + 1;
    UPDATE devices SET change_number = (SELECT latest_change FROM meta) WHERE id = new.id;
END;

CREATE TRIGGER device_edited
AFTER UPDATE OF id, tenant_id, hostname, ip_address, ssh_port, device_type, encrypted_credentials,
                encrypted_credentials_transit, credential_profile_id, ssh_host_key_fingerprint
ON devices
WHEN (old.id, old.tenant_id, old.hostname, old.ip_address, old.ssh_port, old.device_type,
      old.encrypted_credentials, old.encrypted_credentials_transit, old.credential_profile_id,
      old.ssh_host_key_fingerprint)
     IS NOT
     (new.id, new.tenant_id, new.hostname, new.ip_address, new.ssh_port, new.device_type,
      new.encrypted_credentials, new.encrypted_credentials_transit, new.credential_profile_id,
      new.ssh_host_key_fingerprint)
BEGIN
    UPDATE meta SET latest_change = latest_change + 1;
    UPDATE devices SET change_number = (SELECT latest_change FROM meta) WHERE id = new.id;
END;

CREATE TRIGGER device_deleted AFTER DELETE ON devices
BEGIN
    UPDATE meta SET latest_change = latest_change + 1;
END;

CREATE TRIGGER profile_inserted AFTER INSERT ON credential_profiles
BEGIN
    UPDATE meta SET latest_change = latest_change + 1;
    UPDATE credential_profiles SET change_number = (SELECT latest_change FROM meta) WHERE id = new.id;
END;

CREATE TRIGGER profile_edited
AFTER UPDATE OF id, encrypted_credentials, encrypted_credentials_transit ON credential_profiles
WHEN (old.id, old.encrypted_credentials, old.encrypted_credentials_transit)
     IS NOT (new.id, new.encrypted_credentials, new.encrypted_credentials_transit)
BEGIN
    UPDATE meta SET latest_change = latest_change + 1;
    UPDATE credential_profiles SET change_number = (SELECT latest_change FROM meta) WHERE id = new.id;
END;

CREATE TRIGGER profile_deleted AFTER DELETE ON credential_profiles
BEGIN
    UPDATE meta SET latest_change = latest_change + 1;
END;

-- One row per device that was ever tried: its last attempt, its last good export, what it waits for.
CREATE TABLE device_state (
    device_id            TEXT NOT NULL PRIMARY KEY, -- devices.id; the row outlives its device for a while
    tenant_id            TEXT NOT NULL,
    last_attempt_id      TEXT,    -- attempts.id, until that row is pruned
    last_attempt_at      TEXT,    -- when the last finished attempt started
    last_finished_at     TEXT,    -- when it ended
    last_success_at      TEXT,    -- when the last attempt that took a whole export started
    status               TEXT CHECK (status IN ('success', 'queued', 'failed', 'interrupted')),
    error_kind           TEXT,    -- of the failure that counts now: the last one, or the one that blocks
    error                TEXT,    -- its text, with the cause and what to do
    consecutive_failures INTEGER NOT NULL DEFAULT 0 CHECK (consecutive_failures >= 0),
    next_due             TEXT,    -- as seen at the end of the last attempt
    blocked_since        TEXT,    -- since when the device waits for an operator; NULL when it does not
    offered_fingerprint  TEXT,    -- the host key offered instead of the pinned one
    last_hash            TEXT CHECK (length(last_hash) = 64 AND last_hash NOT GLOB '*[^0-9a-f]*'),
    last_bytes           INTEGER CHECK (last_bytes >= 0),
    routeros_version     TEXT,    -- the version in the last good export's header
    menu_digests         TEXT CHECK (json_valid(menu_digests) AND json_type(menu_digests) = 'array'),
    secret_count         INTEGER CHECK (secret_count >= 0),
    endpoint_digest      TEXT CHECK (length(endpoint_digest) = 64),    -- of the address and port that
    credentials_digest   TEXT CHECK (length(credentials_digest) = 64), -- the last attempt used, of the
    pin_digest           TEXT CHECK (length(pin_digest) = 64),         -- ciphertext, and of the pin
    running_attempt_id   TEXT,    -- the attempt that began and has not been recorded yet
    running_since        TEXT,
    running_replica      TEXT,
    running_cause        TEXT CHECK (running_cause IN ('scheduled', 'retry', 'edited', 'manual')),
    CONSTRAINT last_attempt_is_whole CHECK (
        (last_attempt_id IS NULL) + (last_attempt_at IS NULL) + (last_finished_at IS NULL)
        + (status IS NULL) + (endpoint_digest IS NULL) + (credentials_digest IS NULL)
        + (pin_digest IS NULL) IN (0, 7)),
    CONSTRAINT running_mark_is_whole CHECK (
        (running_attempt_id IS NULL) + (running_since IS NULL) + (running_replica IS NULL)
        + (running_cause IS NULL) IN (0, 4))
) STRICT;

-- The journal: every attempt that was really made. Rows older than CONFIG_BACKUP_JOURNAL_DAYS are
-- pruned.
CREATE TABLE attempts (
    id                  TEXT NOT NULL PRIMARY KEY,
    device_id           TEXT NOT NULL,
    tenant_id           TEXT NOT NULL,
    cause               TEXT NOT NULL CHECK (cause IN ('scheduled', 'retry', 'edited', 'manual')),
    started_at          TEXT NOT NULL,
    finished_at         TEXT NOT NULL,
    status              TEXT NOT NULL CHECK (status IN ('success', 'queued', 'failed', 'interrupted')),
    error_kind          TEXT,
    error               TEXT,
    sha256_hash         TEXT CHECK (length(sha256_hash) = 64 AND sha256_hash NOT GLOB '*[^0-9a-f]*'),
    bytes               INTEGER CHECK (bytes >= 0),
    routeros_version    TEXT,
    offered_fingerprint TEXT, -- the host key that the device offered
    ledger              TEXT NOT NULL DEFAULT '{}' -- how often each normalisation rule dropped something
                        CHECK (json_valid(ledger) AND json_type(ledger) = 'object'),
    replica             TEXT NOT NULL,
    CONSTRAINT ends_after_it_starts CHECK (finished_at >= started_at),
    CONSTRAINT failures_have_a_kind CHECK ((status = 'failed') = (error_kind IS NOT NULL)),
    CONSTRAINT exports_have_a_hash CHECK (
        (status IN ('success', 'queued')) = (sha256_hash IS NOT NULL AND bytes IS NOT NULL))
) STRICT;

CREATE INDEX attempts_newest_first ON attempts (started_at DESC, id DESC);
CREATE INDEX attempts_of_device_newest_first ON attempts (device_id, started_at DESC, id DESC);

-- The steps of an attempt, in order, and how long each took.
CREATE TABLE attempt_steps (
    attempt_id   TEXT NOT NULL REFERENCES attempts (id) ON DELETE CASCADE,
    ordinal      INTEGER NOT NULL CHECK (ordinal >= 1),
    step         TEXT NOT NULL CHECK (step IN ('presence', 'slot', 'lock', 'connect',
                                               'authenticate', 'export', 'normalise', 'publish')),
    milliseconds INTEGER NOT NULL CHECK (milliseconds >= 0),
    PRIMARY KEY (attempt_id, ordinal)
) STRICT, WITHOUT ROWID;

-- Every device with its state, tried or not: SELECT * FROM overview WHERE blocked_since IS NOT NULL
CREATE VIEW overview AS
    SELECT d.id AS device_id, d.tenant_id, d.hostname,
           d.ip_address || ' port ' || coalesce(d.ssh_port, 22) AS address,
           s.status, s.error_kind, s.error,
           coalesce(s.consecutive_failures, 0) AS consecutive_failures, s.last_attempt_at,
           s.last_success_at, s.next_due, s.blocked_since, s.running_since, s.running_replica,
           s.routeros_version, s.last_hash, s.last_bytes
    FROM devices d LEFT JOIN device_state s ON s.device_id = d.id;
