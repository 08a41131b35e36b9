//! Comments over several lines, and lines that should not be there, through everything that reads them.

use proptest::prelude::*;

use super::tests::judged;
use super::*;

const HEADER: &str = "# 2026-01-02 03:04:05 by RouterOS 7.30\n# software id = ABCD-EF12\n";

/// As wide as a terminal, and known to nobody.
const WIDE: &str =
    "# the address of this interface was given up because another router claims it, or wa";

fn normalizer(list: &str) -> Normalizer {
    Normalizer::ignoring(list).expect("good patterns")
}

fn whole(body: &str) -> Export {
    match judged(format!("{HEADER}{body}").as_bytes()) {
        Verdict::Whole(export) => export,
        other => panic!("{body}: {other:?}"),
    }
}

fn refusal(body: &str) -> String {
    match judged(format!("{HEADER}{body}").as_bytes()) {
        Verdict::Refused(failure) => {
            assert_eq!(failure.kind.as_str(), "truncated_output", "{failure}");
            failure.message
        }
        other => panic!("{body}: {other:?}"),
    }
}

/// How many lines of `body` should not be there, if it is whole.
fn strays(body: &str) -> u64 {
    match whole(body).doubt.map(|doubt| *doubt) {
        None => 0,
        Some(Suspicion::StrayLines { lines, .. }) => lines,
        Some(other) => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_comment_that_is_wrapped_is_ignored_with_its_rest() {
    let narrow = "# radar was detected on this chan";
    for (pattern, comment, rest) in [
        // By both parts, at any width.
        ("^# radar was detected on this channel$", narrow, "nel"),
        ("^# radar was detected on this channel$", narrow, " nel"),
        ("^# radar was detected on this channel$", narrow, " el"),
        ("^# radar .* channel now$", narrow, "nel now"),
        ("claims it, or was$", WIDE, "s"),
        ("claims it, or was \\w+ed$", WIDE, " removed"),
        // By the first, where that fills a line and the rest is indented.
        ("^# the address of this interface", WIDE, " removed"),
        ("^# the address .* or wa$", WIDE, " removed"),
        // With what would be configuration, or open a string, in an item.
        ("^# the address of this", WIDE, " by arp=enabled on it"),
        ("^# the address of this", WIDE, " by \"ether 1\""),
        ("^# the address of this", WIDE, " by the router \"east"),
        ("^# the address of .* \"east$", WIDE, "s by router \"east"),
    ] {
        let ignoring = normalizer(pattern);
        let text =
            format!("/ip address\nadd a=1\n# x y\n{comment}\n{rest}\nadd a=\"2\"\nadd a=\"3\"\n");
        let without = "/ip address\nadd a=1\n# x y\nadd a=\"2\"\nadd a=\"3\"\n";
        assert_eq!(
            ignoring.text(&text),
            without,
            "{pattern}\n{comment}\n{rest}"
        );
        assert_eq!(
            ignoring.text(&text.replace('\n', "\r\n")),
            without,
            "{rest}"
        );
        let full = normalize::whole(&ignoring, &text);
        assert_eq!(full.text.expose(), without);
        assert_eq!(full.ledger.get(&format!("ignored: {pattern}")), Some(&1));
        assert_eq!(full.shape, normalize::whole(&ignoring, without).shape);

        let terse = format!("/ip pool add a=b\n/ip address\n{comment}\n{rest}\nadd a=1\n");
        let one_line = "/ip pool add a=b\n/ip address add a=1\n";
        assert_eq!(ignoring.text(&terse), one_line, "{rest}");
    }
}

#[test]
fn three_lines_of_a_comment_are_one() {
    let second = " s claimed by the router that is behind the interface which is named after the";
    let pattern = "^# the address .* which is named after the town$";
    for third in ["town", " own", "own"] {
        let text = format!("/ip address\n{WIDE}\n{second}\n{third}\nset a=b\n");
        assert_eq!(
            normalizer(pattern).text(&text),
            text,
            "{}",
            second.trim().len()
        );
    }
    let second = format!("{second} most beautiful");
    let pattern = "^# the address .* which is named after the most beautiful town$";
    for third in ["town", " own", " town", "own"] {
        let text = format!("/ip address\n{WIDE}\n{second}\n{third}\nset a=b\n");
        let without = "/ip address\nset a=b\n";
        assert_eq!(normalizer(pattern).text(&text), without, "{third}");
        assert_eq!(normalize_text(&text), text);
        assert_eq!(commands(&text), commands(without));
        assert_eq!(strays(&text), 0);
    }
    // A known one, whose name is as long as names may be.
    let name = "the-interface-of-the-customer-with-the-longest-name-in-all-of-the-network-and-in-";
    let text = format!("/ip firewall nat\n# {name}\n{name}\nof-all not ready\nadd a=b\n");
    assert_eq!(normalize_text(&text), "/ip firewall nat\nadd a=b\n");
    // A fourth line is none.
    let four = format!("/ip address\n{WIDE}\n{second}\n{second}\n{second}\nset a=b\n");
    assert_eq!(commands(&four).len(), 2);
    assert_eq!(strays(&four), 1);
}

#[test]
fn a_rest_with_half_of_a_quoted_name_swallows_nothing() {
    let text = format!(
        "/ip address\n{WIDE}\n s claimed by \"east\nadd a=\"1\"\n{WIDE}\n\
         s claimed by \"\nadd comment=\"# x\"\n"
    );
    assert_eq!(commands(&text).len(), 2);
    assert_eq!(normalize_text(&text), text);
    let normalized = normalize(&whole(&text));
    assert_eq!(normalized.shape.menus[0].items, 2);
    assert_eq!(normalized.unknown_comment_lines, 2);
}

#[test]
fn masks_make_no_rest_of_what_is_none_and_none_of_a_rest() {
    for behind in [
        " x\\\n    y \"\npassword=example-only z\"\nset a=b\n",
        " with the password=example-only of an interface that is far away from here and there\n it was\n",
        " with the password=example-only of\nset a=\"b\"\n",
    ] {
        let text = format!("/ip address\n{WIDE}\n{behind}");
        let masked = redact(&text);
        assert!(!masked.contains("example-only"), "{masked}");
        assert_eq!(commands(&masked).len(), commands(&text).len(), "{masked}");
        assert_eq!(redact(&masked), masked);
    }
}

#[test]
fn a_known_comment_above_a_wrapped_one_goes() {
    let wrapped = format!("{WIDE}\n s claimed by \"east\" with mtu=1500");
    let text = format!("/ip firewall nat\n# inactive time\n{wrapped}\nadd a=b\n");
    let kept = format!("/ip firewall nat\n{wrapped}\nadd a=b\n");
    assert_eq!(normalize_text(&text), kept);
}

#[test]
fn what_may_be_configuration_is_never_ignored() {
    let everything = normalizer("^# [a-z]\n^# [rt](?s:.)*$\nadd\nset\n=");
    for comment in [WIDE, "# radar was detected on this chan"] {
        for line in [
            "add a=b",
            " add a=b",
            "add\ta=b",
            "set a=b",
            "set[find]",
            "remove 0",
            "unset 0 x",
            "move 1 2",
            "enable 0",
            "disable 0",
            "/ip address",
            " /ip address",
            ":log info x",
            " dd a=b",
            "et a=b",
            " a=b",
            "a=b c",
            "[find]",
            "{",
            "\"a\"",
            "x \\\n    a=b",
            "\\\n    add a=b",
        ] {
            let text = format!("/ip address\n{comment}\n{line}\nset c=d\n");
            for (normalizer, what) in [(&everything, "all"), (&Normalizer::default(), "none")] {
                let normalized = normalizer.text(&text);
                assert!(normalized.contains(line.trim()), "{what}: {normalized}");
                let read = oracle::configuration(&text);
                assert_eq!(oracle::configuration(&normalized), read, "{what}: {line}");
            }
            let with_it = text.replacen(&format!("{comment}\n"), "", 1);
            assert_eq!(commands(&text), commands(&with_it), "{line}");
        }
    }
}

#[test]
fn a_wrapped_comment_at_the_end_stands_before_an_item_that_is_missing() {
    for end in [
        format!("{WIDE}\n removed\n"),
        format!("{WIDE}\nremoved\n"),
        format!("{WIDE}\nremoved\n\n"),
        "# a narrow comment\nremoved\n".to_owned(),
        "# wan not rea\ndy\n".to_owned(),
        format!("{WIDE}\n{}\nremoved\n", &WIDE[2..]),
    ] {
        for before in [
            "/ip address\nadd a=b\n",
            "/ip address add a=b\n/ip pool\n",
            "/ip address\n",
        ] {
            let why = refusal(&format!("{before}{end}"));
            assert!(why.contains("state comment of an item"), "{end}: {why}");
        }
        assert!(matches!(
            judged(format!("{HEADER}/ip address\n{end}set a=b\n").as_bytes()),
            Verdict::Whole(_)
        ));
    }
    // A menu is bare whatever was written behind it.
    let why = refusal("/ip address\nremoved\n");
    assert!(why.contains("a menu without an item"), "{why}");
    // Ignored, it stands before nothing.
    let ignoring = |end: &str, pattern: &str| {
        let text = format!("{HEADER}/ip address\nadd a=b\n{end}\n");
        let mut dialogue = Dialogue::new(None).ignoring(normalizer(pattern));
        dialogue.judge(&super::tests::answer(text.as_bytes()))
    };
    for (end, pattern) in [
        (format!("{WIDE}\n removed"), "^# the address"),
        (format!("{WIDE}\ns removed"), "^# the address.*was removed$"),
        ("# nobody kno\nws it".to_owned(), "^# nobody knows it$"),
    ] {
        let Verdict::Whole(export) = ignoring(&end, pattern) else {
            panic!("{end}");
        };
        assert_eq!(export.doubt, None, "{end}");
        let other = ignoring(&end, "^# something else");
        assert!(matches!(other, Verdict::Refused(_)), "{end}");
    }
}

#[test]
fn lines_that_should_not_be_there_are_counted_and_those_that_may_be_are_none() {
    for (body, lines) in [
        ("", 0),
        (
            "/ip address\nadd a=b\nset x y=z\nremove 0\n:put x\n add c=d\n",
            0,
        ),
        ("/ip address add a=b\n/ip address\n# x y\nset a=b\n", 0),
        (
            "/system script\nadd source=\"a\nb\n  c \\\n    d\"\nadd a=\\\n    b\n",
            0,
        ),
        ("/ip address\n# wan not re\nady\nadd a=b\n", 0),
        (
            "/ip address\nadd a=b\nConnection closed by admin\nadd c=d\n",
            1,
        ),
        ("/ip address\nadd a=b\n Connection closed by admin\n", 1),
        ("/ip address\nout of memory\nadd a=b\nout of memory\n", 2),
        ("/ip address\nadd a=b\n[admin@edge] > \n", 1),
        ("/ip address\nadd a=b\nname=c\n    d=e\n", 2),
        ("/ip address\nadd a=b\nx \\\n    add c=d\n", 1),
        ("/ip address\nadd a=b\nx \"\nadd c=d\"\n", 1),
        ("/ip address\n# x y\nConnection closed\nadd a=b\n", 1),
        ("/ip address\n\\\n    add a=b\n", 0),
        ("Connection closed\n/ip address\nadd a=b\n", 1),
        ("/ip address\nadding=b\nadd a=b\n", 1),
    ] {
        assert_eq!(strays(body), lines, "{body}");
        assert_eq!(strays(&body.replace('\n', "\r\n")), lines, "{body}");
    }
    // Behind a wide comment, it is the rest only where that can be seen.
    for (rest, lines) in [(" removed", 0), ("Connection closed by admin", 1)] {
        let body = format!("/ip address\n{WIDE}\n{rest}\nadd a=b\n");
        assert_eq!(strays(&body), lines, "{rest}");
    }
    let ended = format!("# the-{}-interface not ready", "x".repeat(70));
    let body = format!("/ip address\n{ended}\n Connection closed\nadd a=b\n");
    assert_eq!(strays(&body), 1);
    assert_eq!(normalize_text(&body), body, "nothing of it is lost");

    let told = whole("/ip address\nadd a=b\nx y\n/ip pool\nx y\nset a=b\n").doubt;
    let told = told.expect("a doubt");
    assert_eq!(told.as_str(), "stray_lines");
    assert_eq!(
        told.to_string(),
        "2 lines of the export are neither a menu nor a command nor a comment; the first is line 5, in \
         /ip address, not shown, for it may hold a secret (see \"ssh USER@ROUTER '/export \
         show-sensitive' | sed -n 5p\"); if the router prints it each time, report it, else find what \
         writes there"
    );
}

/// Sentences as they end, and what was seen of them at a break.
const RESTART: &str = "configuration has changed, please restart the device in order to";

#[test]
fn nothing_goes_with_a_comment_that_has_ended() {
    let menu = "/ip neighbor discovery-settings\n";
    for name in ["a", "ipv6 neighbor", "ipv6 *accept router advertisements*"] {
        for end in [" apply the new settings", " apply the new setting"] {
            let ended = format!("# {name} {RESTART}{end}");
            let gone = format!("{menu}set a=b\n");
            assert_eq!(normalize_text(&format!("{menu}{ended}\nset a=b\n")), gone);
            for line in [
                " Connection closed by admin",
                "out of memory",
                " and what else",
            ] {
                let body = format!("{menu}{ended}\n{line}\nset a=b\n");
                assert_eq!(normalize_text(&body), body, "nothing of it is lost");
                assert_eq!(strays(&body), 1, "{body}");
            }
        }
    }
}

#[test]
fn the_end_of_the_sentence_is_known_wherever_it_breaks() {
    let menu = "/ip neighbor discovery-settings\n";
    let end = " apply the new settings";
    for name in ["a", "ipv6 neighbor"] {
        for at in 0..end.len() {
            let (begun, missing) = end.split_at(at);
            for rest in [
                format!(" {missing}"),
                format!(" {}", &missing[1..]),
                missing.to_owned(),
            ] {
                if rest.trim().is_empty() {
                    continue;
                }
                let body = format!("{menu}# {name} {RESTART}{begun}\n{rest}\nset a=b\n");
                assert_eq!(normalize_text(&body), format!("{menu}set a=b\n"), "{body}");
                assert_eq!(strays(&body), 0, "{body}");
            }
        }
        let bare = format!("{menu}# {name} {RESTART}\nset a=b\n");
        assert_eq!(normalize_text(&bare), format!("{menu}set a=b\n"));
    }
}

#[test]
fn a_pattern_does_not_know_a_comment_by_the_letter_that_it_may_lack() {
    // Above another comment it is not the one that lacks a letter, and with that gone, it must not be.
    let channel =
        "# mode: station-bridge, SSID: The network of the guests, northern hall, channel: 5180";
    let ignoring = normalizer("^# .*[a-z]$");
    let text = format!("{channel}\n# radar was detected\n\n# x 1\n");
    let once = ignoring.text(&text);
    assert_eq!(once, format!("{channel}\n\n# x 1\n"));
    assert_eq!(ignoring.text(&once), once);
}

#[test]
fn known_errors_and_another_export_are_cuts() {
    for body in [
        "/ip address\nadd a=b\n interrupted\n",
        "/ip address\nadd a=b\n\tinterrupted\nadd c=d\n",
        "/ip address\n# the-interface not ready\n interrupted\nadd a=b\n",
    ] {
        let why = refusal(body);
        assert!(why.contains("an error of the router's console"), "{why}");
    }
    for second in ["", "# software id = ABCD-EF12\n"] {
        let header = "# jan/02/1970 00:00:01 by RouterOS 6.49.10";
        for before in ["", "/ip address\nadd a=b\n", "/ip address\n"] {
            let why = refusal(&format!("{before}{header}\n{second}/ip address\nadd a=b\n"));
            assert!(why.contains("another export begins in it"), "{why}");
        }
    }
    // In a note it is configuration.
    let note = "/system note\nset note=\"\n# 2026-01-02 03:04:05 by RouterOS 7.30\n\"\n";
    assert_eq!(strays(note), 0);
}

/// Text made of what comments, their rests and configuration begin, end and are mistaken with.
fn soup() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        WIDE,
        "# wan not re",
        "# radar was det",
        "#",
        "\n",
        "\n",
        "\n",
        "\n ",
        "\r\n",
        "\n\n",
        "ady",
        "ected",
        " s claimed",
        "x=\"y",
        "x y=z",
        "\"",
        "\\",
        "\\\n    ",
        "add a=b",
        "set",
        "/ip address\n",
        "# inactive time",
        "/ip pool add a=b\n",
        " ",
        "\t",
        "é",
        "# 2026-01-02 03:04:05 by RouterOS 7.20\n",
        // Known ones that break where what follows begins as configuration.
        "# mode: station-bridge, SSID: The network of the guests, northern hall, channel: 5180\n",
        "# channel: 5500/20-Ceee/ac/DP(17dBm), SSID: The network of the guests of the house, it is\n",
        "/Ceee",
        "/ax",
        ", CAPsMAN forwarding",
        "\n \"19",
        ":5",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..24).prop_map(|l| l.concat())
}

proptest! {
    #[test]
    fn no_configuration_is_lost_whatever_is_ignored(text in soup(), after: bool) {
        let text = if after { text.clone() + "\n" + WIDE + "\n" + &text } else { text };
        for list in ["", "^# radar was detected$", "^# the address", "^# [a-z]\nclaimed$", "^# .*[a-z]$"] {
            let normalizer = normalizer(list);
            let once = normalizer.text(&text);
            prop_assert_eq!(oracle::configuration(&once), oracle::configuration(&text));
            prop_assert_eq!(normalizer.text(&once), once);
        }
    }

    #[test]
    fn what_stands_behind_a_comment_is_read_as_without_it(text in soup(), at: prop::sample::Index) {
        // A comment between two lines changes no configuration.
        let body = "/ip address\nadd a=\"b\"\n/ip pool\nset c=\\\n    d\nremove 0\n";
        let ends = [0, 12, 22, 31, 45];
        let at = ends[at.index(ends.len())];
        let comment = format!("# {}\n", text.replace(['\n', '\r'], " "));
        let with = [&body[..at], &comment, &body[at..]].concat();
        prop_assert_eq!(commands(&with), commands(body));
        prop_assert_eq!(commands(&normalize_text(&with)), commands(body));
    }
}
