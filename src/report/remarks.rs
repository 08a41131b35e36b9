//! What an operator should know of devices that are backed up all the same.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Named, printable};
use crate::ports::DeviceStatus;

/// At most so many devices are named for each remark.
const NAMED: usize = 5;

/// A remark.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RemarkKind {
    /// The last good export lacks menus.
    Incomplete,
    /// An export was read more than once before it was believed, and nothing has changed since.
    Suspected,
    /// The last key exchange or login used weak algorithms.
    WeakSsh,
}

impl RemarkKind {
    fn about(self) -> &'static str {
        match self {
            Self::Incomplete => "the last export lacks menus that the router could not export",
            Self::Suspected => {
                "an export looked cut, was read more than once, and was believed; the same since: see its warning"
            }
            Self::WeakSsh => "weak SSH algorithms in the last session (check NAME says what helps)",
        }
    }

    /// The same in lists of devices.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Suspected => "suspected",
            Self::WeakSsh => "weak SSH",
        }
    }

    /// What is to be remarked of `status`.
    pub fn of(status: &DeviceStatus) -> impl Iterator<Item = Self> {
        [
            (Self::Incomplete, !status.incomplete_menus.is_empty()),
            (Self::Suspected, status.warning.is_some()),
            (Self::WeakSsh, !status.weak_ssh.is_empty()),
        ]
        .into_iter()
        .filter_map(|(kind, holds)| holds.then_some(kind))
    }
}

/// What is remarked, and of which devices.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Remark {
    /// What.
    pub kind: RemarkKind,
    /// Of so many devices.
    pub devices: u64,
    /// The first of them, by id.
    pub examples: Vec<Named>,
}

/// Takes note of what is to be remarked of `status`.
pub(super) fn note(remarks: &mut Vec<Remark>, status: &DeviceStatus) {
    for kind in RemarkKind::of(status) {
        let at = match remarks.binary_search_by_key(&kind, |remark| remark.kind) {
            Ok(at) => at,
            Err(at) => {
                let remark = Remark {
                    kind,
                    devices: 0,
                    examples: Vec::new(),
                };
                remarks.insert(at, remark);
                at
            }
        };
        let remark = &mut remarks[at];
        remark.devices += 1;
        if remark.examples.len() < NAMED {
            remark.examples.push(Named::of(&status.device));
        }
    }
}

/// A line for each remark, nothing when there is none.
pub(super) fn render(remarks: &[Remark]) -> String {
    let mut text = String::new();
    if remarks.is_empty() {
        return text;
    }
    text.push_str("Remarks (devices show NAME tells more):\n");
    for remark in remarks {
        let names: Vec<_> = remark
            .examples
            .iter()
            .map(|device| printable(&device.name))
            .collect();
        let more = remark.devices - remark.examples.len() as u64;
        let and_more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let _ = writeln!(
            text,
            "  {}  {}: {}{and_more}",
            remark.devices,
            remark.kind.about(),
            names.join(", "),
        );
    }
    text
}
