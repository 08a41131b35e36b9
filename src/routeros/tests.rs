//! Laws that hold for any text: the normalisation, completeness and the export conversation.

use proptest::prelude::*;

use super::*;

pub(super) fn answer(stdout: &[u8]) -> Answer<'_> {
    Answer {
        stdout,
        stderr: b"",
        exit_status: Some(0),
        closed: true,
    }
}

pub(super) fn judged(stdout: &[u8]) -> Verdict {
    Dialogue::new(None).judge(&answer(stdout))
}

fn whole(text: &str) -> Export {
    match judged(text.as_bytes()) {
        Verdict::Whole(export) => export,
        other => panic!("{other:?}"),
    }
}

fn hash(text: &str) -> crate::domain::digest::Digest {
    normalize(&whole(text)).hash
}

/// Values as RouterOS prints them, plain and quoted, wrapped and not.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9.:/#-]{1,12}",
        Just("\"two words\"".to_owned()),
        Just("\"say \\\"hi\\\"  \\\\\"".to_owned()),
        Just("\\\n    #SMB".to_owned()),
        Just("\"# inactive time\\r\\\n    \\n# x  \\\n    \\_y\\r\\\n    \\n\"".to_owned()),
        Just("\"\"".to_owned()),
    ]
}

fn command() -> impl Strategy<Value = String> {
    let property = ("[a-z-]{1,8}", value()).prop_map(|(name, value)| format!("{name}={value}"));
    let verb = prop_oneof![Just("add"), Just("set [ find default=yes ]")];
    (verb, prop::collection::vec(property, 1..4))
        .prop_map(|(verb, properties)| format!("{verb} {}", properties.join(" ")))
}

const MENUS: [&str; 5] = [
    "/ip firewall filter",
    "/interface wireless",
    "/interface wireless cap",
    "/system routerboard settings",
    "/tool netwatch",
];

fn menu() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&MENUS[..])
}

/// Comments of every kind, the wrapped one included.
fn comment() -> impl Strategy<Value = String> {
    let known = rules().iter().map(|rule| rule.example.1.to_owned());
    let mut lines: Vec<String> = known.collect();
    lines.push("# nobody knows this one".to_owned());
    lines.push("#error exporting /interface bridge calea".to_owned());
    lines.push(
        "# a configuration has changed, please restart the device in order to\n pply the new settings"
            .to_owned(),
    );
    let wide = "# the address of this interface was given up because another router claims it, or";
    for rest in [
        " removed",
        " s claimed by \"east",
        " now with mtu=1500",
        "removed",
    ] {
        lines.push(format!("{wide}\n{rest}"));
    }
    prop::sample::select(lines)
}

/// The comments before an item, and the item.
type Commented = (Vec<String>, String);

/// Menus with their items.
type Body = Vec<(&'static str, Vec<Commented>)>;

/// What the router could not export stands behind the item of another menu that it had come to.
const HARMLESS: &str = "\n#error exporting \"/figman/peer\"";
const TIMED_OUT: &str = "\n#error exporting \"/routing/bgp/session\" (timeout)";

fn item() -> impl Strategy<Value = Commented> {
    let error = prop_oneof![
        8 => Just(""),
        1 => Just(HARMLESS),
        1 => Just(TIMED_OUT),
    ];
    let command = (command(), error).prop_map(|(command, error)| command + error);
    (prop::collection::vec(comment(), 0..3), command)
}

/// The body of an export: in one of the two forms, with or without comments.
fn body() -> impl Strategy<Value = Body> {
    prop::collection::vec((menu(), prop::collection::vec(item(), 1..4)), 0..5)
}

fn printed(body: &Body, terse: bool, comments: bool) -> String {
    let mut text = String::from("# 2026-01-02 03:04:05 by RouterOS 7.20\n# software id = \n#\n");
    for (menu, items) in body {
        if !terse {
            text += &format!("{menu}\n");
        }
        for (before, command) in items {
            let before = if comments { before.as_slice() } else { &[] };
            match (terse, before.is_empty()) {
                (true, true) => text += &format!("{menu} {command}\n"),
                (true, false) => text += &format!("{menu}\n{}\n{command}\n", before.join("\n")),
                (false, true) => text += &format!("{command}\n"),
                (false, false) => text += &format!("{}\n{command}\n", before.join("\n")),
            }
        }
    }
    text
}

/// Text made of everything that means something to the reader.
fn soup() -> impl Strategy<Value = String> {
    let mut pieces: Vec<String> = [
        "#",
        "#\n",
        "# model = A\n",
        "\"",
        "\\",
        "\n",
        "\r\n",
        "\r",
        " ",
        "    ",
        "\t",
        "a",
        "\n\n\n",
        "add a=b",
        "set x",
        "/ip address",
        "/ip address add a=b",
        "\n# inactive time\n",
        "\n/interface wireless\n",
        "# 2026-01-02 03:04:05 by RouterOS 7.20\n",
        "#error exporting /interface bridge calea\n",
        "#interrupted\n",
        " pply the new settings\n",
        "\u{F7E9}",
        "é",
    ]
    .map(str::to_owned)
    .to_vec();
    pieces.extend(rules().iter().map(|rule| format!("{}\n", rule.example.1)));
    prop::collection::vec(prop::sample::select(pieces), 0..30).prop_map(|list| list.concat())
}

proptest! {
    #[test]
    fn normalising_twice_is_normalising_once(text in soup()) {
        let once = normalize_text(&text);
        prop_assert_eq!(normalize_text(&once), once);
    }

    #[test]
    fn the_text_ends_in_one_line_feed_and_begins_with_none(text in soup()) {
        let normalized = normalize_text(&text);
        prop_assert!(normalized.ends_with('\n'));
        prop_assert!(normalized == "\n" || !normalized.starts_with('\n'));
    }

    #[test]
    fn the_text_alone_is_the_text_with_everything(text in soup()) {
        let text = format!("# 2026-01-02 03:04:05 by RouterOS 7.20\n{text}\n");
        if let Verdict::Whole(export) = judged(text.as_bytes()) {
            let normalized = normalize(&export);
            prop_assert_eq!(normalized.text.expose(), normalize_text(&export.text));
            prop_assert_eq!(normalized.hash, normalized.text.digest());
        }
    }

    #[test]
    fn the_configuration_survives(body in body(), terse: bool) {
        let text = printed(&body, terse, true);
        let configuration = oracle::configuration(&text);
        prop_assert_eq!(oracle::configuration(&normalize_text(&text)), configuration);
    }

    #[test]
    fn every_logical_line_survives_in_any_text(text in soup()) {
        let normalized = normalize_text(&text);
        prop_assert_eq!(commands(&normalized), commands(&text));
        prop_assert_eq!(oracle::configuration(&normalized), oracle::configuration(&text));
    }

    #[test]
    fn state_comments_make_no_difference(body in body(), terse: bool) {
        // Both sides keep an unknown comment, which makes an item print as state comments do.
        let known = |menu: &str, line: &str| {
            line.contains("has changed, please restart the device")
                || comments::classify(menu, line) != comments::Class::Unknown
        };
        let mut with = body.clone();
        let mut without = body;
        for (menu, items) in with.iter_mut().chain(&mut without) {
            for (before, _) in items.iter_mut() {
                before.retain(|line| known(menu, line) || line.starts_with("# nobody"));
            }
        }
        for (menu, items) in &mut without {
            for (before, _) in items.iter_mut() {
                before.retain(|line| !known(menu, line));
            }
        }
        // A terse export that has nothing but commented items cannot be told from a plain one.
        let tail = if terse { "/system identity set name=a\n" } else { "/system identity\nset name=a\n" };
        let with = printed(&with, terse, true) + tail;
        let without = printed(&without, terse, true) + tail;
        prop_assert_eq!(normalize_text(&with), normalize_text(&without));
        prop_assert_eq!(hash(&with), hash(&without));
        prop_assert_eq!(normalize(&whole(&with)).shape, normalize(&whole(&without)).shape);
    }

    #[test]
    fn line_ends_and_the_date_make_no_difference(body in body(), terse: bool) {
        let text = printed(&body, terse, true);
        let dated = text.replacen("2026-01-02 03:04:05", "jan/31/1970 23:59:59", 1);
        prop_assert_eq!(hash(&text), hash(&text.replace('\n', "\r\n")));
        prop_assert_eq!(hash(&text), hash(&dated));
    }

    #[test]
    fn another_configuration_has_another_hash(body in body(), other in body(), terse: bool) {
        let (a, b) = (printed(&body, terse, false), printed(&other, terse, false));
        let lasting = |text: &str| text.replace(HARMLESS, "");
        prop_assert_eq!(hash(&a) == hash(&b), lasting(&a) == lasting(&b));
    }

    #[test]
    fn the_form_of_an_export_does_not_change_its_shape(body in body()) {
        let shape = |terse| normalize(&whole(&printed(&body, terse, false))).shape;
        prop_assert_eq!(shape(true), shape(false));
    }

    #[test]
    fn what_is_cut_inside_a_line_is_refused(body in body(), terse: bool, at: prop::sample::Index) {
        let text = printed(&body, terse, true);
        let at = at.index(text.len());
        let cut = text[..at].trim_end_matches('\n').len();
        let verdict = judged(&text.as_bytes()[..cut]);
        prop_assert!(matches!(verdict, Verdict::Refused(_)), "{:?} at {}", verdict, cut);
    }

    #[test]
    fn judging_never_panics_and_always_ends(
        bytes: Vec<u8>,
        text in soup(),
        stderr: Vec<u8>,
        exit_status: Option<u32>,
        closed: bool,
        remembered in prop::option::of("[67]\\.[0-9]{1,2}(beta1|rc2)?"),
        headed: bool,
    ) {
        let mut stdout = Vec::new();
        if headed {
            stdout.extend_from_slice(b"# 2026-01-02 03:04:05 by RouterOS 7.20\n");
        }
        stdout.extend_from_slice(text.as_bytes());
        stdout.extend_from_slice(&bytes);
        let mut dialogue = Dialogue::new(remembered.as_deref());
        let answer = Answer { stdout: &stdout, stderr: &stderr, exit_status, closed };
        let mut asked = vec![dialogue.command()];
        loop {
            match dialogue.judge(&answer) {
                Verdict::Ask(command) => {
                    prop_assert!(!asked.contains(&command));
                    asked.push(command);
                }
                Verdict::Whole(export) => {
                    prop_assert!(closed && exit_status == Some(0));
                    let _ = normalize(&export);
                    break;
                }
                Verdict::Refused(failure) => {
                    prop_assert!(!failure.message.contains(char::is_control));
                    prop_assert!(failure.message.chars().count() < 3000);
                    break;
                }
            }
        }
    }
}

#[test]
fn version_1_cases_come_out_as_version_1_left_them() {
    let text = "# 2024/01/02 03:04:05 by RouterOS 7.14\r\n\r\n# software id = ABCD-EF12\r\n#\r\n\r\n\r\n\r\n\
        # my own note \r\n/ip address\t\r\nadd address=192.0.2.1/24 interface=ether1  \r\n\r\n\r\n";
    assert_eq!(
        normalize_text(text),
        "# software id = ABCD-EF12\n\n# my own note\n/ip address\n\
         add address=192.0.2.1/24 interface=ether1\n"
    );
    assert_eq!(normalize_text(""), "\n");
    assert_eq!(normalize_text("a"), "a\n");
}

#[test]
fn comments_stay_where_no_state_comment_can_stand() {
    for text in [
        "# inactive time\nadd a=b\n",
        "# a note\n# 2026-01-02 03:04:05 by RouterOS 7.20\n",
        "/ip address\nadd a=b\n# 2026-01-02 03:04:05 by RouterOS 7.20\n",
        "/ip firewall filter\n# inactive time\n",
        "/ip firewall filter\n# inactive time\n/ip firewall nat\nadd a=b\n",
        "/ip firewall filter\n# inactive time\n\nadd a=b\n",
        "/ip address\n# inactive time\nadd a=b\n",
        "/ip firewall filter\n#inactive time\nadd a=b\n",
        "/interface wireless\n#\nset a=b\n",
        "/ip address\n# text\n pply the new settings\nset a=b\n",
        "#error exporting \"/ipv6/route\" (timeout)\n/ip address\nset a=b\n",
        "/ip address\n# x has changed, please restart the device in order to\n\
         #error exporting /interface bridge calea\n pply the new settings\nset a=b\n",
    ] {
        assert_eq!(normalize_text(text), text);
    }
}

#[test]
fn a_state_comment_goes_before_any_command() {
    for command in ["remove 0", "unset 0 x", "move 1 2", "enable 0", "disable 0"] {
        let text = format!("/ip firewall filter\n# inactive time\n{command}\nadd a=b\n");
        let expected = text.replace("# inactive time\n", "");
        assert_eq!(normalize_text(&text), expected);
        let terse = format!("/ip pool add a=b\n/ip firewall filter {command}\n");
        let menus: Vec<_> = commands(&terse).into_iter().map(|it| it.menu).collect();
        assert_eq!(menus, ["/ip pool", "/ip firewall filter"]);
    }
}

#[test]
fn an_upgrade_that_prints_more_bare_hashes_is_no_change() {
    let body = "/ip address\nset a=b\n";
    let printed = |hashes: &str, version: &str| {
        format!(
            "# 2026-01-02 03:04:05 by RouterOS {version}\n# system id = wa/Md4+LR6P\n{hashes}{body}"
        )
    };
    let one = normalize(&whole(&printed("#\n", "7.20")));
    let three = normalize(&whole(&printed("#\n# \n#\n", "7.22.1")));
    assert_eq!(one.hash, three.hash);
    assert_eq!(one.hash, hash(&printed("", "7.24")));
    assert_eq!(
        one.text.expose(),
        format!("# system id = wa/Md4+LR6P\n{body}")
    );
    assert_eq!(one.ledger.get("bare-header-line"), Some(&1));
    assert_eq!(three.ledger.get("bare-header-line"), Some(&3));
    assert_eq!(three.unknown_comment_lines, 0);
    let between = "# software id = A\n#\n# model = B\n\n#\n# serial number = C\n";
    assert_eq!(
        normalize_text(between),
        "# software id = A\n# model = B\n\n# serial number = C\n"
    );
}

#[test]
fn bare_hashes_below_the_header_stay() {
    for text in [
        "# a note\n#\n/ip address\nset a=b\n",
        "# model = A\n# a note\n#\n",
        "/ip address\nset a=b\n#\n",
        "/ip address set a=b\n#\n/ip pool add name=a\n",
        "add a=b\n#\n",
        // With it gone, what stands before it might seem to go on.
        "# model = A\n#\nof something\n",
    ] {
        assert_eq!(normalize_text(text), text);
    }
}

#[test]
fn a_menu_behind_an_empty_piece_of_a_line_is_one_with_and_without_a_shape() {
    let head = "# 2026-01-02 03:04:05 by RouterOS 7.20\n";
    let menu = "/ip address\nset a=b\n\\\n    /interface wireless cap\n";
    let text = format!("{head}{menu}# \nset a=b\n");
    let expected = format!("{menu}set a=b\n");
    assert_eq!(normalize(&whole(&text)).text.expose(), expected);
    assert_eq!(normalize_text(&text), expected);
}

#[test]
fn of_a_menu_that_stands_once_before_several_items_each_is_rejoined() {
    let head = "/ip address add a=b\n";
    let (gone, kept) = ("# wan not ready\n", "# nobody knows this one\n");
    let menu = "/ip firewall nat";
    for (items, expected) in [
        // Before both, or before each, the menu is the same.
        (
            format!("{menu}\n{gone}add c=1\n{gone}{gone}add c=2\n"),
            format!("{menu} add c=1\n{menu} add c=2\n"),
        ),
        (
            format!("{menu}\n{gone}add c=1\n{menu}\n{gone}add c=2\n"),
            format!("{menu} add c=1\n{menu} add c=2\n"),
        ),
        // An item whose comment stays has its menu before it, whatever has become of the others.
        (
            format!("{menu}\n{kept}add c=1\n{gone}add c=2\n"),
            format!("{menu}\n{kept}add c=1\n{menu} add c=2\n"),
        ),
        (
            format!("{menu}\n{gone}add c=1\n{kept}add c=2\n"),
            format!("{menu} add c=1\n{menu}\n{kept}add c=2\n"),
        ),
        (
            format!("{menu}\n{gone}add c=1\n\n{kept}{gone}add c=2\n"),
            format!("{menu} add c=1\n\n{menu}\n{kept}add c=2\n"),
        ),
    ] {
        for tail in [
            "",
            "/ip pool add name=x\n",
            "/ip pool\n# nobody\nadd name=x\n",
        ] {
            let text = format!("{head}{items}{tail}");
            let normalized = normalize_text(&text);
            assert_eq!(normalized, format!("{head}{expected}{tail}"), "{text}");
            assert_eq!(normalize_text(&normalized), normalized, "{text}");
            assert_eq!(
                oracle::configuration(&normalized),
                oracle::configuration(&text),
                "{text}"
            );
        }
    }
}

#[test]
fn a_text_that_is_not_terse_throughout_is_not_rejoined() {
    let state = "/ip firewall nat\n# wan not ready\nadd chain=srcnat\n";
    let terse = format!("/ip address add a=b\n{state}/ip pool add name=x\n");
    assert_eq!(
        normalize_text(&terse),
        "/ip address add a=b\n/ip firewall nat add chain=srcnat\n/ip pool add name=x\n"
    );
    for mixed in [
        format!("/ip address add a=b\n{state}add chain=dstnat\n"),
        format!("/ip address add a=b\n{state}/ip pool\nadd name=x\n"),
        format!("/ip address\nadd a=b\n{state}"),
        // Nothing tells which form it is.
        state.to_owned(),
    ] {
        assert_eq!(
            normalize_text(&mixed),
            mixed.replace("# wan not ready\n", "")
        );
    }
}

#[test]
fn the_dated_line_goes_whatever_stands_behind_it() {
    let text = "# 2026-01-02 03:04:05 by RouterOS 7.20\nwan not ready\n";
    assert_eq!(normalize_text(text), "wan not ready\n");
}

#[test]
fn what_is_no_item_is_not_rejoined_with_a_menu() {
    // Behind the path it might be read as more of it.
    let text = "/ip pool add a=b\n/ip address\n# radar detected\nsettings \\\n";
    let ignoring = Normalizer::ignoring("^# radar").expect("a good pattern");
    assert_eq!(ignoring.text(text), text.replace("# radar detected\n", ""));
}

#[test]
fn unknown_comments_are_kept_listed_and_counted() {
    let text = "# 2026-01-02 03:04:05 by RouterOS 7.30\n/ip address\n# new in 7.30\nadd a=1\n\
        # new in 7.30\nadd a=2\n/ip dhcp-client\n# DHCP client can not run on slave interface!\nadd a=3\n";
    let normalized = normalize(&whole(text));
    assert_eq!(normalized.unknown_comments, ["# new in 7.30"]);
    assert_eq!(normalized.unknown_comment_lines, 2);
    assert_eq!(normalized.known_comment_lines, 1);
    let without = text.replace("# DHCP client can not run on slave interface!\n", "");
    assert!(without.ends_with(normalized.text.expose()));
}

#[test]
fn nothing_that_debug_prints_holds_configuration() {
    let text = "# 2026-01-02 03:04:05 by RouterOS 7.20\n/ppp secret\nadd password=example-only\n";
    let export = whole(text);
    let normalized = normalize(&export);
    let answer = answer(text.as_bytes());
    for printed in [
        format!("{export:?}"),
        format!("{normalized:?}"),
        format!("{answer:?}"),
    ] {
        assert!(!printed.contains("example-only"), "{printed}");
    }
}

#[test]
fn noise_cannot_fill_the_memory_of_a_shape() {
    let mut text = String::from("# 2026-01-02 03:04:05 by RouterOS 7.20\n");
    for number in 0..5000 {
        text += &format!("/m{number}\nadd a=b\n");
    }
    assert_eq!(normalize(&whole(&text)).shape.menus.len(), 4097);
}
