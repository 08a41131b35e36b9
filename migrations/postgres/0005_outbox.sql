-- Attempts whose snapshot waits in the outbox are looked through once a minute: there are few.
CREATE INDEX attempts_queued ON mikrotik_backup.attempts (id) WHERE status = 'queued';

COMMENT ON COLUMN mikrotik_backup.device_state.last_success_at IS
    'when the last attempt started whose snapshot was acknowledged';
