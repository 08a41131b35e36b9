//! What an arriving snapshot changes in the timeline of a device's versions, whatever the order in
//! which snapshots arrive.
//!
//! A version stands for an interval: the configuration was seen at its first and at its last
//! sighting, and those between are not kept. Laws, held by property tests: arrivals in order give
//! exactly one version per change; in any order, the newest version is what was collected last,
//! neighbours differ, intervals do not overlap, their ends were really seen, no configuration is
//! lost; whatever arrives again changes nothing.

use super::super::attempt::AttemptId;
use super::{Lines, Sighting, Version, VersionId};

/// What is known of the timeline around an arrival.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Around {
    /// Whether the arriving attempt has made a version already.
    pub known: bool,
    /// The newest version that was first seen at or before the arrival's position.
    pub before: Option<Version>,
    /// The oldest one that was first seen after it.
    pub after: Option<Version>,
}

/// What an arrival was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrived {
    /// The first version of its device, or a change against what was the newest.
    Change,
    /// The same as the version before it.
    SeenAgain,
    /// The same as the version after it, which was there earlier than was known.
    SeenEarlier,
    /// A change that came late: its place is before a newer version.
    OutOfOrder,
    /// A version already.
    Duplicate,
}

/// Whose text an inserted version has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// The arrival's.
    Arrived,
    /// That of a version which is there.
    Of(VersionId),
}

/// One change of the stored timeline. They are made together or not at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// A version is added.
    Insert {
        /// The version; boxed, as it is much larger than the rest.
        version: Box<Version>,
        /// Its text.
        content: Content,
    },
    /// A version's first sighting moves in time; what it saw stays.
    FirstSeen {
        /// Which version.
        version: VersionId,
        /// When and by which attempt it was first seen.
        position: super::Position,
    },
    /// A version's last sighting is another.
    LastSeen {
        /// Which version.
        version: VersionId,
        /// The last time it was seen.
        seen: Sighting,
    },
    /// A version has another predecessor now.
    Recount {
        /// Which version.
        version: VersionId,
        /// Its line counts against it.
        lines: Option<Lines>,
    },
}

/// What becomes of an arrival.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settled {
    /// What it was.
    pub arrived: Arrived,
    /// The version that has its text now.
    pub version: VersionId,
    /// What to change; nothing for what was known.
    pub edits: Vec<Edit>,
}

/// Finds the place of `arrival`. `same` tells whether a version is the same configuration, `lines`
/// counts the lines of the way from a version to the arrival, or cannot.
pub fn settle(
    arrival: Version,
    around: &Around,
    same: impl Fn(&Version) -> bool,
    lines: impl Fn(&Version) -> Option<Lines>,
) -> Settled {
    let settled = |arrived, version, edits| Settled {
        arrived,
        version,
        edits,
    };
    let Around {
        known,
        before,
        after,
    } = around;
    let position = arrival.first.position;
    if *known {
        return settled(Arrived::Duplicate, arrival.id, Vec::new());
    }
    let seen_then = |it: &&Version| [it.first.position, it.last.position].contains(&position);
    if let Some(before) = before.as_ref().filter(seen_then) {
        return settled(Arrived::Duplicate, before.id, Vec::new());
    }
    if let Some(before) = before.as_ref().filter(|before| same(before)) {
        let later = position > before.last.position;
        let edits = later.then_some(Edit::LastSeen {
            version: before.id,
            seen: arrival.first,
        });
        return settled(Arrived::SeenAgain, before.id, edits.into_iter().collect());
    }
    let mut inserted = arrival;
    inserted.lines = before.as_ref().and_then(&lines);
    let id = inserted.id;
    if let Some(before) = before.as_ref().filter(|it| it.last.position > position) {
        let mut edits = split(before, inserted.lines.map(Lines::reversed));
        edits.push(insert(inserted, Content::Arrived));
        return settled(Arrived::OutOfOrder, id, edits);
    }
    let Some(after) = after else {
        let edits = vec![insert(inserted, Content::Arrived)];
        return settled(Arrived::Change, id, edits);
    };
    if same(after) {
        let edits = vec![Edit::FirstSeen {
            version: after.id,
            position,
        }];
        return settled(Arrived::SeenEarlier, after.id, edits);
    }
    let edits = vec![
        Edit::Recount {
            version: after.id,
            lines: lines(after).map(Lines::reversed),
        },
        insert(inserted, Content::Arrived),
    ];
    settled(Arrived::OutOfOrder, id, edits)
}

/// Makes two versions of one whose interval another configuration turns out to lie in: one of its
/// first sighting and one of its last, which the intruder precedes by `lines`.
fn split(whole: &Version, lines: Option<Lines>) -> Vec<Edit> {
    let (first, last) = (whole.first.position, whole.last.position);
    let named = |attempt: AttemptId| VersionId(attempt.0);
    if whole.id == named(last.attempt) {
        let mut early = whole.clone();
        early.id = named(first.attempt);
        early.last = early.first.clone();
        // In this order no two versions ever begin at one position.
        return vec![
            Edit::FirstSeen {
                version: whole.id,
                position: last,
            },
            Edit::Recount {
                version: whole.id,
                lines,
            },
            insert(early, Content::Of(whole.id)),
        ];
    }
    let mut late = whole.clone();
    late.id = named(last.attempt);
    late.first.position = last;
    late.lines = lines;
    vec![
        Edit::LastSeen {
            version: whole.id,
            seen: whole.first.clone(),
        },
        insert(late, Content::Of(whole.id)),
    ]
}

fn insert(version: Version, content: Content) -> Edit {
    Edit::Insert {
        version: Box::new(version),
        content,
    }
}
