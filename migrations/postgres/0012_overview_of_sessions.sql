-- The overview also tells what to know of devices that are backed up all the same.

-- A result cannot be given columns by replacing the function. A view of somebody's own on it
-- stops this migration, and the message names the view: drop it, migrate, make it again.
DROP FUNCTION mikrotik_backup.overview();

CREATE FUNCTION mikrotik_backup.overview()
RETURNS TABLE (
    device_id uuid, tenant_id uuid, hostname text, address text, status text, error_kind text,
    error text, consecutive_failures integer, last_attempt_at timestamptz,
    last_success_at timestamptz, next_due timestamptz, blocked_since timestamptz,
    running_since timestamptz, running_replica text, routeros_version text, last_hash text,
    last_bytes bigint, incomplete_menus jsonb, warning text, weak_ssh jsonb)
LANGUAGE sql STABLE AS $$
    SELECT d.id, d.tenant_id, d.hostname::text,
           format('%s port %s', d.ip_address, coalesce(d.ssh_port::text, '22')),
           s.status, s.error_kind, s.error, coalesce(s.consecutive_failures, 0), s.last_attempt_at,
           s.last_success_at, s.next_due, s.blocked_since, s.running_since, s.running_replica,
           s.routeros_version, s.last_hash, s.last_bytes, coalesce(s.incomplete_menus, '[]'),
           s.warning, coalesce(s.weak_ssh, '[]')
    FROM devices d LEFT JOIN mikrotik_backup.device_state s ON s.device_id = d.id
$$;
COMMENT ON FUNCTION mikrotik_backup.overview() IS
    'Every device with its state, tried or not: SELECT * FROM mikrotik_backup.overview() WHERE blocked_since IS NOT NULL, or WHERE incomplete_menus <> ''[]''';
