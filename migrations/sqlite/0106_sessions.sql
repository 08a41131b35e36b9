-- What a session showed beside its export, and what an operator sets for one device. Names and
-- meanings are those of PostgreSQL's migration 0006_sessions.sql, which describes every column.

ALTER TABLE device_state ADD COLUMN missing_menus TEXT
    CHECK (json_valid(missing_menus) AND json_type(missing_menus) = 'object');
ALTER TABLE device_state ADD COLUMN incomplete_menus TEXT
    CHECK (json_valid(incomplete_menus) AND json_type(incomplete_menus) = 'array');
ALTER TABLE device_state ADD COLUMN warning TEXT;
ALTER TABLE device_state ADD COLUMN weak_ssh TEXT
    CHECK (json_valid(weak_ssh) AND json_type(weak_ssh) = 'array');

ALTER TABLE attempts ADD COLUMN incomplete_menus TEXT NOT NULL DEFAULT '[]'
    CHECK (json_valid(incomplete_menus) AND json_type(incomplete_menus) = 'array');
ALTER TABLE attempts ADD COLUMN warning TEXT;

CREATE TABLE device_settings (
    device_id               TEXT NOT NULL PRIMARY KEY, -- devices.id
    command_timeout_seconds INTEGER CHECK (command_timeout_seconds BETWEEN 1 AND 3600),
    ssh_algorithms          TEXT CHECK (ssh_algorithms IN ('modern', 'compatible'))
) STRICT, WITHOUT ROWID;

-- An edit of them is an edit of the device.
CREATE TRIGGER settings_inserted AFTER INSERT ON device_settings
BEGIN
    UPDATE meta SET latest_change = latest_change + 1;
    UPDATE devices SET change_number = (SELECT latest_change FROM meta) WHERE id = new.device_id;
END;

CREATE TRIGGER settings_edited AFTER UPDATE ON device_settings
WHEN (old.device_id, old.command_timeout_seconds, old.ssh_algorithms)
     IS NOT (new.device_id, new.command_timeout_seconds, new.ssh_algorithms)
BEGIN
    UPDATE meta SET latest_change = latest_change + 1;
    UPDATE devices SET change_number = (SELECT latest_change FROM meta)
    WHERE id IN (old.device_id, new.device_id);
END;

CREATE TRIGGER settings_deleted AFTER DELETE ON device_settings
BEGIN
    UPDATE meta SET latest_change = latest_change + 1;
    UPDATE devices SET change_number = (SELECT latest_change FROM meta) WHERE id = old.device_id;
END;

CREATE TRIGGER settings_go_with_their_device AFTER DELETE ON devices
BEGIN
    DELETE FROM device_settings WHERE device_id = old.id;
END;
