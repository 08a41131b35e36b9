//! A snapshot as one message of NATS, measured before it is made.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;

use super::event::{ConfigRef, SnapshotEvent};
use crate::domain::device::DeviceId;
use crate::domain::snapshot::{ConfigText, Snapshot};

/// One message as it goes over the wire.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) subject: String,
    pub(super) headers: Option<HeaderMap>,
    pub(super) payload: Bytes,
    /// What the limits count: headers as they are sent, and payload.
    pub(super) size: u64,
}

/// What became of a snapshot under a limit.
pub(super) enum Fit {
    /// It is one message.
    Whole(Message),
    /// It would have so many bytes, which are too many.
    TooLarge(u64),
}

impl Message {
    /// The event with its text, unless it is larger than `limit`: then it is not even made. Takes
    /// time that grows with the text, so not for the runtime's threads.
    pub(super) fn whole(snapshot: &Snapshot, limit: u64) -> serde_json::Result<Fit> {
        let mut event = SnapshotEvent::from(snapshot);
        let text = event.config_text.replace(ConfigText::new(""));
        let text = text.unwrap_or_else(|| ConfigText::new(""));
        let rest = serde_json::to_vec(&event)?.len() as u64;
        let payload = rest + escaped_len(text.expose());
        let size = headers_len(snapshot) + payload;
        if size > limit {
            return Ok(Fit::TooLarge(size));
        }
        event.config_text = Some(text);
        Self::of(snapshot, &event, payload).map(Fit::Whole)
    }

    /// The event with a reference instead of its text.
    pub(super) fn referring(snapshot: &Snapshot, to: ConfigRef) -> serde_json::Result<Self> {
        let mut event = SnapshotEvent::from(snapshot);
        event.config_text = None;
        event.config_ref = Some(to);
        Self::of(snapshot, &event, 1024)
    }

    fn of(snapshot: &Snapshot, event: &SnapshotEvent, capacity: u64) -> serde_json::Result<Self> {
        let mut payload = Vec::with_capacity(usize::try_from(capacity).unwrap_or_default());
        serde_json::to_writer(&mut payload, event)?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, snapshot.attempt.to_string());
        Ok(Self {
            subject: subject(snapshot.device),
            headers: Some(headers),
            size: headers_len(snapshot) + payload.len() as u64,
            payload: payload.into(),
        })
    }
}

pub(super) fn subject(device: DeviceId) -> String {
    format!("config.snapshot.create.{device}")
}

/// "NATS/1.0", the header, and an empty line, each with its CRLF (NATS protocol, HPUB).
fn headers_len(snapshot: &Snapshot) -> u64 {
    let id = snapshot.attempt;
    format!("NATS/1.0\r\n{NATS_MESSAGE_ID}: {id}\r\n\r\n").len() as u64
}

/// How many bytes `text` has inside the quotes of JSON, as `serde_json` writes it: only what must
/// be escaped is (RFC 8259, 7).
fn escaped_len(text: &str) -> u64 {
    let extra = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        // As \u00XX.
        0..0x20 => 5,
        _ => 0_u64,
    };
    text.len() as u64 + text.bytes().map(extra).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::attempt::AttemptId;
    use crate::domain::device::TenantId;

    fn snapshot(text: &str) -> Snapshot {
        let text = ConfigText::new(text);
        Snapshot {
            attempt: AttemptId(Uuid::from_u128(3)),
            device: DeviceId(Uuid::from_u128(1)),
            tenant: TenantId(Uuid::from_u128(2)),
            routeros_version: "7.14".to_owned(),
            machine: Default::default(),
            collected_at: datetime!(2026-01-02 03:04:05 UTC),
            hash: text.digest(),
            text,
            normalization_version: 2,
            normalization_rules: "n2".to_owned(),
            incomplete_menus: vec!["/ip \"x\"".to_owned()],
            ledger: Default::default(),
            shape: Default::default(),
        }
    }

    fn whole(snapshot: &Snapshot, limit: u64) -> Result<Message, u64> {
        match Message::whole(snapshot, limit).expect("serialises") {
            Fit::Whole(message) => Ok(message),
            Fit::TooLarge(size) => Err(size),
        }
    }

    proptest! {
        /// The measure is exact: at its own size it fits, at one byte less it does not.
        #[test]
        fn what_is_measured_is_what_is_sent(
            text in prop::collection::vec(any::<char>(), 0..200),
            controls in "[\\x00-\\x7f\u{f700}-\u{f7ff}]{0,50}",
        ) {
            let text: String = text.into_iter().chain(controls.chars()).collect();
            let snapshot = snapshot(&text);
            let message = whole(&snapshot, u64::MAX).expect("fits");
            let plain = serde_json::to_vec(&SnapshotEvent::from(&snapshot)).expect("serialises");
            prop_assert_eq!(message.payload.as_ref(), plain.as_slice());
            prop_assert!(whole(&snapshot, message.size).is_ok());
            prop_assert_eq!(whole(&snapshot, message.size - 1).err(), Some(message.size));
        }
    }
}
