//! Owns the search in configurations: which logical lines match, and when they came and went.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use regex::{Regex, RegexBuilder};

use super::comments::ErrorLine;
use super::reader::{self, LineKind};
use super::shape::{Item, is_at_or_below, plain_menu};
use crate::domain::Timestamp;

/// A pattern that is no regular expression, or a monstrous one.
#[derive(Debug, thiserror::Error)]
#[error("read the search pattern: {0}")]
pub struct PatternError(#[source] regex::Error);

/// Finds logical lines: wraps undone, so that a pattern need not know where RouterOS broke a line.
#[derive(Clone, Debug)]
pub struct Matcher {
    pattern: Regex,
}

/// A logical line that matches. It may hold secrets; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Hit<'a> {
    /// The path of its menu, words divided by blanks; empty before the first menu.
    pub menu: Cow<'a, str>,
    /// The first of its physical lines, counted from 1.
    pub line: usize,
    /// The logical line.
    pub text: Cow<'a, str>,
}

impl fmt::Debug for Hit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Hit({} in {}, {} bytes)",
            self.line,
            self.menu,
            self.text.len()
        )
    }
}

impl Matcher {
    /// Compiles `pattern`, a regular expression of the syntax of the `regex` crate: `(?i)` at its
    /// start makes it ignore case. Matching takes time linear in the text whatever the pattern is.
    ///
    /// # Errors
    /// When it is no regular expression, or needs more than 10 MiB compiled.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let pattern = RegexBuilder::new(pattern).build().map_err(PatternError)?;
        Ok(Self { pattern })
    }

    /// The logical lines of `text` that match, in order. Blank lines are none.
    pub fn search<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Hit<'a>> + 'a {
        // The menu of relative items, and the one of the line before: a comment stands there.
        let mut context: Cow<'a, str> = Cow::Borrowed("");
        let mut place: Option<Cow<'a, str>> = None;
        let mut at = 1;
        reader::lines(text).filter_map(move |line| {
            let first = at;
            let whole = &text.as_bytes()[line.start..line.end];
            at += memchr::memchr_iter(b'\n', whole).count();
            let logical = line.logical();
            match line.kind {
                LineKind::Blank => return None,
                LineKind::Comment | LineKind::Rest => {}
                LineKind::Config => match parse(&logical) {
                    Parsed::Menu(menu) => {
                        context = menu;
                        place = None;
                    }
                    Parsed::Absolute(menu) => place = Some(menu),
                    Parsed::Relative => place = None,
                },
            }
            self.pattern.is_match(&logical).then(|| Hit {
                menu: place.as_ref().unwrap_or(&context).clone(),
                line: first,
                text: logical,
            })
        })
    }
}

enum Parsed<'a> {
    Menu(Cow<'a, str>),
    Absolute(Cow<'a, str>),
    Relative,
}

fn parse<'a>(line: &Cow<'a, str>) -> Parsed<'a> {
    if let Cow::Borrowed(line) = line {
        return match Item::parse(line) {
            Item::Menu(menu) => Parsed::Menu(plain_menu(menu)),
            Item::Absolute { menu, .. } => Parsed::Absolute(plain_menu(menu)),
            Item::Relative(_) => Parsed::Relative,
        };
    }
    let owned = |menu| Cow::Owned(plain_menu(menu).into_owned());
    match Item::parse(line) {
        Item::Menu(menu) => Parsed::Menu(owned(menu)),
        Item::Absolute { menu, .. } => Parsed::Absolute(owned(menu)),
        Item::Relative(_) => Parsed::Relative,
    }
}

/// A stretch of versions that all had a line. It may hold secrets; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Span {
    /// The path of the line's menu; empty before the first menu.
    pub menu: String,
    /// The logical line.
    pub text: String,
    /// When the first version of the stretch was taken: the line appeared between the version
    /// before and this one.
    pub since: Timestamp,
    /// Whether the stretch begins with the oldest version, so that the line may be older.
    pub from_start: bool,
    /// When the last version that is known to have it was taken.
    pub last_seen: Timestamp,
    /// When the first version without it was taken; `None` where the newest has it.
    pub gone: Option<Timestamp>,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span")
            .field("menu", &self.menu)
            .field("since", &self.since)
            .field("from_start", &self.from_start)
            .field("last_seen", &self.last_seen)
            .field("gone", &self.gone)
            .finish_non_exhaustive()
    }
}

/// Follows matching lines through the versions of one device. It remembers those lines only, so
/// versions can be read one after the other.
#[derive(Debug)]
pub struct History<'a> {
    matcher: &'a Matcher,
    spans: Vec<Span>,
    /// The spans that the version added last is in, by menu and line.
    open: HashMap<(String, String), usize>,
    versions: usize,
}

impl<'a> History<'a> {
    /// Begins without a version.
    pub fn new(matcher: &'a Matcher) -> Self {
        Self {
            matcher,
            spans: Vec::new(),
            open: HashMap::new(),
            versions: 0,
        }
    }

    /// Adds the version taken at `when`; the oldest comes first. Lines of menus that the text says
    /// could not be exported are not known to be gone.
    pub fn add(&mut self, when: Timestamp, text: &str) {
        let mut seen: HashMap<(String, String), usize> = HashMap::new();
        for hit in self.matcher.search(text) {
            let key = (hit.menu.into_owned(), hit.text.into_owned());
            if seen.contains_key(&key) {
                continue;
            }
            let index = match self.open.remove(&key) {
                Some(index) => index,
                None => {
                    self.spans.push(Span {
                        menu: key.0.clone(),
                        text: key.1.clone(),
                        since: when,
                        from_start: self.versions == 0,
                        last_seen: when,
                        gone: None,
                    });
                    self.spans.len() - 1
                }
            };
            self.spans[index].last_seen = when;
            seen.insert(key, index);
        }
        if !self.open.is_empty() {
            let unknown = not_exported(text);
            for (key, index) in self.open.drain() {
                if unknown.iter().any(|menu| is_at_or_below(&key.0, menu)) {
                    seen.insert(key, index);
                } else {
                    self.spans[index].gone = Some(when);
                }
            }
        }
        self.open = seen;
        self.versions += 1;
    }

    /// All stretches, in the order in which their lines appeared.
    pub fn finish(self) -> Vec<Span> {
        self.spans
    }
}

/// When the lines that match appeared and went: see [`History`]. `versions` come oldest first.
pub fn history<T: AsRef<str>>(
    matcher: &Matcher,
    versions: impl IntoIterator<Item = (Timestamp, T)>,
) -> Vec<Span> {
    let mut history = History::new(matcher);
    for (when, text) in versions {
        history.add(when, text.as_ref());
    }
    history.finish()
}

/// The menus that `text` says could not be exported, words divided by blanks. What is missing from
/// them, and from those below, is not known to be gone.
pub fn not_exported(text: &str) -> Vec<String> {
    reader::lines(text)
        .filter(|line| line.kind == LineKind::Comment)
        .filter_map(|line| match ErrorLine::parse(line.raw) {
            Some(ErrorLine::Failed {
                menu,
                harmless: false,
            }) => Some(plain_menu(menu).into_owned()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    const CONFIG: &str = "# model = a\n/ip firewall filter\nadd action=accept chain=in\\\n    put\n\n\
        # inactive time\nadd action=drop chain=input\n/ip pool add name=input\n# of the pool\n\
        /ip/dns\nset servers=192.0.2.53\n";

    fn found(pattern: &str, text: &str) -> Vec<(String, usize, String)> {
        let matcher = Matcher::new(pattern).unwrap();
        let hits = matcher.search(text);
        hits.map(|hit| (hit.menu.into_owned(), hit.line, hit.text.into_owned()))
            .collect()
    }

    fn at(hour: u8) -> Timestamp {
        datetime!(2026-01-02 00:00 UTC).replace_hour(hour).unwrap()
    }

    #[test]
    fn lines_are_found_with_menu_and_number_across_wraps() {
        let hit = |menu: &str, line, text: &str| (menu.to_owned(), line, text.to_owned());
        assert_eq!(
            found("input", CONFIG),
            [
                hit("/ip firewall filter", 3, "add action=accept chain=input"),
                hit("/ip firewall filter", 7, "add action=drop chain=input"),
                hit("/ip pool", 8, "/ip pool add name=input"),
            ]
        );
        assert_eq!(
            found("^#|DNS|(?i)SERVERS", CONFIG),
            [
                hit("", 1, "# model = a"),
                hit("/ip firewall filter", 6, "# inactive time"),
                hit("/ip pool", 9, "# of the pool"),
                hit("/ip dns", 11, "set servers=192.0.2.53"),
            ]
        );
        assert_eq!(found("^$", CONFIG), []);
        assert_eq!(found("", "").len(), 0);
    }

    #[test]
    fn a_bad_pattern_is_told() {
        let error = Matcher::new("a(").unwrap_err().to_string();
        assert!(error.starts_with("read the search pattern: "), "{error}");
        assert!(
            Matcher::new("(?:a{1000}){1000}").is_err(),
            "it would take gigabytes"
        );
    }

    #[test]
    fn lines_appear_go_and_come_back() {
        let with = "/ip pool\nadd name=a\nadd name=b\n";
        let without = "/ip pool\nadd name=b\n";
        let matcher = Matcher::new("name=").unwrap();
        let versions = [with, with, without, with].into_iter();
        let spans = history(&matcher, (1..).map(at).zip(versions));
        let told: Vec<_> = spans
            .iter()
            .map(|s| (s.text.as_str(), s.since, s.from_start, s.last_seen, s.gone))
            .collect();
        assert_eq!(
            told,
            [
                ("add name=a", at(1), true, at(2), Some(at(3))),
                ("add name=b", at(1), true, at(4), None),
                ("add name=a", at(4), false, at(4), None),
            ]
        );
        assert_eq!(spans[0].menu, "/ip pool");
    }

    #[test]
    fn a_line_in_another_menu_is_another_and_wraps_are_none() {
        let matcher = Matcher::new("name=a").unwrap();
        let versions = [
            "/ip pool\nadd name=a x=y\n",
            "/ip pool\nadd name=\\\n    a x=y\n",
            "/ip dns\nadd name=a x=y\n",
        ];
        let spans = history(&matcher, (1..).map(at).zip(versions));
        assert_eq!(spans.len(), 2);
        assert_eq!((spans[0].last_seen, spans[0].gone), (at(2), Some(at(3))));
    }

    #[test]
    fn a_menu_that_was_not_exported_keeps_its_lines() {
        let matcher = Matcher::new("gateway").unwrap();
        let with = "/ipv6 route\nadd gateway=2001:db8::1\n";
        let failed = "/ip pool\nadd name=a\n#error exporting \"/ipv6/route\" (timeout)\n";
        let spans = history(
            &matcher,
            (1..).map(at).zip([with, failed, with, failed, ""]),
        );
        assert_eq!(spans.len(), 1);
        assert_eq!((spans[0].last_seen, spans[0].gone), (at(3), Some(at(5))));
    }

    #[test]
    fn debug_shows_no_line() {
        let matcher = Matcher::new("name").unwrap();
        let text = "/ip pool\nadd name=example-only\n";
        let hits: Vec<_> = matcher.search(text).collect();
        let spans = history(&matcher, [(at(1), text)]);
        let shown = format!("{hits:?} {spans:?}");
        assert!(!shown.contains("example-only"), "{shown}");
    }

    proptest! {
        #[test]
        fn every_version_is_covered_by_the_spans_of_its_lines(
            versions in prop::collection::vec(prop::collection::btree_set(0..4_u8, 0..4), 1..12),
        ) {
            let matcher = Matcher::new("name=").unwrap();
            let text = |lines: &std::collections::BTreeSet<u8>| {
                let items: String = lines.iter().map(|n| format!("add name={n}\n")).collect();
                format!("/ip pool\n{items}")
            };
            let spans = history(&matcher, (0..).map(at).zip(versions.iter().map(text)));
            for (when, lines) in (0..).map(at).zip(&versions) {
                for line in 0..4 {
                    let covering = spans.iter().filter(|span| {
                        span.text == format!("add name={line}")
                            && span.since <= when
                            && span.gone.is_none_or(|gone| when < gone)
                    });
                    prop_assert_eq!(covering.count(), usize::from(lines.contains(&line)));
                }
            }
        }
    }
}
