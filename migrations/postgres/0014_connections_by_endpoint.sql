-- A router sees connections, not rows: they are counted by where they went, over all rows that say so.

ALTER TABLE mikrotik_backup.attempts ADD COLUMN endpoint text;
COMMENT ON COLUMN mikrotik_backup.attempts.endpoint IS
    'the address and port that the device''s row had when the attempt began, in lower case; null where that is not known';

ALTER TABLE mikrotik_backup.device_state ADD COLUMN running_endpoint text;
COMMENT ON COLUMN mikrotik_backup.device_state.running_endpoint IS 'the address and port that it is for';

-- Read at every claim. No row has a value yet, so this writes nothing, but reads the journal once.
CREATE INDEX attempts_of_endpoint ON mikrotik_backup.attempts (endpoint, started_at DESC)
    WHERE endpoint IS NOT NULL;
CREATE INDEX device_state_running_at ON mikrotik_backup.device_state (running_endpoint)
    WHERE running_endpoint IS NOT NULL;

-- Both functions are VOLATILE, and called by a statement that has waited for its turn: so they see
-- what was committed in the meantime, which the rest of that statement does not.

-- The turn lasts until the end of the transaction: whoever claims another row with this endpoint at
-- the same time sees the mark of the one before. Attempts without an endpoint are of before this
-- migration, or of a program that does not know it yet, and count for their own row. Without an
-- endpoint only the row's own count.
CREATE FUNCTION mikrotik_backup.connections_to(
    at_endpoint text, by_device uuid, but_attempt uuid, but_lost uuid, within interval)
RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('mikrotik_backup ' || at_endpoint, 0));
    RETURN (
        SELECT jsonb_agg(jsonb_build_array(
                   (extract(epoch FROM now() - dials.permitted) * 1000000)::bigint,
                   (extract(epoch FROM now() - dials.ended) * 1000000)::bigint))
        FROM (
            SELECT o.running_since AS permitted, NULL::timestamptz AS ended
            FROM mikrotik_backup.device_state o
            WHERE o.running_endpoint = at_endpoint AND o.device_id <> by_device
              AND o.running_since > now() - within
            UNION ALL (
                SELECT a.started_at, CASE WHEN t.dialled THEN a.finished_at END
                FROM (
                    SELECT e.id, e.started_at, e.finished_at FROM mikrotik_backup.attempts e
                    WHERE e.endpoint = at_endpoint AND e.started_at > now() - within
                    UNION ALL
                    SELECT e.id, e.started_at, e.finished_at FROM mikrotik_backup.attempts e
                    WHERE e.device_id = by_device AND (e.endpoint IS NULL OR at_endpoint IS NULL)
                      AND e.started_at > now() - within
                ) a CROSS JOIN LATERAL (
                    SELECT bool_or(s.step = 'connect') AS dialled
                    FROM mikrotik_backup.attempt_steps s WHERE s.attempt_id = a.id
                ) t
                WHERE a.id <> but_attempt AND a.id IS DISTINCT FROM but_lost
                  AND t.dialled IS NOT FALSE
                  AND NOT EXISTS (
                      SELECT FROM mikrotik_backup.device_state o
                      WHERE o.running_endpoint = at_endpoint AND o.running_attempt_id = a.id
                        AND o.device_id <> by_device)
                ORDER BY a.started_at DESC LIMIT 200)
        ) dials);
END
$$;
COMMENT ON FUNCTION mikrotik_backup.connections_to(text, uuid, uuid, uuid, interval) IS
    '[[permitted, ended], …] in microseconds ago of the attempts and marks of an endpoint that dialled or may have, without two attempts of the device that asks; of one without steps nobody knows when it ended';
GRANT EXECUTE ON FUNCTION mikrotik_backup.connections_to(text, uuid, uuid, uuid, interval) TO PUBLIC;

CREATE FUNCTION mikrotik_backup.is_held(device uuid)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM mikrotik_backup.attempts h
        WHERE h.device_id = device AND h.status = 'queued' AND h.held_until > now());
END
$$;
COMMENT ON FUNCTION mikrotik_backup.is_held(uuid) IS
    'whether a process holds a queued snapshot of the device itself';
GRANT EXECUTE ON FUNCTION mikrotik_backup.is_held(uuid) TO PUBLIC;
