-- What a crash or a restart of the service must not forget.

-- Attempts in a row whose process was gone before it recorded their end; from the second one on
-- the device is retried ever later.
ALTER TABLE device_state ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0 CHECK (deaths >= 0);

-- When the service first saw the device; the age of its last success counts from then as long as
-- there is none. A row is there from then on, tried or not.
ALTER TABLE device_state ADD COLUMN first_seen TEXT;

UPDATE device_state SET first_seen =
    (SELECT min(started_at) FROM attempts WHERE attempts.device_id = device_state.device_id);
