//! Owns the comments that the router wraps onto a second line, which has neither `#` nor `\` to show
//! that it goes on.
//!
//! Seen on 7.19.4: a state comment breaks at the width of the terminal, one letter is lost, and the
//! rest stands behind a blank (facts sheet, §5). What is lost, and whether the blank is one of the
//! text, differs; so a line is the rest of a comment when the two make a comment that a rule of
//! the table knows, with or without a blank and one letter between them. Nothing that could be
//! configuration is such a rest.

use super::comments::{Class, KNOWN, Known, choose};
use super::shape::is_command;

/// How wide RouterOS prints at least: without a terminal its lines have 79 to 81 characters, and no
/// narrower terminal was seen that wrapped a comment (facts sheet, §5).
const WIDTH: usize = 79;

/// No comment is broken after fewer bytes, whatever the terminal. Of less, too many rules would have to
/// be tried.
const LEAST: usize = 8;

/// The comment that was seen wrapped. Its rule knows it wherever it breaks off.
const SENTENCE: &str = "has changed, please restart the device in order to apply the new settings";

/// Whether `line`, which stands right behind `comment`, is the rest of it, in some menu.
pub(super) fn is_rest(comment: &str, line: &str) -> bool {
    comment.len() >= LEAST
        && may_be_rest(line)
        && KNOWN.iter().any(|known| joins(known, comment, line))
}

/// Classifies `comment`, whose rest is `line`, and which stands in `menu`. Static where the joined text
/// can be read in both ways.
pub(super) fn classify_wrapped(menu: &str, comment: &str, line: &str) -> Class {
    if comment.len() < LEAST || !may_be_rest(line) {
        return Class::Unknown;
    }
    choose(
        menu,
        KNOWN.iter().filter(|known| joins(known, comment, line)),
    )
}

/// Whether `line` may be the rest of some comment: one physical line that cannot be configuration,
/// which begins with a command or a menu, or else continues a line or sets a property.
pub(super) fn may_be_rest(line: &str) -> bool {
    // Most lines are told by their first word, which is all that is looked at then.
    let rest = line.trim_start();
    let word = rest.split([' ', '\n']).next().unwrap_or_default();
    !is_command(word)
        && !rest.is_empty()
        && !rest.starts_with(['#', '/', ':', '[', '{', '}'])
        && !rest.contains(['=', '\n', '"'])
        && !rest.trim_end().ends_with('\\')
}

/// Whether `comment` and `line` are one that `known` knows.
fn joins(known: &Known, comment: &str, line: &str) -> bool {
    let (comment, rest) = (comment.trim_end(), line.trim());
    // Most rules are told by either end.
    let begins = comment.starts_with(known.begin) || known.begin.starts_with(comment);
    let ends = rest.ends_with(known.end) || known.end.ends_with(rest);
    if !begins || !ends {
        return false;
    }
    // Where nothing is missing from it, it must at least be long enough to have been broken; and at
    // column 0, only a rule that knows the end of its comment can tell a rest.
    if known.matches(comment) {
        let broken = comment.chars().count() >= WIDTH;
        let rest_like = line.starts_with(' ') || known.rule.pattern.ends_with('$');
        let told = (broken && rest_like) || completes_sentence(comment, rest);
        if !told {
            return false;
        }
    }
    let mut joined = String::with_capacity(comment.len() + rest.len() + 2);
    let mut knows = |between: &[char]| {
        joined.clear();
        joined.push_str(comment);
        joined.extend(between);
        joined.push_str(rest);
        known.matches(&joined)
    };
    knows(&[])
        || knows(&[' '])
        || known
            .letters
            .iter()
            .any(|lost| knows(&[*lost]) || knows(&[' ', *lost]) || knows(&[*lost, ' ']))
}

/// Whether `rest` is what is missing from [`SENTENCE`] at the end of `comment`, but for a letter.
fn completes_sentence(comment: &str, rest: &str) -> bool {
    let Some(at) = comment.find("has changed, please") else {
        return false;
    };
    SENTENCE
        .strip_prefix(&comment[at..])
        .is_some_and(|missing| {
            let missing = missing.trim_start();
            let lost = missing.len().checked_sub(rest.len());
            missing.ends_with(rest) && lost.is_some_and(|lost| lost <= 1)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routeros::rules::{Kind, Rule, rules};
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
            " a\n b",
            " \"quoted\"",
        ] {
            assert!(!is_rest(full, line), "{line:?}");
            assert!(!is_rest("# pppoe-out1 not", line), "{line:?}");
        }
        // Neither is anything behind a comment that is whole already, and not as wide as a terminal.
        assert!(!is_rest("# poe-out status: overload", " and more"));
        assert!(!is_rest(full, "x"), "nothing shows that it is a rest");
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
        fn a_broken_comment_goes_as_a_whole_or_stays_as_a_whole((rule, comment, rest) in broken()) {
            let known = KNOWN.iter().find(|known| known.rule.name == rule.name).unwrap();
            let menu = rule.example.0;
            let text = format!("{menu}\n{comment}\n{rest}\nset a=b\n");
            let without = format!("{menu}\nset a=b\n");
            let normalized = normalize_text(&text);
            prop_assert_eq!(commands(&normalized), commands(&text));
            prop_assert_eq!(&normalize_text(&normalized), &normalized);
            let told = comment.len() >= LEAST && may_be_rest(&rest);
            if told && !KNOWN.iter().any(|known| known.matches(comment.trim_end())) {
                prop_assert!(joins(known, &comment, &rest));
                prop_assert_eq!(commands(&text).len(), 1);
                if rule.kind == Kind::Volatile {
                    prop_assert_eq!(normalized, without);
                    return Ok(());
                }
            }
            let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
            prop_assert!(normalized == without || lines(&normalized) == lines(&text));
        }
    }
}
