-- What the header of an export says about the machine, beside its RouterOS version: model,
-- serial_number, software_id and system_id of the first export's header, where it has them.

ALTER TABLE archive_versions
    ADD COLUMN machine TEXT NOT NULL DEFAULT '{}' CHECK (json_type(machine) = 'object');
