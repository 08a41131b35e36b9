-- A router sees connections, not rows: they are counted by where they went, over all rows that say so.

-- The address and port that the device's row had when the attempt began, in lower case; NULL where
-- that is not known.
ALTER TABLE attempts ADD COLUMN endpoint TEXT;
ALTER TABLE device_state ADD COLUMN running_endpoint TEXT;

CREATE INDEX attempts_of_endpoint ON attempts (endpoint, started_at DESC) WHERE endpoint IS NOT NULL;
CREATE INDEX device_state_running_at ON device_state (running_endpoint)
    WHERE running_endpoint IS NOT NULL;
