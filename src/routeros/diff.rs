//! Owns the difference of two exports: unified hunks, each named by the menus it lies in.

mod places;
mod render;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use self::places::Places;
use super::redact::Redacted;
use crate::domain::digest::Digest;
use crate::domain::lines::differences;
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
    let (mut old_lines, mut new_lines) = (physical(old), physical(new));
    set_gaps_apart([(old, &mut old_lines), (new, &mut new_lines)]);
    let blocks = differences(&old_lines, &new_lines);
    let mut diff = Diff::default();
    if blocks.is_empty() {
        return diff;
    }
    let mut counts = Counts::new(old, new);
    let mut blocks = blocks.into_iter().peekable();
    while let Some(first) = blocks.next() {
        let mut group = vec![first];
        while let Some(next) = blocks.next_if(|next| {
            let last = &group[group.len() - 1].0;
            next.0.start - last.end <= context.saturating_mul(2)
        }) {
            group.push(next);
        }
        diff.hunks
            .push(hunk(&old_lines, &new_lines, &group, context, &mut counts));
    }
    counts.tell(&mut diff);
    diff
}

/// A physical line: its text with the line end, and the secrets that are masked in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Physical<'a> {
    text: &'a str,
    secrets: Option<Digest>,
    /// The menu that it is about, where a side could not export that; 0 elsewhere.
    gap: u32,
}

/// Marks the lines of menus that either side could not export. The same line stands in many menus:
/// without a mark, one in such a menu would be taken for the same in another one, and that one would
/// seem to have lost it.
fn set_gaps_apart(sides: [(Side<'_>, &mut Vec<Physical<'_>>); 2]) {
    let menus = [sides[0].0.incomplete_menus, sides[1].0.incomplete_menus].concat();
    if menus.is_empty() {
        return;
    }
    let mut numbers: HashMap<String, u32> = HashMap::new();
    for (side, lines) in sides {
        let mut places = Places::read(side.text, &menus);
        for (number, line) in lines.iter_mut().enumerate() {
            let Some(menu) = places.of(number).unknown else {
                continue;
            };
            line.gap = match numbers.get(menu) {
                Some(known) => *known,
                None => {
                    let next = u32::try_from(numbers.len() + 1).unwrap_or(u32::MAX);
                    numbers.insert(menu.to_owned(), next);
                    next
                }
            };
        }
    }
}

fn physical<'a>(side: Side<'a>) -> Vec<Physical<'a>> {
    let mut secrets = side.redacted.map(Redacted::secrets).unwrap_or_default();
    let mut at = 0;
    side.text
        .split_inclusive('\n')
        .map(|text| {
            at += text.len();
            let here = secrets.partition_point(|secret| secret.at < at);
            let (of_line, rest) = secrets.split_at(here);
            secrets = rest;
            let fields = of_line
                .iter()
                .map(|secret| secret.digest.as_bytes().as_slice());
            Physical {
                text,
                secrets: (!of_line.is_empty()).then(|| Digest::of_fields(fields)),
                gap: 0,
            }
        })
        .collect()
}

fn hunk<'a>(
    old: &[Physical<'a>],
    new: &[Physical<'a>],
    group: &[(Range<usize>, Range<usize>)],
    context: usize,
    counts: &mut Counts,
) -> Hunk<'a> {
    let (first, last) = (&group[0], &group[group.len() - 1]);
    let before = context.min(first.0.start);
    let after = context.min(old.len() - last.0.end);
    let mut hunk = Hunk {
        old: first.0.start - before..last.0.end + after,
        new: first.1.start - before..last.1.end + after,
        menus: Vec::new(),
        lines: Vec::new(),
    };
    let line = |change, physical: &Physical<'a>| HunkLine {
        change,
        text: physical.text.strip_suffix('\n').unwrap_or(physical.text),
        terminated: physical.text.ends_with('\n'),
    };
    let mut at = hunk.old.start;
    for (gone, come) in group {
        let kept = old[at..gone.start].iter();
        hunk.lines.extend(kept.map(|kept| line(Change::Kept, kept)));
        for (change, range, lines) in [(Change::Removed, gone, old), (Change::Added, come, new)] {
            for place in range.clone() {
                hunk.lines.push(line(change, &lines[place]));
                let menu = counts.count(change, place);
                if hunk.menus.last().is_none_or(|last| last != menu)
                    && !hunk.menus.iter().any(|known| known == menu)
                {
                    hunk.menus.push(menu.to_owned());
                }
            }
        }
        at = gone.end;
    }
    let kept = old[at..hunk.old.end].iter();
    hunk.lines.extend(kept.map(|kept| line(Change::Kept, kept)));
    hunk
}

/// Counts changed lines by menu.
struct Counts {
    places: [Places; 2],
    index: HashMap<String, usize>,
    menus: Vec<MenuChange>,
    unknown: Vec<String>,
}

impl Counts {
    fn new(old: Side<'_>, new: Side<'_>) -> Self {
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
