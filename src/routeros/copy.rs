//! Owns the copying of what stays of a text: runs of it at once, not line by line, and a large text in
//! parts that are hashed while the next is made.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use crate::domain::digest::{Digest, Hasher};

/// From so many bytes on a text is hashed while it is made: below, a thread costs more than it saves.
const LARGE: usize = 1 << 20;

/// How large a part is, in bytes: what a processor's cache holds beside everything else.
const PART: usize = 128 << 10;

/// How many parts may wait to be hashed.
const PARTS: usize = 8;

/// A text in the making, most of which is spans of the one that is read.
pub(super) struct Copied<'a> {
    text: &'a str,
    out: String,
    /// The span of `text` that is due at the end of `out`: what follows it directly joins it.
    from: usize,
    to: usize,
    /// The first carriage return of `text` behind what was asked for last; its end where there is none.
    next_return: usize,
    /// Whether a part was handed over.
    begun: bool,
    hashing: Option<Hashing>,
}

/// Who takes full parts, and gives them back empty.
struct Hashing {
    full: SyncSender<String>,
    empty: Receiver<String>,
}

/// What `make` makes of `text`, its digest, and what else it tells.
pub(super) fn hashed<'a, T>(
    text: &'a str,
    make: impl FnOnce(Copied<'a>) -> (Copied<'a>, T),
) -> (String, Digest, T) {
    let alone = |made: (Copied<'a>, T)| {
        let text = made.0.finish();
        let digest = Digest::of(&text);
        (text, digest, made.1)
    };
    if text.len() < LARGE {
        return alone(make(Copied::of(text)));
    }
    let (full, parts) = sync_channel(PARTS);
    let (back, empty) = channel();
    thread::scope(|scope| {
        let gather = || gather(text.len() + 1, parts, &back);
        let Ok(gathering) = thread::Builder::new().spawn_scoped(scope, gather) else {
            // The process has all the threads that it may have.
            return alone(make(Copied::of(text)));
        };
        let mut copied = Copied::of(text);
        copied.out = String::with_capacity(2 * PART);
        copied.hashing = Some(Hashing { full, empty });
        let (mut copied, rest) = make(copied);
        copied.flush();
        copied.hand_over();
        // Its end is the end of the text.
        drop(copied);
        match gathering.join() {
            Ok((text, digest)) => (text, digest, rest),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Puts `parts` together, and hashes them.
fn gather(bytes: usize, parts: Receiver<String>, back: &Sender<String>) -> (String, Digest) {
    let mut text = String::with_capacity(bytes);
    let mut hasher = Hasher::default();
    for mut part in parts {
        hasher.update(&part);
        text.push_str(&part);
        part.clear();
        // Nobody wants it any more after the last one.
        let _ = back.send(part);
    }
    (text, hasher.finish())
}

impl<'a> Copied<'a> {
    /// Nothing of `text` yet.
    pub(super) fn of(text: &'a str) -> Self {
        Self {
            text,
            out: String::with_capacity(text.len() + 1),
            from: 0,
            to: 0,
            next_return: memchr::memchr(b'\r', text.as_bytes()).unwrap_or(text.len()),
            begun: false,
            hashing: None,
        }
    }

    /// Whether nothing was written.
    pub(super) fn is_empty(&self) -> bool {
        !self.begun && self.out.is_empty() && self.from == self.to
    }

    /// Writes the text from `from` to `to`.
    pub(super) fn keep(&mut self, from: usize, to: usize) {
        if from != self.to {
            self.flush();
            self.from = from;
        }
        self.to = to;
        if self.to - self.from >= PART {
            self.flush();
        }
    }

    /// Writes the text from `from` to `to`, but for carriage returns before its line feeds.
    pub(super) fn keep_lines(&mut self, mut from: usize, to: usize) {
        let bytes = self.text.as_bytes();
        let mut at = from;
        loop {
            if self.next_return < at {
                let found = memchr::memchr(b'\r', &bytes[at..]);
                self.next_return = found.map_or(bytes.len(), |found| at + found);
            }
            let first = self.next_return;
            if first >= to {
                break;
            }
            at = first + bytes[first..to].iter().take_while(|b| **b == b'\r').count();
            if bytes[at..to].first() == Some(&b'\n') {
                self.keep(from, first);
                from = at;
            }
        }
        self.keep(from, to);
    }

    /// Writes what is not in the text.
    pub(super) fn push_str(&mut self, other: &str) {
        self.flush();
        self.out.push_str(other);
    }

    /// What was written, unless it was handed over.
    pub(super) fn finish(mut self) -> String {
        self.flush();
        self.out
    }

    fn flush(&mut self) {
        if self.from < self.to {
            self.out.push_str(&self.text[self.from..self.to]);
            if self.out.len() >= PART {
                self.hand_over();
            }
        }
        self.from = self.to;
    }

    fn hand_over(&mut self) {
        let Some(hashing) = &self.hashing else {
            return;
        };
        let empty = hashing.empty.try_recv();
        let empty = empty.unwrap_or_else(|_| String::with_capacity(2 * PART));
        // It fails when hashing panicked, which is told when it is joined.
        let _ = hashing.full.send(std::mem::replace(&mut self.out, empty));
        self.begun = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Keeps ten bytes of each line of seventeen, and its end.
    fn shortened(mut copied: Copied<'_>, lines: usize) -> (Copied<'_>, bool) {
        let mut told = copied.is_empty();
        for start in (0..lines).map(|line| 17 * line) {
            copied.keep(start, start + 10);
            copied.push_str("-");
            copied.keep(start + 16, start + 17);
            told &= !copied.is_empty();
        }
        (copied, told)
    }

    #[test]
    fn a_large_text_is_the_same_in_parts() {
        for lines in [LARGE / 17, LARGE / 17 + 1, 200_000] {
            let text = "0123456789abcdé\n".repeat(lines);
            let (made, digest, told) = hashed(&text, |copied| shortened(copied, lines));
            assert!(told);
            assert_eq!(made, "0123456789-\n".repeat(lines));
            assert_eq!(digest, Digest::of(&made));
            assert_eq!(shortened(Copied::of(&text), lines).0.finish(), made);
            let (same, digest, ()) = hashed(&text, |mut copied| {
                copied.keep(0, text.len());
                (copied, ())
            });
            assert!(same == text && digest == Digest::of(&text));
        }
    }

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
