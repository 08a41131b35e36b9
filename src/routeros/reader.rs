//! Owns what a line of an export is: physical lines, logical lines, comments, quotes.
//!
//! A physical line ends in a line feed; carriage returns right before it belong to the line end.
//! A carriage return elsewhere is content (RouterOS never prints one). A logical line goes on
//! where a physical one ends in `\`, or inside a quoted string. A comment is a `#` at column 0
//! of a physical line that continues nothing; its rest, where the router wrapped it, is what `wrapped`
//! says it is.

use std::borrow::Cow;
use std::ops::Range;

use super::copy::Copied;
use super::wrapped;

/// How far RouterOS indents a continuation.
const INDENT: usize = 4;

/// What kind of logical line it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LineKind {
    /// Nothing, or nothing but blanks.
    Blank,
    /// `#` at column 0; always one physical line.
    Comment,
    /// What the router wrapped of a comment onto a line of its own; always one physical line.
    Rest,
    /// Everything else: a menu, an item, or something that should not be there.
    Config,
}

/// One logical line of the text that is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Line<'a> {
    /// What it is.
    pub(super) kind: LineKind,
    /// From its first byte to before its last line end; inner line ends of a wrapped line are in.
    pub(super) raw: &'a str,
    /// Where it begins in the text.
    pub(super) start: usize,
    /// Where the next line begins.
    pub(super) end: usize,
    /// Whether neither a quote nor a backslash is in it, if it is configuration.
    pub(super) plain: bool,
    /// Whether it consists of several physical lines.
    pub(super) wrapped: bool,
    /// Whether it ends in a line feed.
    pub(super) terminated: bool,
    /// Whether the text ends inside a quoted string of this line.
    pub(super) open_quote: bool,
    /// Whether the text ends where a continuation is due.
    pub(super) dangling: bool,
}

impl<'a> Line<'a> {
    /// Its content in one piece: wraps undone, blanks at the end gone unless they are quoted.
    pub(super) fn logical(&self) -> Cow<'a, str> {
        if self.kind != LineKind::Config {
            return Cow::Borrowed(trim_blanks(self.raw));
        }
        if !self.wrapped && !self.open_quote {
            return Cow::Borrowed(trim_end(self.raw));
        }
        let mut joined = String::with_capacity(self.raw.len());
        self.join(&mut joined, |_| ());
        Cow::Owned(joined)
    }

    /// Its first physical line, without the line end.
    pub(super) fn first(&self) -> &'a str {
        Pieces::of(self.raw).next().map_or("", |(first, _)| first)
    }

    fn join(&self, joined: &mut String, mut at_joint: impl FnMut(usize)) {
        let mut continues = false;
        for (content, last) in Pieces::of(self.raw) {
            let blanks = content.bytes().take(INDENT).take_while(|b| *b == b' ');
            let text = &content[if continues { blanks.count() } else { 0 }..];
            if continues {
                at_joint(joined.len());
            }
            continues = goes_on(content.as_bytes());
            match last {
                false if continues => joined.push_str(&text[..text.len() - 1]),
                false => {
                    joined.push_str(text);
                    joined.push('\n');
                }
                true if self.open_quote => joined.push_str(text),
                true => joined.push_str(trim_end(text)),
            }
        }
    }

    /// Writes it with plain line feeds and without blanks at the end, unless they are quoted.
    pub(super) fn write_normalized(&self, out: &mut Copied<'_>) {
        let content = match self.kind {
            LineKind::Config if self.open_quote => self.raw,
            LineKind::Config => trim_end(self.raw),
            _ => trim_blanks(self.raw),
        };
        let end = self.start + content.len();
        if self.wrapped {
            out.keep_lines(self.start, end);
        } else {
            out.keep(self.start, end);
        }
        if self.terminated {
            out.keep(self.end - 1, self.end);
        } else {
            out.push_str("\n");
        }
    }
}

/// Memory in which wrapped lines are put together, one after the other.
#[derive(Default)]
pub(super) struct Scratch {
    joined: String,
    joints: Vec<usize>,
}

impl Scratch {
    /// [`Line::logical`] of a configuration line, and where in it the wraps were.
    pub(super) fn logical<'s>(&'s mut self, line: &Line<'s>) -> (&'s str, &'s [usize]) {
        if !line.wrapped && !line.open_quote {
            return (trim_end(line.raw), &[]);
        }
        self.joined.clear();
        self.joints.clear();
        let joints = &mut self.joints;
        // A router may send nothing but wraps, which are all at one place.
        line.join(&mut self.joined, |joint| {
            if joints.last() != Some(&joint) {
                joints.push(joint);
            }
        });
        (&self.joined, &self.joints)
    }
}

/// The physical lines of a logical one, without their line ends, and whether it is the last.
struct Pieces<'a> {
    rest: Option<&'a str>,
}

impl<'a> Pieces<'a> {
    /// Of the text of a logical line, whose last line end was cut off.
    fn of(raw: &'a str) -> Self {
        Self { rest: Some(raw) }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = (&'a str, bool);

    #[inline]
    fn next(&mut self) -> Option<(&'a str, bool)> {
        let rest = self.rest.take()?;
        match memchr::memchr(b'\n', rest.as_bytes()) {
            Some(feed) => {
                self.rest = Some(&rest[feed + 1..]);
                let content = without_returns(&rest.as_bytes()[..feed]).len();
                Some((&rest[..content], false))
            }
            None => Some((rest, true)),
        }
    }
}

/// Whether `content` ends in a backslash that escapes what is behind it: after a pair of
/// backslashes, as after anything else, nothing is escaped.
fn goes_on(content: &[u8]) -> bool {
    let backslashes = content.iter().rev().take_while(|byte| **byte == b'\\');
    backslashes.count() % 2 == 1
}

/// The characters that may be dropped at the end of a line.
const BLANKS: [char; 3] = [' ', '\t', '\r'];

/// Drops blanks at the end of a line that ends outside quotes. Where that would lay bare a
/// backslash, and so make a continuation of what was none, the line stays as it is.
pub(super) fn trim_end(content: &str) -> &str {
    let trimmed = trim_blanks(content);
    if trimmed.len() < content.len() && trimmed.ends_with('\\') {
        return content;
    }
    trimmed
}

/// Drops blanks at the end.
pub(super) fn trim_blanks(content: &str) -> &str {
    // Nearly no line has any.
    match content.as_bytes().last() {
        Some(b' ' | b'\t' | b'\r') => content.trim_end_matches(BLANKS),
        _ => content,
    }
}

/// Reads the logical lines of `text`, each once, in order.
pub(super) fn lines(text: &str) -> Lines<'_> {
    lines_in(text, 0..text.len())
}

/// Reads the logical lines of a part of `text` that begins and ends between two of them.
pub(super) fn lines_in(text: &str, part: Range<usize>) -> Lines<'_> {
    Lines {
        text: &text[..part.end],
        at: part.start,
        mark: part.start,
        before: "",
    }
}

/// The iterator of [`lines`].
#[derive(Clone, Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    at: usize,
    /// Neither a quote nor a backslash stands between `at` and there.
    mark: usize,
    /// The line before, if it may go on in this one.
    before: &'a str,
}

impl Lines<'_> {
    /// How the line at `start` goes, if it is a rest of the one before.
    #[cold]
    fn rest(&self, start: usize) -> Option<Found> {
        // Of nearly all lines behind a comment the first word is enough.
        if wrapped::begins_with_command(&self.text[start..]) {
            return None;
        }
        let bytes = &self.text.as_bytes()[start..];
        let feed = memchr::memchr(b'\n', bytes);
        let content = without_returns(&bytes[..feed.unwrap_or(bytes.len())]).len();
        let line = &self.text[start..start + content];
        wrapped::is_rest(self.before, line).then(|| Found {
            feed: feed.map(|feed| start + feed),
            plain: true,
            rest: true,
            ..Found::default()
        })
    }

    /// How the line of configuration at `start` goes.
    #[inline(always)]
    fn follow(&mut self, start: usize) -> Found {
        let bytes = self.text.as_bytes();
        if start < self.mark {
            let found = Found::plain(bytes, start, self.mark);
            return match found.feed {
                Some(_) => found,
                None => Found::from(bytes, self.mark),
            };
        }
        let found = Found::from(bytes, start);
        if let (true, Some(feed)) = (found.plain, found.feed) {
            // Where one line is plain, more of them follow.
            let mark = memchr::memchr2(b'"', b'\\', &bytes[feed..]);
            self.mark = mark.map_or(bytes.len(), |mark| feed + mark);
        }
        found
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    // Inlined, a line stays in registers: moving its flags to where it is wanted takes longer than
    // finding them.
    #[inline(always)]
    fn next(&mut self) -> Option<Line<'a>> {
        let start = self.at;
        let text = self.text;
        let bytes = text.as_bytes();
        let found = match bytes.get(start)? {
            b'#' => Found::plain(bytes, start, bytes.len()),
            _ if self.before.is_empty() => self.follow(start),
            _ => match self.rest(start) {
                Some(rest) => rest,
                None => self.follow(start),
            },
        };
        let (content, end) = match found.feed {
            Some(feed) => (feed, feed + 1),
            None => (bytes.len(), bytes.len()),
        };
        self.at = end;
        let raw = &text[start..start + without_returns(&bytes[start..content]).len()];
        let kind = match raw.as_bytes().first() {
            Some(b'#') => LineKind::Comment,
            Some(_) if found.rest => LineKind::Rest,
            None => LineKind::Blank,
            Some(b' ' | b'\t' | b'\r')
                if found.plain && raw.trim_end_matches(BLANKS).is_empty() =>
            {
                LineKind::Blank
            }
            Some(_) => LineKind::Config,
        };
        self.before = match kind {
            LineKind::Comment => raw,
            // A rest goes on once, and is no wider than its comment.
            LineKind::Rest
                if self.before.starts_with('#') && wrapped::fills_a_line(self.before) =>
            {
                raw
            }
            _ => "",
        };
        Some(Line {
            kind,
            raw,
            start,
            end,
            plain: found.plain,
            wrapped: found.wrapped,
            terminated: found.feed.is_some(),
            open_quote: found.open_quote,
            dangling: found.dangling,
        })
    }
}

/// How a logical line goes, and where it ends.
#[derive(Default)]
struct Found {
    /// The line feed that it ends in; none where the text ends first.
    feed: Option<usize>,
    plain: bool,
    wrapped: bool,
    open_quote: bool,
    dangling: bool,
    /// It is the rest of a comment.
    rest: bool,
}

impl Found {
    /// A line that begins at `start`, ends before `end` if it ends at all, and has no marks.
    #[inline(always)]
    fn plain(bytes: &[u8], start: usize, end: usize) -> Self {
        Self {
            feed: memchr::memchr(b'\n', &bytes[start..end]).map(|feed| start + feed),
            plain: true,
            ..Self::default()
        }
    }

    /// Follows the line of configuration that begins at `start`, or has no marks before, from one byte
    /// that means something to the next.
    fn from(bytes: &[u8], start: usize) -> Self {
        let mut found = Self {
            plain: true,
            ..Self::default()
        };
        let mut at = start;
        while let Some(skipped) = memchr::memchr3(b'\n', b'"', b'\\', &bytes[at..]) {
            at += skipped;
            if bytes[at] == b'\n' {
                found.feed = Some(at);
                return found;
            }
            found.plain = false;
            let inside = at + 1;
            if bytes[at] == b'"' {
                let Some(quote) = closing_quote(bytes, inside) else {
                    let feed = bytes.len() - 1;
                    found.feed = (inside <= feed && bytes[feed] == b'\n').then_some(feed);
                    let quoted = &bytes[inside..found.feed.unwrap_or(bytes.len())];
                    found.wrapped |= memchr::memchr(b'\n', quoted).is_some();
                    found.open_quote = true;
                    found.dangling = goes_on(without_returns(quoted));
                    return found;
                };
                found.wrapped |= memchr::memchr(b'\n', &bytes[inside..quote]).is_some();
                at = quote + 1;
                continue;
            }
            let feed = inside + returns(&bytes[inside..]);
            match bytes.get(feed) {
                Some(b'\n') if feed + 1 < bytes.len() => {
                    found.wrapped = true;
                    at = feed + 1;
                }
                None | Some(b'\n') => {
                    found.feed = (feed < bytes.len()).then_some(feed);
                    found.dangling = true;
                    return found;
                }
                // It escapes the byte behind it.
                Some(_) => at = inside + 1,
            }
        }
        found
    }
}

/// Where the quoted string that begins at `from` ends. A quote is escaped by an odd number of
/// backslashes right before it.
fn closing_quote(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'"', &bytes[from..])
        .map(|found| from + found)
        .find(|quote| !goes_on(&bytes[from..*quote]))
}

/// How many carriage returns `bytes` begin with.
fn returns(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| **byte == b'\r').count()
}

/// `bytes` without the carriage returns that they end in.
fn without_returns(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
