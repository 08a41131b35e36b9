//! Cuts two lists of lines into parts that are small enough to be compared as a whole.
//!
//! What is equal at both ends goes without being kept. Of what is between, lines are sampled by their
//! hash, so that the same ones are sampled on both sides; those that stand once on each side tell where
//! to cut. What is too long even between two of them, as it is where lines repeat, is compared window by
//! window: each goes on behind the last equal lines of the one before.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Bounds, Difference, Joined, compared, longest_rising};

/// The lines of a side that are still to be compared.
#[derive(Clone)]
struct Left<I> {
    lines: I,
    /// The number of the first of them, counted from 0.
    at: usize,
}

impl<I: Iterator> Left<I> {
    fn skip(&mut self, count: usize) {
        if let Some(last) = count.checked_sub(1) {
            self.lines.nth(last);
            self.at += count;
        }
    }
}

pub(super) struct Parts<I, F> {
    old: Left<I>,
    new: Left<I>,
    bounds: Bounds,
    pub(super) out: Joined<F>,
}

impl<T, I, F> Parts<I, F>
where
    T: Copy + Eq + Hash,
    I: DoubleEndedIterator<Item = T> + Clone,
    F: FnMut(Difference),
{
    pub(super) fn new(old: I, new: I, bounds: Bounds, out: Joined<F>) -> Self {
        let left = |lines| Left { lines, at: 0 };
        Self {
            old: left(old),
            new: left(new),
            bounds,
            out,
        }
    }

    /// Tells all differences.
    pub(super) fn run(&mut self) {
        self.skip_equal((usize::MAX, usize::MAX));
        let tail = self.old.lines.clone().rev();
        let tail = tail.zip(self.new.lines.clone().rev());
        for _ in 0..tail.take_while(|(old, new)| old == new).count() {
            self.old.lines.next_back();
            self.new.lines.next_back();
        }
        let left = (
            self.old.lines.clone().count(),
            self.new.lines.clone().count(),
        );
        let (from_old, from_new) = (self.old.at, self.new.at);
        let end = (from_old + left.0, from_new + left.1);
        if left.0 + left.1 <= self.bounds.part {
            return self.whole(left);
        }
        let mut cut = None;
        let places = cuts(&self.old.lines, &self.new.lines, left, self.bounds.samples);
        let places = places
            .into_iter()
            .map(|(old, new)| (from_old + old, from_new + new));
        for place in places.chain([end]) {
            let size = place.0 - self.old.at + place.1 - self.new.at;
            if size > self.bounds.part
                && let Some(cut) = cut
            {
                self.up_to(cut);
            }
            cut = Some(place);
        }
        self.up_to(end);
    }

    /// Goes on while lines are equal, at most so many of each side; gives how many there were.
    fn skip_equal(&mut self, most: (usize, usize)) -> usize {
        let pairs = self.old.lines.clone().zip(self.new.lines.clone());
        let equal = pairs.take(most.0.min(most.1));
        let equal = equal.take_while(|(old, new)| old == new).count();
        self.old.skip(equal);
        self.new.skip(equal);
        equal
    }

    /// Compares what is left before these lines.
    fn up_to(&mut self, end: (usize, usize)) {
        loop {
            self.skip_equal((end.0 - self.old.at, end.1 - self.new.at));
            let left = (end.0 - self.old.at, end.1 - self.new.at);
            if left.0 + left.1 <= self.bounds.part {
                return self.whole(left);
            }
            if left.0 == 0 || left.1 == 0 {
                return self.tell((left.0, left.1), None);
            }
            self.window(left);
        }
    }

    /// Compares the next lines, all that are `left` of a part.
    fn whole(&mut self, left: (usize, usize)) {
        if left.0 == 0 || left.1 == 0 {
            return self.tell(left, None);
        }
        let (removed, added) = self.compare(left);
        self.tell(left, Some((&removed, &added)));
    }

    /// Compares the next lines of a part of which more are `left` than may be compared at once.
    fn window(&mut self, left: (usize, usize)) {
        let most = self.bounds.part / 2;
        let size = (left.0.min(most), left.1.min(most));
        let (removed, added) = self.compare(size);
        let behind = |list: &[bool]| list.iter().rposition(|changed| !changed).map(|at| at + 1);
        // Going on behind the last equal lines keeps the sides together when one is longer; but it
        // must be a good step.
        let good = |(old, new): &(usize, usize)| *old.max(new) >= most.div_ceil(2);
        let step = behind(&removed).zip(behind(&added)).filter(good);
        // So many lines of the longer side must go or come in any case. Where nothing holds the sides
        // together, let it be these: behind them the sides may go together again.
        let surplus = |a: usize, b: usize| a.saturating_sub(b).min(most);
        let surplus = (surplus(left.0, left.1), surplus(left.1, left.0));
        match step {
            None if surplus != (0, 0) => self.tell(surplus, None),
            _ => self.tell(step.unwrap_or(size), Some((&removed, &added))),
        }
    }

    fn compare(&self, size: (usize, usize)) -> (Vec<bool>, Vec<bool>) {
        compared(
            self.old.lines.clone().take(size.0),
            self.new.lines.clone().take(size.1),
        )
    }

    /// Tells what of the next lines of each side changed, all of them without `lists`, and goes on
    /// behind them.
    fn tell(&mut self, size: (usize, usize), lists: Option<(&[bool], &[bool])>) {
        let run = |list: Option<&[bool]>, from: usize, end: usize| match list {
            None => end - from,
            Some(list) => list[from..end]
                .iter()
                .take_while(|changed| **changed)
                .count(),
        };
        let (mut old, mut new) = (0, 0);
        while old < size.0 || new < size.1 {
            let gone = run(lists.map(|lists| lists.0), old, size.0);
            let come = run(lists.map(|lists| lists.1), new, size.1);
            if gone + come > 0 {
                let (old, new) = (self.old.at + old, self.new.at + new);
                self.out.add((old..old + gone, new..new + come));
            }
            // Behind both runs is a line that stayed, or the end.
            old = size.0.min(old + gone + 1);
            new = size.1.min(new + come + 1);
        }
        self.old.skip(size.0);
        self.new.skip(size.1);
    }
}

/// Places in the lines that are `left` where the same line stands on both sides, in the same order; at
/// most `samples`.
fn cuts<T: Hash>(
    old: &(impl Iterator<Item = T> + Clone),
    new: &(impl Iterator<Item = T> + Clone),
    left: (usize, usize),
    samples: usize,
) -> Vec<(usize, usize)> {
    let one_in = left.0.max(left.1).div_ceil(samples.max(1));
    let mut rare = (one_in.next_power_of_two() - 1) as u64;
    let mut old = sample(old.clone(), &mut rare, samples);
    let new = sample(new.clone(), &mut rare, samples);
    old.retain(|(hash, _)| hash & rare == 0);
    let mut pairs = Vec::new();
    let (mut old, mut new) = (singles(old).peekable(), singles(new).peekable());
    while let (Some((a, at_old)), Some((b, at_new))) = (old.peek(), new.peek()) {
        if a == b {
            pairs.push((*at_old, *at_new));
        }
        let (a_first, b_first) = (a <= b, b <= a);
        if a_first {
            old.next();
        }
        if b_first {
            new.next();
        }
    }
    pairs.sort_unstable_by_key(|(_, new)| *new);
    longest_rising(&pairs)
}

/// The hashes that have none of the bits `rare`, with the numbers of their lines. Where there are more
/// than `most`, `rare` gets another bit.
fn sample<T: Hash>(
    lines: impl Iterator<Item = T>,
    rare: &mut u64,
    most: usize,
) -> Vec<(u64, usize)> {
    let mut sampled = Vec::new();
    for (line, at) in lines.zip(0..) {
        // Always the same one, so that a diff is always the same.
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let hash = hasher.finish();
        if hash & *rare != 0 {
            continue;
        }
        sampled.push((hash, at));
        while sampled.len() > most && *rare != u64::MAX {
            *rare = *rare << 1 | 1;
            sampled.retain(|(hash, _)| hash & *rare == 0);
        }
        if sampled.len() > most {
            break;
        }
    }
    sampled
}

/// Those whose hash no other one has, by their hashes.
fn singles(mut sampled: Vec<(u64, usize)>) -> impl Iterator<Item = (u64, usize)> {
    sampled.sort_unstable();
    let mut runs = Vec::new();
    for run in sampled.chunk_by(|a, b| a.0 == b.0) {
        if let [single] = run {
            runs.push(*single);
        }
    }
    runs.into_iter()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{BOUNDS, bounded};
    use super::*;

    fn told(old: &[u32], new: &[u32], bounds: Bounds) -> Vec<Difference> {
        let mut differences = Vec::new();
        bounded(
            old.iter().copied(),
            new.iter().copied(),
            bounds,
            |difference| {
                differences.push(difference);
            },
        );
        differences
    }

    /// The old lines with the differences applied; fails where one is out of order or touches another.
    fn applied(old: &[u32], new: &[u32], differences: &[Difference]) -> Vec<u32> {
        let mut made = Vec::new();
        let (mut at_old, mut at_new) = (0, 0);
        for (number, (gone, come)) in differences.iter().enumerate() {
            assert!(gone.len() + come.len() > 0);
            assert!(number == 0 || gone.start > at_old, "{differences:?}");
            assert_eq!(gone.start - at_old, come.start - at_new);
            made.extend(&old[at_old..gone.start]);
            made.extend(&new[come.clone()]);
            (at_old, at_new) = (gone.end, come.end);
        }
        made.extend(&old[at_old..]);
        made
    }

    fn changed(differences: &[Difference]) -> (usize, usize) {
        let gone = differences.iter().map(|it| it.0.len()).sum();
        (gone, differences.iter().map(|it| it.1.len()).sum())
    }

    const TIGHT: Bounds = Bounds {
        part: 512,
        samples: 64,
    };

    #[test]
    fn lines_that_moved_far_are_still_held_together() {
        // 5,000 lines come at the top and a line changes near the end: no window reaches so far.
        let old: Vec<u32> = (0..20_000).collect();
        let mut new: Vec<u32> = (50_000..55_000).chain(0..20_000).collect();
        new[24_000] = 99_999;
        let differences = told(&old, &new, TIGHT);
        assert_eq!(applied(&old, &new, &differences), new);
        assert_eq!(changed(&differences), (1, 5_001));
        assert_eq!(differences, told(&old, &new, BOUNDS));
    }

    #[test]
    fn one_line_again_and_again_needs_no_anchor() {
        let old = [[1, 2].as_slice(), &[7; 50_000], &[3]].concat();
        let new = [[1, 4].as_slice(), &[7; 50_000], &[5]].concat();
        assert_eq!(
            told(&old, &new, TIGHT),
            [(1..2, 1..2), (50_002..50_003, 50_002..50_003)]
        );
    }

    #[test]
    fn samples_stay_within_their_bound() {
        let mut rare = 0;
        let sampled = sample(0..10_000_u32, &mut rare, 64);
        assert!((16..=64).contains(&sampled.len()), "{}", sampled.len());
        assert!(sample([1; 10_000].into_iter(), &mut rare, 64).len() <= 64);
    }

    proptest! {
        #[test]
        fn what_is_told_makes_the_new_lines_of_the_old(
            seed in any::<u32>(),
            kinds in prop::sample::select(vec![2_u32, 40, 100_000]),
            sizes in (0_u32..3_000, 0_u32..3_000),
            part in prop::sample::select(vec![2_usize, 7, 64, 512, 100_000]),
        ) {
            let line = |i: u32, salt: u32| {
                (i ^ seed ^ salt).wrapping_mul(2_654_435_761).rotate_left(13) % kinds
            };
            let old: Vec<u32> = (0..sizes.0).map(|i| line(i, 0)).collect();
            let new: Vec<u32> = (0..sizes.1).map(|i| line(i, (i / 500) % 3)).collect();
            let bounds = Bounds { part, samples: 64 };
            let differences = told(&old, &new, bounds);
            prop_assert_eq!(applied(&old, &new, &differences), new);
        }

        /// Cut into parts, a long list with some edits gives what it gives as a whole.
        #[test]
        fn some_edits_are_found_as_in_one_part(
            edits in prop::collection::btree_map(0_usize..6_000, 0_u8..3, 0..8),
        ) {
            // Every other line is one of a few, as in wrapped entries.
            let old: Vec<u32> = (0..6_000).map(|i| if i % 2 == 0 { i + 10 } else { i % 3 }).collect();
            let mut new = old.clone();
            for (place, kind) in edits.iter().rev() {
                match kind {
                    0 => new[*place] = 1_000_000,
                    1 => new.insert(*place, 2_000_000),
                    _ => drop(new.remove(*place)),
                }
            }
            let (parted, whole) = (told(&old, &new, TIGHT), told(&old, &new, BOUNDS));
            prop_assert_eq!(applied(&old, &new, &parted), new);
            prop_assert_eq!(changed(&parted), changed(&whole));
        }
    }
}
