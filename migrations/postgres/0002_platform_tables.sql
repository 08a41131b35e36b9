-- The inventory. Where the platform's tables are there already, they stay as they are: only
-- columns that the service needs and that are missing are added, and nothing else is touched.

DO $$
DECLARE
    wanted  record;
    lacking text := '';
BEGIN
    -- The platform's traffic must not queue up behind us for long.
    PERFORM set_config('lock_timeout', '10s', true);

    IF to_regclass('credential_profiles') IS NULL THEN
        CREATE TABLE credential_profiles (
            id                            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            encrypted_credentials         bytea,
            encrypted_credentials_transit text
        );
        COMMENT ON TABLE credential_profiles IS 'Credentials that several devices share.';
    END IF;

    IF to_regclass('devices') IS NULL THEN
        CREATE TABLE devices (
            id                            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            tenant_id                     uuid NOT NULL,
            hostname                      text NOT NULL,
            ip_address                    text NOT NULL,
            ssh_port                      integer,
            device_type                   text,
            routeros_version              text,
            encrypted_credentials         bytea,
            encrypted_credentials_transit text,
            credential_profile_id         uuid,
            ssh_host_key_fingerprint      text,
            ssh_host_key_first_seen       timestamptz,
            ssh_host_key_last_verified    timestamptz
        );
        COMMENT ON TABLE devices IS 'The routers to back up.';
        COMMENT ON COLUMN devices.ip_address IS 'IPv4 address, IPv6 address or DNS name';
        COMMENT ON COLUMN devices.ssh_port IS 'NULL means 22';
        COMMENT ON COLUMN devices.device_type IS 'NULL means routeros; anything else is not backed up';
        COMMENT ON COLUMN devices.credential_profile_id IS 'credential_profiles.id';
        COMMENT ON COLUMN devices.ssh_host_key_fingerprint IS
            'the trusted host key; NULL trusts the next one seen';
    END IF;

    FOR wanted IN
        SELECT * FROM (VALUES
            ('credential_profiles', 'id', NULL),
            ('credential_profiles', 'encrypted_credentials', 'bytea'),
            ('credential_profiles', 'encrypted_credentials_transit', 'text'),
            ('devices', 'id', NULL),
            ('devices', 'tenant_id', NULL),
            ('devices', 'hostname', 'text'),
            ('devices', 'ip_address', NULL),
            ('devices', 'ssh_port', 'integer'),
            ('devices', 'device_type', 'text'),
            ('devices', 'routeros_version', 'text'),
            ('devices', 'encrypted_credentials', 'bytea'),
            ('devices', 'encrypted_credentials_transit', 'text'),
            ('devices', 'credential_profile_id', 'uuid'),
            ('devices', 'ssh_host_key_fingerprint', 'text'),
            ('devices', 'ssh_host_key_first_seen', 'timestamptz'),
            ('devices', 'ssh_host_key_last_verified', 'timestamptz')
        ) AS named (in_table, column_name, of_type)
        WHERE NOT EXISTS (
            SELECT FROM pg_catalog.pg_attribute
            WHERE attrelid = to_regclass(in_table) AND attname = column_name
              AND attnum > 0 AND NOT attisdropped)
    LOOP
        IF wanted.of_type IS NULL THEN
            RAISE EXCEPTION 'the existing table % has no column %, which cannot be made up',
                wanted.in_table, wanted.column_name;
        END IF;
        BEGIN
            EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s',
                           to_regclass(wanted.in_table), wanted.column_name, wanted.of_type);
        EXCEPTION WHEN insufficient_privilege THEN
            lacking := lacking || format(' ALTER TABLE %s ADD COLUMN %I %s;',
                                         wanted.in_table, wanted.column_name, wanted.of_type);
        END;
    END LOOP;

    IF lacking <> '' THEN
        RAISE EXCEPTION 'columns are missing and role % may not add them; as the owner of the table:%',
            current_user, lacking USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;

-- A function and not a view: a view would forbid the platform to alter the columns it reads.
CREATE FUNCTION mikrotik_backup.overview()
RETURNS TABLE (
    device_id uuid, tenant_id uuid, hostname text, address text, status text, error_kind text,
    error text, consecutive_failures integer, last_attempt_at timestamptz,
    last_success_at timestamptz, next_due timestamptz, blocked_since timestamptz,
    running_since timestamptz, running_replica text, routeros_version text, last_hash text,
    last_bytes bigint)
LANGUAGE sql STABLE AS $$
    SELECT d.id, d.tenant_id, d.hostname::text,
           format('%s port %s', d.ip_address, coalesce(d.ssh_port::text, '22')),
           s.status, s.error_kind, s.error, coalesce(s.consecutive_failures, 0), s.last_attempt_at,
           s.last_success_at, s.next_due, s.blocked_since, s.running_since, s.running_replica,
           s.routeros_version, s.last_hash, s.last_bytes
    FROM devices d LEFT JOIN mikrotik_backup.device_state s ON s.device_id = d.id
$$;
COMMENT ON FUNCTION mikrotik_backup.overview() IS
    'Every device with its state, tried or not: SELECT * FROM mikrotik_backup.overview() WHERE blocked_since IS NOT NULL';
