//! Owns the comments that the router wraps onto further lines, which have neither `#` nor `\` to show
//! that they go on.
//!
//! Seen on 7.19.4: a state comment breaks at the width of the terminal, one letter is lost, and the
//! rest stands behind a blank (facts sheet, §5), which is all of it where no more than that letter was to
//! come. On 7.20.6 nothing is lost, and the rest stands at column 0 (file index 53138200155). What is
//! lost, and whether the blank is one of the text, differs. So a line right behind a comment is its rest
//! - when the comment fills a line of the terminal: new texts come with every release, and are wrapped
//!   as the others are; so may be the rest of such a comment, once,
//! - or, however long the comment is, when the two make one that a rule of the table knows, with or
//!   without a blank and one letter between them.
//!
//! No configuration is a rest. It begins with a menu or a verb at column 0, and what goes on with a line
//! that lost its backslash begins with a property or a quoted value behind four blanks. A line that
//! begins as one of these, but stands where RouterOS prints none of them (behind one to three blanks; at
//! column 0 only what is neither menu, verb nor command), is a rest when the comment fills a line and
//! a rule knows the two together that does not know the comment alone; or when it is the tail of a
//! channel, such as ` /ax` of `5180/ax`. What has a property as well never is, nor what ends in a
//! backslash. A rest is one physical line, whatever quotes are in it: half of a quoted name opens no
//! string in which configuration would be lost.
//!
//! What is not recognised, and counts as lines that should not be there (`complete`): the rest of an
//! unknown comment narrower than a terminal, or of a narrow one that is whole for one of its rules
//! (`mode: AP, SSID: …`, `managed by CAPsMAN …`), unless a configured pattern knows both; a fourth line, and
//! a third one behind a rest with `=` or a quote; a rest that begins with a property (a name such as
//! `a=b` that broke right before it); one that begins with a verb, a quote or a bracket, behind a comment
//! that no rule knows or that goes on for three lines. With such a line under it a comment stays, known
//! or not, so this is a false change at worst. With half of a quoted name in it, it opens a string, and
//! the export is refused if nothing closes it. At column 0 the tail of a channel may read as a menu
//! (`/ax`): then it is one, for whatever follows it.

use super::comments::{Class, KNOWN, Known, choose};
use super::header;
use super::joined::joins;
use super::shape::{Item, is_command, is_command_without_its_first_letter};

/// How wide RouterOS prints at least: without a terminal its lines have 79 to 81 characters, and no
/// narrower terminal was seen that wrapped a comment (facts sheet, §5).
const WIDTH: usize = 79;

/// How far RouterOS indents what goes on with a line of configuration.
const INDENT: usize = 4;

/// No comment is broken after fewer bytes, whatever the terminal. Of less, too many rules would have to
/// be tried.
const LEAST: usize = 8;

/// Whether the physical `line` is a rest of what stands right `before` it: a comment, or its first rest.
pub(super) fn is_rest(before: &str, line: &str) -> bool {
    let look = Look::of(line);
    if look == Look::Configuration || header::dated_version(before).is_some() {
        return false;
    }
    match (before.starts_with('#'), fills_a_line(before)) {
        (true, true) => look == Look::Prose || is_needed(before, line),
        (true, false) => look == Look::Prose && is_plain(line) && is_known(before, line),
        (false, wide) => look == Look::Prose && wide && is_plain(before),
    }
}

/// What a line looks like, wherever it stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It may be configuration, and so never is a rest.
    Configuration,
    /// It begins as configuration does, but is none that RouterOS prints.
    Doubtful,
    /// It may be the rest of any comment.
    Prose,
}

impl Look {
    fn of(line: &str) -> Self {
        let text = line.trim();
        let blanks = line.len() - line.trim_start_matches(' ').len();
        let indent = line.len() - line.trim_start().len();
        let at_margin = indent == 0;
        // RouterOS puts one blank before a rest, which may begin with one of its own, and four before what
        // goes on with a line.
        let shifted = blanks == indent && (1..INDENT).contains(&blanks);
        let doubtful = |may: bool| match may && !text.contains('=') {
            true => Self::Doubtful,
            false => Self::Configuration,
        };
        if text.ends_with('\\') {
            return Self::Configuration;
        }
        match text.as_bytes() {
            [] => Self::Configuration,
            [b'/', behind @ ..] => {
                let menu = behind.is_empty() || !matches!(Item::parse(text), Item::Relative(_));
                match (shifted, menu) {
                    (true, true) => doubtful(true),
                    (true, false) => Self::of_prose(text),
                    (false, menu) => doubtful(at_margin && !menu),
                }
            }
            // Commands have names in small letters.
            [b':', behind @ ..] => {
                doubtful(shifted && !behind.first().is_some_and(u8::is_ascii_lowercase))
            }
            [b'#', ..] => doubtful(shifted),
            [b'[' | b'{' | b'}' | b'"' | b'\\', ..] => doubtful(shifted || at_margin),
            _ if is_command(first_name(text)) => doubtful(shifted),
            _ => Self::of_prose(text),
        }
    }

    /// Of a line that begins with nothing that shows what it is: unless with a property, or with a verb
    /// that lost its first letter and has one.
    fn of_prose(text: &str) -> Self {
        let word = text.split(char::is_whitespace).next().unwrap_or_default();
        let is_item = text.contains('=')
            && (word.contains('=') || is_command_without_its_first_letter(first_name(text)));
        match is_item {
            true => Self::Configuration,
            false => Self::Prose,
        }
    }
}

/// Whether the `rest` right behind `comment` shows that it is one: a rule knows it, or it is indented, as
/// RouterOS was seen to print it, and no rule knows that the comment has ended.
pub(super) fn is_told(comment: &str, rest: &str) -> bool {
    let ended = |known: &Known| known.knows_its_end() && known.matches(comment.trim_end());
    is_known(comment, rest) || (rest.starts_with(' ') && !KNOWN.iter().any(ended))
}

/// Whether `comment` may lack its last letter alone: then the line behind it is blank.
pub(super) fn may_lack_a_letter(comment: &str) -> bool {
    fills_a_line(comment) && is_known(comment, "")
}

/// Whether a rule knows `comment` together with its `rest`, which may be two lines, in some menu.
pub(super) fn is_known(comment: &str, rest: &str) -> bool {
    comment.trim_end().len() >= LEAST && KNOWN.iter().any(|known| joins(known, comment, rest))
}

/// Whether `line`, which begins as configuration does, is what `comment` lacks: a rule knows the two
/// together that does not know the comment alone, or they break before the slash of a channel.
fn is_needed(comment: &str, line: &str) -> bool {
    let text = line.trim();
    let tail = text.starts_with('/') && !text.contains(char::is_whitespace);
    let needed = |known: &&Known| tail || !known.matches(comment.trim_end());
    let mut known = KNOWN.iter().filter(needed);
    known.any(|known| joins(known, comment, line))
}

/// Classifies `comment`, which stands in `menu`, with its `rest`.
pub(super) fn classify_wrapped(menu: &str, comment: &str, rest: &str) -> Class {
    if comment.trim_end().len() < LEAST {
        return Class::Unknown;
    }
    choose(
        menu,
        KNOWN.iter().filter(|known| joins(known, comment, rest)),
    )
}

/// Whether `line` has at least the width of a terminal.
pub(super) fn fills_a_line(line: &str) -> bool {
    is_as_wide_as(WIDTH, line)
}

/// The same, where the last character may have been a blank, which goes.
pub(super) fn fills_a_line_but_for_a_blank(line: &str) -> bool {
    is_as_wide_as(WIDTH - 1, line)
}

fn is_as_wide_as(width: usize, line: &str) -> bool {
    let line = line.trim_end();
    line.len() >= width && line.chars().count() >= width
}

/// Whether `line`, which may be a whole text, begins with a command at column 0: so do most lines behind a
/// comment, and no rest does.
pub(super) fn begins_with_command(line: &str) -> bool {
    is_command(first_name(line))
}

/// Whether `line` begins as a line of an export does: with a menu, a command of the console, or a verb.
/// RouterOS indents none of them; a verb with a property may be indented by whoever wrote it.
pub(super) fn begins_as_configuration(line: &str) -> bool {
    match line.as_bytes().first() {
        Some(b'/') => match Item::parse(line) {
            Item::Menu(_) => true,
            Item::Absolute { command, .. } => is_command(first_name(command)),
            Item::Relative(_) => false,
        },
        Some(b':') => true,
        Some(b' ' | b'\t') => is_command(first_name(line.trim_start())) && line.contains('='),
        _ => is_command(first_name(line)),
    }
}

/// Whether the physical `line` may be the rest of some comment: it cannot be configuration, nor what
/// goes on with a line of it.
pub(super) fn may_be_rest(line: &str) -> bool {
    Look::of(line) != Look::Configuration
}

/// The same of a line behind a comment that is narrower than a terminal, where neither a property nor
/// a quote may be in it.
pub(super) fn may_be_plain_rest(line: &str) -> bool {
    !line.contains('\n') && is_plain(line) && Look::of(line) == Look::Prose
}

/// Whether `line` has neither a property nor a quote in it.
pub(super) fn is_plain(line: &str) -> bool {
    !line.contains(['=', '"'])
}

/// The name that `line` begins with; may be empty.
fn first_name(line: &str) -> &str {
    let other = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'-';
    let end = line.bytes().position(other).unwrap_or(line.len());
    &line[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routeros::rules::{Rule, rules};
    use crate::routeros::{commands, normalize_text};

    const RESTART: &str =
        "# ipv6 neighbor configuration has changed, please restart the device in order to";

    #[test]
    fn the_rest_of_a_wrapped_comment_is_the_rest_of_its_sentence() {
        assert!(is_rest(RESTART, " pply the new settings"));
        assert!(is_rest(RESTART, " apply the new settings"));
        let narrow = "# ipv6 neighbor configuration has changed, please restart the";
        assert!(is_rest(narrow, " evice in order to apply the new settings"));
        assert!(!is_rest(narrow, " ice in order"), "two letters are lost");
        let short = "# a configuration has changed, please restart the device in order to";
        assert!(is_rest(short, " pply the new settings"));
        assert!(
            !is_rest(short, " ly the new settings"),
            "two letters are lost"
        );
        assert!(is_rest(RESTART, "pply the new settings"));
        for other in [" name=a", " ", ""] {
            assert!(!is_rest(RESTART, other), "{other:?}");
        }
        assert!(!is_rest("# inactive time", " pply the new settings"));
    }

    #[test]
    fn every_rule_knows_its_comment_across_a_break() {
        for (comment, line) in [
            (
                "# channel: 5500/20-Ceee/ac/DP(17dBm), SSID: The network of the guests, CAPsMAN f",
                " rwarding",
            ),
            (
                "# channel: 5500/20-Ceee/ac/DP(17dBm), SSID: The network of the guests, CAPsMAN",
                " orwarding",
            ),
            (
                "# managed by CAPsMAN 02:00:5E:00:53:01%bridge, traffic processing on CAP-of-the-",
                "northern-hall",
            ),
            (
                "# managed by CAPsMAN 02:00:5E:00:53:01%bridge-of-the-management-lan, traffic pro",
                " essing on CAP",
            ),
            (
                "# mode: AP, SSID: The network of the guests in the northern hall, channel: 5180/",
                " x/Ceee",
            ),
            (
                "# PPTP connections are considered unsafe, it is suggested to use a more modern VP",
                "  protocol instead",
            ),
            (
                "# the-interface-of-the-customer-with-the-longest-name-in-all-of-the-network not r",
                " ady",
            ),
        ] {
            assert!(is_rest(comment, line), "{comment}\n{line}");
        }
    }

    #[test]
    fn what_could_be_configuration_is_no_rest() {
        let full =
            "# mode: AP, SSID: The network of the guests in the northern hall, channel: 5180/";
        for line in [
            "add name=a",
            " add",
            " set disabled=no",
            " dd name=a",
            " remove 0",
            "/ip address",
            " /ip address",
            " x=y",
            " # inactive time",
            " :log info x",
            " x \\",
            " \"quoted\"",
        ] {
            assert!(!is_rest(full, line), "{line:?}");
            assert!(!is_rest("# pppoe-out1 not", line), "{line:?}");
        }
        // Neither is anything behind a comment that is whole already, and not as wide as a terminal.
        assert!(!is_rest("# poe-out status: overload", " and more"));
        let unknown =
            "# the address of this interface was given up because another router claims it, or";
        assert!(
            !is_told(unknown, "x") && is_told(unknown, " x"),
            "at column 0 nothing shows that it is a rest"
        );
        assert!(is_told(full, "x"), "but the rule that knows it");
    }

    fn broken() -> impl Strategy<Value = (&'static Rule, String, String)> {
        let long: Vec<&Rule> = rules()
            .iter()
            .filter(|rule| rule.example.1.len() > 8)
            .collect();
        let cut = (
            prop::sample::select(long),
            any::<prop::sample::Index>(),
            0..4,
        );
        cut.prop_map(|(rule, at, how)| {
            let text = rule.example.1.trim_end();
            let at = 2 + at.index(text.len() - 2);
            let (comment, rest) = text.split_at(at);
            let rest = match how {
                0 => rest.to_owned(),
                1 => format!(" {rest}"),
                2 => format!(" {}", &rest[1..]),
                // The blank was printed, the letter behind it was not.
                _ => match rest.strip_prefix(' ') {
                    Some(rest) => format!(" {}", rest.get(1..).unwrap_or_default()),
                    None => format!(" {rest}"),
                },
            };
            (rule, comment.to_owned(), rest)
        })
    }

    proptest! {
        #[test]
        fn the_order_of_the_table_means_nothing_for_wrapped_ones(
            (rule, comment, rest) in broken(),
            table in Just((0..KNOWN.len()).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            if comment.trim_end().len() < LEAST {
                return Ok(());
            }
            let menu = rule.example.0;
            let known = table.into_iter().map(|at| &KNOWN[at]).filter(|known| joins(known, &comment, &rest));
            prop_assert_eq!(choose(menu, known), classify_wrapped(menu, &comment, &rest));
        }

        #[test]
        fn a_broken_comment_goes_as_a_whole_or_stays_as_a_whole((rule, comment, rest) in broken()) {
            let known = KNOWN.iter().find(|known| known.rule.name == rule.name).unwrap();
            let menu = rule.example.0;
            let text = format!("{menu}\n{comment}\n{rest}\nset a=b\n");
            let without = format!("{menu}\nset a=b\n");
            let normalized = normalize_text(&text);
            prop_assert_eq!(commands(&normalized), commands(&text));
            prop_assert_eq!(&normalize_text(&normalized), &normalized);
            let told = comment.trim_end().len() >= LEAST && may_be_plain_rest(&rest);
            if told && !KNOWN.iter().any(|known| known.matches(comment.trim_end())) {
                prop_assert!(joins(known, &comment, &rest));
                prop_assert_eq!(commands(&text).len(), 1);
                prop_assert_eq!(normalized, without);
                return Ok(());
            }
            let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
            prop_assert!(normalized == without || lines(&normalized) == lines(&text));
        }
    }
}
