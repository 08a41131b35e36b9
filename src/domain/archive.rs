//! Versions of a device's configuration: what they are, and when two texts count as the same one.

mod retention;
mod timeline;
#[cfg(test)]
mod timeline_tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::Timestamp;
use super::attempt::AttemptId;
use super::device::{DeviceId, TenantId};
use super::digest::Digest;
use super::lines::differences;
use super::snapshot::{ConfigText, Machine, Snapshot};

pub use retention::{Moment, Period, Retention, Tier};
pub use timeline::{Around, Arrived, Content, Edit, Settled, settle};

/// Identifies one version: the id of the attempt that made it one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(transparent)]
pub struct VersionId(pub Uuid);

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The normalisation that made a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Normalization {
    /// Its version.
    pub version: u32,
    /// Fingerprint of its rule set; empty where the producer did not say.
    pub rules: String,
}

/// A normalisation that can be applied to texts of earlier ones. It must obey the law that the new
/// normalisation of an old one's output is the new normalisation of the raw text.
#[derive(Clone)]
pub struct Renormalize {
    /// Which one it is.
    pub to: Normalization,
    /// Applies it.
    pub apply: Arc<dyn Fn(&str) -> String + Send + Sync>,
    /// Counts the lines from one text to another, at least one of which lacks menus: what is
    /// missing there is not known to be gone, and is not counted.
    pub lines: fn(Part<'_>, Part<'_>) -> Lines,
}

/// A text and what is missing in it.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// The text.
    pub text: &'a str,
    /// Menus that the router could not export.
    pub incomplete_menus: &'a [String],
}

impl fmt::Debug for Renormalize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renormalize")
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

impl Renormalize {
    /// `text`, made by `from`, as this normalisation would have made it.
    pub fn text(&self, from: &Normalization, text: &ConfigText) -> ConfigText {
        if *from == self.to {
            text.clone()
        } else {
            ConfigText::new((self.apply)(text.expose()))
        }
    }

    /// Counts the lines of the way from `old` to `new`, which are [`Renormalize::comparable`]. What
    /// one of them lacks because the router could not export it counts neither way.
    pub fn lines(&self, old: Part<'_>, new: Part<'_>) -> Lines {
        if old.incomplete_menus.is_empty() && new.incomplete_menus.is_empty() {
            Lines::between(old.text, new.text)
        } else {
            (self.lines)(old, new)
        }
    }

    /// Two texts in the same form, so that their difference is one of the router: as they are if
    /// one normalisation made both.
    pub fn comparable(
        &self,
        (from_a, a): (&Normalization, &ConfigText),
        (from_b, b): (&Normalization, &ConfigText),
    ) -> (ConfigText, ConfigText) {
        if from_a == from_b {
            (a.clone(), b.clone())
        } else {
            (self.text(from_a, a), self.text(from_b, b))
        }
    }
}

/// How many lines one text has that its predecessor has not, and the reverse.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Lines {
    /// Lines that came.
    pub added: u32,
    /// Lines that went.
    pub removed: u32,
}

impl Lines {
    /// Counts the lines of a line diff from `before` to `after`, in about linear time and bounded memory
    /// whatever the texts are.
    pub fn between(before: &str, after: &str) -> Self {
        let mut lines = Self {
            added: 0,
            removed: 0,
        };
        let count = |range: &std::ops::Range<usize>| u32::try_from(range.len()).unwrap_or(u32::MAX);
        let split = |text| str::split_inclusive(text, '\n');
        differences(split(before), split(after), |(gone, come)| {
            lines.added = lines.added.saturating_add(count(&come));
            lines.removed = lines.removed.saturating_add(count(&gone));
        });
        lines
    }

    /// The counts of the way back.
    pub fn reversed(self) -> Self {
        Self {
            added: self.removed,
            removed: self.added,
        }
    }
}

/// A place in a device's timeline: when a router had answered, and to which attempt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position {
    /// When the router had answered, in whole microseconds.
    pub at: Timestamp,
    /// The attempt; decides between equal times.
    pub attempt: AttemptId,
}

impl Position {
    /// A position after every other one.
    pub const END: Self = Self {
        at: time::macros::datetime!(9999-12-31 23:59:59.999999 UTC),
        attempt: AttemptId(Uuid::max()),
    };
}

/// One time at which a router was seen to have a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// When, and by which attempt.
    pub position: Position,
    /// SHA-256 of the text as it was then normalised.
    pub hash: Digest,
    /// That normalisation.
    pub normalization: Normalization,
    /// The version in the export's own header.
    pub routeros_version: String,
    /// How often each rule of that normalisation dropped something; none where that was not kept, as for
    /// the last sighting in rows of older programs.
    pub ledger: Option<BTreeMap<String, u64>>,
}

/// A configuration that a device had from one time to another, without its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// Its identity.
    pub id: VersionId,
    /// The router.
    pub device: DeviceId,
    /// Its owner, at the time.
    pub tenant: TenantId,
    /// When it was first seen, and what the kept text is: hash, normalisation, RouterOS version.
    pub first: Sighting,
    /// When it was last seen. Hash, normalisation and ledger differ from the first ones where a later
    /// normalisation made another text of the same configuration.
    pub last: Sighting,
    /// Size in bytes of the kept text.
    pub bytes: u64,
    /// Lines added and removed against the version before it, counted when it was stored; `None`
    /// for the first version, and where the version before could not be opened.
    pub lines: Option<Lines>,
    /// Menus that the router could not export in time.
    pub incomplete_menus: Vec<String>,
    /// The machine, as the header of the first sighting tells it.
    pub machine: Machine,
}

/// What can be said of two texts by their hashes alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// The same configuration.
    Same,
    /// Another configuration.
    Differs,
    /// Different normalisations made them: only the texts can tell.
    Unclear,
}

impl Version {
    /// The version that `snapshot` is, if it is a change: seen once, at a whole microsecond, which
    /// is what both databases can keep.
    pub fn of(snapshot: &Snapshot) -> Self {
        let fraction = i64::from(snapshot.collected_at.nanosecond() % 1000);
        let sighting = Sighting {
            position: Position {
                at: snapshot.collected_at.to_offset(time::UtcOffset::UTC)
                    - time::Duration::nanoseconds(fraction),
                attempt: snapshot.attempt,
            },
            hash: snapshot.hash,
            normalization: Normalization {
                version: snapshot.normalization_version,
                rules: snapshot.normalization_rules.clone(),
            },
            routeros_version: snapshot.routeros_version.clone(),
            ledger: Some(snapshot.ledger.clone()),
        };
        Self {
            id: VersionId(snapshot.attempt.0),
            device: snapshot.device,
            tenant: snapshot.tenant,
            first: sighting.clone(),
            last: sighting,
            bytes: snapshot.text.expose().len() as u64,
            lines: None,
            incomplete_menus: snapshot.incomplete_menus.clone(),
            machine: snapshot.machine.clone(),
        }
    }

    /// Compares what arrived with what is kept.
    pub fn compare(&self, arrived: &Sighting) -> Comparison {
        let known = [&self.first, &self.last];
        if known.iter().any(|seen| seen.hash == arrived.hash) {
            Comparison::Same
        } else if known
            .iter()
            .any(|seen| seen.normalization == arrived.normalization)
        {
            Comparison::Differs
        } else {
            Comparison::Unclear
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_counted_as_a_diff_shows_them() {
        let before = "/ip dns\nset servers=192.0.2.1\n/system identity\nset name=a\n";
        let after = "/ip dns\nset servers=192.0.2.2\n/system identity\nset name=a\n# x\n";
        let lines = Lines::between(before, after);
        assert_eq!((lines.added, lines.removed), (2, 1));
        assert_eq!(Lines::between(after, before), lines.reversed());
    }

    proptest! {
        #[test]
        fn line_counts_add_up(a in "([a-c]\n){0,12}", b in "([a-c]\n){0,12}") {
            let count = |text: &str| i64::try_from(text.lines().count()).expect("a dozen");
            let lines = Lines::between(&a, &b);
            prop_assert_eq!(i64::from(lines.added) - i64::from(lines.removed), count(&b) - count(&a));
            prop_assert_eq!(a == b, lines == Lines { added: 0, removed: 0 });
        }
    }

    #[test]
    fn wrapped_entries_that_all_changed_are_counted_in_no_time() {
        // Every other line is one of two kinds: what there is to hold on to is worth nothing.
        let text = |from: u32| -> String {
            let entry = |n| format!("add comment=\"ticket {n}\" list=\\\n    {}\n", n % 7 / 3);
            (from..from + 40_000).map(entry).collect()
        };
        let began = std::time::Instant::now();
        let lines = Lines::between(&text(0), &text(500_000));
        assert!(
            lines.added >= 40_000 && lines.added == lines.removed,
            "{lines:?}"
        );
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    }

    #[test]
    fn texts_of_one_normalisation_are_compared_as_they_are() {
        let renormalize = Renormalize {
            to: Normalization {
                version: 3,
                rules: "c".into(),
            },
            apply: Arc::new(|text| text.replace("# seen\n", "")),
            lines: |old, new| Lines::between(old.text, new.text),
        };
        let [two, three] = [2, 3].map(|version| Normalization {
            version,
            rules: if version == 3 { "c".into() } else { "b".into() },
        });
        let noisy = ConfigText::new("# seen\n/ip\n");
        let clean = ConfigText::new("/ip\n");
        let (a, b) = renormalize.comparable((&two, &noisy), (&two, &clean));
        assert_eq!((a, b), (noisy.clone(), clean.clone()));
        let (a, b) = renormalize.comparable((&two, &noisy), (&three, &clean));
        assert_eq!((a, b), (clean.clone(), clean));
    }
}
