-- Whether a router's own firewall might take many connections for an attack.

ALTER TABLE mikrotik_backup.device_state
    ADD COLUMN counts_connections boolean;

COMMENT ON COLUMN mikrotik_backup.device_state.counts_connections IS
    'whether the configuration in the last good export puts addresses on lists, as rules against brute force do; NULL while it is not known of this address. Where it is false, requests may connect more often';
