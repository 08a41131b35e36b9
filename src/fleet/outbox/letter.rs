//! A letter: one snapshot as it lies in the outbox. What it is filed under is readable, the
//! snapshot itself is compressed and sealed under the credential key.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::credentials::{Key, Unsealable};
use crate::domain::Timestamp;
use crate::domain::attempt::AttemptId;
use crate::domain::device::{DeviceId, TenantId};
use crate::domain::digest::Digest;
use crate::domain::snapshot::{ConfigText, Machine, Snapshot};
use crate::ports::{Delivered, Letter};

/// What kind of thing a letter holds; there may be others one day.
const SNAPSHOT: &str = "config_snapshot";

/// zstd's own default, as in the archive.
const LEVEL: i32 = 3;

/// A letter as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Filed {
    /// The attempt that took the snapshot, and the `Nats-Msg-Id`.
    pub id: AttemptId,
    /// What it holds.
    #[serde(rename = "type")]
    kind: String,
    /// The router.
    pub device_id: DeviceId,
    /// Its owner.
    pub tenant_id: TenantId,
    /// When it was put into the outbox.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: Timestamp,
    /// How often it was refused for its own sake.
    pub attempts: u32,
    /// SHA-256 of the text.
    sha256_hash: String,
    /// Size of the text in bytes.
    size_bytes: u64,
    /// Base64 of nonce, ciphertext and tag of the compressed [`Content`].
    payload: String,
    /// Why it is among the dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub dead_since: Option<Timestamp>,
}

/// What a letter is filed under, as far as its beginning tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct Label {
    /// The attempt that took the snapshot.
    pub id: AttemptId,
    /// The router.
    pub device_id: DeviceId,
}

impl Label {
    /// Reads the beginning of what lies in the outbox. What says nothing there is given ids that
    /// nothing else has, and the same ones each time.
    pub fn read(head: &[u8]) -> Self {
        // Nothing in a JSON string reads like that: its quotes are escaped.
        const PAYLOAD: &[u8] = br#","payload":"#;
        let end = head
            .windows(PAYLOAD.len())
            .position(|window| window == PAYLOAD);
        let fields = end.map(|end| [&head[..end], b"}"].concat());
        let read = fields.and_then(|fields| serde_json::from_slice(&fields).ok());
        read.unwrap_or_else(|| {
            let made = Uuid::from_slice(&Digest::of(head).as_bytes()[..16]).unwrap_or_default();
            Self {
                id: AttemptId(made),
                device_id: DeviceId(made),
            }
        })
    }
}

/// What is sealed: all that is published, and again whose it is, so that a payload in the place of
/// another one is found out.
#[derive(Serialize, Deserialize)]
struct Content<'a> {
    id: AttemptId,
    device_id: DeviceId,
    tenant_id: TenantId,
    routeros_version: String,
    #[serde(with = "time::serde::rfc3339")]
    collected_at: Timestamp,
    config_text: std::borrow::Cow<'a, str>,
    normalization_version: u32,
    normalization_rules: String,
    incomplete_menus: Vec<String>,
    #[serde(default)]
    machine: Machine,
    #[serde(default)]
    ledger: BTreeMap<String, u64>,
}

/// A snapshot could not be made a letter.
#[derive(Debug, thiserror::Error)]
#[error("failed to seal the snapshot for the outbox")]
pub struct Unwritten(#[from] Box<dyn std::error::Error + Send + Sync>);

/// What lies in the outbox is no letter.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON, or not that of a letter.
    #[error("it is not a letter of this outbox: {0}")]
    Form(String),
    /// The payload does not open.
    #[error("its payload does not open")]
    Sealed(#[source] Unsealable),
    /// What is sealed is something else.
    #[error("its payload is not what it is filed under: {0}")]
    Content(String),
}

/// Makes a letter of `snapshot`, sealed with a nonce of its own. Takes CPU by the text's size.
///
/// # Errors
/// [`Unwritten`] when it does not compress: memory has run out.
pub fn write(snapshot: &Snapshot, key: &Key, now: Timestamp) -> Result<Letter, Unwritten> {
    let text = snapshot.text.expose();
    let content = Content {
        id: snapshot.attempt,
        device_id: snapshot.device,
        tenant_id: snapshot.tenant,
        routeros_version: snapshot.routeros_version.clone(),
        collected_at: snapshot.collected_at,
        config_text: text.into(),
        normalization_version: snapshot.normalization_version,
        normalization_rules: snapshot.normalization_rules.clone(),
        incomplete_menus: snapshot.incomplete_menus.clone(),
        machine: snapshot.machine.clone(),
        ledger: snapshot.ledger.clone(),
    };
    let boxed = |error: serde_json::Error| Unwritten(error.into());
    let plain = serde_json::to_vec(&content).map_err(boxed)?;
    let packed =
        zstd::encode_all(plain.as_slice(), LEVEL).map_err(|error| Unwritten(error.into()))?;
    let filed = Filed {
        id: snapshot.attempt,
        kind: SNAPSHOT.to_owned(),
        device_id: snapshot.device,
        tenant_id: snapshot.tenant,
        created_at: now,
        attempts: 0,
        sha256_hash: snapshot.hash.to_string(),
        size_bytes: text.len() as u64,
        payload: STANDARD.encode(key.seal(rand::random(), &packed)),
        reason: None,
        dead_since: None,
    };
    Ok(filed.letter())
}

impl Filed {
    /// Reads what lies in the outbox, without opening the payload.
    ///
    /// # Errors
    /// [`Unreadable::Form`] when it is no letter.
    pub fn read(text: &[u8]) -> Result<Self, Unreadable> {
        let filed: Self =
            serde_json::from_slice(text).map_err(|error| Unreadable::Form(error.to_string()))?;
        if filed.kind != SNAPSHOT {
            let kind = &filed.kind;
            return Err(Unreadable::Form(format!("its type is {kind:?}")));
        }
        Ok(filed)
    }

    /// As it is stored.
    pub fn letter(&self) -> Letter {
        Letter {
            id: self.id,
            device: self.device_id,
            created_at: self.created_at,
            text: serde_json::to_vec(self).unwrap_or_default(),
        }
    }

    /// Opens the payload. Takes CPU by the text's size.
    ///
    /// # Errors
    /// [`Unreadable`] when it is sealed under another key, damaged, or another letter's.
    pub fn open(&self, key: &Key) -> Result<Snapshot, Unreadable> {
        let content = |error: String| Unreadable::Content(error);
        let sealed = STANDARD.decode(&self.payload);
        let sealed = sealed.map_err(|error| content(error.to_string()))?;
        let packed = key.open(&sealed).map_err(Unreadable::Sealed)?;
        let plain = zstd::decode_all(packed.as_slice());
        let plain = plain.map_err(|error| content(error.to_string()))?;
        let inner: Content<'_> =
            serde_json::from_slice(&plain).map_err(|error| content(error.to_string()))?;
        let text = ConfigText::new(inner.config_text.into_owned());
        let hash = text.digest();
        let filed = (self.id, self.device_id, self.tenant_id);
        if filed != (inner.id, inner.device_id, inner.tenant_id)
            || hash.to_string() != self.sha256_hash
        {
            return Err(content("it is another one's".to_owned()));
        }
        Ok(Snapshot {
            attempt: inner.id,
            device: inner.device_id,
            tenant: inner.tenant_id,
            routeros_version: inner.routeros_version,
            collected_at: inner.collected_at,
            hash,
            text,
            normalization_version: inner.normalization_version,
            normalization_rules: inner.normalization_rules,
            incomplete_menus: inner.incomplete_menus,
            machine: inner.machine,
            ledger: inner.ledger,
            // It serves the attempt that took it, and that has ended.
            shape: Default::default(),
        })
    }

    /// What its delivery says of its attempt.
    pub fn delivered(&self) -> Option<Delivered> {
        Some(Delivered {
            attempt: self.id,
            device: self.device_id,
            hash: Digest::parse(&self.sha256_hash)?,
            bytes: self.size_bytes,
        })
    }

    /// The same, refused once more.
    pub fn refused(&self) -> Self {
        Self {
            attempts: self.attempts.saturating_add(1),
            ..self.clone()
        }
    }

    /// The same, among the dead.
    pub fn dead(&self, reason: String, since: Timestamp) -> Self {
        Self {
            attempts: self.attempts.saturating_add(1),
            reason: Some(reason),
            dead_since: Some(since),
            ..self.clone()
        }
    }

    /// The same, as if it had never been refused.
    pub fn revived(&self) -> Self {
        Self {
            attempts: 0,
            reason: None,
            dead_since: None,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const NOW: Timestamp = datetime!(2026-01-02 03:04:05.5 UTC);

    fn snapshot(text: &str) -> Snapshot {
        let text = ConfigText::new(text);
        Snapshot {
            attempt: AttemptId(Uuid::from_u128(1)),
            device: DeviceId(Uuid::from_u128(2)),
            tenant: TenantId(Uuid::from_u128(3)),
            routeros_version: "7.14".to_owned(),
            collected_at: NOW,
            hash: text.digest(),
            text,
            normalization_version: 2,
            normalization_rules: "n2-0011".to_owned(),
            incomplete_menus: vec!["/ip dns".to_owned()],
            machine: Machine {
                model: Some("RB5009UPr+S+".to_owned()),
                ..Machine::default()
            },
            ledger: [("dated-header".to_owned(), 1)].into(),
            shape: Default::default(),
        }
    }

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 32])
    }

    proptest! {
        #[test]
        fn a_letter_holds_the_snapshot_and_shows_none_of_it(text in "[a-z=]{24,400}") {
            let snapshot = snapshot(&text);
            let letter = write(&snapshot, &key(1), NOW).expect("memory");
            prop_assert_eq!((letter.id, letter.device), (snapshot.attempt, snapshot.device));
            let shown = String::from_utf8(letter.text.clone()).expect("JSON");
            prop_assert!(!shown.contains(&text) && !shown.contains("/ip dns"));
            let filed = Filed::read(&letter.text).expect("a letter");
            prop_assert_eq!(filed.letter(), letter);
            prop_assert_eq!(filed.open(&key(1)).expect("the right key"), snapshot);
            prop_assert!(matches!(filed.open(&key(2)), Err(Unreadable::Sealed(_))));
        }

        #[test]
        fn nothing_that_lies_in_the_outbox_panics_the_reader(
            text in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(Filed::read(&text).is_err());
            let label = Label::read(&text);
            prop_assert_eq!(Label::read(&text), label);
            prop_assert_ne!(Label::read(&[&text[..], b"."].concat()), label);
        }
    }

    #[test]
    fn the_beginning_of_a_letter_tells_whose_it_is() {
        let text = write(&snapshot("a"), &key(1), NOW).expect("memory").text;
        let mut filed = Filed::read(&text).expect("a letter");
        // The longest that its fields can be.
        filed.attempts = u32::MAX;
        filed.size_bytes = u64::MAX;
        filed.payload = "x".repeat(2000);
        let label = Label {
            id: filed.id,
            device_id: filed.device_id,
        };
        assert_eq!(Label::read(&filed.letter().text[..512]), label);
    }

    #[test]
    fn a_payload_in_the_place_of_another_is_found_out() {
        let mut filed = Filed::read(&write(&snapshot("a"), &key(1), NOW).expect("memory").text)
            .expect("a letter");
        filed.device_id = DeviceId(Uuid::from_u128(9));
        assert!(matches!(filed.open(&key(1)), Err(Unreadable::Content(_))));
    }

    #[test]
    fn the_form_is_the_documented_one() {
        let letter = write(&snapshot("a"), &key(1), NOW).expect("memory");
        let mut value: serde_json::Value = serde_json::from_slice(&letter.text).expect("JSON");
        let payload = value["payload"].take();
        assert!(payload.as_str().is_some_and(|text| text.len() > 100));
        assert_eq!(
            value,
            serde_json::json!({
                "id": "00000000-0000-0000-0000-000000000001",
                "type": "config_snapshot",
                "device_id": "00000000-0000-0000-0000-000000000002",
                "tenant_id": "00000000-0000-0000-0000-000000000003",
                "created_at": "2026-01-02T03:04:05.5Z",
                "attempts": 0,
                // printf a | sha256sum
                "sha256_hash": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
                "size_bytes": 1,
                "payload": null,
            })
        );
    }

    #[test]
    fn dying_and_being_revived_is_told_by_the_letter() {
        let filed = Filed::read(&write(&snapshot("a"), &key(1), NOW).expect("memory").text)
            .expect("a letter");
        let dead = filed.refused().dead("too large".to_owned(), NOW);
        let read = Filed::read(&dead.letter().text).expect("a letter");
        assert_eq!(
            (read.attempts, read.reason.as_deref()),
            (2, Some("too large"))
        );
        assert_eq!(read.dead_since, Some(NOW));
        assert_eq!(read.revived(), filed);
    }
}
