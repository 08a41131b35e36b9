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
        let mut physical = PhysicalLines::within(self.raw).peekable();
        let mut continues = false;
        while let Some(piece) = physical.next() {
            let content = if continues {
                let blanks = piece
                    .content
                    .bytes()
                    .take(INDENT)
                    .take_while(|b| *b == b' ');
                &piece.content[blanks.count()..]
            } else {
                piece.content
            };
            continues = piece.continues;
            match physical.peek() {
                Some(_) if continues => joined.push_str(&content[..content.len() - 1]),
                Some(_) => {
                    joined.push_str(content);
                    joined.push('\n');
                }
                None if piece.in_quote => joined.push_str(content),
                None => joined.push_str(trim_end(content)),
            }
        }
        Cow::Owned(joined)
    }

    /// Appends it with plain line feeds and without blanks at the end, unless they are quoted.
    pub(super) fn write_normalized(&self, out: &mut String) {
        if self.kind != LineKind::Config {
            out.push_str(self.raw.trim_end_matches(BLANKS));
            out.push('\n');
            return;
        }
        if !self.wrapped && !self.open_quote {
            out.push_str(trim_end(self.raw));
            out.push('\n');
            return;
        }
        let mut physical = PhysicalLines::within(self.raw).peekable();
        while let Some(piece) = physical.next() {
            let last = physical.peek().is_none();
            let content = piece.content;
            out.push_str(if last && !piece.in_quote {
                trim_end(content)
            } else {
                content
            });
            out.push('\n');
        }
    }
}

/// The characters that may be dropped at the end of a line.
const BLANKS: [char; 3] = [' ', '\t', '\r'];

/// Drops blanks at the end of a line that ends outside quotes. Where that would lay bare a
/// backslash, and so make a continuation of what was none, the line stays as it is.
pub(super) fn trim_end(content: &str) -> &str {
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
        let line = |kind, length: usize, end: usize, terminated| Line {
            kind,
            raw: &rest[..length],
            start,
            end: start + end,
            wrapped: false,
            terminated,
            open_quote: false,
            dangling: false,
        };
        if rest.starts_with('#') {
            let (content, end, terminated) = physical(rest);
            self.at = start + end;
            return Some(line(LineKind::Comment, content.len(), end, terminated));
        }
        let mut pieces = PhysicalLines::of(rest);
        let mut last = pieces.next()?;
        if last.content.trim_end_matches(BLANKS).is_empty() {
            self.at = start + pieces.at;
            return Some(line(
                LineKind::Blank,
                last.content.len(),
                pieces.at,
                last.terminated,
            ));
        }
        while last.continues || last.in_quote {
            match pieces.next() {
                Some(piece) => last = piece,
                None => break,
            }
        }
        self.at = start + pieces.at;
        let raw_end = last.start + last.content.len();
        let mut line = line(LineKind::Config, raw_end, pieces.at, last.terminated);
        line.wrapped = last.start > 0;
        line.open_quote = last.in_quote;
        line.dangling = last.continues;
        Some(line)
    }
}

/// One physical line with the lexer's state at its end.
#[derive(Clone, Copy, Debug)]
struct Physical<'a> {
    content: &'a str,
    start: usize,
    terminated: bool,
    in_quote: bool,
    continues: bool,
}

/// Physical lines of one logical line, with quotes and escapes followed over them.
#[derive(Clone, Debug)]
struct PhysicalLines<'a> {
    text: &'a str,
    at: usize,
    in_quote: bool,
    /// Whether an empty line comes after the last line feed.
    empty_last: bool,
}

impl<'a> PhysicalLines<'a> {
    /// Of text that goes on to its end: a line feed at the end ends the last line.
    fn of(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            in_quote: false,
            empty_last: false,
        }
    }

    /// Of a logical line, whose last line end was cut off.
    fn within(raw: &'a str) -> Self {
        Self {
            empty_last: raw.ends_with('\n'),
            ..Self::of(raw)
        }
    }
}

impl<'a> Iterator for PhysicalLines<'a> {
    type Item = Physical<'a>;

    fn next(&mut self) -> Option<Physical<'a>> {
        let start = self.at;
        let rest = &self.text[start..];
        if rest.is_empty() && !std::mem::take(&mut self.empty_last) {
            return None;
        }
        let (content, end, terminated) = physical(rest);
        let continues = scan(content.as_bytes(), &mut self.in_quote);
        self.at = start + end;
        Some(Physical {
            content,
            start,
            terminated,
            in_quote: self.in_quote,
            continues,
        })
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
