//! Every comment of the table, as wide as its names make it, broken at every column of every terminal and
//! in every way that was seen or is near, before items of every form.

use super::*;

/// Names that stand in comments, as wide as it takes: what would begin as configuration is among them.
const NAMES: [&str; 2] = [
    "the set \"19 of \\D0\\9E/5 add [x] remove {y} #1 : a/bc \"z\" disable-d-and",
    "the set \"19 of \\D0\\9E/5 add [x] remove {y} #1 : a/b=c \"z\" disable-d-and",
];

/// A comment of each rule that can be wider than a terminal, with the menu that it stands in.
fn wide_comments(name: &str) -> Vec<(&'static Rule, String)> {
    let of = |name: &str| {
        rules()
            .iter()
            .find(|rule| rule.name == name)
            .expect("a rule")
    };
    let word = name.replace(' ', "-");
    let mut comments: Vec<(&'static Rule, String)> = [
        ("interface-not-ready", format!("# {name} {name} not ready")),
        (
            "vrrp-bad-packet",
            format!("# received packet from {word}{word} bad format"),
        ),
        (
            "netwatch-startup-delay",
            format!("# Warning: probe waiting startup-delay={word}; {word} remaining"),
        ),
        (
            "restart-device",
            format!(
                "# {name} has changed, please restart the device in order to apply the new settings"
            ),
        ),
        (
            "restart-to-apply",
            format!("# {name} has changed, please restart device to apply settings"),
        ),
        (
            "wireless-channel",
            format!("# channel: 5500/20-Ceee/ac/DP(17dBm), SSID: {name}, CAPsMAN forwarding"),
        ),
        (
            "wireless-virtual",
            format!("# SSID: {name}, local forwarding"),
        ),
        (
            "wifi-managed-centrally",
            format!("# managed by CAPsMAN 02:00:5E:00:53:01%{word}{word}"),
        ),
        (
            "wifi-managed",
            format!("# managed by CAPsMAN 02:00:5E:00:53:01%{word}, traffic processing on {word}"),
        ),
        (
            "wifi-operated",
            format!("# operated by CAP 02:00:5E:00:53:01%{word}, traffic processing on {word}"),
        ),
        (
            "wifi-mode-virtual",
            format!("# mode: AP, SSID: {name} {name}"),
        ),
        (
            "not-a-bridge-port",
            format!("# {name} {name} not a bridge port"),
        ),
        (
            "wifi-mode",
            format!("# mode: AP, SSID: {name}, channel: 5180/ax/Ceee/D"),
        ),
    ]
    .map(|(name, comment)| (of(name), comment))
    .into();
    comments.extend(
        rules()
            .iter()
            .filter(|rule| rule.example.1.len() > 79)
            .map(|rule| (rule, rule.example.1.to_owned())),
    );
    comments
}

/// What may stand behind a comment that broke `at` there.
fn rests(comment: &str, at: usize) -> Vec<String> {
    let missing = &comment[at..];
    let lost = missing.get(1..).unwrap_or_default();
    let word = missing.trim_start();
    [
        missing.to_owned(),
        format!(" {missing}"),
        format!(" {lost}"),
        lost.to_owned(),
        format!(" {word}"),
        format!(" {}", word.get(1..).unwrap_or_default()),
    ]
    .into_iter()
    .filter(|rest| !rest.trim().is_empty())
    .collect()
}

/// Configuration that stands behind a state comment, in every form.
const ITEMS: [&str; 8] = [
    "set [ find default-name=a ] b=c\n",
    "add name=\"a b\" comment=\"# inactive time\"\nadd c=\"d\"\n",
    "add log-prefix=\\\n    #SMB protocol=tcp\n",
    "add comment=\\\n    \"in order to\\\n    \\_apply\" a=b\n/ip pool\nadd name=\"x\"\n",
    "add source=\":log info \\\"a\\\"\\r\\\n    \\n# not ready\\r\\\n    \\n/ip address\"\n",
    "set\n",
    "remove 0\nadd a=\"b\"\n",
    "set 0 a=\"b\nc\"\n/ip pool add name=d\n",
];

struct Sweep {
    text: String,
    without: String,
    /// How the rest begins.
    told: String,
}

fn sweep(name: &str, mut check: impl FnMut(&'static Rule, &str, &str, Sweep)) {
    for (rule, comment) in wide_comments(name) {
        let menu = rule.example.0;
        for at in 79..comment.len().min(121) {
            if !comment.is_char_boundary(at) {
                continue;
            }
            for rest in rests(&comment, at) {
                let items = ITEMS[(at + rest.len()) % ITEMS.len()];
                let begun = &comment[..at];
                let text = format!("{menu}\nadd x=y\n{begun}\n{rest}\n{items}");
                let without = format!("{menu}\nadd x=y\n{items}");
                let told = format!("{}: {begun}|\n|{rest}", rule.name);
                check(
                    rule,
                    begun,
                    &rest,
                    Sweep {
                        text,
                        without,
                        told,
                    },
                );
            }
        }
    }
}

#[test]
fn no_configuration_is_lost_wherever_a_comment_breaks() {
    let check = |_: &'static Rule, begun: &str, _: &str, sweep| {
        let Sweep {
            text,
            without,
            told,
        } = sweep;
        for normalizer in [
            Normalizer::default(),
            Normalizer::ignoring("^# .*[a-z]\n^# [^(](?s:.)*$").expect("good patterns"),
        ] {
            let once = normalizer.text(&text);
            assert_eq!(normalizer.text(&once), once, "{told}");
            let (read, kept) = (oracle::configuration(&text), oracle::configuration(&once));
            assert_eq!(read, kept, "{told}");
            assert_eq!(commands(&once), commands(&text), "{told}");
            // Behind a comment that fills a line, both readings see the same rests.
            if wrapped::fills_a_line(begun) {
                assert_eq!(commands(&text).len(), read.len(), "{told}");
            }
            // The items are there, whatever became of the comment.
            let items = oracle::configuration(&without);
            let found = items.iter().skip(1).filter(|item| read.contains(item));
            if !text.contains("\"19") || once == without {
                assert_eq!(found.count(), items.len() - 1, "{told}");
            }
        }
    };
    NAMES.iter().for_each(|name| sweep(name, check));
}

#[test]
fn a_comment_goes_wherever_it_breaks_and_can_be_told() {
    let mut gone = 0;
    sweep(NAMES[0], |rule, _, rest, sweep| {
        // At column 0 this may be configuration, and behind a name that ends a comment nothing shows that
        // it is none.
        let word = rest.trim_start();
        let as_menu = word.starts_with(['/', ':', '#']) || wrapped::begins_with_command(word);
        let as_value = word.starts_with(['"', '[', '{', '}', '\\']);
        let column_0 = !rest.starts_with(' ');
        let open_name = ["wifi-mode-virtual", "wifi-managed-centrally"].contains(&rule.name);
        if (as_menu && (column_0 || open_name)) || (as_value && open_name) {
            return;
        }
        let told = sweep.told;
        assert_eq!(normalize_text(&sweep.text), sweep.without, "{told}");
        assert_eq!(commands(&sweep.text), commands(&sweep.without), "{told}");
        gone += 1;
    });
    assert!(gone > 2000, "{gone} is not every column");
}

#[test]
fn a_comment_that_is_wider_by_one_letter_goes_with_the_blank_line_that_is_left_of_it() {
    for (rule, comment) in wide_comments(NAMES[0]) {
        let all_but_one = &comment[..comment.len() - 1];
        for blank in [" \r\n", " \n", "\n"] {
            let menu = rule.example.0;
            let text = format!("{menu}\nadd x=y\n{all_but_one}\n{blank}set a=b\n");
            let without = format!("{menu}\nadd x=y\nset a=b\n");
            assert_eq!(normalize_text(&text), without, "{}", rule.name);
            // Of another menu it is no state, and so the blank line stays as well.
            let elsewhere = format!("/other menu\n{all_but_one}\n{blank}set a=b\n");
            if !rule.menus.is_empty() {
                let kept = format!("/other menu\n{all_but_one}\n\nset a=b\n");
                assert_eq!(normalize_text(&elsewhere), kept, "{}", rule.name);
            }
        }
    }
}
