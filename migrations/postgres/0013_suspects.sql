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
