-- What a session showed beside its export, and what an operator sets for one device.

ALTER TABLE mikrotik_backup.device_state
    ADD COLUMN missing_menus    jsonb CHECK (jsonb_typeof(missing_menus) = 'object'),
    ADD COLUMN incomplete_menus jsonb CHECK (jsonb_typeof(incomplete_menus) = 'array'),
    ADD COLUMN warning          text,
    ADD COLUMN weak_ssh         jsonb CHECK (jsonb_typeof(weak_ssh) = 'array');

COMMENT ON COLUMN mikrotik_backup.device_state.missing_menus IS
    '{menu: attempts in a row in which the router could not export it}, of the last attempt that got an export; {} when none is missing';
COMMENT ON COLUMN mikrotik_backup.device_state.incomplete_menus IS
    '[menu, …] that are missing in the last good export, because the router could not export them three times in a row; [] when it is complete';
COMMENT ON COLUMN mikrotik_backup.device_state.warning IS
    'why the last good export was read twice before it was believed; NULL when nothing was odd about it';
COMMENT ON COLUMN mikrotik_backup.device_state.weak_ssh IS
    '[algorithm, …] of the last key exchange that are weak by today''s measure; [] when none is';

ALTER TABLE mikrotik_backup.attempts
    ADD COLUMN incomplete_menus jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(incomplete_menus) = 'array'),
    ADD COLUMN warning          text;

COMMENT ON COLUMN mikrotik_backup.attempts.incomplete_menus IS '[menu, …] that are missing in what was taken';
COMMENT ON COLUMN mikrotik_backup.attempts.warning IS 'why what was taken was read twice before it was believed';

CREATE TABLE mikrotik_backup.device_settings (
    device_id               uuid PRIMARY KEY,
    command_timeout_seconds integer CHECK (command_timeout_seconds BETWEEN 1 AND 3600),
    ssh_algorithms          text CHECK (ssh_algorithms IN ('modern', 'compatible'))
);

COMMENT ON TABLE mikrotik_backup.device_settings IS
    'What differs for one device from the service''s own settings. The operator''s: the service only reads it, and follows an edit at once.';
COMMENT ON COLUMN mikrotik_backup.device_settings.device_id IS 'devices.id; the row may be there before its device, and outlives it';
COMMENT ON COLUMN mikrotik_backup.device_settings.command_timeout_seconds IS 'instead of CONFIG_BACKUP_COMMAND_TIMEOUT; NULL means that one';
COMMENT ON COLUMN mikrotik_backup.device_settings.ssh_algorithms IS 'instead of SSH_ALGORITHMS; NULL means that one';

CREATE FUNCTION mikrotik_backup.hint_settings_edited() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('mikrotik_backup_inventory', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER settings_inserted_or_deleted AFTER INSERT OR DELETE ON mikrotik_backup.device_settings
    FOR EACH ROW EXECUTE FUNCTION mikrotik_backup.hint_settings_edited();
CREATE TRIGGER settings_edited AFTER UPDATE ON mikrotik_backup.device_settings
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*)
    EXECUTE FUNCTION mikrotik_backup.hint_settings_edited();
CREATE TRIGGER settings_truncated AFTER TRUNCATE ON mikrotik_backup.device_settings
    FOR EACH STATEMENT EXECUTE FUNCTION mikrotik_backup.hint_settings_edited();
