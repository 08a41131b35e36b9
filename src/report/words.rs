//! How times, names and columns are written for people.

use std::borrow::Cow;
use std::time::Duration;

use time::UtcOffset;
use time::format_description::FormatItem;
use time::macros::format_description;

use crate::domain::Timestamp;

/// `text` with its control characters escaped: what a router or a message says must not steer the
/// terminal that it is shown on.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// Like [`printable`], for a line of an export: its tabs stay, which a terminal only moves by.
pub fn printable_line(text: &str) -> Cow<'_, str> {
    if !text.contains('\t') {
        return printable(text);
    }
    let parts: Vec<_> = text.split('\t').map(printable).collect();
    Cow::Owned(parts.join("\t"))
}

/// A time to the second, in UTC, as a shell can take it back: `2026-01-02T03:04:05Z`.
pub fn moment(at: Timestamp) -> String {
    const FORM: &[FormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    at.to_offset(UtcOffset::UTC)
        .format(FORM)
        .expect("every part of the format is part of a date and time")
}

/// How long, to one unit: `45 s`, `12 min`, `5 h`, `3 d`; from two of a unit on it is used.
pub fn span(duration: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let seconds = duration.as_secs();
    let (unit, name) = match seconds {
        0..120 => (1, "s"),
        120..7200 => (MINUTE, "min"),
        7200..172_800 => (HOUR, "h"),
        _ => (DAY, "d"),
    };
    format!("{} {name}", seconds / unit)
}

/// How long ago `at` was; what lies ahead of a slow clock is now.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span((now - at).try_into().unwrap_or_default()))
}

/// Columns as wide as their widest cell, two blanks apart; the last one is not padded.
pub fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let pad = width - cell.chars().count() + 2;
            line.extend(std::iter::repeat_n(' ', pad));
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// `1 device`, `2 devices`.
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(printable("SSH-2.0-ROSSSH é"), "SSH-2.0-ROSSSH é");
        assert_eq!(
            printable("SSH-2.0-\u{1b}[2Jx\r\n\u{9b}"),
            "SSH-2.0-\\u{1b}[2Jx\\r\\n\\u{9b}"
        );
        assert_eq!(printable_line("a\tb\u{7}"), "a\tb\\u{7}");
    }

    #[test]
    fn spans_have_one_unit() {
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7199, "119 min"),
            (7200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        let now = datetime!(2026-01-02 03:04:05 UTC);
        assert_eq!(ago(now, now - time::Duration::HOUR), "0 s ago");
        assert_eq!(ago(now - time::Duration::HOUR, now), "60 min ago");
    }

    #[test]
    fn moments_are_in_utc() {
        assert_eq!(
            moment(datetime!(2026-01-02 03:04:05.6 +1)),
            "2026-01-02T02:04:05Z"
        );
    }

    #[test]
    fn columns_line_up_by_characters() {
        let rows = [vec!["é".into(), "1".into()], vec!["ab".into(), "2".into()]];
        assert_eq!(table(&rows), ["é   1", "ab  2"]);
    }
}
