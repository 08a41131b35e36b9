//! Owns the question when an export that looks cut is believed although no second reading on its
//! connection confirms it: when three attempts in a row have seen the same one.
//!
//! A router whose export takes more than half the time of a session is never read twice, and one
//! whose text changes by itself is never read twice the same. Where such a router has really lost
//! what makes it suspect, refusing it at every attempt would leave it without a backup for ever.
//!
//! Three readings over three connections are no weaker a proof than two over one. What cuts at
//! chance does not cut at the same place three times, and is mostly seen to cut, in the middle of a
//! line, which ends the row. What always cuts at the same place says the same twice on one
//! connection, too: neither proof finds it, and both leave a warning that names the suspicion.

use std::collections::BTreeSet;

use super::digest::Digest;
use super::snapshot::{MenuShape, Shape};

/// One reading that is whole by itself, and looks cut beside the last good one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suspect {
    /// The name of the suspicion, such as `lost_last_menus`.
    pub suspicion: String,
    /// Its form. The same lines of configuration in each menu are the same form; a comment that
    /// comes and goes is in none.
    pub shape: Shape,
    /// Menus that are not in it because the router could not export them.
    pub incomplete_menus: Vec<String>,
    /// Of the lines in it that no export has, if there are any.
    pub strays: Option<Digest>,
}

impl Suspect {
    /// The menus in which the two differ, if nothing else tells them apart: the same suspicion, the
    /// same menus in the same order, the same ones missing, the same lines that no export has, as many
    /// secrets, and in the menu that they end in, where a cut would show, as many items.
    pub fn differences(&self, other: &Self) -> Option<BTreeSet<String>> {
        let (ours, theirs) = (&self.shape.menus, &other.shape.menus);
        let alike = self.suspicion == other.suspicion
            && self.incomplete_menus == other.incomplete_menus
            && self.strays == other.strays
            && self.shape.secrets == other.shape.secrets
            && ours.len() == theirs.len()
            && ours.last().map(|menu| menu.items) == theirs.last().map(|menu| menu.items);
        if !alike {
            return None;
        }
        let mut differences = BTreeSet::new();
        for (our, their) in ours.iter().zip(theirs) {
            if our.menu != their.menu {
                return None;
            }
            if !same(our, their) {
                differences.insert(our.menu.clone());
            }
        }
        Some(differences)
    }
}

fn same(a: &MenuShape, b: &MenuShape) -> bool {
    a.digest == b.digest && a.items == b.items
}

/// What came of reading a suspect again on the same connection. One that came twice is believed,
/// and none of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecondReading<'a> {
    /// Nothing: there was less time for it than the first one took.
    None,
    /// Another text, which looks cut, too.
    Suspect(&'a Suspect),
    /// What speaks against the suspect: an export that does not look cut, or is seen to be.
    Refuted,
}

/// A suspect that attempts in a row have seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recurring {
    /// As it was seen last.
    pub suspect: Suspect,
    /// Menus that were seen to change between two readings on one connection.
    pub restless: BTreeSet<String>,
    /// How many attempts in a row have seen it, the last one included; at least 1.
    pub attempts: u32,
}

/// The suspect of the last attempts, if they saw one.
///
/// An attempt that does not come to an export says nothing of it, and so neither counts nor ends a
/// row; nor does one that waits for menus which the router could not export. A success ends it, and
/// so does an export that does not look cut, or is seen to be. It is kept with the device's state: a
/// row goes on across restarts and replicas.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recurrence(pub Option<Recurring>);

impl Recurrence {
    /// So many attempts in a row must have seen a suspect before it is taken.
    pub const PATIENCE: u32 = 3;

    /// After one more attempt, which has read `first`, and then `second`.
    ///
    /// It is the same suspect where only such menus differ as were seen to change by themselves,
    /// between two readings on one connection: everything else is as equal as a hash would tell. How
    /// many items these menus have may change, unless the export ends in one. Where it changes, the
    /// same end stood at another place of the text, which is where no fixed number of bytes cuts.
    pub fn after(&self, first: &Suspect, second: SecondReading) -> Self {
        let seen = match second {
            SecondReading::None => Some(BTreeSet::new()),
            SecondReading::Suspect(again) => first.differences(again),
            SecondReading::Refuted => None,
        };
        let Some(mut restless) = seen else {
            return Self(None);
        };
        let mut attempts = 1;
        if let Some(before) = &self.0 {
            let known: BTreeSet<_> = restless.union(&before.restless).cloned().collect();
            let differences = first.differences(&before.suspect);
            if differences.is_some_and(|differences| differences.is_subset(&known)) {
                attempts = before.attempts.saturating_add(1);
                restless = known;
            }
        }
        Self(Some(Recurring {
            suspect: first.clone(),
            restless,
            attempts,
        }))
    }

    /// Whether the suspect is taken.
    pub fn is_final(&self) -> bool {
        self.attempts() >= Self::PATIENCE
    }

    /// Whether `first` is taken if no second reading comes: its text is worth keeping meanwhile.
    pub fn awaits(&self, first: &Suspect) -> bool {
        self.after(first, SecondReading::None).is_final()
    }

    /// How many attempts in a row have seen it.
    pub fn attempts(&self) -> u32 {
        self.0.as_ref().map_or(0, |recurring| recurring.attempts)
    }

    /// How many more attempts like the last one it takes until it is taken.
    pub fn attempts_left(&self) -> u32 {
        Self::PATIENCE.saturating_sub(self.attempts())
    }
}

#[cfg(test)]
#[path = "suspect_tests.rs"]
mod tests;
