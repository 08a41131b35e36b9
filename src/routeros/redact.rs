//! Owns the masking of secret values in an export that is to be shown.
//!
//! A logical line without secrets stays as it is, byte by byte. One with secrets is wrapped anew,
//! by its masked text alone: where RouterOS had wrapped it would tell how long the secrets are.
//! Text inside quotes, a script above all, is looked into: what is set like a secret property there
//! (`password=…`, `password=\"…\"`) is masked, too. What a script does in another way, such as
//! `:local pass \"…\"`, nobody can tell from other text.

use std::fmt;
use std::ops::Range;

use super::reader::{self, LineKind, trim_end};
use super::secrets::is_secret;
use super::shape::{Context, Item, plain_menu};
use super::wrapped::may_be_rest;
use crate::domain::digest::Digest;

/// What stands in the place of a secret value, however long that is.
pub const MASK: &str = "*****";

/// The width that RouterOS wraps an export at where there is no terminal, including the `\`.
const WIDTH: usize = 79;
/// How continuation lines begin.
const INDENT: &str = "    ";

/// `text` with [`MASK`] in the place of every secret value.
pub fn redact(text: &str) -> String {
    Redacted::new(text).text
}

/// An export without its secrets. It remembers where they stood and their digests, so that a diff
/// can tell that one changed; `Debug` shows none of this.
#[derive(Clone)]
pub struct Redacted {
    text: String,
    secrets: Vec<Secret>,
}

/// A secret that was masked.
#[derive(Clone, Copy)]
pub(super) struct Secret {
    /// Where its mask begins in the redacted text.
    pub(super) at: usize,
    /// The digest of what stood there.
    pub(super) digest: Digest,
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, secrets) = (self.text.len(), self.secrets.len());
        write!(f, "Redacted({bytes} bytes, {secrets} secrets)")
    }
}

impl Redacted {
    /// Masks every secret value of `text`.
    pub fn new(text: &str) -> Self {
        let mut redacted = Self {
            text: String::with_capacity(text.len()),
            secrets: Vec::new(),
        };
        let mut context = Context::default();
        let mut before = LineKind::Blank;
        for line in reader::lines(text) {
            let whole = &text[line.start..line.end];
            let place = Place::of(line.kind, std::mem::replace(&mut before, line.kind));
            if !matches!(line.kind, LineKind::Config | LineKind::Rest) {
                redacted.text.push_str(whole);
                continue;
            }
            let logical = line.logical();
            let (menu, command, terse) = match Item::parse(&logical) {
                Item::Menu(_) => {
                    context.enter(&logical);
                    redacted.text.push_str(whole);
                    continue;
                }
                Item::Absolute { menu, .. } => (menu, menu.len() + 1, true),
                Item::Relative(_) => (context.menu().unwrap_or_default(), 0, false),
            };
            let secrets = find(&plain_menu(menu), &logical, command);
            if secrets.is_empty() {
                redacted.text.push_str(whole);
            } else {
                let end = &whole[line.raw.len()..];
                redacted.mask(&logical, &secrets, (place, terse), end);
            }
        }
        redacted
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What was masked, in order.
    pub(super) fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// Writes a logical line with masks, wrapped as its form is (terse or not) and its place allows, and
    /// its line `end`.
    fn mask(
        &mut self,
        line: &str,
        secrets: &[Range<usize>],
        (place, terse): (Place, bool),
        end: &str,
    ) {
        let mut masked = String::with_capacity(line.len());
        let mut masks = Vec::with_capacity(secrets.len());
        let mut at = 0;
        for secret in secrets {
            masked.push_str(&line[at..secret.start]);
            masks.push(masked.len());
            masked.push_str(MASK);
            at = secret.end;
        }
        masked.push_str(&line[at..]);
        // Blanks at the end that were content because of what stood before, or of a wrap.
        if !ends_quoted(&masked) {
            masked.truncate(trim_end(&masked).len());
        }

        // A line feed inside quotes is no RouterOS text; it keeps its place. Where a text ends
        // inside quotes, those at its end will be taken for the line's own next time.
        let body = masked.trim_end_matches('\n');
        let mut breaks = match place {
            Place::Rest => Vec::new(),
            _ if body.contains('\n') => Vec::new(),
            _ => breaks(body, &masks, terse),
        };
        let first = masked.split('\n').next().unwrap_or_default();
        if masked.starts_with('#') || (place == Place::BehindComment && may_be_rest(first)) {
            // Only a wrap had kept it from being a comment, or the rest of one.
            breaks.insert(0, 0);
        }
        let feed = if end.is_empty() { "\n" } else { end };
        let wrap = 1 + feed.len() + INDENT.len();
        for (mask, secret) in masks.iter().zip(secrets) {
            let wraps = breaks.partition_point(|place| place <= mask);
            self.secrets.push(Secret {
                at: self.text.len() + mask + wraps * wrap,
                digest: Digest::of(&line[secret.clone()]),
            });
        }
        let mut at = 0;
        for place in breaks {
            self.text.push_str(&masked[at..place]);
            self.text.push('\\');
            self.text.push_str(feed);
            self.text.push_str(INDENT);
            at = place;
        }
        self.text.push_str(&masked[at..]);
        self.text.push_str(end);
    }
}

/// Where a line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is the rest of a comment: one line, whatever stands in it.
    Rest,
    /// Right behind a comment or a rest.
    BehindComment,
    /// Elsewhere.
    Elsewhere,
}

impl Place {
    /// Of a line of `kind` behind one of the kind `before`.
    fn of(kind: LineKind, before: LineKind) -> Self {
        match (kind, before) {
            (LineKind::Rest, _) => Self::Rest,
            (_, LineKind::Comment | LineKind::Rest) => Self::BehindComment,
            _ => Self::Elsewhere,
        }
    }
}

/// Properties whose values an export always shows, but that are not for everybody's eyes.
const ALSO: [&str; 8] = [
    "api-key",
    "authentication-key",
    "community",
    "passwd",
    "read-community",
    "token",
    "trap-community",
    "write-community",
];

/// Ends of the names of such properties.
const ALSO_ENDS: [&str; 5] = ["-api-key", "-passphrase", "-psk", "-secret", "-token"];

/// Such properties of one menu: SNMP communities are passwords, and containers get theirs so.
const ALSO_IN: [(&str, &str); 2] = [("name", "/snmp community"), ("value", "/container envs")];

fn is_masked(menu: &str, property: &str) -> bool {
    let inner = property.rsplit('.').next().unwrap_or(property);
    [property, inner].iter().any(|name| is_secret(menu, name))
        || ALSO.contains(&inner)
        || ALSO_ENDS.iter().any(|end| inner.ends_with(end))
        || ALSO_IN.contains(&(property, menu))
}

/// The secret values of the logical `line`, whose command begins at `from`.
fn find(menu: &str, line: &str, from: usize) -> Vec<Range<usize>> {
    let bytes = line.as_bytes();
    let mut secrets = Vec::new();
    let mut at = from;
    while at < bytes.len() {
        let end = word_end(bytes, at);
        let name = bytes[at..end].iter().take_while(|b| is_name(**b)).count();
        let value = at + name + 1..end;
        if name > 0 && bytes.get(at + name) == Some(&b'=') && value.start <= end {
            if !is_masked(menu, &line[at..at + name]) {
                find_quoted(line, value, &mut secrets);
            } else if !matches!(&line[value.clone()], "" | "\"\"") {
                secrets.push(value);
            }
        } else {
            find_quoted(line, at..end, &mut secrets);
        }
        at = end + 1;
    }
    secrets
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.'
}

/// Where the word that begins at `at` ends: at a blank outside quotes. Quotes and escapes are
/// followed as `reader` does.
fn word_end(bytes: &[u8], mut at: usize) -> usize {
    let mut quoted = false;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => quoted = !quoted,
            b' ' | b'\t' if !quoted => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Whether `line` ends inside quotes.
fn ends_quoted(line: &str) -> bool {
    let mut quoted = false;
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            byte => quoted ^= byte == b'"',
        }
    }
    quoted
}

/// Finds what is set like a secret property inside the value at `within`.
fn find_quoted(line: &str, within: Range<usize>, secrets: &mut Vec<Range<usize>>) {
    let bytes = &line.as_bytes()[..within.end];
    let (mut at, mut name) = (within.start, within.start);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += escape(&bytes[at..]),
            b'=' if name < at && is_masked("", &line[name..at]) => {
                let value = quoted_value(bytes, at + 1);
                at = value.end.max(at + 1);
                if !value.is_empty() {
                    secrets.push(value);
                }
            }
            byte => {
                at += 1;
                if is_name(byte) {
                    continue;
                }
            }
        }
        name = at;
    }
}

/// How long the escape is that `bytes` begin with: `\n`, `\"`, `\1B`.
fn escape(bytes: &[u8]) -> usize {
    let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    match bytes {
        [_, a, b, ..] if hex(a) && hex(b) => 3,
        [_, _, ..] => 2,
        _ => 1,
    }
}

/// The literal value that begins at `from` inside a quoted string; empty where it is computed.
fn quoted_value(bytes: &[u8], from: usize) -> Range<usize> {
    let slashes = bytes[from..].iter().take_while(|b| **b == b'\\').count();
    if slashes % 2 == 1 && bytes.get(from + slashes) == Some(&b'"') {
        return quoted_twice(bytes, from + slashes + 1, slashes);
    }
    // A variable or a command; an expression in parentheses may have a literal in it.
    let expression = match &bytes[from..] {
        [b'\\', b'$', ..] | [b'[', ..] => return from..from,
        [b'(', ..] => true,
        _ => false,
    };
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        match (byte, bytes.get(at + 1)) {
            (b'"', _) | (b'\\', Some(b'r' | b'n')) => break,
            (b'\\', Some(b'"' | b't' | b'_')) if !expression => break,
            (b'\\', _) => at += escape(&bytes[at..]),
            (b' ' | b'\t' | b';' | b']' | b'}' | b')', _) if !expression => break,
            _ => at += 1,
        }
    }
    from..at
}

/// The content of a string inside strings, which begins at `from`. Its quotes have so many
/// `slashes` before them: 1 in a quoted string, 3 in a string inside that.
fn quoted_twice(bytes: &[u8], from: usize, slashes: usize) -> Range<usize> {
    let mut at = from;
    while let Some(quote) = memchr::memchr(b'"', &bytes[at..]).map(|found| at + found) {
        let before = bytes[from..quote].iter().rev();
        let run = before.take_while(|b| **b == b'\\').count();
        if run % 2 == 0 {
            // The string around it ends.
            return from..quote;
        }
        // Each backslash of the content takes twice as many as the quote's, plus two.
        if run % (2 * (slashes + 1)) == slashes {
            return from..quote - slashes;
        }
        at = quote + 1;
    }
    from..bytes.len()
}

/// Where to wrap `line`, in which no mask is cut: between the `\r` and the `\n` of a script, and,
/// unless it is `terse`, where it gets too long: behind a blank or `=` outside quotes, else behind
/// a blank inside them, else anywhere but inside an escape.
fn breaks(line: &str, masks: &[usize], terse: bool) -> Vec<usize> {
    let bytes = line.as_bytes();
    let mut breaks = Vec::new();
    let (mut from, mut quoted, mut indent) = (0, false, 0);
    loop {
        let fits = terse || line.len() - from + indent <= WIDTH;
        let limit = match fits {
            true => line.len(),
            false => from + WIDTH - 1 - indent,
        };
        // The best places so far, each with whether it is inside quotes.
        let (mut outside, mut inside, mut anywhere) = (None, None, None);
        let mut newline = None;
        let mut at = from;
        while at < bytes.len() {
            let byte = bytes[at];
            let length = match byte {
                b'\\' => escape(&bytes[at..]),
                _ if masks.binary_search(&at).is_ok() => MASK.len(),
                _ => 1,
            };
            if at + length > limit {
                break;
            }
            quoted ^= byte == b'"';
            let carriage_return = bytes[at..].starts_with(br"\r\n");
            at += length;
            let place = Some((at, quoted));
            if quoted && carriage_return {
                newline = place;
                break;
            }
            // RouterOS would not take a leading blank for content, and a character is not cut.
            if bytes.get(at) == Some(&b' ') || !line.is_char_boundary(at) {
                continue;
            }
            anywhere = place;
            match byte {
                b' ' if quoted => inside = place,
                b' ' | b'=' if !quoted => outside = place,
                _ => {}
            }
        }
        let width = match fits {
            true => None,
            false => outside.or(inside).or(anywhere),
        };
        let Some((place, in_quotes)) = newline.or(width) else {
            return breaks;
        };
        breaks.push(place);
        (from, quoted, indent) = (place, in_quotes, INDENT.len());
    }
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
