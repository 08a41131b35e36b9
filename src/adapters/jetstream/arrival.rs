//! What a message must be to be a snapshot, and why it is not: decided without looking anywhere
//! else.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::event::{ConfigRef, SnapshotEvent};
use crate::domain::attempt::AttemptId;
use crate::domain::digest::Digest;
use crate::domain::snapshot::{ConfigText, Snapshot};

/// A message as it was received. `Debug` does not show its payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    /// What it was published to.
    pub subject: String,
    /// Its `Nats-Msg-Id`.
    pub message_id: Option<String>,
    /// What should be the JSON of a [`SnapshotEvent`].
    pub payload: Bytes,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("subject", &self.subject)
            .field("message_id", &self.message_id)
            .field("bytes", &self.payload.len())
            .finish()
    }
}

/// What a message holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Text {
    /// A whole snapshot, proven by its hash.
    Whole(Snapshot),
    /// A snapshot whose text, empty here, is in an object store.
    Elsewhere(Snapshot, ConfigRef),
}

/// Why a message is none, in one of a few words.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Flaw {
    /// It is not JSON.
    NotJson,
    /// It is JSON, but not of a snapshot.
    NotAnEvent,
    /// Subject and device contradict each other.
    WrongDevice,
    /// It has neither a text nor a reference to one.
    NoText,
    /// The text is not the one that the hash is of.
    HashMismatch,
    /// The text that it refers to is not there, or another one.
    Unresolvable,
    /// The archive refused it for its own sake.
    Refused,
}

impl Flaw {
    /// Every value.
    pub const ALL: [Self; 7] = [
        Self::NotJson,
        Self::NotAnEvent,
        Self::WrongDevice,
        Self::NoText,
        Self::HashMismatch,
        Self::Unresolvable,
        Self::Refused,
    ];

    /// The name in the database, in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotAnEvent => "not_an_event",
            Self::WrongDevice => "wrong_device",
            Self::NoText => "no_text",
            Self::HashMismatch => "hash_mismatch",
            Self::Unresolvable => "unresolvable",
            Self::Refused => "refused",
        }
    }
}

/// Why a message is set aside. The text holds nothing of a configuration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    /// In one word.
    pub flaw: Flaw,
    /// In a sentence for an operator.
    pub reason: String,
}

impl Rejection {
    /// For this reason.
    pub fn new(flaw: Flaw, reason: impl Into<String>) -> Self {
        Self {
            flaw,
            reason: reason.into(),
        }
    }
}

/// The fields that an event must have.
const FIELDS: [&str; 6] = [
    "device_id",
    "tenant_id",
    "routeros_version",
    "collected_at",
    "sha256_hash",
    "normalization_version",
];

impl Received {
    /// Reads it. Takes time that grows with the text, so not for the runtime's threads.
    ///
    /// # Errors
    /// [`Rejection`] when it is no snapshot.
    pub fn read(&self) -> Result<Text, Rejection> {
        let event: SnapshotEvent =
            serde_json::from_slice(&self.payload).map_err(|error| self.unreadable(&error))?;
        self.belongs(&event)?;
        printable(&event)?;
        let attempt = self.attempt(&event);
        let snapshot = |text| Snapshot {
            attempt,
            device: event.device_id,
            tenant: event.tenant_id,
            routeros_version: event.routeros_version.clone(),
            collected_at: event.collected_at,
            hash: event.sha256_hash,
            text,
            normalization_version: event.normalization_version,
            normalization_rules: event.normalization_rules.clone(),
            incomplete_menus: event.incomplete_menus.clone(),
            machine: event.machine.clone(),
            ledger: event.ignored.clone(),
            shape: Default::default(),
        };
        match (&event.config_text, &event.config_ref) {
            (Some(text), _) => {
                if text.digest() != event.sha256_hash {
                    return Err(Rejection::new(
                        Flaw::HashMismatch,
                        format!(
                            "config_text has the SHA-256 {}, and sha256_hash says {}",
                            text.digest(),
                            event.sha256_hash
                        ),
                    ));
                }
                Ok(Text::Whole(snapshot(text.clone())))
            }
            (None, Some(reference)) => {
                if reference.sha256 != event.sha256_hash {
                    return Err(Rejection::new(
                        Flaw::HashMismatch,
                        "config_ref.sha256 and sha256_hash differ",
                    ));
                }
                Ok(Text::Elsewhere(
                    snapshot(ConfigText::new("")),
                    reference.clone(),
                ))
            }
            (None, None) => Err(Rejection::new(
                Flaw::NoText,
                "it has neither config_text nor config_ref",
            )),
        }
    }

    /// The parser's own words may quote what it stumbled over, which may be a password.
    fn unreadable(&self, error: &serde_json::Error) -> Rejection {
        let place = format!("line {}, column {}", error.line(), error.column());
        if !error.is_data() {
            let reason = format!("it is not JSON ({place})");
            return Rejection::new(Flaw::NotJson, reason);
        }
        let fields: Option<BTreeMap<String, IgnoredAny>> =
            serde_json::from_slice(&self.payload).ok();
        let reason = match fields {
            None => "it is JSON, but no object".to_owned(),
            Some(fields) => {
                let missing = FIELDS.iter().filter(|field| !fields.contains_key(**field));
                let missing: Vec<_> = missing.copied().collect();
                if missing.is_empty() {
                    format!("a field is not what it should be ({place})")
                } else {
                    format!("these fields are missing: {}", missing.join(", "))
                }
            }
        };
        Rejection::new(Flaw::NotAnEvent, reason)
    }

    /// The subject names the device.
    fn belongs(&self, event: &SnapshotEvent) -> Result<(), Rejection> {
        let named = self.subject.strip_prefix("config.snapshot.create.");
        let named = named.and_then(|token| Uuid::try_parse(token).ok());
        if named == Some(event.device_id.0) {
            return Ok(());
        }
        Err(Rejection::new(
            Flaw::WrongDevice,
            format!(
                "its device_id is {}, and its subject does not name that device",
                event.device_id
            ),
        ))
    }

    /// The attempt is the message's id. One that another producer published without, or with an id
    /// of its own kind, is told apart by what it holds: the same message is the same attempt.
    fn attempt(&self, event: &SnapshotEvent) -> AttemptId {
        let id = self.message_id.as_deref();
        AttemptId(
            id.and_then(|id| Uuid::try_parse(id).ok())
                .unwrap_or_else(|| {
                    let at = event.collected_at.unix_timestamp().to_be_bytes();
                    let digest = Digest::of_fields([
                        event.device_id.0.as_bytes().as_slice(),
                        at.as_slice(),
                        event.sha256_hash.as_bytes(),
                    ]);
                    let mut bytes = [0; 16];
                    bytes.copy_from_slice(&digest.as_bytes()[..16]);
                    // Version 8 (RFC 9562, 5.8): it meets no id of versions 4 or 7.
                    uuid::Builder::from_custom_bytes(bytes).into_uuid()
                }),
        )
    }
}

/// PostgreSQL has no NUL in its texts, and an escaped one is valid JSON.
fn printable(event: &SnapshotEvent) -> Result<(), Rejection> {
    let SnapshotEvent {
        routeros_version,
        normalization_rules,
        incomplete_menus,
        machine,
        ignored,
        ..
    } = event;
    let machine = [
        &machine.model,
        &machine.serial_number,
        &machine.software_id,
        &machine.system_id,
    ];
    let mut texts = incomplete_menus
        .iter()
        .chain([routeros_version, normalization_rules])
        .chain(machine.into_iter().flatten())
        .chain(ignored.keys());
    if texts.any(|text| text.contains('\0')) {
        return Err(Rejection::new(
            Flaw::NotAnEvent,
            "one of routeros_version, normalization_rules, incomplete_menus, machine and ignored \
             holds a NUL",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const DEVICE: &str = "00000000-0000-0000-0000-000000000001";
    const TEXT: &str = "/user\nset admin password=hidden-word\n";

    fn event() -> Value {
        json!({
            "device_id": DEVICE,
            "tenant_id": "00000000-0000-0000-0000-000000000002",
            "routeros_version": "7.14",
            "collected_at": "2026-01-02T03:04:05Z",
            "sha256_hash": Digest::of(TEXT).to_string(),
            "config_text": TEXT,
            "normalization_version": 2,
        })
    }

    fn received(payload: impl Into<Bytes>) -> Received {
        Received {
            subject: format!("config.snapshot.create.{DEVICE}"),
            message_id: Some("00000000-0000-7000-8000-000000000003".to_owned()),
            payload: payload.into(),
        }
    }

    fn read(event: &Value) -> Result<Text, Rejection> {
        received(event.to_string()).read()
    }

    fn whole(text: Result<Text, Rejection>) -> Snapshot {
        match text.expect("a snapshot") {
            Text::Whole(snapshot) => snapshot,
            Text::Elsewhere(..) => panic!("its text is not elsewhere"),
        }
    }

    #[test]
    fn a_message_as_agreed_is_a_snapshot() {
        let mut told = event();
        told["machine"] = json!({"serial_number": "A1B2C3D4E5F6"});
        told["ignored"] = json!({"dated-header": 1});
        let snapshot = whole(read(&told));
        let serial = snapshot.machine.serial_number.as_deref();
        assert_eq!(serial, Some("A1B2C3D4E5F6"));
        assert_eq!(snapshot.ledger.get("dated-header"), Some(&1));
        assert_eq!(snapshot.device.to_string(), DEVICE);
        assert_eq!(snapshot.text.expose(), TEXT);
        assert_eq!(snapshot.hash, Digest::of(TEXT));
        let id = "00000000-0000-7000-8000-000000000003";
        assert_eq!(snapshot.attempt.to_string(), id);

        let mut referring = event();
        let hash = referring["sha256_hash"].clone();
        referring["config_text"] = Value::Null;
        referring["config_ref"] = json!({"bucket": "b", "object": "o", "size": 7, "sha256": hash});
        match read(&referring).expect("a snapshot") {
            Text::Elsewhere(snapshot, reference) => {
                assert_eq!(snapshot.hash, Digest::of(TEXT));
                assert_eq!((reference.bucket.as_str(), reference.size), ("b", 7));
            }
            Text::Whole(_) => panic!("its text is elsewhere"),
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_a_secret() {
        let with = |field: &str, value: Value| {
            let mut event = event();
            event[field] = value;
            event.to_string()
        };
        let without = |field: &str| {
            let mut event = event();
            event.as_object_mut().expect("an object").remove(field);
            event.to_string()
        };
        let other = "00000000-0000-0000-0000-000000000009";
        for (payload, flaw, part) in [
            ("hidden-word".to_owned(), Flaw::NotJson, "line 1"),
            (
                "{\"device_id\":\"hidden".to_owned(),
                Flaw::NotJson,
                "not JSON",
            ),
            ("\"hidden-word\"".to_owned(), Flaw::NotAnEvent, "no object"),
            (
                with("tenant_id", json!("hidden-word")),
                Flaw::NotAnEvent,
                "line 1",
            ),
            (
                with("config_text", json!(["hidden-word"])),
                Flaw::NotAnEvent,
                "line 1",
            ),
            (without("collected_at"), Flaw::NotAnEvent, "collected_at"),
            (
                with("routeros_version", json!("7\0")),
                Flaw::NotAnEvent,
                "NUL",
            ),
            (with("device_id", json!(other)), Flaw::WrongDevice, other),
            (without("config_text"), Flaw::NoText, "neither"),
            (
                with("config_text", json!("other")),
                Flaw::HashMismatch,
                "SHA-256",
            ),
        ] {
            let rejection = received(payload).read().expect_err(part);
            assert_eq!(rejection.flaw, flaw, "{rejection}");
            assert!(rejection.reason.contains(part), "{rejection}");
            assert!(!rejection.reason.contains("hidden"), "{rejection}");
        }
    }

    #[test]
    fn a_message_without_an_id_is_told_apart_by_what_it_holds() {
        let ids = |change: fn(&mut Value), id: Option<&str>| {
            let mut event = event();
            change(&mut event);
            let received = Received {
                message_id: id.map(str::to_owned),
                ..received(event.to_string())
            };
            whole(received.read()).attempt
        };
        let plain = ids(|_| {}, None);
        assert_eq!(plain, ids(|_| {}, Some("7")));
        assert_eq!(
            plain,
            ids(|event| event["routeros_version"] = json!("7.15"), None)
        );
        let later = |event: &mut Value| event["collected_at"] = json!("2026-01-02T03:04:06Z");
        assert_ne!(plain, ids(later, None));
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_is_a_panic(
            payload in prop::collection::vec(any::<u8>(), 0..200),
            subject in ".{0,60}",
        ) {
            let received = Received { subject, message_id: None, payload: payload.into() };
            prop_assert!(received.read().is_err());
        }
    }
}
