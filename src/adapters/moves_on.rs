//! How a device's state moves on with an attempt, in SQL that both databases read alike.

/// `column = …` for what describes the failure that counts: an attempt that ended otherwise does
/// not lift a block, so the block outlives it, together with what the device looked like to the
/// attempt that was blocked. The parameter `$stands` tells whether this attempt ended otherwise.
macro_rules! unless_an_older_block_stands {
    ($stands:literal, $column:literal) => {
        concat!(
            $column,
            " = CASE WHEN ",
            $stands,
            " AND s.blocked_since IS NOT NULL THEN s.",
            $column,
            " ELSE excluded.",
            $column,
            " END, "
        )
    };
}

/// `column = …` for the mark: that of the attempt that is recorded goes; that of another one stays.
macro_rules! unless_it_is_this_one {
    ($column:literal) => {
        concat!(
            $column,
            " = CASE WHEN s.running_attempt_id <> excluded.last_attempt_id THEN s.",
            $column,
            " END, "
        )
    };
}

/// What the row `s` of `device_state` becomes with the attempt that is `excluded`, but for what the router
/// showed. `$stands` is the parameter of [`unless_an_older_block_stands`]. The last of what is set.
macro_rules! moves_on {
    ($stands:literal) => {
        concat!(
            "tenant_id = excluded.tenant_id, last_attempt_id = excluded.last_attempt_id, \
             last_attempt_at = excluded.last_attempt_at, last_finished_at = excluded.last_finished_at, \
             last_success_at = coalesce(excluded.last_success_at, s.last_success_at), \
             status = excluded.status, consecutive_failures = excluded.consecutive_failures, \
             next_due = excluded.next_due, deaths = 0, ",
            $crate::adapters::moves_on::unless_an_older_block_stands!($stands, "error_kind"),
            $crate::adapters::moves_on::unless_an_older_block_stands!($stands, "error"),
            $crate::adapters::moves_on::unless_an_older_block_stands!($stands, "offered_fingerprint"),
            $crate::adapters::moves_on::unless_an_older_block_stands!($stands, "endpoint_digest"),
            $crate::adapters::moves_on::unless_an_older_block_stands!($stands, "credentials_digest"),
            $crate::adapters::moves_on::unless_an_older_block_stands!($stands, "pin_digest"),
            $crate::adapters::moves_on::unless_it_is_this_one!("running_since"),
            $crate::adapters::moves_on::unless_it_is_this_one!("running_replica"),
            $crate::adapters::moves_on::unless_it_is_this_one!("running_cause"),
            $crate::adapters::moves_on::unless_it_is_this_one!("running_endpoint"),
            "blocked_since = CASE WHEN excluded.blocked_since IS NOT NULL \
                 THEN coalesce(s.blocked_since, excluded.blocked_since) END, \
             last_hash = coalesce(excluded.last_hash, s.last_hash), \
             last_bytes = coalesce(excluded.last_bytes, s.last_bytes), \
             routeros_version = coalesce(excluded.routeros_version, s.routeros_version), \
             incomplete_menus = coalesce(excluded.incomplete_menus, s.incomplete_menus), \
             warning = CASE \
                 WHEN excluded.last_hash IS NULL THEN s.warning \
                 WHEN excluded.warning IS NULL AND excluded.last_hash = s.last_hash THEN s.warning \
                 ELSE excluded.warning END, \
             weak_ssh = coalesce(excluded.weak_ssh, s.weak_ssh), \
             running_attempt_id = nullif(s.running_attempt_id, excluded.last_attempt_id)",
        )
    };
}

pub(super) use {moves_on, unless_an_older_block_stands, unless_it_is_this_one};
