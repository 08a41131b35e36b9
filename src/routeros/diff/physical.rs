//! Owns the physical lines of a side: what they are compared by, read from either end and never kept.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use super::Side;
use super::places::Places;
use crate::routeros::redact::{Redacted, Secret};

/// A physical line: its text with the line end, and the secrets that are masked in it.
#[derive(Clone, Copy)]
pub(super) struct Physical<'a, 'g> {
    pub(super) text: &'a str,
    secrets: &'g [Secret],
    /// The menu that it is about, where a side could not export that; 0 elsewhere.
    gap: u32,
}

impl Physical<'_, '_> {
    fn digests(&self) -> impl Iterator<Item = &[u8]> {
        let digests = self.secrets.iter();
        digests.map(|secret| secret.digest.as_bytes().as_slice())
    }
}

impl PartialEq for Physical<'_, '_> {
    fn eq(&self, other: &Self) -> bool {
        self.gap == other.gap && self.text == other.text && self.digests().eq(other.digests())
    }
}

impl Eq for Physical<'_, '_> {}

impl Hash for Physical<'_, '_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
        self.digests().for_each(|digest| digest.hash(state));
        self.gap.hash(state);
    }
}

/// The lines of menus that either of two sides could not export. The same line stands in many menus:
/// without a mark, one in such a menu would be taken for the same in another one, and that one would
/// seem to have lost it.
pub(super) struct Gaps<'a> {
    sides: [Side<'a>; 2],
    /// Runs of lines about such a menu, and its number, in order.
    runs: [Vec<(Range<usize>, u32)>; 2],
}

impl<'a> Gaps<'a> {
    pub(super) fn of(old: Side<'a>, new: Side<'a>) -> Self {
        let sides = [old, new];
        let menus = [old.incomplete_menus, new.incomplete_menus].concat();
        let mut runs: [Vec<(Range<usize>, u32)>; 2] = Default::default();
        let mut numbers: HashMap<String, u32> = HashMap::new();
        for (side, runs) in sides.iter().zip(&mut runs) {
            // Without a menu that lacks there are none.
            if menus.is_empty() {
                continue;
            }
            let mut places = Places::read(side.text, &menus);
            for line in 0..count(side.text) {
                let Some(menu) = places.of(line).unknown else {
                    continue;
                };
                let number = match numbers.get(menu) {
                    Some(known) => *known,
                    None => {
                        let next = u32::try_from(numbers.len() + 1).unwrap_or(u32::MAX);
                        numbers.insert(menu.to_owned(), next);
                        next
                    }
                };
                match runs.last_mut() {
                    Some((run, of)) if *of == number && run.end == line => run.end += 1,
                    _ => runs.push((line..line + 1, number)),
                }
            }
        }
        Self { sides, runs }
    }

    /// The lines of both sides.
    pub(super) fn lines(&self) -> [Physicals<'a, '_>; 2] {
        [0, 1].map(|side| {
            let Side { text, redacted, .. } = self.sides[side];
            Physicals {
                text,
                secrets: redacted.map(Redacted::secrets).unwrap_or_default(),
                gaps: &self.runs[side],
                bytes: 0..text.len(),
                lines: 0..count(text),
            }
        })
    }
}

/// How many physical lines `text` has.
fn count(text: &str) -> usize {
    let feeds = memchr::memchr_iter(b'\n', text.as_bytes()).count();
    feeds + usize::from(!text.is_empty() && !text.ends_with('\n'))
}

/// The physical lines of a text, from both ends.
#[derive(Clone)]
pub(super) struct Physicals<'a, 'g> {
    text: &'a str,
    secrets: &'g [Secret],
    gaps: &'g [(Range<usize>, u32)],
    /// What is left of the text, and the numbers of the lines in it.
    bytes: Range<usize>,
    lines: Range<usize>,
}

impl<'a, 'g> Physicals<'a, 'g> {
    /// Goes on at `line`, which is not behind.
    pub(super) fn skip_to(&mut self, line: usize) {
        if let Some(last) = line.checked_sub(self.lines.start + 1) {
            self.nth(last);
        }
    }

    fn physical(
        &self,
        bytes: Range<usize>,
        secrets: &'g [Secret],
        line: usize,
    ) -> Physical<'a, 'g> {
        let gap = self.gaps.partition_point(|(run, _)| run.end <= line);
        let gap = self.gaps.get(gap).filter(|(run, _)| run.contains(&line));
        Physical {
            text: &self.text[bytes],
            secrets,
            gap: gap.map_or(0, |(_, number)| *number),
        }
    }
}

impl<'a, 'g> Iterator for Physicals<'a, 'g> {
    type Item = Physical<'a, 'g>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.lines.next()?;
        let rest = &self.text.as_bytes()[self.bytes.clone()];
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |feed| feed + 1);
        let bytes = self.bytes.start..self.bytes.start + length;
        self.bytes.start = bytes.end;
        let here = self.secrets.partition_point(|secret| secret.at < bytes.end);
        let (secrets, rest) = self.secrets.split_at(here);
        self.secrets = rest;
        Some(self.physical(bytes, secrets, line))
    }
}

impl DoubleEndedIterator for Physicals<'_, '_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let line = self.lines.next_back()?;
        let rest = &self.text.as_bytes()[self.bytes.clone()];
        let before = &rest[..rest.len() - 1];
        let start = memchr::memrchr(b'\n', before).map_or(0, |feed| feed + 1);
        let bytes = self.bytes.start + start..self.bytes.end;
        self.bytes.end = bytes.start;
        let here = self
            .secrets
            .partition_point(|secret| secret.at < bytes.start);
        let (rest, secrets) = self.secrets.split_at(here);
        self.secrets = rest;
        Some(self.physical(bytes, secrets, line))
    }
}
