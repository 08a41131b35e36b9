-- An export that looks cut, and that no second reading confirms, is taken when three attempts in a
-- row have seen it.

ALTER TABLE mikrotik_backup.device_state
    ADD COLUMN suspect       jsonb CHECK (jsonb_typeof(suspect) = 'object'),
    ADD COLUMN suspect_as_of uuid;

COMMENT ON COLUMN mikrotik_backup.device_state.suspect IS
    'the export that the last attempts saw, that looks cut beside the last good one, and that no second reading could confirm: {attempts: how many in a row, suspicion, menus: [[menu, digest, items], …], secrets, incomplete_menus, restless: menus that change by themselves}; {} when there is none';
-- An older replica beside this one records attempts and knows nothing of suspects.
COMMENT ON COLUMN mikrotik_backup.device_state.suspect_as_of IS
    'the attempt after which suspect was written or kept; it counts only while that is last_attempt_id';

-- What is counted of missing menus has changed, the form has not.
COMMENT ON COLUMN mikrotik_backup.device_state.missing_menus IS
    '{menu: exports in a row that lacked it or, before it began to fail, others that were waited for}, of the last attempt that got an export; {} when none is missing';
COMMENT ON COLUMN mikrotik_backup.device_state.incomplete_menus IS
    '[menu, …] that are missing in the last good export, because the router could not export them, after three exports in a row that lacked some; [] when it is complete';
