//! Rests of comments that begin as configuration does, through everything that reads them; and what is
//! configuration there, whatever stands before it.

use super::tests::judged;
use super::*;

const HEADER: &str = "# 2026-01-02 03:04:05 by RouterOS 7.30\n# software id = ABCD-EF12\n";

/// As wide as a terminal, and known to nobody.
const WIDE: &str =
    "# the address of this interface was given up because another router claims it, or wa";
/// A comment that breaks right before a slash of its channel.
const CHANNEL: &str =
    "# mode: station-bridge, SSID: The network of the guests, northern hall, channel: 5180";
/// One that breaks inside the name of its network.
const NAME: &str =
    "# channel: 5500/20-Ceee/ac/DP(17dBm), SSID: The network of the guests of the house, it is";

fn strays(body: &str) -> u64 {
    match judged(format!("{HEADER}{body}").as_bytes()) {
        Verdict::Whole(export) => match export.doubt.map(|doubt| *doubt) {
            None => 0,
            Some(Suspicion::StrayLines { lines, .. }) => lines,
            Some(other) => panic!("{other:?}"),
        },
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn a_channel_that_breaks_before_its_slash_is_one_comment() {
    let items = "set [ find default-name=wifi1 ] disabled=no\nadd name=\"wifi 3\"\n";
    for rest in [
        " /ax/Ceee",
        " /ax/Ceee/D",
        " x/Ceee",
        " ax/Ceee",
        " /ax",
        " /n",
        " /20/gn",
        " /20-Ceee/ac/DP(17dBm)",
        "/Ceee",
        "/ax/Ceee",
    ] {
        for feed in ["\n", "\r\n"] {
            let with = |rest: &str| format!("/interface wifi\n{CHANNEL}\n{rest}\n{items}");
            let text = with(rest).replace('\n', feed);
            let without = format!("/interface wifi\n{items}");
            assert_eq!(normalize_text(&text), without, "{rest}");
            assert_eq!(commands(&text), commands(&without), "{rest}");
            assert_eq!(strays(&text), 0, "{rest}");
            let read = oracle::configuration(&without);
            assert_eq!(oracle::configuration(&text), read, "{rest}");
        }
        let terse = format!("/ip pool add a=b\n/interface wifi\n{CHANNEL}\n{rest}\nset a=b\n");
        let one_line = "/ip pool add a=b\n/interface wifi set a=b\n";
        assert_eq!(normalize_text(&terse), one_line, "{rest}");
    }
}

#[test]
fn a_name_that_breaks_before_a_verb_or_a_quote_is_one_comment() {
    let items = "set [ find ] disabled=no\nadd name=\"wlan 3\"\n";
    for begun in [
        "set",
        "add",
        "remove of all",
        "\"free\"",
        "\"19",
        "[new]",
        "{x}",
        "#1",
        ": no",
        "\\D0\\9E",
        "/5 GHz",
        "/n",
    ] {
        for rest in [
            format!(" {begun} and more, CAPsMAN forwarding"),
            format!(" {begun}, local forwarding"),
        ] {
            let text = format!("/interface wireless\n{NAME}\n{rest}\n{items}");
            let without = format!("/interface wireless\n{items}");
            assert_eq!(normalize_text(&text), without, "{rest}");
            assert_eq!(normalize_text(&text.replace('\n', "\r\n")), without);
            assert_eq!(commands(&text), commands(&without), "{rest}");
            assert_eq!(strays(&text), 0, "{rest}");
            let read = oracle::configuration(&without);
            assert_eq!(oracle::configuration(&text), read, "{rest}");
        }
    }
}

#[test]
fn what_begins_as_configuration_is_no_rest_unless_a_rule_knows_it() {
    for (menu, comment, line) in [
        // At column 0 RouterOS prints its menus and commands.
        ("/interface wifi", CHANNEL, "/ip address"),
        ("/interface wifi", CHANNEL, "/ax"),
        ("/interface wifi", CHANNEL, "/ip address add a=b"),
        ("/interface wireless", NAME, "/n, CAPsMAN forwarding=x"),
        ("/interface wireless", NAME, "set x, CAPsMAN forwarding"),
        ("/interface wireless", NAME, ":n, CAPsMAN forwarding"),
        // With a property, with the indent of a continuation, or without what the comment lacks.
        ("/interface wireless", NAME, " set x=y, CAPsMAN forwarding"),
        ("/interface wireless", NAME, " x=y, CAPsMAN forwarding"),
        ("/interface wireless", NAME, "    set x, CAPsMAN forwarding"),
        ("/interface wireless", NAME, "    \"x\", CAPsMAN forwarding"),
        ("/interface wireless", NAME, "\tset x, CAPsMAN forwarding"),
        ("/interface wireless", NAME, " set x, CAPsMAN forwarding\\"),
        ("/interface wireless", NAME, " set x"),
        ("/interface wireless", NAME, " remove 0"),
        ("/interface wireless", NAME, " \"x\""),
        ("/interface wifi", CHANNEL, " set x"),
        ("/interface wifi", CHANNEL, " \"x\""),
        ("/interface wifi", CHANNEL, " :log info x"),
        ("/interface wifi", CHANNEL, " /ip address"),
        ("/interface wifi", CHANNEL, " /ip address add a=b"),
        ("/interface wifi", CHANNEL, "    /ax/Ceee"),
        ("/interface wifi", CHANNEL, "\t/ax/Ceee"),
        // A comment that is narrower, that has ended, or that nobody knows.
        (
            "/interface wireless",
            "# channel: 5500/20-Ceee/ac/DP(17dBm), SSID: it is",
            " set x, CAPsMAN forwarding",
        ),
        (
            "/interface wireless",
            "# channel: 5500/20-Ceee/ac/DP(17dBm), SSID: The network of the guests, CAPsMAN forwarding",
            " set x, CAPsMAN forwarding",
        ),
        ("/interface wifi", WIDE, " set x"),
        ("/interface wifi", WIDE, " /ip address"),
        ("/interface wifi", WIDE, " /ax"),
        ("/interface wifi", WIDE, "/Ceee"),
        ("/interface wifi", WIDE, " \"x\""),
    ] {
        let text = format!("{menu}\n{comment}\n{line}\n    x=y\nset a=b\n");
        let alone = text.replacen(&format!("{comment}\n"), "", 1);
        for list in ["", "^# .*[a-z]$", "^#\n^# (?s:.)*$\nadd\nset\n/"] {
            let ignoring = Normalizer::ignoring(list).expect("good patterns");
            let kept = ignoring.text(&text);
            assert!(kept.contains(line.trim_end()), "{list}\n{comment}\n{line}");
            let read = oracle::configuration(&text);
            assert_eq!(oracle::configuration(&kept), read, "{comment}\n{line}");
        }
        assert_eq!(commands(&text), commands(&alone), "{comment}\n{line}");
    }
}

#[test]
fn an_odd_quote_that_no_rule_knows_still_opens_a_string() {
    for rest in [" \"19 is all", " \"19\" and \"20"] {
        let text = format!("{HEADER}/interface wireless\n{NAME}\n{rest}\nadd name=a\n");
        let Verdict::Refused(why) = judged(text.as_bytes()) else {
            panic!("{rest} was taken for whole");
        };
        assert!(why.message.contains("inside a quoted string"), "{why}");
    }
}

#[test]
fn a_slash_that_is_no_menu_is_never_silent() {
    for (line, lines) in [
        ("/ip address", 0),
        ("/ip/address", 0),
        ("/ip address add a=b", 0),
        ("/ip firewall nat disable 0", 0),
        ("/ip firewall filter add chain=\\\n    input", 0),
        ("/ip firewall fil\\\n    ter add chain=input", 0),
        ("/ip fire\\\n    wall filter", 0),
        ("/interface\\\n     wifi", 0),
        (":put x", 0),
        (" add c=d", 0),
        ("/Ceee", 1),
        ("/ax/Ceee", 1),
        ("/5 GHz band", 1),
        ("/", 1),
        ("/ odd", 1),
        (" /ax", 1),
        (" /ip address", 1),
        (" :put x", 1),
        (" set x", 1),
        (" remove 0", 1),
    ] {
        for before in ["", "# x y\n", &format!("{WIDE}\n")] {
            let body = format!("/ip pool\n{before}{line}\nset a=b\n");
            assert_eq!(strays(&body), lines, "{body}");
            let read = oracle::configuration(&body);
            assert_eq!(oracle::configuration(&normalize_text(&body)), read);
        }
    }
}

#[test]
fn no_comment_goes_before_what_another_one_could_go_on_with() {
    for line in [
        " /ax",
        "/Ceee",
        " set x, CAPsMAN forwarding",
        " \"x\", CAPsMAN forwarding",
    ] {
        let ignoring = Normalizer::ignoring("^# radar").expect("a good pattern");
        for above in [CHANNEL, NAME] {
            let text = format!(
                "/interface wifi\n{above}\n# radar detected\n#error exporting /interface bridge calea\n\
                 {line}\nset a=b\n"
            );
            assert_eq!(ignoring.text(&text), text, "{line}");
        }
    }
}
