//! The form of RouterOS text: header, quoting, wrapping at the terminal's width, CRLF.

use std::fmt::Write as _;

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::domain::Timestamp;

/// The width that RouterOS wraps an export at where there is no terminal, including the `\`.
const WIDTH: usize = 79;
/// How continuation lines begin.
const INDENT: &str = "    ";

const ISO: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
const OLD: &[BorrowedFormatItem<'_>] =
    format_description!("[month repr:short]/[day]/[year] [hour]:[minute]:[second]");

/// A RouterOS version as it stands in headers, such as `7.16.2` or `6.49.18`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version(String);

impl Version {
    /// Takes any text; what does not begin with two numbers counts as 7.0.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Major and minor number.
    pub fn numbers(&self) -> (u32, u32) {
        let mut parts = self.0.split(|c: char| !c.is_ascii_digit());
        let mut next = || parts.next().and_then(|part| part.parse().ok());
        (next().unwrap_or(7), next().unwrap_or(0))
    }

    /// Whether it is 7 or later, which hides secrets unless asked.
    pub fn hides_secrets(&self) -> bool {
        self.numbers().0 >= 7
    }
}

/// The first line of an export, without its line end: month names up to 7.9, ISO dates from 7.10.
pub(super) fn header(version: &Version, now: Timestamp) -> String {
    let format = if version.numbers() >= (7, 10) {
        ISO
    } else {
        OLD
    };
    let date = now.format(format);
    let date = date.expect("the description asks for nothing that a timestamp lacks");
    format!(
        "# {} by RouterOS {}",
        date.to_ascii_lowercase(),
        version.as_str()
    )
}

/// A value as RouterOS writes it: quoted where it must be, bytes outside ASCII as `\XX`.
pub(super) fn value(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/,!*@+%&".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | b'$' | b'?' => quoted.extend(['\\', char::from(byte)]),
            b'\r' => quoted.push_str("\\r"),
            b'\n' => quoted.push_str("\\n"),
            b'\t' => quoted.push_str("\\t"),
            b' '..=b'~' => quoted.push(char::from(byte)),
            other => {
                let _ = write!(quoted, "\\{other:02X}");
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Appends a logical line, wrapped, with CRLF after every physical one.
pub(super) fn write_wrapped(out: &mut Vec<u8>, line: &str) {
    let mut rest = line.to_owned();
    let mut quoted = false;
    let mut indent = "";
    while indent.len() + rest.len() > WIDTH {
        let room = WIDTH - 1 - indent.len();
        let at = break_at(&rest, room, quoted);
        let (head, tail) = rest.split_at(at);
        out.extend_from_slice(indent.as_bytes());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(b"\\\r\n");
        quoted = quoted_after(head, quoted);
        // A continuation's leading blanks are not part of the text, so a real one is escaped.
        rest = match tail.strip_prefix(' ') {
            Some(after) if quoted => format!("\\_{after}"),
            _ => tail.to_owned(),
        };
        indent = INDENT;
    }
    out.extend_from_slice(indent.as_bytes());
    out.extend_from_slice(rest.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Where to break `text` so that at most `room` bytes come before: after a blank or `=` outside
/// quotes, else before a blank inside them, else anywhere but inside an escape.
fn break_at(text: &str, room: usize, mut quoted: bool) -> usize {
    let bytes = text.as_bytes();
    let (mut outside, mut inside, mut anywhere) = (0, 0, 1);
    let mut at = 0;
    while at < room {
        let length = escape_length(&bytes[at..]);
        if at > 0 && quoted && bytes[at] == b' ' {
            inside = at;
        }
        if bytes[at] == b'"' {
            quoted = !quoted;
        }
        at += length;
        if at > room {
            break;
        }
        anywhere = at;
        if !quoted && matches!(bytes[at - 1], b' ' | b'=') && length == 1 {
            outside = at;
        }
    }
    [outside, inside, anywhere]
        .into_iter()
        .find(|position| *position > 0)
        .unwrap_or(1)
}

fn escape_length(bytes: &[u8]) -> usize {
    match bytes {
        [b'\\', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => 3,
        [b'\\', _, ..] => 2,
        _ => 1,
    }
}

fn quoted_after(text: &str, mut quoted: bool) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        quoted ^= bytes[at] == b'"';
        at += escape_length(&bytes[at..]);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn wrapped(line: &str) -> String {
        let mut out = Vec::new();
        write_wrapped(&mut out, line);
        String::from_utf8(out).expect("ASCII in, ASCII out")
    }

    #[test]
    fn headers_are_dated_as_their_version_does() {
        let now = datetime!(2026-01-02 03:04:05 UTC);
        let of = |version| header(&Version::new(version), now);
        assert_eq!(of("6.49.18"), "# jan/02/2026 03:04:05 by RouterOS 6.49.18");
        assert_eq!(of("7.9.2"), "# jan/02/2026 03:04:05 by RouterOS 7.9.2");
        assert_eq!(of("7.10rc1"), "# 2026-01-02 03:04:05 by RouterOS 7.10rc1");
        assert_eq!(
            of("7.20_ab294"),
            "# 2026-01-02 03:04:05 by RouterOS 7.20_ab294"
        );
    }

    #[test]
    fn values_are_quoted_and_escaped() {
        assert_eq!(value("ether1"), "ether1");
        assert_eq!(value(""), "\"\"");
        assert_eq!(value("a \"b\" $c?"), r#""a \"b\" \$c\?""#);
        assert_eq!(value("\u{41e}\r\n"), r#""\D0\9E\r\n""#);
    }

    #[test]
    fn lines_break_where_routeros_breaks_them() {
        // The second line would fit a value, but not behind its key.
        assert_eq!(
            wrapped(
                "add action=accept chain=forward comment=\"defconf: accept ICMPv6\" protocol=icmpv6"
            ),
            "add action=accept chain=forward comment=\"defconf: accept ICMPv6\" protocol=\\\r\n    icmpv6\r\n"
        );
        let long = format!("set note=\"{}\"", "word ".repeat(40));
        let text = wrapped(&long);
        assert!(text.contains("\\\r\n    \\_word"), "{text}");
    }

    proptest! {
        #[test]
        fn a_wrapped_line_reads_back_as_itself(
            text in "[a-z \"\\\\$?#=\r\n\u{e9}]{0,400}",
            key in "[a-z=]{1,90}",
        ) {
            let line = format!("set {key} source={}", value(&text));
            let wrapped = wrapped(&line);
            for physical in wrapped.split_terminator("\r\n") {
                prop_assert!(physical.len() <= WIDTH, "{physical:?}");
                prop_assert!(physical.is_ascii());
            }
            // What RouterOS itself does when the text is pasted back.
            let joined = wrapped.replace("\\\r\n    ", "").replace("\\_", " ");
            prop_assert_eq!(joined, format!("{line}\r\n"));
        }
    }
}
