-- What the normalisation left out at the last sighting of a version, beside what it did at the first:
-- an operator who changes its rules sees what they do to a configuration that does not change. Null
-- where it was last seen before this column was there.

ALTER TABLE archive_versions
    ADD COLUMN last_ledger TEXT CHECK (json_type(last_ledger) = 'object');
