//! Owns the copying of what stays of a text: runs of it at once, not line by line.

/// A text in the making, most of which is spans of the one that is read.
pub(super) struct Copied<'a> {
    text: &'a str,
    out: String,
    /// The span of `text` that is due at the end of `out`: what follows it directly joins it.
    from: usize,
    to: usize,
}

impl<'a> Copied<'a> {
    /// Nothing of `text` yet.
    pub(super) fn of(text: &'a str) -> Self {
        Self {
            text,
            out: String::with_capacity(text.len() + 1),
            from: 0,
            to: 0,
        }
    }

    /// Whether nothing was written.
    pub(super) fn is_empty(&self) -> bool {
        self.out.is_empty() && self.from == self.to
    }

    /// Writes the text from `from` to `to`.
    pub(super) fn keep(&mut self, from: usize, to: usize) {
        if from != self.to {
            self.flush();
            self.from = from;
        }
        self.to = to;
    }

    /// Writes what is not in the text.
    pub(super) fn push_str(&mut self, other: &str) {
        self.flush();
        self.out.push_str(other);
    }

    /// What was written.
    pub(super) fn finish(mut self) -> String {
        self.flush();
        self.out
    }

    fn flush(&mut self) {
        if self.from < self.to {
            self.out.push_str(&self.text[self.from..self.to]);
        }
        self.from = self.to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_what_was_kept_and_added(
            text in "[a-zé\n]{0,40}",
            steps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4), 0..12),
        ) {
            let mut copied = Copied::of(&text);
            let mut expected = String::new();
            let bounds: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
            let mut last = 0;
            for (a, b, how) in steps {
                let (a, b) = (bounds[a.index(bounds.len())], bounds[b.index(bounds.len())]);
                let (a, b) = (a.min(b), a.max(b));
                // Half of the spans follow the one before.
                let from = if how < 2 && last <= b { last } else { a };
                match how {
                    3 => {
                        copied.push_str("-");
                        expected.push('-');
                    }
                    _ => {
                        copied.keep(from, b);
                        expected.push_str(&text[from..b]);
                        last = b;
                    }
                }
                prop_assert_eq!(copied.is_empty(), expected.is_empty());
            }
            prop_assert_eq!(copied.finish(), expected);
        }
    }
}
