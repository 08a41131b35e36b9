//! Owns what a line of an export is: physical lines, logical lines, comments, quotes.
//!
//! A physical line ends in a line feed; carriage returns right before it belong to the line end.
//! A carriage return elsewhere is content (RouterOS never prints one). A logical line goes on
//! where a physical one ends in `\`, or inside a quoted string. A comment is a `#` at column 0
//! of a physical line that continues nothing.

use std::borrow::Cow;

/// How far RouterOS indents a continuation.
const INDENT: usize = 4;

/// What kind of logical line it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LineKind {
    /// Nothing, or nothing but blanks.
    Blank,
    /// `#` at column 0; always one physical line.
    Comment,
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
            return Cow::Borrowed(self.raw.trim_end_matches(BLANKS));
        }
        if !self.wrapped && !self.open_quote {
            return Cow::Borrowed(trim_end(self.raw));
        }
        let mut joined = String::with_capacity(self.raw.len());
        self.join(&mut joined, |_| ());
        Cow::Owned(joined)
    }

    fn join(&self, joined: &mut String, mut at_joint: impl FnMut(usize)) {
        let mut continues = false;
        for (content, last) in Pieces::of(self.raw) {
            let blanks = content.bytes().take(INDENT).take_while(|b| *b == b' ');
            let text = &content[if continues { blanks.count() } else { 0 }..];
            if continues {
                at_joint(joined.len());
            }
            continues = goes_on(content);
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

    /// Appends it with plain line feeds and without blanks at the end, unless they are quoted.
    pub(super) fn write_normalized(&self, out: &mut String) {
        if self.kind != LineKind::Config {
            out.push_str(self.raw.trim_end_matches(BLANKS));
        } else if !self.wrapped && !self.open_quote {
            out.push_str(trim_end(self.raw));
        } else {
            for (content, last) in Pieces::of(self.raw) {
                if !last {
                    out.push_str(content);
                    out.push('\n');
                } else if self.open_quote {
                    out.push_str(content);
                } else {
                    out.push_str(trim_end(content));
                }
            }
        }
        out.push('\n');
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
        line.join(&mut self.joined, |joint| joints.push(joint));
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

    fn next(&mut self) -> Option<(&'a str, bool)> {
        let rest = self.rest.take()?;
        match memchr::memchr(b'\n', rest.as_bytes()) {
            Some(feed) => {
                self.rest = Some(&rest[feed + 1..]);
                Some((rest[..feed].trim_end_matches('\r'), false))
            }
            None => Some((rest, true)),
        }
    }
}

/// Whether a physical line ends in a backslash that escapes nothing but the line end: after a pair
/// of backslashes, as after anything else, nothing is escaped.
fn goes_on(content: &str) -> bool {
    let backslashes = content.bytes().rev().take_while(|byte| *byte == b'\\');
    backslashes.count() % 2 == 1
}

/// The characters that may be dropped at the end of a line.
const BLANKS: [char; 3] = [' ', '\t', '\r'];

/// Drops blanks at the end of a line that ends outside quotes. Where that would lay bare a
/// backslash, and so make a continuation of what was none, the line stays as it is.
pub(super) fn trim_end(content: &str) -> &str {
    if !matches!(content.as_bytes().last(), Some(b' ' | b'\t' | b'\r')) {
        return content;
    }
    let trimmed = content.trim_end_matches(BLANKS);
    if trimmed.len() < content.len() && trimmed.ends_with('\\') {
        return content;
    }
    trimmed
}

/// Reads the logical lines of `text`, each once, in order.
pub(super) fn lines(text: &str) -> Lines<'_> {
    Lines { text, at: 0 }
}

/// The iterator of [`lines`].
#[derive(Clone, Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let start = self.at;
        let rest = self.text.get(start..).filter(|rest| !rest.is_empty())?;
        let (content, mut end, mut terminated) = physical(rest);
        let mut line = Line {
            kind: LineKind::Config,
            raw: content,
            start,
            end: start + end,
            wrapped: false,
            terminated,
            open_quote: false,
            dangling: false,
        };
        self.at = line.end;
        if rest.starts_with('#') {
            line.kind = LineKind::Comment;
            return Some(line);
        }
        let mut in_quote = false;
        let mut continues = scan(content.as_bytes(), &mut in_quote);
        if !continues && !in_quote {
            let first = content.as_bytes().first();
            if matches!(first, None | Some(b' ' | b'\t' | b'\r'))
                && content.trim_end_matches(BLANKS).is_empty()
            {
                line.kind = LineKind::Blank;
            }
            return Some(line);
        }
        while (continues || in_quote) && end < rest.len() {
            let from = end;
            let (content, length, ended) = physical(&rest[from..]);
            continues = scan(content.as_bytes(), &mut in_quote);
            (end, terminated) = (from + length, ended);
            line.raw = &rest[..from + content.len()];
            line.wrapped = true;
        }
        self.at = start + end;
        line.end = self.at;
        line.terminated = terminated;
        line.open_quote = in_quote;
        line.dangling = continues;
        Some(line)
    }
}

/// The first physical line of `text`: content, where the next begins, whether it is terminated.
fn physical(text: &str) -> (&str, usize, bool) {
    match memchr::memchr(b'\n', text.as_bytes()) {
        Some(feed) => (text[..feed].trim_end_matches('\r'), feed + 1, true),
        None => (text.trim_end_matches('\r'), text.len(), false),
    }
}

/// Follows quotes and escapes over `content`; true when it ends in a backslash that escapes
/// nothing but the line end.
fn scan(content: &[u8], in_quote: &mut bool) -> bool {
    let mut rest = content;
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        let escape = rest.get(at) == Some(&b'\\');
        if escape && at + 1 == rest.len() {
            return true;
        }
        if !escape {
            *in_quote = !*in_quote;
        }
        rest = &rest[at + 1 + usize::from(escape)..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(LineKind, String)> {
        lines(text)
            .map(|line| (line.kind, line.logical().into_owned()))
            .collect()
    }

    #[test]
    fn wrapped_lines_are_one_and_a_hash_in_them_is_configuration() {
        use LineKind::*;
        for newline in ["\n", "\r\n", "\r\r\n"] {
            let text = "add log-prefix=\\\n    #SMB protocol=tcp  \n# state\n\nset a=1\n";
            let expected = [
                (Config, "add log-prefix=#SMB protocol=tcp".to_owned()),
                (Comment, "# state".to_owned()),
                (Blank, String::new()),
                (Config, "set a=1".to_owned()),
            ];
            assert_eq!(read(&text.replace('\n', newline)), expected);
        }
        // A hash at column 0 behind a wrap continues, too.
        assert_eq!(read("a=\\\n#b\n"), [(Config, "a=#b".to_owned())]);
    }

    #[test]
    fn a_wrap_inside_quotes_takes_four_blanks_and_no_more() {
        let text = "set source=\"one\\r\\\n    \\n  two\\\\\\\n      three\"\n";
        assert_eq!(
            read(text),
            [(
                LineKind::Config,
                "set source=\"one\\r\\n  two\\\\  three\"".to_owned()
            )]
        );
    }

    #[test]
    fn escapes_are_followed_to_the_end_of_the_line() {
        // An escaped backslash at the end of a quoted string is no continuation.
        let kinds: Vec<_> = lines("a=\"x\\\\\"\n# c\nb=\"\\\"\"\n# d\n")
            .map(|l| l.kind)
            .collect();
        use LineKind::*;
        assert_eq!(kinds, [Config, Comment, Config, Comment]);
    }

    #[test]
    fn the_state_at_the_end_of_the_text_is_told() {
        let last = |text: &'static str| lines(text).last().unwrap();
        assert!(last("a=\"b\n").open_quote);
        assert!(
            last("a=\"b\n# c\n").open_quote,
            "a quoted line may begin with a hash"
        );
        assert!(last("a=b \\\n").dangling);
        assert!(last("a=b \\").dangling);
        assert!(!last("a=b \\\n    c\n").dangling);
        assert!(!last("a=b").terminated);
        assert!(last("a=b\r\n").terminated);
        assert!(!last("a=b\r").terminated);
    }

    #[test]
    fn blanks_go_where_nobody_means_them() {
        let normal = |text: &str| {
            let mut out = String::new();
            lines(text).for_each(|line| line.write_normalized(&mut out));
            out
        };
        assert_eq!(normal("a \t\r\n"), "a\n");
        assert_eq!(normal("# software id = \r\n"), "# software id =\n");
        assert_eq!(
            normal("a=\"b  \n c \"  \n"),
            "a=\"b  \n c \"\n",
            "inside quotes they stay"
        );
        assert_eq!(
            normal("a=b\\ \nc\n"),
            "a=b\\ \nc\n",
            "no continuation is made of none"
        );
        assert_eq!(
            normal("a=\\\n\nb\n"),
            "a=\\\n\nb\n",
            "an empty continuation is one"
        );
        assert_eq!(
            normal("a\rb\r\n"),
            "a\rb\n",
            "a carriage return inside is content"
        );
    }

    proptest! {
        #[test]
        fn lines_cover_the_text_without_gap(text in "[ab#/\"\\\\ \r\n\t]{0,60}") {
            let mut at = 0;
            for line in lines(&text) {
                prop_assert_eq!(line.start, at);
                prop_assert!(line.end > line.start);
                prop_assert!(line.start + line.raw.len() <= line.end);
                at = line.end;
            }
            prop_assert_eq!(at, text.len());
        }
    }
}
