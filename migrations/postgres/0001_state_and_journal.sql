-- What the service keeps about devices: one row of state per device, and the journal of attempts.
-- Nothing here refers to the platform's tables by constraint: its deletes are never in our way.

CREATE TABLE mikrotik_backup.device_state (
    device_id            uuid PRIMARY KEY,
    tenant_id            uuid NOT NULL,
    last_attempt_id      uuid,
    last_attempt_at      timestamptz,
    last_finished_at     timestamptz,
    last_success_at      timestamptz,
    status               text CHECK (status IN ('success', 'queued', 'failed', 'interrupted')),
    error_kind           text,
    error                text,
    consecutive_failures integer NOT NULL DEFAULT 0 CHECK (consecutive_failures >= 0),
    next_due             timestamptz,
    blocked_since        timestamptz,
    offered_fingerprint  text,
    last_hash            text CHECK (last_hash ~ '^[0-9a-f]{64}$'),
    last_bytes           bigint CHECK (last_bytes >= 0),
    routeros_version     text,
    menu_digests         jsonb CHECK (jsonb_typeof(menu_digests) = 'array'),
    secret_count         bigint CHECK (secret_count >= 0),
    endpoint_digest      text CHECK (endpoint_digest ~ '^[0-9a-f]{64}$'),
    credentials_digest   text CHECK (credentials_digest ~ '^[0-9a-f]{64}$'),
    pin_digest           text CHECK (pin_digest ~ '^[0-9a-f]{64}$'),
    running_attempt_id   uuid,
    running_since        timestamptz,
    running_replica      text,
    running_cause        text CHECK (running_cause IN ('scheduled', 'retry', 'edited', 'manual')),
    CONSTRAINT last_attempt_is_whole CHECK (
        num_nulls(last_attempt_id, last_attempt_at, last_finished_at, status,
                  endpoint_digest, credentials_digest, pin_digest) IN (0, 7)),
    CONSTRAINT running_mark_is_whole CHECK (
        num_nulls(running_attempt_id, running_since, running_replica, running_cause) IN (0, 4))
) WITH (fillfactor = 80);

COMMENT ON TABLE mikrotik_backup.device_state IS
    'One row per device that was ever tried: its last attempt, its last good export, what it waits for.';
COMMENT ON COLUMN mikrotik_backup.device_state.device_id IS 'devices.id; the row outlives its device for a while';
COMMENT ON COLUMN mikrotik_backup.device_state.last_attempt_id IS 'mikrotik_backup.attempts.id, until that row is pruned';
COMMENT ON COLUMN mikrotik_backup.device_state.last_attempt_at IS 'when the last finished attempt started';
COMMENT ON COLUMN mikrotik_backup.device_state.last_finished_at IS 'when it ended';
COMMENT ON COLUMN mikrotik_backup.device_state.last_success_at IS 'when the last attempt that took a whole export started';
COMMENT ON COLUMN mikrotik_backup.device_state.status IS 'outcome of the last attempt: success (acknowledged), queued (safe in the outbox), failed, interrupted';
COMMENT ON COLUMN mikrotik_backup.device_state.error_kind IS 'kind of the failure that counts now: of the last attempt, or of the one that blocks the device';
COMMENT ON COLUMN mikrotik_backup.device_state.error IS 'its text, with the cause and what to do';
COMMENT ON COLUMN mikrotik_backup.device_state.consecutive_failures IS 'failures in a row; 0 after a success';
COMMENT ON COLUMN mikrotik_backup.device_state.next_due IS 'when the device was to be tried again, as seen at the end of the last attempt';
COMMENT ON COLUMN mikrotik_backup.device_state.blocked_since IS 'since when the device waits for an operator; NULL when it does not';
COMMENT ON COLUMN mikrotik_backup.device_state.offered_fingerprint IS 'the host key that the device offered instead of the pinned one, after a host_key_mismatch';
COMMENT ON COLUMN mikrotik_backup.device_state.last_hash IS 'SHA-256 of the last good export, normalised';
COMMENT ON COLUMN mikrotik_backup.device_state.last_bytes IS 'its size in bytes';
COMMENT ON COLUMN mikrotik_backup.device_state.routeros_version IS 'the version in its header';
COMMENT ON COLUMN mikrotik_backup.device_state.menu_digests IS '[[menu, SHA-256 of its lines], …] of it, in order';
COMMENT ON COLUMN mikrotik_backup.device_state.secret_count IS 'how many secret values are in it';
COMMENT ON COLUMN mikrotik_backup.device_state.endpoint_digest IS 'of the address and port that the last attempt used';
COMMENT ON COLUMN mikrotik_backup.device_state.credentials_digest IS 'of the credential ciphertext that the last attempt used';
COMMENT ON COLUMN mikrotik_backup.device_state.pin_digest IS 'of the pinned fingerprint that the last attempt saw';
COMMENT ON COLUMN mikrotik_backup.device_state.running_attempt_id IS 'the attempt that began and has not been recorded yet';
COMMENT ON COLUMN mikrotik_backup.device_state.running_since IS 'when it began';
COMMENT ON COLUMN mikrotik_backup.device_state.running_replica IS 'who makes it';
COMMENT ON COLUMN mikrotik_backup.device_state.running_cause IS 'why it is made';

CREATE TABLE mikrotik_backup.attempts (
    id                  uuid PRIMARY KEY,
    device_id           uuid NOT NULL,
    tenant_id           uuid NOT NULL,
    cause               text NOT NULL CHECK (cause IN ('scheduled', 'retry', 'edited', 'manual')),
    started_at          timestamptz NOT NULL,
    finished_at         timestamptz NOT NULL,
    status              text NOT NULL CHECK (status IN ('success', 'queued', 'failed', 'interrupted')),
    error_kind          text,
    error               text,
    sha256_hash         text CHECK (sha256_hash ~ '^[0-9a-f]{64}$'),
    bytes               bigint CHECK (bytes >= 0),
    routeros_version    text,
    offered_fingerprint text,
    ledger              jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(ledger) = 'object'),
    replica             text NOT NULL,
    CONSTRAINT ends_after_it_starts CHECK (finished_at >= started_at),
    CONSTRAINT failures_have_a_kind CHECK ((status = 'failed') = (error_kind IS NOT NULL)),
    CONSTRAINT exports_have_a_hash CHECK (
        (status IN ('success', 'queued')) = (sha256_hash IS NOT NULL AND bytes IS NOT NULL))
);

CREATE INDEX attempts_newest_first ON mikrotik_backup.attempts (started_at DESC, id DESC);
CREATE INDEX attempts_of_device_newest_first
    ON mikrotik_backup.attempts (device_id, started_at DESC, id DESC);

COMMENT ON TABLE mikrotik_backup.attempts IS
    'The journal: every attempt that was really made. Rows older than CONFIG_BACKUP_JOURNAL_DAYS are pruned.';
COMMENT ON COLUMN mikrotik_backup.attempts.id IS 'also the Nats-Msg-Id of what it published';
COMMENT ON COLUMN mikrotik_backup.attempts.cause IS 'scheduled, retry (after a failure), edited (an edit answered a failure), manual';
COMMENT ON COLUMN mikrotik_backup.attempts.status IS 'success (acknowledged), queued (safe in the outbox), failed, interrupted (the process was told to stop, or died)';
COMMENT ON COLUMN mikrotik_backup.attempts.error_kind IS 'kind of the failure';
COMMENT ON COLUMN mikrotik_backup.attempts.error IS 'its text, with the cause and what to do';
COMMENT ON COLUMN mikrotik_backup.attempts.sha256_hash IS 'SHA-256 of the normalised export';
COMMENT ON COLUMN mikrotik_backup.attempts.bytes IS 'its size';
COMMENT ON COLUMN mikrotik_backup.attempts.routeros_version IS 'the version in its header';
COMMENT ON COLUMN mikrotik_backup.attempts.offered_fingerprint IS 'the host key that the device offered';
COMMENT ON COLUMN mikrotik_backup.attempts.ledger IS 'how often each normalisation rule dropped something';
COMMENT ON COLUMN mikrotik_backup.attempts.replica IS 'who made it';

CREATE TABLE mikrotik_backup.attempt_steps (
    attempt_id   uuid NOT NULL REFERENCES mikrotik_backup.attempts (id) ON DELETE CASCADE,
    ordinal      smallint NOT NULL CHECK (ordinal >= 1),
    step         text NOT NULL CHECK (step IN ('presence', 'slot', 'lock', 'connect',
                                               'authenticate', 'export', 'normalise', 'publish')),
    milliseconds bigint NOT NULL CHECK (milliseconds >= 0),
    PRIMARY KEY (attempt_id, ordinal)
);

COMMENT ON TABLE mikrotik_backup.attempt_steps IS 'The steps of an attempt, in order, and how long each took.';
