-- What operators did that the journal of attempts cannot tell: which host key was trusted before,
-- and which one since. Kept for good: there are few of them.

CREATE TABLE operator_actions (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    at        TEXT NOT NULL,
    device_id TEXT NOT NULL,
    action    TEXT NOT NULL CHECK (action IN ('host_key_accepted', 'host_key_reset')),
    before    TEXT, -- the fingerprint that was trusted; NULL is none
    after     TEXT  -- the fingerprint that is trusted since; NULL is the next one seen
) STRICT;

CREATE INDEX operator_actions_of_a_device ON operator_actions (device_id, id);
