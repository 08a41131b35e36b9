//! Owns the question whether a comment and the lines behind it are one text that a pattern knows, though
//! a letter may be lost at the break.
//!
//! What was lost is looked for among the letters that the pattern has between those at the break: of
//! some twenty that it consists of, few are, and each costs a match. Before that, the ends of the two
//! must be ends of what it matches.

use super::comments::Known;
use super::wrapped::{fills_a_line_but_for_a_blank, is_plain};

/// The comment that was seen wrapped. Its rule knows it wherever it breaks off.
const SENTENCE: &str = "has changed, please restart the device in order to apply the new settings";

/// The characters that mean something in a regular expression.
const META: &[char] = &[
    '\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$',
];

/// What may be lost of what some patterns match, where a line breaks in it.
#[derive(Default)]
pub(super) struct Letters(Vec<Letter>);

/// One character of a pattern, with those that stand beside it in all that it matches; none where that
/// is not known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Letter {
    letter: char,
    before: Option<char>,
    behind: Option<char>,
}

impl Letters {
    /// Of the literal texts of `patterns`, and one letter of each class: that can stand in any place.
    pub(super) fn of<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Self {
        let anywhere = |letter| Letter {
            letter,
            before: None,
            behind: None,
        };
        let mut letters = vec![anywhere('x'), anywhere('0')];
        patterns
            .into_iter()
            .for_each(|pattern| letters.extend(letters_of(pattern)));
        letters.sort_unstable();
        letters.dedup();
        Self(letters)
    }

    /// What may have stood between `before` and `behind`, each once.
    fn between(&self, before: Option<char>, behind: Option<char>) -> Vec<char> {
        let same = |a: char, b: char| a == b || a.eq_ignore_ascii_case(&b);
        let fits = |wanted: Option<char>, found: Option<char>| match (wanted, found) {
            (Some(wanted), Some(found)) => same(wanted, found),
            _ => true,
        };
        let fitting = self
            .0
            .iter()
            .filter(|letter| fits(letter.before, before) && fits(letter.behind, behind));
        // They are sorted by it.
        let mut found: Vec<char> = fitting.map(|letter| letter.letter).collect();
        found.dedup();
        found
    }
}

/// One character of a regular expression that matches itself, or something else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    Quantifier,
    Other,
}

/// The letters of one pattern.
fn letters_of(pattern: &str) -> Vec<Letter> {
    let mut tokens = Vec::new();
    let mut class = false;
    let groups = pattern.replace("(?:", "(");
    let mut characters = groups.chars();
    while let Some(character) = characters.next() {
        let token = match character {
            '\\' => match characters.next() {
                Some(escaped) if !escaped.is_alphanumeric() => Token::Literal(escaped),
                // A class of characters.
                _ => Token::Other,
            },
            '?' | '*' | '+' | '{' => Token::Quantifier,
            meta if META.contains(&meta) => Token::Other,
            literal => Token::Literal(literal),
        };
        class = match character {
            '[' => true,
            ']' => false,
            _ => class,
        };
        tokens.push(token);
        if class {
            // Each of it may stand beside anything.
            tokens.push(Token::Other);
        }
    }
    // Flags may make any character mean another one.
    let flags = groups.contains("(?");
    let beside = |near: Option<&Token>, far: Option<&Token>| match (near, far) {
        // Before what is quantified may stand what is before that.
        (Some(Token::Literal(_)), Some(Token::Quantifier)) => None,
        (Some(Token::Literal(letter)), _) if !flags => Some(*letter),
        _ => None,
    };
    let letters = tokens.iter().enumerate().filter_map(|(at, token)| {
        let Token::Literal(letter) = token else {
            return None;
        };
        let from = |back: usize| at.checked_sub(back).and_then(|at| tokens.get(at));
        Some(Letter {
            letter: *letter,
            before: from(1).and_then(|near| beside(Some(near), None)),
            behind: beside(tokens.get(at + 1), tokens.get(at + 2)),
        })
    });
    letters.collect()
}

/// The literal texts at both ends of `pattern`, which has alternatives in groups only; empty where it
/// is not anchored.
pub(super) fn literals(pattern: &str) -> (&str, &str) {
    let begin = pattern.strip_prefix('^').map_or("", |rest| {
        let end = rest.find(META).unwrap_or(rest.len());
        let optional = rest[end..].starts_with(['?', '*', '{', '+']);
        let last = rest[..end].char_indices().next_back();
        // What is quantified need not be there.
        match last {
            Some((at, _)) if optional => &rest[..at],
            _ => &rest[..end],
        }
    });
    let end = pattern.strip_suffix('$').map_or("", |rest| {
        let at = rest.rfind(META).map_or(0, |at| at + 1);
        // An escape belongs to the character behind it.
        let escape = rest[..at].ends_with('\\');
        let first = rest[at..].chars().next().map_or(0, char::len_utf8);
        &rest[at + if escape { first } else { 0 }..]
    });
    (begin, end)
}

/// The literal text that all begins with that `pattern` matches; empty where there may be none.
pub(super) fn literal_begin(pattern: &str) -> &str {
    let (mut depth, mut class, mut escaped) = (0, false, false);
    for character in pattern.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => class = true,
            ']' => class = false,
            _ if class => {}
            '(' => depth += 1,
            ')' => depth -= 1,
            '|' if depth == 0 => return "",
            _ => {}
        }
    }
    literals(pattern).0
}

/// Whether a text that ends in `end` may be broken behind `comment`, so that `last` comes behind it, and a
/// blank and a letter may be lost between them.
fn may_end(comment: &str, last: &str, end: &str) -> bool {
    let without_last = |text: &str| {
        let mut characters = text.chars();
        characters.next_back();
        comment.ends_with(characters.as_str().trim_end())
    };
    last.ends_with(end)
        || end.strip_suffix(last).is_some_and(|head| {
            comment.ends_with(head.trim_end())
                || without_last(head)
                || without_last(head.trim_end())
        })
}

/// Whether `comment` and `rest` are one that `known` knows.
pub(super) fn joins(known: &Known, comment: &str, rest: &str) -> bool {
    let comment = comment.trim_end();
    // Most rules are told by either end, and most of the others by how little there is: at two breaks, four
    // characters may be lost.
    if comment.len() + rest.len() + 4 < known.shortest {
        return false;
    }
    let begins = comment.starts_with(known.begin) || known.begin.starts_with(comment);
    let ends = || match rest.trim_end().rsplit_once('\n') {
        None => known
            .ends
            .iter()
            .any(|end| may_end(comment, rest.trim(), end)),
        Some((_, last)) => {
            let last = last.trim();
            let fits = |end: &String| last.ends_with(end.as_str()) || end.ends_with(last);
            known.ends.iter().any(fits)
        }
    };
    if !begins || !ends() {
        return false;
    }
    // Where nothing is missing from it, it must at least be long enough to have been broken; and behind a
    // beginning, what has a property or a quote may be anything.
    if known.matches(comment) {
        if !known.knows_its_end() && !is_plain(rest) {
            return false;
        }
        let told =
            fills_a_line_but_for_a_blank(comment) || completes_sentence(comment, rest.trim());
        if !told {
            // A rule that knows a beginning was shown one end.
            let (_, example) = known.rule.example;
            return any_joined(comment, rest, &known.letters, |joined| joined == example);
        }
    }
    any_joined(comment, rest, &known.letters, |joined| {
        known.matches(joined)
    })
}

/// Whether `knows` one of the texts that `comment` and the lines of its `rest` may have been: with a
/// blank or without, and with one of `letters` lost at one of the breaks.
pub(super) fn any_joined(
    comment: &str,
    rest: &str,
    letters: &Letters,
    mut knows: impl FnMut(&str) -> bool,
) -> bool {
    let comment = comment.trim_end();
    let lines = || rest.trim_end().split('\n').map(str::trim);
    let mut joined = String::with_capacity(comment.len() + rest.len() + 4);
    let mut try_one = |lossy: usize, between: &[char], elsewhere: &str| {
        joined.clear();
        joined.push_str(comment);
        for (at, line) in lines().enumerate() {
            if at == lossy {
                joined.extend(between);
            } else {
                joined.push_str(elsewhere);
            }
            joined.push_str(line);
        }
        knows(&joined)
    };
    let breaks = lines().count();
    let elsewhere = if breaks == 1 { &[""][..] } else { &["", " "] };
    let mut before = comment;
    lines().enumerate().any(|(at, line)| {
        let last = before.chars().next_back();
        let first = line.chars().next();
        before = line;
        let blank = Some(' ');
        elsewhere.iter().any(|other| {
            try_one(at, &[], other)
                || try_one(at, &[' '], other)
                || letters
                    .between(last, first)
                    .iter()
                    .any(|lost| try_one(at, &[*lost], other))
                || letters
                    .between(blank, first)
                    .iter()
                    .any(|lost| try_one(at, &[' ', *lost], other))
                || letters
                    .between(last, blank)
                    .iter()
                    .any(|lost| try_one(at, &[*lost, ' '], other))
                || letters
                    .between(blank, blank)
                    .iter()
                    .any(|lost| try_one(at, &[' ', *lost, ' '], other))
        })
    })
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
    use super::*;
    use crate::routeros::comments::KNOWN;

    /// The same letters, in any place.
    fn anywhere(Letters(letters): &Letters) -> Letters {
        let mut letters = letters.clone();
        for letter in &mut letters {
            (letter.before, letter.behind) = (None, None);
        }
        letters.dedup();
        Letters(letters)
    }

    #[test]
    fn few_letters_are_tried_and_none_is_missed() {
        for known in KNOWN.iter() {
            let example = known.rule.example.1.trim_end();
            let all = anywhere(&known.letters);
            for at in 2..example.len() {
                for lost in 0..2 {
                    let (comment, rest) = (&example[..at], &example[at + lost..]);
                    if rest.trim().is_empty() {
                        continue;
                    }
                    let found = |letters: &Letters| {
                        let mut tried = 0;
                        let found = any_joined(comment, rest, letters, |joined| {
                            tried += 1;
                            joined == example
                        });
                        let known = any_joined(comment, rest, letters, |it| known.matches(it));
                        (found, known, tried)
                    };
                    let (few, all) = (found(&known.letters), found(&all));
                    assert_eq!(few.1, all.1, "{comment}\n{rest}");
                    assert!(few.0 <= all.0, "{comment}\n{rest}");
                    let tried = few.2;
                    assert!(tried <= 30, "{tried}: {comment}\n{rest}");
                }
            }
        }
    }

    #[test]
    fn a_rule_whose_end_does_not_fit_is_not_tried() {
        for (comment, rest, end, fits) in [
            ("# wan not rea", "dy", " not ready", true),
            ("# wan not re", "dy", " not ready", true),
            ("# wan not", "eady", " not ready", true),
            ("# wan not", "ready", " not ready", true),
            ("# wan no", " ready", " not ready", true),
            ("# wan", "not ready", " not ready", true),
            ("# wa", " is not ready", " not ready", true),
            ("# wan", "dy", " not ready", false),
            ("# wan not r", "dy", " not ready", false),
            ("# wan not ready", "x", " not ready", false),
        ] {
            assert_eq!(
                may_end(comment, rest.trim(), end),
                fits,
                "{comment}\n{rest}"
            );
        }
    }

    #[test]
    fn the_letters_of_a_pattern_stand_where_it_has_them() {
        let between = |pattern: &str, before, behind| {
            let found = Letters::of([pattern]).between(Some(before), Some(behind));
            found
                .into_iter()
                .filter(|c| !"x0#".contains(*c))
                .collect::<String>()
        };
        for (pattern, before, behind, found) in [
            ("^# abc$", 'a', 'c', "b"),
            ("^# abcde$", 'a', 'b', ""),
            ("^# abc$", 'b', 'z', "c"),
            ("^# ab?cd$", 'a', 'd', "bc"),
            ("^# ab?cd$", '/', 'c', ""),
            ("^# ab?cd$", ' ', 'c', "a"),
            ("^# .+abc$", '/', 'b', "a"),
            ("^# [abc]de$", '/', 'd', "abc"),
            ("^# (?:ab|cd)ef$", 'a', 'e', "b"),
            ("^# (?:ab|cd)ef$", '/', 'b', "a"),
            (r"^# a\(b$", 'a', 'b', "("),
            (r"^# a\db$", '/', 'c', "b"),
            ("(?i)^# ABC$", '/', '/', " ABCi"),
            ("^# ABC$", 'a', 'c', "B"),
        ] {
            assert_eq!(between(pattern, before, behind), found, "{pattern}");
        }
    }

    #[test]
    fn the_literal_begin_is_one_of_all_it_matches() {
        for (pattern, begin) in [
            ("^# abc$", "# abc"),
            ("^# a|^# b", ""),
            ("^# a(?:b|c)", "# a"),
            (r"^# a\(b|c", ""),
            (r"^# a\|c", "# a"),
            ("^# a[|(]c", "# a"),
            ("(?i)^# a", ""),
            ("radar", ""),
        ] {
            assert_eq!(literal_begin(pattern), begin, "{pattern}");
        }
    }
}
