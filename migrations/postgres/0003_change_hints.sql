-- A NOTIFY when an operator edits what the service reads, so that it follows at once. Only a
-- hint: the reconciler finds every edit by its digests, also where no trigger could be installed.
--
-- The columns are compared in the function and not in a WHEN clause, which would forbid the
-- platform to alter their types.

CREATE FUNCTION mikrotik_backup.hint_device_edited() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        BEGIN
            IF ROW(OLD.id, OLD.tenant_id, OLD.ip_address::text, OLD.ssh_port::text, OLD.device_type::text,
                   OLD.encrypted_credentials, OLD.encrypted_credentials_transit::text,
                   OLD.credential_profile_id)
               IS NOT DISTINCT FROM
               ROW(NEW.id, NEW.tenant_id, NEW.ip_address::text, NEW.ssh_port::text, NEW.device_type::text,
                   NEW.encrypted_credentials, NEW.encrypted_credentials_transit::text,
                   NEW.credential_profile_id)
            THEN
                IF OLD.ssh_host_key_fingerprint::text IS NOT DISTINCT FROM NEW.ssh_host_key_fingerprint::text THEN
                    RETURN NULL;
                END IF;
                -- The first pin of the service itself is no edit.
                IF OLD.ssh_host_key_fingerprint IS NULL
                   AND current_setting('application_name') LIKE 'mikrotik-backup/%' THEN
                    RETURN NULL;
                END IF;
            END IF;
        EXCEPTION WHEN undefined_column THEN
            NULL; -- The table has changed its shape: better a hint too many than a failed UPDATE.
        END;
    END IF;
    PERFORM pg_notify('mikrotik_backup_inventory', '');
    RETURN NULL;
END
$$;

CREATE FUNCTION mikrotik_backup.hint_profile_edited() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        BEGIN
            IF ROW(OLD.id, OLD.encrypted_credentials, OLD.encrypted_credentials_transit::text)
               IS NOT DISTINCT FROM
               ROW(NEW.id, NEW.encrypted_credentials, NEW.encrypted_credentials_transit::text)
            THEN
                RETURN NULL;
            END IF;
        EXCEPTION WHEN undefined_column THEN
            NULL;
        END;
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
