//! A snapshot: one whole, normalised export with its digest, device and time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::attempt::AttemptId;
use super::device::{DeviceId, TenantId};
use super::digest::Digest;

/// Configuration text. It holds every password of a router: `Debug` shows length and digest only,
/// and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigText(Arc<String>);

impl ConfigText {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(text.into()))
    }

    /// The text itself, to publish or store it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 of its UTF-8 bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl fmt::Debug for ConfigText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigText({} bytes, {})", self.0.len(), self.digest())
    }
}

/// What is remembered of an export's form, to suspect the next one of being cut.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shape {
    /// The menus that have configuration, in the order of the export. One that is printed twice, with
    /// another one between, is there twice: a cut shows in what stands last. One that could not be
    /// exported is there with what was known of it before, or without an item.
    pub menus: Vec<MenuShape>,
    /// How many properties with secret values (passwords, keys, …) are in it.
    pub secrets: u32,
    /// Digest of the last item, which is in the last menu that has one; none where it was not kept.
    pub end: Option<Digest>,
}

impl Shape {
    /// The last menu that has configuration.
    pub fn last_menu(&self) -> Option<&MenuShape> {
        self.menus.iter().rfind(|menu| menu.items > 0)
    }

    /// How many menus have configuration.
    pub fn different_menus(&self) -> usize {
        let menus = self.menus.iter().filter(|menu| menu.items > 0);
        let names = menus.map(|menu| menu.menu.as_str());
        names.collect::<BTreeSet<_>>().len()
    }
}

/// What is remembered of one menu, from where it begins to where another one does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MenuShape {
    /// Its path, such as `/ip firewall filter`; empty for what stands before the first menu.
    pub menu: String,
    /// Digest of its logical configuration lines.
    pub digest: Digest,
    /// How many they are; 0 where none was exported, or it was not kept.
    pub items: u32,
}

/// What the header of an export says about the machine. RouterOS leaves out what there is not.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The model, such as `RB5009UPr+S+`; hardware has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The serial number; hardware has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// The software id of its licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_id: Option<String>,
    /// The system id of a CHR, printed from RouterOS 7.17 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
}

impl Machine {
    /// Whether nothing is known of it.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// A whole, normalised export, ready to be delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The attempt that took it; its id makes the delivery idempotent.
    pub attempt: AttemptId,
    /// The router.
    pub device: DeviceId,
    /// Its owner.
    pub tenant: TenantId,
    /// The version in the export's own header.
    pub routeros_version: String,
    /// What else the header says.
    pub machine: Machine,
    /// When the router had answered.
    pub collected_at: Timestamp,
    /// SHA-256 of `text`.
    pub hash: Digest,
    /// The normalised export.
    pub text: ConfigText,
    /// The version of the normalisation that made it.
    pub normalization_version: u32,
    /// Fingerprint of the rule set that made it.
    pub normalization_rules: String,
    /// Menus that the router could not export in time.
    pub incomplete_menus: Vec<String>,
    /// How often each normalisation rule dropped something.
    pub ledger: BTreeMap<String, u64>,
    /// What to remember of its form.
    pub shape: Shape,
}
