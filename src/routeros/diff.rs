//! Owns the difference of two exports: unified hunks, each named by the menus it lies in.

mod physical;
mod places;
mod render;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use self::physical::{Gaps, Physical, Physicals};
use self::places::Places;
use super::redact::Redacted;
use crate::domain::lines::{Difference, differences};
use crate::domain::snapshot::ConfigText;

pub use self::render::{Style, render};

/// One of the two texts of a diff.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    text: &'a str,
    incomplete_menus: &'a [String],
    redacted: Option<&'a Redacted>,
}

impl<'a> Side<'a> {
    /// Tells which menus the router could not export, as a snapshot's `incomplete_menus`. What is
    /// missing from them is not known to be gone: it is shown, but not counted.
    pub fn incomplete(self, menus: &'a [String]) -> Self {
        Self {
            incomplete_menus: menus,
            ..self
        }
    }
}

impl<'a> From<&'a str> for Side<'a> {
    fn from(text: &'a str) -> Self {
        Self {
            text,
            incomplete_menus: &[],
            redacted: None,
        }
    }
}

impl<'a> From<&'a String> for Side<'a> {
    fn from(text: &'a String) -> Self {
        text.as_str().into()
    }
}

impl<'a> From<&'a ConfigText> for Side<'a> {
    fn from(text: &'a ConfigText) -> Self {
        text.expose().into()
    }
}

/// Lines whose secrets differ are different, though they look the same.
impl<'a> From<&'a Redacted> for Side<'a> {
    fn from(redacted: &'a Redacted) -> Self {
        Self {
            redacted: Some(redacted),
            ..redacted.text().into()
        }
    }
}

/// The difference of two texts. Its lines hold whatever secrets the texts hold; `Debug` shows none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Diff<'a> {
    /// The changed lines with their surroundings, in order.
    pub hunks: Vec<Hunk<'a>>,
    /// What changed in each menu, in the order of first appearance.
    pub menus: Vec<MenuChange>,
    /// Physical lines that were added.
    pub added: u64,
    /// Physical lines that were removed.
    pub removed: u64,
    /// Menus that one side could not export. Their lines are in the hunks and in no count.
    pub unknown_menus: Vec<String>,
}

/// What changed in a menu.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MenuChange {
    /// Its path, such as `/ip firewall filter`; empty for what stands before the first menu.
    pub menu: String,
    /// Physical lines that were added.
    pub added: u64,
    /// Physical lines that were removed.
    pub removed: u64,
}

/// A run of changed lines with the unchanged ones around them.
#[derive(Clone, PartialEq, Eq)]
pub struct Hunk<'a> {
    /// Its lines in the old text, counted from 0.
    pub old: Range<usize>,
    /// Its lines in the new text, counted from 0.
    pub new: Range<usize>,
    /// The menus of its changed lines, in order.
    pub menus: Vec<String>,
    /// Its lines.
    pub lines: Vec<HunkLine<'a>>,
}

/// What happened to a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is on both sides.
    Kept,
    /// It is on the old side only.
    Removed,
    /// It is on the new side only.
    Added,
}

/// A physical line in a hunk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HunkLine<'a> {
    /// What happened to it.
    pub change: Change,
    /// Its text without the line feed.
    pub text: &'a str,
    /// Whether it ends in a line feed; only the last line of a text may not.
    pub terminated: bool,
}

impl fmt::Debug for Diff<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Diff")
            .field("hunks", &self.hunks)
            .field("menus", &self.menus)
            .field("unknown_menus", &self.unknown_menus)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Hunk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hunk")
            .field("old", &self.old)
            .field("new", &self.new)
            .field("menus", &self.menus)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HunkLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} line of {} bytes", self.change, self.text.len())
    }
}

impl Diff<'_> {
    /// Whether the texts are equal.
    pub fn is_empty(&self) -> bool {
        self.hunks.is_empty()
    }

    /// What changed, in one line without secrets: `3 lines added, 1 removed in /ip firewall filter,
    /// /system identity`.
    pub fn summary(&self) -> String {
        render::summary(self)
    }
}

/// Compares `old` with `new`, with `context` unchanged lines around each change.
///
/// Lines are physical lines and compared as they are, line ends included.
pub fn diff<'a>(old: impl Into<Side<'a>>, new: impl Into<Side<'a>>, context: usize) -> Diff<'a> {
    let (old, new) = (old.into(), new.into());
    let gaps = Gaps::of(old, new);
    let [old_lines, new_lines] = gaps.lines();
    let mut hunks = Hunks {
        old: old_lines.clone(),
        new: new_lines.clone(),
        context,
        group: Vec::new(),
        counts: Counts::new(old, new),
        diff: Diff::default(),
    };
    differences(old_lines, new_lines, |difference| hunks.add(difference));
    hunks.finish()
}

/// How many lines [`diff`] counts as added, and how many as removed. Takes little memory, whatever the
/// texts are.
pub(super) fn counted<'a>(old: impl Into<Side<'a>>, new: impl Into<Side<'a>>) -> (u64, u64) {
    let (old, new) = (old.into(), new.into());
    let gaps = Gaps::of(old, new);
    let [old_lines, new_lines] = gaps.lines();
    let mut counts = Counts::new(old, new);
    differences(old_lines, new_lines, |(gone, come)| {
        for (change, lines) in [(Change::Removed, gone), (Change::Added, come)] {
            lines.for_each(|line| {
                counts.count(change, line);
            });
        }
    });
    let mut diff = Diff::default();
    counts.tell(&mut diff);
    (diff.added, diff.removed)
}

/// Makes hunks of differences.
struct Hunks<'a, 'g> {
    /// The lines behind the last hunk.
    old: Physicals<'a, 'g>,
    new: Physicals<'a, 'g>,
    context: usize,
    /// The differences of the next hunk.
    group: Vec<Difference>,
    counts: Counts<'a>,
    diff: Diff<'a>,
}

impl<'a> Hunks<'a, '_> {
    fn add(&mut self, next: Difference) {
        let near = |last: &Difference| next.0.start - last.0.end <= self.context.saturating_mul(2);
        if !self.group.last().is_none_or(near) {
            self.hunk();
        }
        self.group.push(next);
    }

    fn finish(mut self) -> Diff<'a> {
        if !self.group.is_empty() {
            self.hunk();
        }
        self.counts.tell(&mut self.diff);
        self.diff
    }

    /// The hunk of the group.
    fn hunk(&mut self) {
        let group = std::mem::take(&mut self.group);
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let before = self.context.min(first.0.start);
        self.old.skip_to(first.0.start - before);
        let mut hunk = Hunk {
            old: first.0.start - before..last.0.end,
            new: first.1.start - before..last.1.end,
            menus: Vec::new(),
            lines: Vec::new(),
        };
        let line = |change, physical: Physical<'a, '_>| HunkLine {
            change,
            text: physical.text.strip_suffix('\n').unwrap_or(physical.text),
            terminated: physical.text.ends_with('\n'),
        };
        let mut at = hunk.old.start;
        for (gone, come) in group {
            let kept = self.old.by_ref().take(gone.start - at);
            hunk.lines.extend(kept.map(|kept| line(Change::Kept, kept)));
            self.new.skip_to(come.start);
            at = gone.end;
            for (change, range, lines) in [
                (Change::Removed, gone, &mut self.old),
                (Change::Added, come, &mut self.new),
            ] {
                for (place, physical) in range.clone().zip(lines) {
                    hunk.lines.push(line(change, physical));
                    let menu = self.counts.count(change, place);
                    if hunk.menus.last().is_none_or(|last| last != menu)
                        && !hunk.menus.iter().any(|known| known == menu)
                    {
                        hunk.menus.push(menu.to_owned());
                    }
                }
            }
        }
        // The next hunk, if there is one, begins behind these.
        for kept in self.old.by_ref().take(self.context) {
            hunk.lines.push(line(Change::Kept, kept));
            hunk.old.end += 1;
            hunk.new.end += 1;
        }
        self.diff.hunks.push(hunk);
    }
}

/// Counts changed lines by menu.
struct Counts<'a> {
    places: [Places<'a>; 2],
    index: HashMap<String, usize>,
    menus: Vec<MenuChange>,
    unknown: Vec<String>,
}

impl<'a> Counts<'a> {
    fn new(old: Side<'a>, new: Side<'a>) -> Self {
        // What the other side could not export is not known to be missing there.
        Self {
            places: [
                Places::read(old.text, new.incomplete_menus),
                Places::read(new.text, old.incomplete_menus),
            ],
            index: HashMap::new(),
            menus: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// Counts a changed line; lines of one side are asked for in order.
    fn count(&mut self, change: Change, line: usize) -> &str {
        let side = usize::from(change == Change::Added);
        let place = self.places[side].of(line);
        if let Some(unknown) = place.unknown {
            if !self.unknown.iter().any(|known| known == unknown) {
                self.unknown.push(unknown.to_owned());
            }
            return place.menu;
        }
        let index = match self.index.get(place.menu) {
            Some(index) => *index,
            None => {
                self.index.insert(place.menu.to_owned(), self.menus.len());
                self.menus.push(MenuChange {
                    menu: place.menu.to_owned(),
                    added: 0,
                    removed: 0,
                });
                self.menus.len() - 1
            }
        };
        let menu = &mut self.menus[index];
        match change {
            Change::Added => menu.added += 1,
            _ => menu.removed += 1,
        }
        place.menu
    }

    fn tell(self, diff: &mut Diff<'_>) {
        diff.added = self.menus.iter().map(|menu| menu.added).sum();
        diff.removed = self.menus.iter().map(|menu| menu.removed).sum();
        diff.menus = self.menus;
        diff.unknown_menus = self.unknown;
    }
}
