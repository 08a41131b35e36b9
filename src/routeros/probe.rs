//! Owns the question which rules may know a comment, told from its first and last bytes.

use std::sync::LazyLock;

use super::comments::{KNOWN, Known};

/// The first and the last eight bytes of a text as numbers, with zeros in the place of what it does not
/// have.
#[derive(Clone, Copy)]
struct Ends {
    first: u64,
    last: u64,
}

impl Ends {
    fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let (mut first, mut last) = ([0; 8], [0; 8]);
        match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(begin), Some(end)) => (first, last) = (*begin, *end),
            _ => {
                first[..bytes.len()].copy_from_slice(bytes);
                last[8 - bytes.len()..].copy_from_slice(bytes);
            }
        }
        Self {
            first: u64::from_be_bytes(first),
            last: u64::from_be_bytes(last),
        }
    }
}

/// What the ends of a comment must be where a rule knows it: two comparisons turn away nearly every comment
/// that is not its own.
struct Probe {
    known: &'static Known,
    ends: Ends,
    /// The bits of `ends` that mean something.
    mask: Ends,
}

impl Probe {
    fn of(known: &'static Known) -> Self {
        let bits = |text: &str| 8 * u32::try_from(text.len().min(8)).unwrap_or(8);
        let none = u64::MAX;
        Self {
            known,
            ends: Ends {
                first: Ends::of(known.begin).first,
                last: Ends::of(known.end).last,
            },
            mask: Ends {
                first: !none.checked_shr(bits(known.begin)).unwrap_or(0),
                last: !none.checked_shl(bits(known.end)).unwrap_or(0),
            },
        }
    }

    fn may_match(&self, ends: Ends) -> bool {
        ends.first & self.mask.first == self.ends.first
            && ends.last & self.mask.last == self.ends.last
    }
}

static PROBES: LazyLock<Vec<Probe>> = LazyLock::new(|| KNOWN.iter().map(Probe::of).collect());

/// The rules that may know the comment `line`, which has no blanks at its end.
pub(super) fn may_know(line: &str) -> impl Iterator<Item = &'static Known> {
    let ends = Ends::of(line);
    let probes = PROBES.iter().filter(move |probe| probe.may_match(ends));
    probes.map(|probe| probe.known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_knows_a_comment_may_know_it() {
        let examples = KNOWN.iter().map(|known| known.rule.example.1.trim_end());
        for comment in examples.chain(["", "#", "# ", "# not", "# a not ready"]) {
            for known in KNOWN.iter().filter(|known| known.matches(comment)) {
                let rule = known.rule.name;
                let mut may = may_know(comment);
                assert!(
                    may.any(|known| known.rule.name == rule),
                    "{rule}: {comment}"
                );
            }
        }
        assert_eq!(
            may_know("# Office uplink, do not touch").count(),
            1,
            "no end is known of one"
        );
    }
}
