//! The JSON of `config.snapshot.create.{device_id}`: a format that other systems read.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::UtcOffset;
use time::format_description::well_known::Rfc3339;

use crate::domain::Timestamp;
use crate::domain::device::{DeviceId, TenantId};
use crate::domain::digest::Digest;
use crate::domain::snapshot::{ConfigText, Machine, Snapshot};

/// One snapshot as it is published. `Debug` never shows the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotEvent {
    /// The router.
    pub device_id: DeviceId,
    /// Its owner.
    pub tenant_id: TenantId,
    /// The version in the export's own header.
    pub routeros_version: String,
    /// When the router had answered: RFC 3339, UTC, whole seconds.
    #[serde(with = "whole_seconds")]
    pub collected_at: Timestamp,
    /// SHA-256 of the UTF-8 bytes of the text, 64 lower-case hexadecimal digits.
    #[serde(deserialize_with = "read_digest")]
    pub sha256_hash: Digest,
    /// The normalised export; absent where [`Self::config_ref`] names it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_text",
        deserialize_with = "read_text"
    )]
    pub config_text: Option<ConfigText>,
    /// Where the text is instead, when it is too large for one message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_ref: Option<ConfigRef>,
    /// The version of the normalisation that made the text.
    pub normalization_version: u32,
    /// Fingerprint of the rule set that made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub normalization_rules: String,
    /// Menus that the router could not export in time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incomplete_menus: Vec<String>,
    /// What else the header says.
    #[serde(default, skip_serializing_if = "Machine::is_unknown")]
    pub machine: Machine,
    /// How often each normalisation rule dropped something.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ignored: BTreeMap<String, u64>,
}

/// An object in a JetStream object store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConfigRef {
    /// The store's bucket.
    pub bucket: String,
    /// The object's name in it.
    pub object: String,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    #[serde(deserialize_with = "read_digest")]
    pub sha256: Digest,
}

impl From<&Snapshot> for SnapshotEvent {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            device_id: snapshot.device,
            tenant_id: snapshot.tenant,
            routeros_version: snapshot.routeros_version.clone(),
            collected_at: snapshot.collected_at,
            sha256_hash: snapshot.hash,
            config_text: Some(snapshot.text.clone()),
            config_ref: None,
            normalization_version: snapshot.normalization_version,
            normalization_rules: snapshot.normalization_rules.clone(),
            incomplete_menus: snapshot.incomplete_menus.clone(),
            machine: snapshot.machine.clone(),
            ignored: snapshot.ledger.clone(),
        }
    }
}

mod whole_seconds {
    use super::*;

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        let at = at.to_offset(UtcOffset::UTC);
        // Cut, not rounded: a snapshot must not claim to be newer than it is.
        let at = at.replace_nanosecond(0).unwrap_or(at);
        let text = at.format(&Rfc3339).map_err(serde::ser::Error::custom)?;
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        Timestamp::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)
    }
}

fn read_digest<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
    let text = String::deserialize(from)?;
    Digest::parse(&text)
        .ok_or_else(|| serde::de::Error::custom("a SHA-256 digest has 64 hexadecimal digits"))
}

#[expect(
    clippy::ref_option,
    reason = "serde passes the field by reference, whatever its type"
)]
fn write_text<S: Serializer>(text: &Option<ConfigText>, to: S) -> Result<S::Ok, S::Error> {
    text.as_ref().map(ConfigText::expose).serialize(to)
}

fn read_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ConfigText>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(ConfigText::new))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::attempt::AttemptId;

    fn snapshot() -> Snapshot {
        let text = ConfigText::new("/system identity\nset name=\"caf\u{f7e9} 😀\"\n");
        Snapshot {
            attempt: AttemptId(Uuid::from_u128(3)),
            device: DeviceId(Uuid::from_u128(1)),
            tenant: TenantId(Uuid::from_u128(2)),
            routeros_version: "7.14".to_owned(),
            machine: Default::default(),
            collected_at: datetime!(2026-01-02 05:04:05.999 +2),
            hash: text.digest(),
            text,
            normalization_version: 2,
            normalization_rules: String::new(),
            incomplete_menus: Vec::new(),
            ledger: Default::default(),
            shape: Default::default(),
        }
    }

    /// The vector was written by hand from the contract; the hash by `sha256sum`.
    #[test]
    fn the_json_is_the_agreed_one() {
        let text = serde_json::to_string(&SnapshotEvent::from(&snapshot())).expect("serialises");
        assert_eq!(
            text,
            concat!(
                r#"{"device_id":"00000000-0000-0000-0000-000000000001","#,
                r#""tenant_id":"00000000-0000-0000-0000-000000000002","#,
                r#""routeros_version":"7.14","collected_at":"2026-01-02T03:04:05Z","#,
                r#""sha256_hash":"fcab8d2aa1b320c1f0509a2d5cbe8bf94c43e5ec8f15621ab609668033be327f","#,
                r#""config_text":"/system identity\nset name=\"caf"#,
                "\u{f7e9} 😀",
                r#"\"\n","normalization_version":2}"#,
            )
        );
    }

    #[test]
    fn further_fields_appear_only_where_they_apply() {
        let mut snapshot = snapshot();
        snapshot.normalization_rules = "n2-0011".to_owned();
        snapshot.incomplete_menus = vec!["/ip firewall filter".to_owned()];
        let value = serde_json::to_value(SnapshotEvent::from(&snapshot)).expect("serialises");
        assert_eq!(value["normalization_rules"], "n2-0011");
        assert_eq!(value["incomplete_menus"], json!(["/ip firewall filter"]));
        assert_eq!((value.get("machine"), value.get("ignored")), (None, None));
        snapshot.machine.model = Some("RB5009UPr+S+".to_owned());
        snapshot.ledger = [("dated-header".to_owned(), 1)].into();
        let event = SnapshotEvent::from(&snapshot);
        let value = serde_json::to_value(&event).expect("serialises");
        assert_eq!(value["machine"], json!({"model": "RB5009UPr+S+"}));
        assert_eq!(value["ignored"], json!({"dated-header": 1}));
        let back: SnapshotEvent =
            serde_json::from_value(value.clone()).expect("reads its own text");
        assert_eq!(
            (back.machine, back.ignored),
            (snapshot.machine, snapshot.ledger)
        );
        assert_eq!(value.get("config_ref"), None);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut event = SnapshotEvent::from(&snapshot());
        let read = |event: &SnapshotEvent| -> SnapshotEvent {
            let text = serde_json::to_vec(event).expect("serialises");
            serde_json::from_slice(&text).expect("reads its own text")
        };
        let back = read(&event);
        assert_eq!(back.collected_at, datetime!(2026-01-02 03:04:05 UTC));
        assert_eq!(back.config_text, event.config_text);
        assert_eq!(back.sha256_hash, event.sha256_hash);

        event.collected_at = back.collected_at;
        event.config_text = None;
        event.config_ref = Some(ConfigRef {
            bucket: "exports".to_owned(),
            object: "one".to_owned(),
            size: 12,
            sha256: Digest::of("x"),
        });
        assert_eq!(read(&event), event);
    }

    #[test]
    fn a_field_of_a_later_version_is_no_obstacle() {
        let mut value = serde_json::to_value(SnapshotEvent::from(&snapshot())).expect("a value");
        value["from_the_future"] = Value::Bool(true);
        serde_json::from_value::<SnapshotEvent>(value).expect("reads on");
    }

    #[test]
    fn debug_shows_no_configuration() {
        let shown = format!("{:?}", SnapshotEvent::from(&snapshot()));
        assert!(!shown.contains("identity"), "{shown}");
    }
}
