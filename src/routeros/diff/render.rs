//! Owns how a diff is written: unified diff text, and the one line that sums it up.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use super::{Change, Diff, Hunk};

/// How [`render`] writes a diff.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style<'a> {
    /// Whether lines are coloured, with the escape sequences of a terminal.
    pub color: bool,
    /// Whether control characters are shown escaped: right for a terminal, which would obey them,
    /// and wrong for `patch`.
    pub escape_controls: bool,
    /// The names of the old and the new text in the first two lines.
    pub labels: (&'a str, &'a str),
}

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

/// So many menus are named in one line.
const MAX_NAMED: usize = 6;

/// Writes `diff` as a unified diff, which `patch` can apply unless it is for a terminal; nothing
/// where nothing changed.
pub fn render(diff: &Diff<'_>, style: &Style<'_>) -> String {
    let mut out = Out {
        text: String::new(),
        color: style.color,
    };
    if diff.is_empty() {
        return out.text;
    }
    out.line(BOLD, "--- ", &label(style.labels.0));
    out.line(BOLD, "+++ ", &label(style.labels.1));
    for hunk in &diff.hunks {
        out.line(CYAN, "", &heading(hunk));
        for line in &hunk.lines {
            let text = match style.escape_controls {
                true => visible(line.text),
                false => Cow::Borrowed(line.text),
            };
            match line.change {
                Change::Kept => out.line("", " ", &text),
                Change::Removed => out.line(RED, "-", &text),
                Change::Added => out.line(GREEN, "+", &text),
            }
            if !line.terminated {
                out.line("", "", "\\ No newline at end of file");
            }
        }
    }
    out.text
}

struct Out {
    text: String,
    color: bool,
}

impl Out {
    fn line(&mut self, color: &str, sign: &str, text: &str) {
        let color = if self.color { color } else { "" };
        self.text.push_str(color);
        self.text.push_str(sign);
        self.text.push_str(text);
        if !color.is_empty() {
            self.text.push_str(PLAIN);
        }
        self.text.push('\n');
    }
}

fn heading(hunk: &Hunk<'_>) -> String {
    let mut heading = format!("@@ -{} +{} @@", range(&hunk.old), range(&hunk.new));
    let menus = named(
        hunk.menus
            .iter()
            .map(String::as_str)
            .filter(|m| !m.is_empty()),
    );
    if !menus.is_empty() {
        heading.push(' ');
        heading.push_str(&menus);
    }
    heading
}

/// `first,count` with lines counted from 1; an empty range names the line before it.
fn range(lines: &Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        count => format!("{},{count}", lines.start + 1),
    }
}

/// A label on one line of its own.
fn label(text: &str) -> String {
    let text = text.chars();
    text.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Control characters, and those that turn the direction of writing, as escapes.
fn visible(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        (c.is_control() && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if harmful(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// See [`Diff::summary`].
pub(super) fn summary(diff: &Diff<'_>) -> String {
    let lines = |count| match count {
        1 => "1 line".to_owned(),
        count => format!("{count} lines"),
    };
    let mut summary = match (diff.added, diff.removed) {
        (0, 0) => "no change".to_owned(),
        (added, 0) => format!("{} added", lines(added)),
        (0, removed) => format!("{} removed", lines(removed)),
        (added, removed) => format!("{} added, {removed} removed", lines(added)),
    };
    let menus = diff.menus.iter().map(|change| match change.menu.as_str() {
        "" => "the header",
        menu => menu,
    });
    let menus = named(menus);
    if !menus.is_empty() {
        let _ = write!(summary, " in {menus}");
    }
    if !diff.unknown_menus.is_empty() {
        let unknown = named(diff.unknown_menus.iter().map(String::as_str));
        let _ = write!(summary, "; not exported by one side: {unknown}");
    }
    summary
}

/// The first few of `menus`, on one line.
fn named<'a>(menus: impl Iterator<Item = &'a str>) -> String {
    let mut named = String::new();
    let mut more = 0;
    for (at, menu) in menus.enumerate() {
        match at {
            MAX_NAMED.. => more += 1,
            0 => named.push_str(&visible(menu)),
            _ => {
                named.push_str(", ");
                named.push_str(&visible(menu));
            }
        }
    }
    if more > 0 {
        let _ = write!(named, " and {more} more");
    }
    named
}
