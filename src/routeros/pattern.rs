//! Owns the matching of the table's patterns without an automaton, which would cost several times as
//! much as all else that is done with a comment.
//!
//! They are regular expressions of few forms: literal texts, and between them runs of any
//! characters or of those of one class. So there is one place at most at which the text behind a run
//! has to be looked for, and a comment is passed once. A pattern of another form is left to the regular
//! expression, and so are characters beyond ASCII where a class is asked for.

use memchr::memmem::Finder;
use regex::Regex;

/// A compiled pattern.
pub(super) struct Pattern {
    regex: Regex,
    /// The literal text that all it matches begins with.
    begin: &'static str,
    /// What may stand behind it, one form for every choice that its groups leave; none where the pattern
    /// has another form.
    forms: Vec<Form>,
}

/// A pattern without alternatives.
struct Form {
    parts: Vec<Part>,
    /// Whether nothing may stand behind it.
    whole: bool,
}

enum Part {
    Text(Box<Finder<'static>>),
    Run(Run),
}

/// A run of characters, each of one class.
#[derive(Clone, Copy)]
struct Run {
    of: Class,
    /// How many characters it has at least.
    least: usize,
    /// With how many characters of the class the text behind it begins.
    shared: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `.`, in texts without line feeds.
    Any,
    /// `\S`
    NotBlank,
    /// `\d`
    Digit,
    /// `\w`
    Word,
}

impl Pattern {
    /// Compiles `pattern`, all of whose matches begin with `begin`.
    ///
    /// # Errors
    /// When it is no regular expression.
    pub(super) fn new(pattern: &'static str, begin: &'static str) -> Result<Self, regex::Error> {
        let behind = pattern
            .strip_prefix('^')
            .and_then(|p| p.strip_prefix(begin));
        let forms = behind.map_or_else(Vec::new, alternatives);
        let forms: Option<Vec<Form>> = forms.iter().map(|form| Form::of(form)).collect();
        Ok(Self {
            regex: Regex::new(pattern)?,
            begin,
            forms: forms.unwrap_or_default(),
        })
    }

    /// How many bytes a match has at least.
    pub(super) fn shortest(&self) -> usize {
        let forms = self.forms.iter().map(Form::shortest).min();
        self.begin.len() + forms.unwrap_or(0)
    }

    /// Whether it matches `line`, which has no line feed in it.
    pub(super) fn is_match(&self, line: &str) -> bool {
        let Some(behind) = line.strip_prefix(self.begin) else {
            return false;
        };
        let fits = |form: &Form| form.fits(behind.as_bytes());
        match self
            .forms
            .iter()
            .map(fits)
            .find(|fits| *fits != Some(false))
        {
            Some(Some(fits)) => fits,
            None if !self.forms.is_empty() => false,
            _ => self.regex.is_match(line),
        }
    }
}

/// `pattern` once for every choice that its groups leave.
pub(super) fn alternatives(pattern: &str) -> Vec<String> {
    let group = pattern.split_once("(?:");
    let Some((before, (group, after))) =
        group.and_then(|(b, rest)| Some((b, rest.split_once(')')?)))
    else {
        return vec![pattern.to_owned()];
    };
    let (optional, after) = match after.strip_prefix('?') {
        Some(after) => (Some(""), after),
        None => (None, after),
    };
    let behind = alternatives(after);
    let choices = group.split('|').chain(optional);
    choices
        .flat_map(|choice| {
            behind
                .iter()
                .map(move |after| format!("{before}{choice}{after}"))
        })
        .collect()
}

impl Form {
    /// Reads `pattern`; `None` where it has something in it that is not known here.
    fn of(pattern: &str) -> Option<Self> {
        let whole = pattern.ends_with('$');
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut characters = pattern.strip_suffix('$').unwrap_or(pattern).chars();
        while let Some(character) = characters.next() {
            let of = match character {
                '.' => Class::Any,
                '\\' => match characters.next()? {
                    'S' => Class::NotBlank,
                    'd' => Class::Digit,
                    'w' => Class::Word,
                    escaped if !escaped.is_alphanumeric() => {
                        text.push(escaped);
                        continue;
                    }
                    _ => return None,
                },
                '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => {
                    return None;
                }
                literal => {
                    text.push(literal);
                    continue;
                }
            };
            let least = match characters.next() {
                Some('+') => 1,
                Some('*') => 0,
                // One character, with whatever behind it.
                None if !whole => 1,
                _ => return None,
            };
            parts.extend(Part::text(&mut text));
            let shared = 0;
            parts.push(Part::Run(Run { of, least, shared }));
        }
        parts.extend(Part::text(&mut text));
        let mut form = Self { parts, whole };
        form.is_unambiguous().then_some(form)
    }

    /// Whether the text behind each run can stand in one place only, or the first one is as good as any.
    /// Takes note of what they share.
    fn is_unambiguous(&mut self) -> bool {
        (0..self.parts.len()).all(|at| match &mut self.parts[at..] {
            [Part::Run(_), Part::Run(_), ..] => false,
            [Part::Run(run), Part::Text(text), behind @ ..] if run.of == Class::Any => {
                let next = behind.first();
                text.needle().is_ascii()
                    && next
                        .is_none_or(|next| matches!(next, Part::Run(run) if run.of == Class::Any))
            }
            [Part::Run(run), Part::Text(text), ..] => {
                let shared = run.of.begins(text.needle());
                run.shared = shared.unwrap_or_default();
                shared.is_some_and(|shared| shared < text.needle().len())
            }
            _ => true,
        })
    }

    /// How many bytes it has at least.
    fn shortest(&self) -> usize {
        let part = |part: &Part| match part {
            Part::Text(text) => text.needle().len(),
            Part::Run(run) => run.least,
        };
        self.parts.iter().map(part).sum()
    }

    /// Whether `rest` is of this form; `None` where that cannot be told here.
    fn fits(&self, mut rest: &[u8]) -> Option<bool> {
        let mut parts = self.parts.as_slice();
        loop {
            let behind;
            (behind, parts) = match parts {
                [] => return Some(rest.is_empty() || !self.whole),
                [Part::Run(run)] => {
                    let length = run.of.begins(rest)?;
                    let ends = length == rest.len() || !self.whole;
                    return Some(length >= run.least && ends);
                }
                [Part::Text(text), parts @ ..] => (rest.strip_prefix(text.needle()), parts),
                [Part::Run(run), Part::Text(text)] if self.whole && run.of == Class::Any => {
                    let least = run.least + text.needle().len();
                    return Some(rest.len() >= least && rest.ends_with(text.needle()));
                }
                [Part::Run(run), Part::Text(text), parts @ ..] => (run.behind(rest, text)?, parts),
                [Part::Run(_), Part::Run(_), ..] => return None,
            };
            match behind {
                Some(behind) => rest = behind,
                None => return Some(false),
            }
        }
    }
}

impl Part {
    /// A part of the `text` that was collected, if there is any.
    fn text(text: &mut String) -> Option<Self> {
        let collected = std::mem::take(text);
        (!collected.is_empty()).then(|| Self::Text(Box::new(Finder::new(&collected).into_owned())))
    }
}

impl Run {
    /// What stands in `line` behind the run and `text`, if it begins with them; `None` of all where that
    /// cannot be told here.
    fn behind<'l>(&self, line: &'l [u8], text: &Finder<'_>) -> Option<Option<&'l [u8]>> {
        let at = match self.of {
            Class::Any => {
                let found = line.get(self.least..).and_then(|line| text.find(line));
                found.map(|found| self.least + found)
            }
            // The first character that is not in the class is one of the text.
            _ => self.of.begins(line)?.checked_sub(self.shared),
        };
        let at = at.filter(|at| *at >= self.least);
        Some(at.and_then(|at| line[at..].strip_prefix(text.needle())))
    }
}

impl Class {
    /// With how many characters of the class `bytes` begin; `None` where that takes more than ASCII.
    fn begins(self, bytes: &[u8]) -> Option<usize> {
        let holds = |byte: u8| match self {
            Self::Any => true,
            Self::NotBlank => !char::from(byte).is_whitespace(),
            Self::Digit => byte.is_ascii_digit(),
            Self::Word => byte.is_ascii_alphanumeric() || byte == b'_',
        };
        if self == Self::Any {
            return Some(bytes.len());
        }
        let end = bytes.iter().position(|b| !b.is_ascii() || !holds(*b));
        match end {
            Some(end) => bytes[end].is_ascii().then_some(end),
            None => Some(bytes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::routeros::rules::rules;

    /// The pattern, `begin` bytes of which are given as its beginning.
    fn compiled(pattern: &'static str, begin: usize) -> Pattern {
        let behind = pattern.strip_prefix('^').unwrap_or(pattern);
        Pattern::new(pattern, &behind[..begin]).unwrap()
    }

    #[test]
    fn every_pattern_of_the_table_is_of_these_forms() {
        for rule in rules() {
            assert!(
                !compiled(rule.pattern, 1).forms.is_empty(),
                "{}",
                rule.pattern
            );
        }
    }

    #[test]
    fn a_match_has_at_least_the_bytes_of_its_texts_and_runs() {
        for (pattern, begin, bytes) in [
            ("^# abc$", 2, 5),
            ("^# .+ not ready$", 2, 13),
            ("^# .*a(?: bc| d)?$", 2, 3),
            (r"^# mode: \S+, SSID: .*, channel: ", 8, 28),
            ("^# [ab]{9}$", 2, 2),
        ] {
            assert_eq!(compiled(pattern, begin).shortest(), bytes, "{pattern}");
        }
        for rule in rules() {
            let example = rule.example.1.trim_end();
            assert!(compiled(rule.pattern, 1).shortest() <= example.len());
        }
    }

    #[test]
    fn other_patterns_are_left_to_the_regular_expression() {
        for other in [
            "# not anchored",
            "^# [ab]$",
            "^# a+$",
            r"^# \S$",
            r"^# .*a\S+$",
            r"^# \S+ab$",
            r"^# \d+.*$",
            r"^# \bword$",
            "^# (a|b)$",
            "^# (?:a(?:b|c))$",
        ] {
            assert!(compiled(other, 0).forms.is_empty(), "{other}");
        }
        assert!(compiled("# not", 0).is_match("really # not"));
    }

    /// Comments made of what the patterns consist of, and of what nearly fits.
    fn comments() -> impl Strategy<Value = String> {
        let mut pieces: Vec<String> = [
            " ", "", "a", "7", "_", "/", "\t", "\x0b", "é", "٣", "\u{a0}",
        ]
        .map(str::to_owned)
        .to_vec();
        let patterns = rules().iter().map(|rule| compiled(rule.pattern, 0));
        let parts = patterns
            .flat_map(|pattern| pattern.forms)
            .flat_map(|form| form.parts);
        for part in parts {
            if let Part::Text(text) = part {
                let text = String::from_utf8_lossy(text.needle()).into_owned();
                pieces.extend((1..3).map(|cut| text[cut.min(text.len())..].to_owned()));
                pieces.push(text);
            }
        }
        prop::collection::vec(prop::sample::select(pieces), 0..7).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_its_regular_expression_does(comment in comments(), cut in any::<prop::sample::Index>()) {
            static PATTERNS: LazyLock<Vec<Pattern>> =
                LazyLock::new(|| rules().iter().map(|rule| compiled(rule.pattern, 1)).collect());
            for (rule, pattern) in rules().iter().zip(PATTERNS.iter()) {
                let example = rule.example.1.trim_end();
                let at = cut.index(example.len());
                let changed = format!("{}{comment}{}", &example[..at], &example[at..]);
                for line in [&comment, &changed, &example[..at].to_owned()] {
                    prop_assert_eq!(pattern.is_match(line), pattern.regex.is_match(line), "{} {}", rule.pattern, line);
                }
            }
        }
    }
}
