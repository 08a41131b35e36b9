//! Owns the question whether an export is whole: RouterOS prints no end marker, so every sign of
//! a cut counts.

use std::borrow::Cow;

use super::comments::ErrorLine;
use super::console;
use super::header;
use super::normalizer::Normalizer;
use super::reader::{self, Line, LineKind};
use super::shape::{Context, Item, is_at_or_below, plain_menu};
use super::suspicion::{StrayLike, Suspicion};
use super::wrapped;
use crate::domain::digest::Hasher;

/// What reading an export from top to bottom showed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Findings {
    /// Why it is not whole, in words that carry no configuration; `None` when it is.
    pub(super) cut: Option<String>,
    /// Menus that did not answer, in order: their configuration is missing.
    pub(super) incomplete_menus: Vec<String>,
    /// Menus that this machine does not have, in order: nothing is missing.
    pub(super) unavailable_menus: Vec<String>,
    /// Lines that no export has, if there are any: why it should be read again.
    pub(super) stray: Option<Suspicion>,
}

/// At most so many menus are listed; RouterOS has a few hundred.
const MAX_LISTED: usize = 1000;

/// Reads `text`, which begins with an export header. A comment at the end that `normalizer` ignores is
/// no sign: whoever configured it says that it stands before nothing.
///
/// Measured on 20 real cuts and 1,688 other exports, the signs for a missing line feed, an open
/// quote, a due continuation and a menu without an item find all cuts and raise no false alarm on
/// what no editor has touched (facts sheet, §4).
///
/// A line that is neither a menu nor a command nor a comment, with all that was wrapped of it, is none
/// that RouterOS prints into an export: something else has written there, perhaps instead of what is
/// missing. What is known to be an error is a cut; of another nobody knows, so the export is a suspect.
pub(super) fn examine(text: &str, normalizer: &Normalizer) -> Findings {
    let mut findings = Findings::default();
    let mut context = Context::default();
    let mut place = Place::default();
    // What the lines at the end leave open: a menu, and comments (where the first begins).
    let mut bare_menu = false;
    let mut held_from = None;
    let mut last_comment: Option<Line<'_>> = None;
    let mut strays = Strays::default();
    let mut begun = false;
    let mut terminated = true;
    let bare_return = has_bare_return(text);
    for line in reader::lines(text) {
        terminated = line.terminated;
        let comment = last_comment.take();
        if line.kind == LineKind::Comment {
            last_comment = Some(line);
        }
        if line.kind == LineKind::Config {
            place.note(line.raw);
        }
        let cut = match line.kind {
            _ if bare_return && line.terminated && bare_return_outside_quotes(line.raw) => {
                Some("a carriage return without its line feed stands in it".into())
            }
            LineKind::Blank => None,
            LineKind::Comment => match ErrorLine::parse(line.raw) {
                Some(ErrorLine::Interrupted) => {
                    Some("the router interrupted the export (\"#interrupted\")".into())
                }
                Some(ErrorLine::Failed { menu, harmless }) => {
                    let menus = if harmless {
                        &mut findings.unavailable_menus
                    } else {
                        &mut findings.incomplete_menus
                    };
                    if menus.len() < MAX_LISTED && !menus.iter().any(|known| known == menu) {
                        // PostgreSQL can store any character but this one.
                        menus.push(menu.replace('\0', "\u{fffd}"));
                    }
                    if bare_menu && stands_in(menu, &context) {
                        bare_menu = false;
                    }
                    None
                }
                None if begun && header::dated_version(line.raw).is_some() => {
                    Some("another export begins in it".into())
                }
                None => {
                    held_from.get_or_insert(line.start);
                    begun = true;
                    None
                }
            },
            LineKind::Rest => {
                let error = stray_error(line.raw);
                let told = |comment| is_told(text, &comment, normalizer);
                if error.is_none() && !comment.is_none_or(told) {
                    strays.note(&place, &line, comment.is_some());
                }
                error
            }
            LineKind::Config if line.open_quote => Some("it ends inside a quoted string".into()),
            LineKind::Config if line.dangling => Some("it ends where a line goes on".into()),
            LineKind::Config if begins_as_configuration(&line) => {
                bare_menu = context.enter(line.raw);
                held_from = None;
                None
            }
            LineKind::Config
                if comment.is_some_and(|c| normalizer.ignores_across(c.raw, line.raw)) =>
            {
                None
            }
            LineKind::Config => {
                strays.note(&place, &line, comment.is_some());
                stray_error(line.raw)
            }
        };
        if let Some(cut) = cut {
            findings.cut = Some(place.located(&cut, line.end));
            return findings;
        }
    }
    let cut = if text.ends_with('\r') {
        Some("it ends between carriage return and line feed".to_owned())
    } else if !terminated {
        Some("its last line does not end".to_owned())
    } else {
        let held = held_from.filter(|_| context.menu().is_some());
        let comment_held = held.is_some_and(|from| holds_comment(text, from, normalizer));
        let what = match (comment_held, bare_menu) {
            // New texts come with every release; all of them stand before an item.
            (true, _) => Some("the state comment of an item that is missing"),
            (false, true) => Some("a menu without an item"),
            (false, false) => None,
        };
        what.map(|what| format!("it ends after {what}"))
    };
    findings.cut = cut.map(|cut| place.located(&cut, text.len()));
    findings.stray = strays.suspicion(text);
    findings
}

/// Lines that should not be there.
#[derive(Default)]
struct Strays<'a> {
    lines: u64,
    /// The first one, its menu, and whether it stands behind a comment.
    first: Option<(Line<'a>, Option<&'a str>, bool)>,
    /// All of them.
    hasher: Hasher,
}

impl<'a> Strays<'a> {
    fn note(&mut self, place: &Place<'a>, line: &Line<'a>, behind_comment: bool) {
        self.first
            .get_or_insert((*line, place.menu, behind_comment));
        self.lines += 1;
        for part in [place.menu.unwrap_or_default(), line.raw] {
            self.hasher.update((part.len() as u64).to_be_bytes());
            self.hasher.update(part);
        }
    }

    fn suspicion(self, text: &str) -> Option<Suspicion> {
        let (line, menu, behind_comment) = self.first?;
        let before = &text.as_bytes()[..line.start];
        Some(Suspicion::StrayLines {
            lines: self.lines,
            number: 1 + memchr::memchr_iter(b'\n', before).count() as u64,
            menu: menu.unwrap_or_default().to_owned(),
            like: match (behind_comment, line.kind) {
                (true, LineKind::Rest) => StrayLike::Rest(console::quote(line.raw)),
                (true, _) => StrayLike::BehindComment,
                (false, _) => StrayLike::Anything,
            },
            digest: self.hasher.finish(),
        })
    }
}

/// Whether a line of configuration begins as one, even if it is wrapped in its first words.
fn begins_as_configuration(line: &Line<'_>) -> bool {
    wrapped::begins_as_configuration(line.raw)
        || (line.wrapped
            && line.raw.trim_start().starts_with(['/', '\\'])
            && wrapped::begins_as_configuration(&line.logical()))
}

/// Whether the rest behind `comment` shows that it is one, or is ignored. Another line behind a wide
/// comment may be anything.
#[cold]
fn is_told(text: &str, comment: &Line<'_>, normalizer: &Normalizer) -> bool {
    // Both rests that it may have, and no more of the text: this is asked for every such comment.
    let feed =
        |from: usize| memchr::memchr(b'\n', &text.as_bytes()[from..]).map(|at| from + at + 1);
    let end = feed(comment.end).map_or(text.len(), |end| feed(end).unwrap_or(text.len()));
    let behind = reader::lines_in(text, comment.start..end).skip(1);
    let rests = behind.take_while(|line| line.kind == LineKind::Rest);
    let end = rests.last().map_or(comment.end, |rest| rest.end);
    let rest = &text[comment.end..end];
    wrapped::is_told(comment.raw, rest) || normalizer.ignores_wrapped(comment.raw, rest).is_some()
}

/// Whether `menu`, which the router says it does not have or could not export, is the current one or
/// below it: then nothing was to come in it.
fn stands_in(menu: &str, context: &Context) -> bool {
    let current = context.menu().map(plain_menu);
    current.is_some_and(|current| is_at_or_below(&plain_menu(menu), &current))
}

/// Whether a comment stands behind `from` that is no error line and not ignored. Asked only at the end:
/// the patterns cost more than all other questions here.
fn holds_comment(text: &str, from: usize, normalizer: &Normalizer) -> bool {
    let mut lines = reader::lines_in(text, from..text.len()).peekable();
    while let Some(line) = lines.next() {
        if line.kind != LineKind::Comment || ErrorLine::parse(line.raw).is_some() {
            continue;
        }
        let mut end = line.end;
        while let Some(rest) = lines.next_if(|next| {
            next.kind == LineKind::Rest
                || (end == line.end && normalizer.ignores_across(line.raw, next.raw))
        }) {
            end = rest.end;
        }
        let ignored = match end > line.end {
            true => normalizer.ignores_wrapped(line.raw, &text[line.end..end]),
            false => normalizer.ignores(line.raw),
        };
        if ignored.is_none() {
            return true;
        }
    }
    false
}

/// An error of the console where configuration should stand.
fn stray_error(line: &str) -> Option<Cow<'static, str>> {
    console::error_line(line)?;
    let words = console::quote(line);
    Some(format!("an error of the router's console stands in it: {words}").into())
}

/// Whether a carriage return belongs to no line end. At the end of the text it is a cut of its own.
fn has_bare_return(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'\r', bytes)
        .any(|at| !matches!(bytes.get(at + 1), None | Some(b'\r' | b'\n')))
}

/// Whether one stands in `line` where RouterOS prints none: inside quotes it may be part of a note
/// over several lines.
fn bare_return_outside_quotes(line: &str) -> bool {
    let mut in_quote = false;
    let mut bytes = line.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next_if(|next| *next != b'\r');
            }
            b'"' => in_quote = !in_quote,
            b'\r' if !in_quote && !matches!(bytes.peek(), Some(b'\r' | b'\n')) => return true,
            _ => {}
        }
    }
    false
}

/// Where reading has come to, for messages.
#[derive(Default)]
struct Place<'a> {
    menu: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn note(&mut self, line: &'a str) {
        match Item::parse(line) {
            Item::Menu(menu) | Item::Absolute { menu, .. } => self.menu = Some(menu),
            Item::Relative(_) => {}
        }
    }

    fn located(&self, cut: &str, bytes: usize) -> String {
        match self.menu {
            Some(menu) => format!(
                "{cut}, after {bytes} bytes, in menu {}",
                console::escape(menu)
            ),
            None => format!("{cut}, after {bytes} bytes"),
        }
    }
}

#[cfg(test)]
#[path = "complete_tests.rs"]
mod tests;
