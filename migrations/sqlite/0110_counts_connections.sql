-- Whether the configuration in the last good export puts addresses on lists, as rules against brute
-- force do; NULL while it is not known of this address. Where it is 0, requests may connect more often.
ALTER TABLE device_state ADD COLUMN counts_connections INTEGER CHECK (counts_connections IN (0, 1));
