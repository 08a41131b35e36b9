-- The overview also tells what to know of devices that are backed up all the same. Its columns are
-- those of PostgreSQL's function of the same name.
DROP VIEW overview;

-- SELECT * FROM overview WHERE blocked_since IS NOT NULL, or WHERE incomplete_menus <> '[]'
CREATE VIEW overview AS
    SELECT d.id AS device_id, d.tenant_id, d.hostname,
           d.ip_address || ' port ' || coalesce(d.ssh_port, 22) AS address,
           s.status, s.error_kind, s.error,
           coalesce(s.consecutive_failures, 0) AS consecutive_failures, s.last_attempt_at,
           s.last_success_at, s.next_due, s.blocked_since, s.running_since, s.running_replica,
           s.routeros_version, s.last_hash, s.last_bytes,
           coalesce(s.incomplete_menus, '[]') AS incomplete_menus, s.warning,
           coalesce(s.weak_ssh, '[]') AS weak_ssh
    FROM devices d LEFT JOIN device_state s ON s.device_id = d.id;
