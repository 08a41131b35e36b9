-- What is kept of a router between its exports says more than it did, in the same forms.

COMMENT ON COLUMN mikrotik_backup.device_state.menu_digests IS
    '[[menu, digest of its lines, items], …] of the last good export, in order; those that it lacks, with what was known of them before; null where the device has another address since';
COMMENT ON COLUMN mikrotik_backup.device_state.missing_menus IS
    '{menu: exports in a row that lacked it, "*": exports in a row that were refused for what they lacked}, of the last attempt that got an export; {} when none is missing';
COMMENT ON COLUMN mikrotik_backup.device_state.incomplete_menus IS
    '[menu, …] that are missing in the last good export, because the router could not export them: what three exports in a row lacked, or the last of six in a row that lacked some; [] when it is complete';
COMMENT ON COLUMN mikrotik_backup.device_state.suspect IS
    'the export that the last attempts saw, that looks cut beside the last good one, and that no second reading could confirm: {attempts: how many in a row, suspicion, menus: [[menu, digest, items], …], secrets, incomplete_menus, restless: menus that change by themselves, strays: digest of lines that no export has}; {} when there is none';
COMMENT ON COLUMN mikrotik_backup.device_state.warning IS
    'why an export was read more than once before it was believed; kept until the configuration changes, or somebody asks for a backup that shows nothing of it';
