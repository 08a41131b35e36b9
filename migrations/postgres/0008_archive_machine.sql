-- What the header of an export says about the machine, beside its RouterOS version.

ALTER TABLE mikrotik_backup.archive_versions
    ADD COLUMN machine jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(machine) = 'object');

COMMENT ON COLUMN mikrotik_backup.archive_versions.machine IS
    'model, serial_number, software_id and system_id of the first export''s header, where it has them';
