//! Owns which lines of a text changed: where two lists of lines differ.
//!
//! Exports of 100 MB have more than a million lines, and many of them are alike (`    blocked`, the
//! rest of a wrapped entry). Myers alone is quadratic where much changed, and the usual heuristics
//! against it still are where few lines are unique. So the work is cut down first: lines that
//! the other side does not have at all go, then lines that are unique on both sides anchor the rest
//! (the patience idea), and only what lies between anchors, a few lines as a rule, goes to Myers.
//! Every step is bounded, so a diff of anything takes about linear time; what that costs is that
//! a diff of two huge, repetitive and quite different texts need not be the shortest one.
//!
//! Its memory is bounded, too: what is longer than a part may be is cut into parts first
//! (`lines/parts.rs`), so that lines are numbered, and kept, for one part at a time.

mod parts;

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use imara_diff::{Algorithm, Diff, Token};

use self::parts::Parts;

/// So many lines, old and new together, are given to Myers at once, at most.
const SMALL: usize = 2048;

/// So often anchors are looked for between anchors.
const ROUNDS: u8 = 12;

/// A run of lines of the old text, and the run of the new one that stands in its stead; either may
/// be empty.
pub type Difference = (Range<usize>, Range<usize>);

/// How much is held in memory at a time.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// So many lines, old and new together, are compared as a whole; about 100 bytes each.
    part: usize,
    /// So many lines of a side are remembered as places where to cut; about 50 bytes each.
    samples: usize,
}

const BOUNDS: Bounds = Bounds {
    part: 1 << 20,
    samples: 1 << 18,
};

/// Tells `tell` the places where two lists of lines differ, in order. They are read several times, and
/// never kept whole.
pub fn differences<T, I>(old: I, new: I, tell: impl FnMut(Difference))
where
    T: Copy + Eq + Hash,
    I: DoubleEndedIterator<Item = T> + Clone,
{
    bounded(old, new, BOUNDS, tell);
}

fn bounded<T, I>(old: I, new: I, bounds: Bounds, tell: impl FnMut(Difference))
where
    T: Copy + Eq + Hash,
    I: DoubleEndedIterator<Item = T> + Clone,
{
    let mut parts = Parts::new(old, new, bounds, Joined { last: None, tell });
    parts.run();
    parts.out.finish();
}

/// Joins differences between which nothing stayed.
struct Joined<F> {
    last: Option<Difference>,
    tell: F,
}

impl<F: FnMut(Difference)> Joined<F> {
    fn add(&mut self, (old, new): Difference) {
        match &mut self.last {
            Some(last) if last.0.end == old.start && last.1.end == new.start => {
                (last.0.end, last.1.end) = (old.end, new.end);
            }
            last => {
                if let Some(told) = last.replace((old, new)) {
                    (self.tell)(told);
                }
            }
        }
    }

    fn finish(&mut self) {
        if let Some(told) = self.last.take() {
            (self.tell)(told);
        }
    }
}

/// Numbers the lines of a part and compares them as a whole; gives which of them changed.
fn compared<T: Copy + Eq + Hash>(
    old: impl Iterator<Item = T>,
    new: impl Iterator<Item = T>,
) -> (Vec<bool>, Vec<bool>) {
    let mut numbers: HashMap<T, u32> = HashMap::new();
    let mut number = |line: T| {
        // A part has fewer than 2³² lines.
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        *numbers.entry(line).or_insert(next)
    };
    let old: Vec<u32> = old.map(&mut number).collect();
    let new: Vec<u32> = new.map(&mut number).collect();
    let count = numbers.len();
    drop(numbers);
    changed(&old, &new, count)
}

/// Which lines of `before` were removed and which of `after` were added, so that the others are
/// the same in the same order. Lines are numbered: equal numbers below `count` mean equal lines.
fn changed(before: &[u32], after: &[u32], count: usize) -> (Vec<bool>, Vec<bool>) {
    const OLD: u8 = 1;
    const NEW: u8 = 2;
    let mut sides = vec![0_u8; count];
    for (lines, side) in [(before, OLD), (after, NEW)] {
        lines.iter().for_each(|line| sides[*line as usize] |= side);
    }
    // All lines that could be kept, and where they stood.
    let shared = |lines: &[u32]| -> (Vec<u32>, Vec<usize>) {
        let numbered = lines.iter().zip(0..);
        numbered
            .filter(|(line, _)| sides[**line as usize] == OLD | NEW)
            .unzip()
    };
    let (old, old_places) = shared(before);
    let (new, new_places) = shared(after);
    let mut search = Search {
        old: &old,
        new: &new,
        seen: vec![Seen::default(); count],
        pairs: Vec::new(),
        diff: Diff::default(),
    };
    search.run();
    let mut removed = vec![true; before.len()];
    let mut added = vec![true; after.len()];
    for (old, new, length) in search.pairs {
        for at in 0..length {
            removed[old_places[old + at]] = false;
            added[new_places[new + at]] = false;
        }
    }
    (removed, added)
}

/// How often a line stands in the part at hand, and where.
#[derive(Clone, Copy, Default)]
struct Seen {
    old: u32,
    new: u32,
    place: usize,
}

struct Search<'a> {
    old: &'a [u32],
    new: &'a [u32],
    seen: Vec<Seen>,
    /// What is the same: where in old and new, and how many lines.
    pairs: Vec<(usize, usize, usize)>,
    /// Reused by every comparison of a small part.
    diff: Diff,
}

impl Search<'_> {
    fn run(&mut self) {
        let mut parts = vec![(0..self.old.len(), 0..self.new.len(), 0)];
        while let Some((old, new, round)) = parts.pop() {
            let (old, new) = self.strip(old, new);
            if old.is_empty() || new.is_empty() {
                continue;
            }
            if old.len() + new.len() <= SMALL {
                self.myers(old, new);
                continue;
            }
            let anchors = match round {
                ROUNDS.. => Vec::new(),
                _ => self.anchors(old.clone(), new.clone()),
            };
            if anchors.is_empty() {
                self.windows(old, new);
                continue;
            }
            let (mut old_from, mut new_from) = (old.start, new.start);
            for (in_old, in_new) in anchors {
                parts.push((old_from..in_old, new_from..in_new, round + 1));
                self.pairs.push((in_old, in_new, 1));
                (old_from, new_from) = (in_old + 1, in_new + 1);
            }
            parts.push((old_from..old.end, new_from..new.end, round + 1));
        }
    }

    /// Takes what is the same at both ends.
    fn strip(&mut self, old: Range<usize>, new: Range<usize>) -> (Range<usize>, Range<usize>) {
        let (a, b) = (&self.old[old.clone()], &self.new[new.clone()]);
        let head = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let (a, b) = (&a[head..], &b[head..]);
        let tail = a.iter().rev().zip(b.iter().rev());
        let tail = tail.take_while(|(a, b)| a == b).count();
        self.pairs.push((old.start, new.start, head));
        self.pairs.push((old.end - tail, new.end - tail, tail));
        (
            old.start + head..old.end - tail,
            new.start + head..new.end - tail,
        )
    }

    /// Compares a part that is small enough; gives how far into it the last equal lines reach.
    fn myers(&mut self, old: Range<usize>, new: Range<usize>) -> Option<(usize, usize)> {
        let tokens = |lines: &[u32]| -> Vec<Token> { lines.iter().copied().map(Token).collect() };
        let (a, b) = (
            tokens(&self.old[old.clone()]),
            tokens(&self.new[new.clone()]),
        );
        let kinds = u32::try_from(self.seen.len()).unwrap_or(u32::MAX);
        self.diff.compute_with(Algorithm::Myers, &a, &b, kinds);
        let mut last = None;
        // What is the same lies between the hunks, and behind the last one.
        let (mut at_old, mut at_new) = (old.start, new.start);
        let end = (old.end - old.start, new.end - new.start);
        let hunks = self.diff.hunks().map(|hunk| {
            let (gone, come) = (hunk.before, hunk.after);
            (
                (gone.start as usize, come.start as usize),
                (gone.end as usize, come.end as usize),
            )
        });
        for (from, to) in hunks.chain([(end, end)]) {
            let length = old.start + from.0 - at_old;
            if length > 0 {
                self.pairs.push((at_old, at_new, length));
                last = Some((at_old + length, at_new + length));
            }
            (at_old, at_new) = (old.start + to.0, new.start + to.1);
        }
        last
    }

    /// The lines that stand once on each side, as many as are in the same order.
    fn anchors(&mut self, old: Range<usize>, new: Range<usize>) -> Vec<(usize, usize)> {
        for at in old.clone() {
            let seen = &mut self.seen[self.old[at] as usize];
            seen.old += 1;
            seen.place = at;
        }
        for at in new.clone() {
            self.seen[self.new[at] as usize].new += 1;
        }
        let candidates: Vec<(usize, usize)> = new
            .clone()
            .filter_map(|at| {
                let seen = self.seen[self.new[at] as usize];
                (seen.old == 1 && seen.new == 1).then_some((seen.place, at))
            })
            .collect();
        for at in old {
            self.seen[self.old[at] as usize] = Seen::default();
        }
        for at in new {
            self.seen[self.new[at] as usize] = Seen::default();
        }
        longest_rising(&candidates)
    }

    /// Compares a part without anchors window by window.
    fn windows(&mut self, mut old: Range<usize>, mut new: Range<usize>) {
        const WINDOW: usize = SMALL / 2;
        while !old.is_empty() && !new.is_empty() {
            let old_end = old.end.min(old.start + WINDOW);
            let new_end = new.end.min(new.start + WINDOW);
            let last = self.myers(old.start..old_end, new.start..new_end);
            // Going on behind the last equal lines keeps the sides together when one is longer;
            // but it must be a good step.
            (old.start, new.start) = match last {
                Some((a, b)) if (a - old.start).max(b - new.start) >= WINDOW / 2 => (a, b),
                _ => (old_end, new_end),
            };
        }
    }
}

/// The longest part of `pairs`, which rise by their second, that rises by their first, too.
/// <https://en.wikipedia.org/wiki/Longest_increasing_subsequence#Efficient_algorithms>
fn longest_rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // The index of the pair that ends the best run of each length, and each pair's predecessor.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (index, (place, _)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].0 < *place);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut run = Vec::with_capacity(ends.len());
    let mut at = ends.last().copied();
    while let Some(index) = at {
        run.push(pairs[index]);
        at = before[index];
    }
    run.reverse();
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kept(lines: &[u32], gone: &[bool]) -> Vec<u32> {
        let pairs = lines.iter().zip(gone);
        pairs
            .filter(|(_, gone)| !**gone)
            .map(|(line, _)| *line)
            .collect()
    }

    fn count(list: &[bool]) -> usize {
        list.iter().filter(|changed| **changed).count()
    }

    #[test]
    fn the_change_is_found_and_no_more() {
        let (removed, added) = changed(&[0, 1, 2, 3, 4], &[0, 5, 2, 4, 6], 7);
        assert_eq!(removed, [false, true, false, true, false]);
        assert_eq!(added, [false, true, false, false, true]);
    }

    #[test]
    fn a_few_changes_in_a_long_text_are_found_exactly() {
        let before: Vec<u32> = (0..100_000)
            .map(|i| if i % 2 == 0 { i } else { 1 })
            .collect();
        let mut after = before.clone();
        after.remove(70_000);
        after.splice(20_000..20_000, [100_001, 1]);
        let (removed, added) = changed(&before, &after, 100_002);
        assert_eq!((count(&removed), count(&added)), (1, 2));
    }

    #[test]
    fn repetitive_texts_without_anchors_stay_together() {
        // Two kinds of lines in no order, and ten lines more at the top of one side.
        let kind = |i: u32| (i.wrapping_mul(2_654_435_761) >> 16) & 1;
        let before: Vec<u32> = (0..60_000).map(kind).collect();
        let mut after = before.clone();
        after.splice(5..5, [0, 1, 1, 0, 1, 1, 1, 0, 0, 1]);
        after[59_000] ^= 1;
        let (removed, added) = changed(&before, &after, 2);
        assert_eq!(kept(&before, &removed), kept(&after, &added));
        assert!(count(&removed) <= 50, "{}", count(&removed));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_the_same_on_both_sides(
            before in prop::collection::vec(0_u32..6, 0..60),
            after in prop::collection::vec(0_u32..6, 0..60),
        ) {
            let (removed, added) = changed(&before, &after, 6);
            prop_assert_eq!(kept(&before, &removed), kept(&after, &added));
        }

        #[test]
        fn large_parts_are_right_too(
            seed in any::<u32>(),
            kinds in prop::sample::select(vec![2_u32, 40, 3_000]),
            sizes in (0_u32..6_000, 0_u32..6_000),
        ) {
            let line = |i: u32, salt: u32| {
                (i ^ seed ^ salt).wrapping_mul(2_654_435_761).rotate_left(13) % kinds
            };
            let before: Vec<u32> = (0..sizes.0).map(|i| line(i, 0)).collect();
            let after: Vec<u32> = (0..sizes.1).map(|i| line(i, (i / 500) % 3)).collect();
            let (removed, added) = changed(&before, &after, kinds as usize);
            prop_assert_eq!(kept(&before, &removed), kept(&after, &added));
        }
    }
}
