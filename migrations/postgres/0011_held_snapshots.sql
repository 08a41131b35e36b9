-- A snapshot that neither NATS nor Redis could take is held by the process that took it.

ALTER TABLE mikrotik_backup.attempts ADD COLUMN held_until timestamptz;

COMMENT ON COLUMN mikrotik_backup.attempts.held_until IS
    'until then a process holds the snapshot of this queued attempt itself, and renews this while it does; null: it is in the outbox';

-- Asked at every claim: few rows are held, at any time.
CREATE INDEX attempts_held ON mikrotik_backup.attempts (device_id) WHERE held_until IS NOT NULL AND status = 'queued';
