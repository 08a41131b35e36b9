-- The archive: a version per change of a device's configuration. Texts are compressed and sealed
-- under CREDENTIAL_ENCRYPTION_KEY, and equal ones are stored once per key. Nothing here refers to
-- the platform's tables: history outlives its device.

CREATE TABLE mikrotik_backup.archive_devices (
    device_id uuid PRIMARY KEY,
    generation  bigint NOT NULL CHECK (generation >= 1)
) WITH (fillfactor = 80);

COMMENT ON TABLE mikrotik_backup.archive_devices IS
    'One row per device that has versions: replicas that store for one device take turns by it.';
COMMENT ON COLUMN mikrotik_backup.archive_devices.generation IS 'grows with every change of the device''s versions';

CREATE TABLE mikrotik_backup.archive_contents (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256_hash text NOT NULL CHECK (sha256_hash ~ '^[0-9a-f]{64}$'),
    key_id      text NOT NULL CHECK (key_id ~ '^[0-9a-f]{16}$'),
    stored_at   timestamptz NOT NULL DEFAULT now(),
    sealed      bytea NOT NULL,
    UNIQUE (sha256_hash, key_id)
);
-- It is compressed already, and ciphertext does not compress.
ALTER TABLE mikrotik_backup.archive_contents ALTER COLUMN sealed SET STORAGE EXTERNAL;

COMMENT ON TABLE mikrotik_backup.archive_contents IS 'The texts of versions, each once per key.';
COMMENT ON COLUMN mikrotik_backup.archive_contents.sha256_hash IS 'of the text''s UTF-8 bytes';
COMMENT ON COLUMN mikrotik_backup.archive_contents.key_id IS 'fingerprint of the key that it is sealed under';
COMMENT ON COLUMN mikrotik_backup.archive_contents.sealed IS '12-byte nonce, AES-256-GCM ciphertext, 16-byte tag, of the zstd-compressed text';

CREATE TABLE mikrotik_backup.archive_versions (
    id                         uuid PRIMARY KEY,
    device_id                  uuid NOT NULL,
    tenant_id                  uuid NOT NULL,
    attempt_id                 uuid NOT NULL,
    collected_at               timestamptz NOT NULL,
    last_seen_attempt_id       uuid NOT NULL,
    last_seen_at               timestamptz NOT NULL,
    routeros_version           text NOT NULL,
    last_routeros_version      text NOT NULL,
    sha256_hash                text NOT NULL CHECK (sha256_hash ~ '^[0-9a-f]{64}$'),
    last_sha256_hash           text NOT NULL CHECK (last_sha256_hash ~ '^[0-9a-f]{64}$'),
    normalization_version      bigint NOT NULL CHECK (normalization_version >= 0),
    normalization_rules        text NOT NULL,
    last_normalization_version bigint NOT NULL CHECK (last_normalization_version >= 0),
    last_normalization_rules   text NOT NULL,
    bytes                      bigint NOT NULL CHECK (bytes >= 0),
    lines_added                bigint CHECK (lines_added >= 0),
    lines_removed              bigint CHECK (lines_removed >= 0),
    incomplete_menus           jsonb NOT NULL CHECK (jsonb_typeof(incomplete_menus) = 'array'),
    ledger                     jsonb NOT NULL CHECK (jsonb_typeof(ledger) = 'object'),
    content_id                 bigint NOT NULL REFERENCES mikrotik_backup.archive_contents (id),
    CONSTRAINT last_seen_after_first CHECK (last_seen_at >= collected_at),
    CONSTRAINT lines_are_counted_together CHECK (num_nulls(lines_added, lines_removed) IN (0, 2))
);

CREATE UNIQUE INDEX archive_versions_of_device
    ON mikrotik_backup.archive_versions (device_id, collected_at DESC, attempt_id DESC);
CREATE INDEX archive_versions_of_content ON mikrotik_backup.archive_versions (content_id);

COMMENT ON TABLE mikrotik_backup.archive_versions IS
    'A configuration that a device had from one time to another. Versions are made by changes; seen again, only last_seen_at moves.';
COMMENT ON COLUMN mikrotik_backup.archive_versions.id IS 'the attempt that made it a version';
COMMENT ON COLUMN mikrotik_backup.archive_versions.tenant_id IS 'the device''s owner at the time';
COMMENT ON COLUMN mikrotik_backup.archive_versions.attempt_id IS 'the attempt of collected_at';
COMMENT ON COLUMN mikrotik_backup.archive_versions.collected_at IS 'when the configuration was first seen';
COMMENT ON COLUMN mikrotik_backup.archive_versions.last_seen_attempt_id IS 'the attempt of last_seen_at';
COMMENT ON COLUMN mikrotik_backup.archive_versions.last_seen_at IS 'when it was last seen';
COMMENT ON COLUMN mikrotik_backup.archive_versions.routeros_version IS 'the version in the header of the first export';
COMMENT ON COLUMN mikrotik_backup.archive_versions.last_routeros_version IS 'the version in the header of the last one';
COMMENT ON COLUMN mikrotik_backup.archive_versions.sha256_hash IS 'of the kept text, which is the first export normalised';
COMMENT ON COLUMN mikrotik_backup.archive_versions.last_sha256_hash IS 'of the last export normalised: another one only where the normalisation is another';
COMMENT ON COLUMN mikrotik_backup.archive_versions.normalization_version IS 'the normalisation that made the kept text';
COMMENT ON COLUMN mikrotik_backup.archive_versions.normalization_rules IS 'fingerprint of its rules';
COMMENT ON COLUMN mikrotik_backup.archive_versions.last_normalization_version IS 'the normalisation of last_sha256_hash';
COMMENT ON COLUMN mikrotik_backup.archive_versions.last_normalization_rules IS 'fingerprint of its rules';
COMMENT ON COLUMN mikrotik_backup.archive_versions.bytes IS 'size of the kept text';
COMMENT ON COLUMN mikrotik_backup.archive_versions.lines_added IS 'against the version before it, when it was stored; NULL for the first';
COMMENT ON COLUMN mikrotik_backup.archive_versions.lines_removed IS 'likewise; both are NULL also where the version before could not be opened';
COMMENT ON COLUMN mikrotik_backup.archive_versions.content_id IS 'archive_contents.id of the kept text';
COMMENT ON COLUMN mikrotik_backup.archive_versions.incomplete_menus IS 'menus that the router could not export in time';
COMMENT ON COLUMN mikrotik_backup.archive_versions.ledger IS 'how often each normalisation rule dropped something';

CREATE TABLE mikrotik_backup.archive_unreferenced (
    content_id bigint PRIMARY KEY
);

COMMENT ON TABLE mikrotik_backup.archive_unreferenced IS
    'Contents of which a version was deleted; garbage collection looks whether another one is left.';
