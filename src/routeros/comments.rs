//! Owns what becomes of a comment line: which rule knows it, and what `#error` lines say.

use std::sync::LazyLock;

use super::joined::{Letters, literals};
use super::pattern::{Pattern, alternatives};
use super::probe;
use super::reader::trim_blanks;
use super::rules::{Rule, rules};
use super::shape::{is_at_or_below, plain_menu};

/// What the rules say about a comment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// The first of the rules that know it, by name.
    Known(&'static Rule),
    /// No rule knows it in this menu.
    Unknown,
}

/// A rule with the literal texts that its pattern begins and ends with.
pub(super) struct Known {
    pub(super) rule: &'static Rule,
    pub(super) begin: &'static str,
    pub(super) end: &'static str,
    /// The literal text that each form of it ends with.
    pub(super) ends: Vec<String>,
    /// How many bytes a comment of its kind has at least.
    pub(super) shortest: usize,
    /// What may be lost of it at a break.
    pub(super) letters: Letters,
    /// The pattern; none where it is the literal text alone.
    pattern: Option<Pattern>,
}

impl Known {
    fn of(rule: &'static Rule) -> Self {
        let (begin, end) = literals(rule.pattern);
        let whole = rule
            .pattern
            .strip_prefix('^')
            .and_then(|p| p.strip_suffix('$'));
        let pattern = (whole != Some(begin)).then(|| {
            Pattern::new(rule.pattern, begin)
                .expect("the patterns are constants, and a test compiles them")
        });
        Self {
            rule,
            begin,
            end,
            ends: alternatives(rule.pattern)
                .iter()
                .map(|form| literals(form).1.to_owned())
                .collect(),
            shortest: pattern.as_ref().map_or(begin.len(), Pattern::shortest),
            // Where the pattern has no end, the example shows one.
            letters: match rule.pattern.ends_with('$') {
                true => Letters::of([rule.pattern]),
                false => Letters::of([rule.pattern, rule.example.1]),
            },
            pattern,
        }
    }

    /// Whether nothing can stand behind what it matches.
    pub(super) fn knows_its_end(&self) -> bool {
        self.rule.pattern.ends_with('$')
    }

    /// Whether `line`, without the blanks at its end, is a comment of its kind.
    pub(super) fn matches(&self, line: &str) -> bool {
        match &self.pattern {
            None => line == self.begin,
            Some(pattern) => pattern.is_match(line),
        }
    }
}

pub(super) static KNOWN: LazyLock<Vec<Known>> =
    LazyLock::new(|| rules().iter().map(Known::of).collect());

/// Classifies the comment `line`, which stands in `menu`.
pub(super) fn classify(menu: &str, line: &str) -> Class {
    let line = trim_blanks(line);
    let known = probe::may_know(line);
    choose(menu, known.filter(|known| known.matches(line)))
}

/// What the rules that know a comment say about it in `menu`.
pub(super) fn choose(menu: &str, knowing: impl Iterator<Item = &'static Known>) -> Class {
    let mut plain = None;
    let here = knowing.map(|known| known.rule).filter(|rule| {
        rule.menus.is_empty() || stands_in(rule, plain.get_or_insert_with(|| plain_menu(menu)))
    });
    // By name, so that the order of the table means nothing.
    here.min_by_key(|rule| rule.name)
        .map_or(Class::Unknown, Class::Known)
}

fn stands_in(rule: &Rule, menu: &str) -> bool {
    rule.menus.iter().any(|wanted| is_at_or_below(menu, wanted))
}

/// What a `#error` or `#interrupted` line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ErrorLine<'a> {
    /// The export stopped here.
    Interrupted,
    /// A menu was not exported.
    Failed {
        /// Its path as printed, `/ip firewall calea` or `/ip/firewall/calea`.
        menu: &'a str,
        /// Nothing is missing: this machine has no such menu, or nothing in it.
        harmless: bool,
    },
}

impl<'a> ErrorLine<'a> {
    /// Reads `line`, if it is such a line. There is no blank after the `#`.
    ///
    /// - `#error exporting /interface bridge calea` (6.x), `/interface/bridge/calea` (7.7 to 7.10):
    ///   no reason is ever given, so only the menus that are known for it are harmless.
    /// - `#error exporting "/ip/route" (timeout)` (7.11 and later): a reason, so data is missing.
    /// - `#error exporting "/system/routerboard/mode-button"` (7.19 and later, no reason): so it is with
    ///   menus that this machine does not have; of any other menu it says that data is missing.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let text = line.strip_prefix('#')?;
        if let Some(rest) = text.strip_prefix("interrupted") {
            return rest.trim_end().is_empty().then_some(Self::Interrupted);
        }
        let rest = text.strip_prefix("error exporting")?.trim();
        if let Some(quoted) = rest.strip_prefix('"') {
            let (menu, reason) = quoted.split_once('"').unwrap_or((quoted, "?"));
            let harmless = reason.trim().is_empty() && is_harmless(menu);
            return Some(Self::Failed { menu, harmless });
        }
        let (menu, reason) = rest.split_once(" (").unwrap_or((rest, ""));
        let harmless = reason.is_empty() && is_harmless(menu);
        Some(Self::Failed { menu, harmless })
    }
}

/// The menus whose export fails without a reason on routers that have nothing in them: seen in 87
/// of 592 exports of one fleet, 6.44.1 to 7.10, permanently or coming and going (facts sheet, §4);
/// `/figman` and `/app/settings` in public exports of 7.19 and later (file index 28449456370,
/// 28739853685, 54044506005). The user manager of version 7 is not among them: its users are part of
/// the configuration.
fn is_harmless(menu: &str) -> bool {
    let menu = plain_menu(menu);
    let below = |parent: &str| is_at_or_below(&menu, parent);
    menu.ends_with(" calea")
        || below("/tool user-manager")
        || below("/tool bandwidth-server")
        || below("/figman")
        || menu == "/app settings"
        || (below("/system routerboard") && menu.ends_with("-button"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn is_known(menu: &str, line: &str) -> bool {
        classify(menu, line) != Class::Unknown
    }

    #[test]
    fn every_example_is_known_by_its_rule_and_no_other() {
        for rule in rules() {
            let (menu, line) = rule.example;
            let expected = Class::Known(rule);
            assert_eq!(classify(menu, line), expected, "{line}");
            let matching = KNOWN.iter().filter(|known| known.matches(line.trim_end()));
            let matching = matching.count();
            let wider = usize::from(rule.name == "wifi-mode");
            assert_eq!(matching, 1 + wider, "{line}");
            for longer in [format!("{line}\r"), format!("{line}  ")] {
                assert_eq!(classify(menu, &longer), expected, "{longer:?}");
            }
        }
    }

    #[test]
    fn the_literal_ends_of_a_pattern_are_those_of_all_it_matches() {
        for (pattern, ends) in [
            ("^# inactive time$", ("# inactive time", "# inactive time")),
            (r"^# .+ not ready$", ("# ", " not ready")),
            (r"^# poe-out status: \S", ("# poe-out status: ", "")),
            (r"^# \S+; \S+ remaining$", ("# ", " remaining")),
            (r"^# ab?$", ("# a", "")),
            (r"^# ab?c$", ("# a", "c")),
            (r"^# number \d$", ("# number ", "")),
            (r"^# (?:a|b) c$", ("# ", " c")),
            ("^#$", ("#", "#")),
            ("# not anchored", ("", "")),
        ] {
            assert_eq!(literals(pattern), ends, "{pattern}");
        }
        let groups = Regex::new(r"\([^)]*\)").unwrap();
        for known in KNOWN.iter() {
            let example = known.rule.example.1.trim_end();
            assert!(Regex::new(known.rule.pattern).unwrap().is_match(example));
            assert!(!known.begin.is_empty(), "{}", known.rule.name);
            let alternatives = groups.replace_all(known.rule.pattern, "").contains('|');
            assert!(!alternatives, "{} has more ends than two", known.rule.name);
        }
    }

    /// Comments that two rules know in one menu, and what becomes of them.
    const CONTESTED: [(&str, &str, &str); 3] = [
        (
            "/interface wifi",
            "# mode: AP, SSID: radio not ready, channel: not ready",
            "interface-not-ready",
        ),
        (
            "/interface bridge vlan",
            "# duplicate vlan ids are not allowed on vlan1 not ready",
            "duplicate-vlan-ids",
        ),
        (
            "/interface ethernet",
            "# poe-out status: ether1 not ready",
            "interface-not-ready",
        ),
    ];

    proptest! {
        #[test]
        fn the_order_of_the_table_means_nothing(
            table in Just((0..KNOWN.len()).collect::<Vec<_>>()).prop_shuffle()
        ) {
            let examples = rules().iter().map(|rule| rule.example);
            let contested = CONTESTED.iter().map(|(menu, line, _)| (*menu, *line));
            let cases: Vec<_> = examples.chain(contested).collect();
            for (_, line) in &cases {
                let line = line.trim_end();
                for (menu, _) in &cases {
                    let known = table.iter().map(|at| &KNOWN[*at]).filter(|known| known.matches(line));
                    prop_assert_eq!(choose(menu, known), classify(menu, line), "{} in {}", line, menu);
                }
            }
        }
    }

    #[test]
    fn of_two_rules_the_first_by_name_counts() {
        for (menu, line, name) in CONTESTED {
            let knowing = KNOWN.iter().filter(|known| known.matches(line)).count();
            let told = match classify(menu, line) {
                Class::Known(rule) => rule.name,
                Class::Unknown => "",
            };
            assert_eq!(told, name, "{line}");
            assert!(knowing >= 2, "{line}");
        }
    }

    #[test]
    fn a_rule_for_some_menus_knows_nothing_elsewhere() {
        for rule in rules().iter().filter(|rule| !rule.menus.is_empty()) {
            assert_eq!(classify("/system clock", rule.example.1), Class::Unknown);
        }
        assert_eq!(
            classify("/ip firewallish", "# inactive time"),
            Class::Unknown
        );
        assert!(is_known("/ip/firewall/filter", "# inactive time"));
        for menu in [
            "/interface wireless",
            "/interface wifi",
            "/interface wifiwave2",
        ] {
            assert!(is_known(menu, "# managed by CAPsMAN"), "{menu}");
        }
    }

    #[test]
    fn what_an_operator_might_note_is_unknown() {
        for line in [
            "# Office uplink, do not touch",
            "# channel: see the plan",
            "# managed by CAPsMAN since May",
            "# not running any more",
            "#not running",
            "# software id = ABCD-EF12",
        ] {
            assert_eq!(
                classify("/interface wireless", line),
                Class::Unknown,
                "{line}"
            );
        }
    }

    #[test]
    fn error_lines_tell_what_is_missing() {
        let failed = |menu, harmless| Some(ErrorLine::Failed { menu, harmless });
        for (line, expected) in [
            ("#interrupted", Some(ErrorLine::Interrupted)),
            ("#interrupted\r", Some(ErrorLine::Interrupted)),
            (
                "#error exporting /interface bridge calea",
                failed("/interface bridge calea", true),
            ),
            (
                "#error exporting /ip/firewall/calea\r",
                failed("/ip/firewall/calea", true),
            ),
            (
                "#error exporting /tool user-manager profile",
                failed("/tool user-manager profile", true),
            ),
            (
                "#error exporting /ip firewall filter",
                failed("/ip firewall filter", false),
            ),
            (
                "#error exporting \"/ipv6/route\" (timeout)",
                failed("/ipv6/route", false),
            ),
            (
                "#error exporting /ipv6/route (timeout)",
                failed("/ipv6/route", false),
            ),
            (
                "#error exporting \"/system/routerboard/mode-button\"",
                failed("/system/routerboard/mode-button", true),
            ),
            (
                "#error exporting \"/figman/peer\"",
                failed("/figman/peer", true),
            ),
            (
                "#error exporting \"/figman/peer\" (timeout)",
                failed("/figman/peer", false),
            ),
            (
                "#error exporting \"/app/settings\"",
                failed("/app/settings", true),
            ),
            ("#error exporting \"/app\"", failed("/app", false)),
            // Every router has this menu, whatever is said of it or not.
            (
                "#error exporting \"/ip/firewall/filter\"",
                failed("/ip/firewall/filter", false),
            ),
            (
                "#error exporting /user-manager/user",
                failed("/user-manager/user", false),
            ),
            ("#error exporting \"/ipv6", failed("/ipv6", false)),
            ("#error exporting", failed("", false)),
            ("# interrupted", None),
            ("# error exporting /ip", None),
            ("add name=a", None),
        ] {
            assert_eq!(ErrorLine::parse(line), expected, "{line}");
        }
    }
}
