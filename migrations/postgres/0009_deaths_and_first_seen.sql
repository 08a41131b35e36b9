-- What a crash or a restart of the service must not forget.

ALTER TABLE mikrotik_backup.device_state
    ADD COLUMN deaths     integer NOT NULL DEFAULT 0 CHECK (deaths >= 0),
    ADD COLUMN first_seen timestamptz NOT NULL DEFAULT now();

-- What was tried before this migration has been known for at least as long.
UPDATE mikrotik_backup.device_state s SET first_seen = known.since
FROM (SELECT device_id, min(started_at) AS since FROM mikrotik_backup.attempts GROUP BY device_id) known
WHERE known.device_id = s.device_id AND known.since < s.first_seen;

COMMENT ON TABLE mikrotik_backup.device_state IS
    'One row per device that was ever seen: its last attempt, its last good export, what it waits for.';
COMMENT ON COLUMN mikrotik_backup.device_state.deaths IS
    'attempts in a row whose process was gone before it recorded their end; from the second one on the device is retried ever later';
COMMENT ON COLUMN mikrotik_backup.device_state.first_seen IS
    'when the service first saw the device; the age of its last success counts from then as long as there is none';
