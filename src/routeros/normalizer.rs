//! Owns the normalisation as a process is configured: the table's rules, and the comments that its
//! operator ignores beside them.

use std::fmt;
use std::sync::Arc;

use regex::RegexSet;

use super::dialogue::Export;
use super::diff::{Side, counted};
use super::header;
use super::joined::{Letters, any_joined, literal_begin};
use super::normalize::{self, NORMALIZATION_VERSION, Normalized};
use super::rules::fingerprint_with;
use super::wrapped;
use crate::domain::archive::{Lines, Normalization, Part, Renormalize};

/// Normalises exports by the rules of the table in `rules.rs` and, if there are any, by the patterns of
/// `CONFIG_BACKUP_IGNORE_COMMENTS`. Cheap to clone.
#[derive(Clone, Default)]
pub struct Normalizer {
    ignored: Option<Arc<Ignored>>,
}

/// Comments that the operator ignores.
struct Ignored {
    /// Their names in ledgers, in the order of the set.
    names: Vec<String>,
    set: RegexSet,
    /// What may be lost where the router wraps such a comment.
    letters: Letters,
    /// The literal texts that the comments of each begin with.
    begins: Vec<String>,
}

/// A list of patterns that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("pattern {number} ({pattern:?}) {reason}")]
pub struct IgnoreError {
    /// Which one, counted from 1.
    pub number: usize,
    /// Its text.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Comments as unlike as comments are, and none that a router prints: a pattern that matches all of
/// them matches whatever a router may say.
const UNLIKE: [&str; 4] = ["# Zebra crossing", "# 4711", "# (?)", "# q: \u{e9}, x"];

/// Comments that no pattern takes away: they are the header's, or tell that something is missing.
const KEPT: [&str; 6] = [
    "# 2026-01-02 03:04:05 by RouterOS 7.30",
    "# model = Q7",
    "# serial number = Q7",
    "# software id = Q7",
    "# system id = Q7",
    "#error exporting \"/ip/dns\" (timeout)",
];

/// What begins a configured rule's name in ledgers; the pattern follows.
const CONFIGURED: &str = "ignored: ";

impl Normalizer {
    /// Reads regular expressions, one a line; blank lines are none. A comment is matched without
    /// the blanks at its end.
    ///
    /// # Errors
    /// The first pattern that is no regular expression, or that matches every comment.
    pub fn ignoring(list: &str) -> Result<Self, IgnoreError> {
        let mut patterns: Vec<&str> = Vec::new();
        let lines = list.lines().map(str::trim).filter(|line| !line.is_empty());
        for (at, pattern) in lines.enumerate() {
            let wrong = |reason: String| IgnoreError {
                number: at + 1,
                pattern: pattern.to_owned(),
                reason,
            };
            let compiled = regex::Regex::new(pattern)
                .map_err(|error| wrong(format!("is no regular expression: {}", short(&error))))?;
            let every = UNLIKE.iter().all(|comment| compiled.is_match(comment));
            if compiled.is_match("") || every {
                return Err(wrong(
                    "matches every comment; begin it with '^# ' and the text to ignore".to_owned(),
                ));
            }
            patterns.push(pattern);
        }
        // Order and repetition mean nothing.
        patterns.sort_unstable();
        patterns.dedup();
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let set = RegexSet::new(&patterns).map_err(|error| IgnoreError {
            number: patterns.len(),
            pattern: patterns.join("\n"),
            reason: format!("is too large together with the others: {}", short(&error)),
        })?;
        let names = patterns
            .iter()
            .map(|pattern| format!("{CONFIGURED}{pattern}"));
        Ok(Self {
            ignored: Some(Arc::new(Ignored {
                names: names.collect(),
                set,
                letters: Letters::of(patterns.iter().copied()),
                begins: patterns
                    .iter()
                    .map(|pattern| literal_begin(pattern).to_owned())
                    .collect(),
            })),
        })
    }

    /// Normalises a whole export.
    pub fn normalize(&self, export: &Export) -> Normalized {
        normalize::whole(self, &export.text)
    }

    /// Normalises any text, whole or not, raw or normalised by an earlier version.
    pub fn text(&self, text: &str) -> String {
        normalize::any(self, text)
    }

    /// A short digest of everything that decides which comments are dropped: 16 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        fingerprint_with(self.patterns())
    }

    /// This normalisation, to be applied to texts that earlier ones made.
    pub fn renormalize(&self) -> Renormalize {
        let this = self.clone();
        Renormalize {
            to: Normalization {
                version: NORMALIZATION_VERSION,
                rules: self.fingerprint(),
            },
            apply: Arc::new(move |text| this.text(text)),
            lines,
        }
    }

    /// This, and what `rules` of a ledger say that others ignored: what they compared with can so be
    /// compared again. What is no pattern is left out.
    pub fn and_recorded<'a>(&self, rules: impl Iterator<Item = &'a str>) -> Self {
        let recorded = rules.filter_map(|rule| rule.strip_prefix(CONFIGURED));
        let usable = |pattern: &&str| Self::ignoring(pattern).is_ok();
        let patterns: Vec<&str> = self.patterns().chain(recorded.filter(usable)).collect();
        Self::ignoring(&patterns.join("\n")).unwrap_or_else(|_| self.clone())
    }

    /// The name of the configured pattern that ignores `comment`, if one does.
    pub(super) fn ignores(&self, comment: &str) -> Option<&str> {
        let ignored = self.ignored.as_deref()?;
        let first = ignored.set.matches(comment.trim_end()).iter().next()?;
        ignored.names.get(first).map(String::as_str)
    }

    /// The same for `comment` with its `rest`, which the router wrapped onto lines of their own. A pattern
    /// may know the two together, as one text, or the comment alone, where that fills a line or a rule
    /// says that the rest is one.
    pub(super) fn ignores_wrapped(&self, comment: &str, rest: &str) -> Option<&str> {
        // A blank line is the rest of a comment only where a rule says what is missing.
        if rest.trim().is_empty() {
            return self.ignores(comment);
        }
        let ignored = self.ignored.as_deref()?;
        let wide = wrapped::fills_a_line(comment);
        let comment = comment.trim_end();
        let alone = ignored.set.matches(comment);
        let told = || (wide && rest.starts_with(' ')) || wrapped::is_known(comment, rest);
        let mut found = alone.iter().next().filter(|_| told());
        let may_begin =
            |begin: &String| comment.starts_with(begin.as_str()) || begin.starts_with(comment);
        if found.is_none() && ignored.begins.iter().any(may_begin) {
            // Of a comment that is no wider than others, both parts must be known.
            let in_rest = ignored.set.matches(rest.trim());
            any_joined(comment, rest, &ignored.letters, |joined| {
                // To be told of none takes a fraction of what it takes to be told of which.
                if !ignored.set.is_match(joined) {
                    return false;
                }
                let joined = ignored.set.matches(joined);
                let parted = |at: &usize| !alone.matched(*at) && (wide || !in_rest.matched(*at));
                found = joined.iter().find(parted);
                found.is_some()
            });
        }
        ignored.names.get(found?).map(String::as_str)
    }

    /// Whether a configured pattern knows `comment` and the configuration `line` right behind it as one
    /// text, which only the pattern shows to be wrapped. Lines of a header never are.
    pub(super) fn ignores_across(&self, comment: &str, line: &str) -> bool {
        self.ignored.is_some()
            && wrapped::may_be_plain_rest(line)
            && header::dated_version(comment).is_none()
            && !header::is_header_field(comment)
            && self.ignores_wrapped(comment, line).is_some()
    }

    /// What is odd about the configured patterns, though they can be used: those that no comment can
    /// match, are not tied to its beginning, or match what is never ignored.
    pub fn remarks(&self) -> Vec<String> {
        let patterns = self.patterns();
        patterns
            .filter_map(|pattern| {
                let odd = if matches_no_comment(pattern) {
                    "can match no comment, for each begins with '#'; nothing else is ever left out".into()
                } else if !pattern.contains('#') {
                    "is looked for anywhere in a comment, and in nothing else: configuration stays. \
                     Begin it with '^# ' and the text to ignore"
                        .into()
                } else {
                    let compiled = regex::Regex::new(pattern).ok()?;
                    let kept = KEPT.iter().find(|comment| compiled.is_match(comment))?;
                    format!(
                        "matches lines such as '{kept}', which stay all the same: what tells of the \
                         machine, or of what is missing, is never ignored"
                    )
                };
                Some(format!("pattern {pattern:?} {odd}"))
            })
            .collect()
    }

    fn patterns(&self) -> impl Iterator<Item = &str> {
        let names = self.ignored.iter().flat_map(|ignored| &ignored.names);
        names.filter_map(|name| name.strip_prefix(CONFIGURED))
    }
}

impl fmt::Debug for Normalizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.patterns()).finish()
    }
}

/// Whether `pattern` surely matches no comment: it is tied to the beginning of the text, and to another
/// character there than `#`.
fn matches_no_comment(pattern: &str) -> bool {
    let Some(rest) = pattern.strip_prefix('^') else {
        return false;
    };
    let mut rest = rest.chars();
    let first = rest.next();
    let plain = first.is_some_and(|first| !"#\\.[({?*+|^$".contains(first));
    let surely = rest.next().is_none_or(|next| !"?*{".contains(next));
    plain && surely && !pattern.contains('|')
}

/// The last line of what the compiler of regular expressions says: the rest draws the pattern.
fn short(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().next_back().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

/// Counts lines as a diff of the two does, which leaves out what only one side could export.
fn lines(old: Part<'_>, new: Part<'_>) -> Lines {
    let old = Side::from(old.text).incomplete(old.incomplete_menus);
    let new = Side::from(new.text).incomplete(new.incomplete_menus);
    let (added, removed) = counted(old, new);
    let count = |lines: u64| u32::try_from(lines).unwrap_or(u32::MAX);
    Lines {
        added: count(added),
        removed: count(removed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routeros::{normalize_text, rules_fingerprint};

    const TEXT: &str = "# 2026-01-02 03:04:05 by RouterOS 7.30\n# model = RB5009UPr+S+\n\
        /ip firewall nat\n# radar detected\nadd chain=srcnat\n# x; y, z\nadd chain=dstnat\n\
        #error exporting \"/ipv6/route\" (timeout)\n";

    fn normalizer(list: &str) -> Normalizer {
        Normalizer::ignoring(list).expect("good patterns")
    }

    #[test]
    fn what_is_ignored_goes_and_is_in_the_ledger_and_nothing_else_does() {
        let ignoring = normalizer("^# radar\n\n  ^# x; y, z$  \n");
        let text = normalize_text(TEXT);
        let expected = text
            .replace("# radar detected\n", "")
            .replace("# x; y, z\n", "");
        assert_eq!(ignoring.text(TEXT), expected);
        let normalized = normalize::whole(&ignoring, TEXT);
        assert_eq!(normalized.ledger.get("ignored: ^# radar"), Some(&1));
        assert_eq!(normalized.ledger.get("ignored: ^# x; y, z$"), Some(&1));
        assert_eq!(normalized.unknown_comment_lines, 0);

        // Header fields and what tells of missing data are no comments to ignore.
        let everything = normalizer("^# [a-zC]\n^#e");
        assert_eq!(
            everything.text(TEXT),
            "# model = RB5009UPr+S+\n/ip firewall nat\nadd chain=srcnat\nadd chain=dstnat\n\
             #error exporting \"/ipv6/route\" (timeout)\n"
        );
        let static_too = "/ip cloud\n# Cloud services not supported on x86\nset a=b\n";
        assert_eq!(everything.text(static_too), "/ip cloud\nset a=b\n");
    }

    #[test]
    fn the_terse_form_loses_its_menu_line_with_an_ignored_comment() {
        let terse = "/ip pool add name=a\n/ip firewall nat\n# radar detected\nadd chain=srcnat\n";
        assert_eq!(
            normalizer("^# radar detected$").text(terse),
            "/ip pool add name=a\n/ip firewall nat add chain=srcnat\n"
        );
    }

    #[test]
    fn patterns_are_part_of_the_fingerprint_and_their_order_is_not() {
        assert_eq!(normalizer(" \n").fingerprint(), rules_fingerprint());
        let one = normalizer("^# a$\n^# b$").fingerprint();
        assert_eq!(one, normalizer("^# b$\n^# a$\n^# a$").fingerprint());
        assert_ne!(one, rules_fingerprint());
        assert_ne!(one, normalizer("^# a$").fingerprint());
        assert_eq!(one.len(), 16);
        assert_eq!(normalizer("^# a$\n^# b$").renormalize().to.rules, one);
    }

    #[test]
    fn what_a_ledger_names_is_ignored_as_well() {
        let rules = [
            "export date",
            "ignored: ^# b$",
            "ignored: ^# (",
            "ignored: .*",
        ];
        let both = normalizer("^# a$").and_recorded(rules.into_iter());
        assert_eq!(both.fingerprint(), normalizer("^# a$\n^# b$").fingerprint());
        let none = Normalizer::default().and_recorded(["export date"].into_iter());
        assert_eq!(none.fingerprint(), rules_fingerprint());
    }

    #[test]
    fn a_pattern_that_cannot_be_meant_is_told() {
        let error = |list| {
            Normalizer::ignoring(list)
                .expect_err("a bad list")
                .to_string()
        };
        let unclosed = error("^# a$\n^# (b$");
        assert!(
            unclosed.starts_with("pattern 2 (\"^# (b$\") is no regular"),
            "{unclosed}"
        );
        assert!(unclosed.contains("unclosed group"), "{unclosed}");
        assert!(!unclosed.contains('\n'));
        for every in [".*", "^", "^#", "^# ", "^# .*$", "^#\\s+\\S", "#"] {
            assert!(error(every).contains("matches every comment"), "{every}");
        }
        assert!(error("a{1000}{1000}{1000}").contains("is no regular expression"));
    }

    #[test]
    fn a_pattern_without_effect_is_remarked_on() {
        for (pattern, part) in [
            ("^/interface", "can match no comment"),
            ("add ", "looked for anywhere in a comment"),
            ("^# model.*$", "# model = "),
            ("^# serial.*$", "# serial number = "),
            ("^# software id", "# software id = "),
            ("^#error", "#error exporting"),
            ("^# [0-9]", "by RouterOS"),
        ] {
            let remarks = normalizer(pattern).remarks();
            assert_eq!(remarks.len(), 1, "{pattern}");
            assert!(remarks[0].contains(part), "{remarks:?}");
            let quoted = format!("{:?}", pattern.trim());
            assert!(remarks[0].contains(&quoted), "{remarks:?}");
        }
        for pattern in ["^# radar detected$", "^x?#  ?a", "^a|^# b", "(?i)^# radar"] {
            assert_eq!(normalizer(pattern).remarks(), [""; 0], "{pattern}");
        }
        assert_eq!(normalizer("").remarks(), [""; 0]);
    }

    #[test]
    fn debug_shows_the_patterns() {
        assert_eq!(format!("{:?}", normalizer("^# a$")), "[\"^# a$\"]");
    }

    #[test]
    fn lines_of_a_menu_that_was_not_exported_are_not_counted() {
        let whole = "/ipv6 route\nadd gateway=a\n/ip pool\nadd name=a\n";
        let menus = ["/ipv6/route".to_owned()];
        let part = |text, incomplete_menus| Part {
            text,
            incomplete_menus,
        };
        let count = |old, new| {
            let lines = Normalizer::default().renormalize().lines(old, new);
            (lines.added, lines.removed)
        };
        let missing = "/ip pool\nadd name=a\n";
        assert_eq!(count(part(whole, &[]), part(missing, &menus)), (0, 0));
        assert_eq!(count(part(missing, &menus), part(whole, &[])), (0, 0));
        assert_eq!(count(part(whole, &[]), part(missing, &[])), (0, 2));
    }

    proptest! {
        /// Routers lack now this menu and now that: what either side lacks is no line gained or lost,
        /// and what was edited elsewhere still is.
        #[test]
        fn menus_that_fail_in_turn_are_no_change(
            lacking in prop::array::uniform2(prop::array::uniform4(any::<bool>())),
            edited in 0usize..4,
        ) {
            const MENUS: [&str; 4] = ["/ip pool", "/ipv6 route", "/ppp secret", "/snmp"];
            let side = |lacking: &[bool; 4], edit: bool| {
                let kept = (0..4).filter(|menu| !lacking[*menu]);
                let line = |menu| {
                    let more = if edit && menu == edited { "add name=new\n" } else { "" };
                    format!("{}\nadd name=a\nadd name=b\n{more}", MENUS[menu])
                };
                let text: String = kept.map(line).collect();
                let names = (0..4).filter(|menu| lacking[*menu]).map(|menu| MENUS[menu].to_owned());
                (text, names.collect::<Vec<_>>())
            };
            let count = |edit| {
                let ((old, old_lacks), (new, new_lacks)) =
                    (side(&lacking[0], false), side(&lacking[1], edit));
                let part = |text, incomplete_menus| Part { text, incomplete_menus };
                let lines = Normalizer::default()
                    .renormalize()
                    .lines(part(&old, &old_lacks), part(&new, &new_lacks));
                (lines.added, lines.removed)
            };
            prop_assert_eq!(count(false), (0, 0));
            let compared = !lacking[0][edited] && !lacking[1][edited];
            prop_assert_eq!(count(true), (u32::from(compared), 0));
        }
    }
}
