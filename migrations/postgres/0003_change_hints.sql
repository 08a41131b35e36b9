-- A NOTIFY when an operator edits what the service reads, so that it follows at once. Only a
-- hint: the reconciler finds every edit by its digests, also where no trigger could be installed.
--
-- The columns are compared in the functions and not in a WHEN clause, which would forbid the
-- platform to alter their types. After such an ALTER, or a DROP COLUMN, the plans of sessions that
-- have used the function before no longer fit; they then compare the slow way instead of failing
-- the platform's UPDATE.

CREATE FUNCTION mikrotik_backup.hint_device_edited() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    same_place_and_login boolean;
    same_pin             boolean;
    first_pin            boolean;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        BEGIN
            same_place_and_login :=
                ROW(OLD.id, OLD.tenant_id, OLD.ip_address::text, OLD.ssh_port::text,
                    OLD.device_type::text, OLD.encrypted_credentials,
                    OLD.encrypted_credentials_transit::text, OLD.credential_profile_id)
                IS NOT DISTINCT FROM
                ROW(NEW.id, NEW.tenant_id, NEW.ip_address::text, NEW.ssh_port::text,
                    NEW.device_type::text, NEW.encrypted_credentials,
                    NEW.encrypted_credentials_transit::text, NEW.credential_profile_id);
            same_pin := OLD.ssh_host_key_fingerprint::text
                        IS NOT DISTINCT FROM NEW.ssh_host_key_fingerprint::text;
            first_pin := OLD.ssh_host_key_fingerprint IS NULL;
        EXCEPTION WHEN undefined_column OR datatype_mismatch THEN
            same_place_and_login := (
                SELECT bool_and(to_jsonb(OLD) -> name IS NOT DISTINCT FROM to_jsonb(NEW) -> name)
                FROM unnest(ARRAY['id', 'tenant_id', 'ip_address', 'ssh_port', 'device_type',
                                  'encrypted_credentials', 'encrypted_credentials_transit',
                                  'credential_profile_id']) AS name);
            same_pin := to_jsonb(OLD) -> 'ssh_host_key_fingerprint'
                        IS NOT DISTINCT FROM to_jsonb(NEW) -> 'ssh_host_key_fingerprint';
            first_pin := to_jsonb(OLD) ->> 'ssh_host_key_fingerprint' IS NULL;
        END;
        -- The first pin that the service itself makes is no edit.
        IF same_place_and_login AND (same_pin
            OR first_pin AND current_setting('application_name') LIKE 'mikrotik-backup/%') THEN
            RETURN NULL;
        END IF;
    END IF;
    PERFORM pg_notify('mikrotik_backup_inventory', '');
    RETURN NULL;
END
$$;

CREATE FUNCTION mikrotik_backup.hint_profile_edited() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    same boolean;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        BEGIN
            same := ROW(OLD.id, OLD.encrypted_credentials, OLD.encrypted_credentials_transit::text)
                    IS NOT DISTINCT FROM
                    ROW(NEW.id, NEW.encrypted_credentials, NEW.encrypted_credentials_transit::text);
        EXCEPTION WHEN undefined_column OR datatype_mismatch THEN
            same := (
                SELECT bool_and(to_jsonb(OLD) -> name IS NOT DISTINCT FROM to_jsonb(NEW) -> name)
                FROM unnest(ARRAY['id', 'encrypted_credentials',
                                  'encrypted_credentials_transit']) AS name);
        END;
        IF same THEN
            RETURN NULL;
        END IF;
    END IF;
    PERFORM pg_notify('mikrotik_backup_inventory', '');
    RETURN NULL;
END
$$;

CREATE FUNCTION mikrotik_backup.install_change_hints() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    wanted  record;
    reasons text;
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    FOR wanted IN
        SELECT * FROM (VALUES
            ('devices', 'mikrotik_backup_edited', 'INSERT OR UPDATE OR DELETE', 'ROW', 'hint_device_edited'),
            ('devices', 'mikrotik_backup_truncated', 'TRUNCATE', 'STATEMENT', 'hint_device_edited'),
            ('credential_profiles', 'mikrotik_backup_edited', 'INSERT OR UPDATE OR DELETE', 'ROW', 'hint_profile_edited'),
            ('credential_profiles', 'mikrotik_backup_truncated', 'TRUNCATE', 'STATEMENT', 'hint_profile_edited')
        ) AS named (on_table, trigger_name, events, for_each, calls)
        WHERE NOT EXISTS (
            SELECT FROM pg_catalog.pg_trigger
            WHERE tgrelid = to_regclass(on_table) AND tgname = trigger_name)
    LOOP
        BEGIN
            EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s FOR EACH %s EXECUTE FUNCTION mikrotik_backup.%I()',
                           wanted.trigger_name, wanted.events, to_regclass(wanted.on_table),
                           wanted.for_each, wanted.calls);
        EXCEPTION WHEN insufficient_privilege OR lock_not_available OR wrong_object_type THEN
            reasons := concat_ws('; ', reasons, SQLERRM);
        END;
    END LOOP;
    RETURN reasons;
END
$$;
COMMENT ON FUNCTION mikrotik_backup.install_change_hints() IS
    'Installs the triggers that tell the service of edits at once, where the role may; NULL, or why not. Every migration run tries again.';

SELECT mikrotik_backup.install_change_hints();
