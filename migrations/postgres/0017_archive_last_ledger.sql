-- What the normalisation left out at the last sighting of a version, beside what it did at the first:
-- an operator who changes its rules sees what they do to a configuration that does not change.

ALTER TABLE mikrotik_backup.archive_versions
    ADD COLUMN last_ledger jsonb CHECK (jsonb_typeof(last_ledger) = 'object');

COMMENT ON COLUMN mikrotik_backup.archive_versions.last_ledger IS
    'how often each normalisation rule left something out when the version was last seen; null where it was last seen before this column was there';
