-- Messages that the archive role took from JetStream and could not store, for their own sake.
-- Nobody deletes a row but `mikrotik-backup archive retry`, once it is stored, and an operator.

CREATE TABLE mikrotik_backup.archive_set_aside (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream          text NOT NULL,
    stream_sequence bigint NOT NULL CHECK (stream_sequence >= 0),
    published_at    timestamptz NOT NULL,
    subject         text NOT NULL,
    message_id      text,
    flaw            text NOT NULL,
    reason          text NOT NULL,
    set_aside_at    timestamptz NOT NULL DEFAULT now(),
    last_tried_at   timestamptz NOT NULL DEFAULT now(),
    tries           integer NOT NULL DEFAULT 1 CHECK (tries >= 1),
    bytes           bigint NOT NULL CHECK (bytes >= 0),
    key_id          text NOT NULL,
    sealed          bytea NOT NULL,
    -- A stream that was deleted and made anew counts from 1 again, at another time.
    CONSTRAINT archive_set_aside_once UNIQUE (stream, stream_sequence, published_at)
);

COMMENT ON TABLE mikrotik_backup.archive_set_aside IS
    'Messages that are no snapshots, or refer to a text that is not there: set aside, with the reason, so that they neither come again for ever nor are lost. Delete a row to give its message up.';
COMMENT ON COLUMN mikrotik_backup.archive_set_aside.stream IS 'the JetStream stream that it came from';
COMMENT ON COLUMN mikrotik_backup.archive_set_aside.stream_sequence IS 'its number there';
COMMENT ON COLUMN mikrotik_backup.archive_set_aside.published_at IS 'when the stream took it';
COMMENT ON COLUMN mikrotik_backup.archive_set_aside.subject IS 'what it was published to';
COMMENT ON COLUMN mikrotik_backup.archive_set_aside.message_id IS 'its Nats-Msg-Id';
COMMENT ON COLUMN mikrotik_backup.archive_set_aside.flaw IS 'the reason in a word: not_json, not_an_event, wrong_device, no_text, hash_mismatch, unresolvable, refused';
COMMENT ON COLUMN mikrotik_backup.archive_set_aside.reason IS 'the reason of the last try in a sentence; holds nothing of the payload';
COMMENT ON COLUMN mikrotik_backup.archive_set_aside.tries IS 'how often it was tried: once, and by archive retry';
COMMENT ON COLUMN mikrotik_backup.archive_set_aside.bytes IS 'size of the payload';
COMMENT ON COLUMN mikrotik_backup.archive_set_aside.key_id IS 'fingerprint of the key that it is sealed under';
COMMENT ON COLUMN mikrotik_backup.archive_set_aside.sealed IS 'the payload, which may hold passwords: zstd, then nonce, AES-256-GCM ciphertext and tag';
