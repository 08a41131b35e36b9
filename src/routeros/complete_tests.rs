//! Every sign of a cut, and what looks like one.

use super::*;

const HEADER: &str = "# 2026-01-02 03:04:05 by RouterOS 7.20\r\n# software id = ABCD-EF12\r\n";

fn cut(body: &str) -> Option<String> {
    examine(&format!("{HEADER}{body}"), &Normalizer::default()).cut
}

#[test]
fn whole_exports_are_whole() {
    for body in [
        "",
        "/ip address\r\nadd address=192.0.2.1/24\r\n",
        "/ip address add address=192.0.2.1/24\r\n",
        "/ip address\nadd address=192.0.2.1/24\n\n",
        "/ip address\r\nadd log-prefix=\\\r\n    #SMB\r\n",
        "/system script\r\nadd source=\"a\\r\\\r\n    \\n# b\"\r\n",
        "/ip address\r\nadd comment=interrupted\r\n",
        "/system note\r\nset note=\"one\rtwo\r\nthree\" show-at-login=no\r\n",
        "/ip address\r\r\nadd a=\\\r\r\n    b\r\r\n",
        "# a header of a later release\r\n",
        "/ip address\r\nadd a=b\r\n#error exporting \"/system/routerboard/mode-button\"\r\n",
        // The menu that it ends in is not there, as the router says.
        "/system/routerboard\r\n#error exporting \"/system/routerboard/mode-button\"\r\n\
         #error exporting \"/system/routerboard/reset-button\"\r\n",
        "/interface bridge calea\r\n#error exporting /interface bridge calea\r\n",
        // It could not be exported, as the router says.
        "/ip pool\r\n#error exporting \"/ip/pool\" (timeout)\r\n",
        "/ip ipsec\r\n#error exporting \"/ip/ipsec/identity\" (timeout)\r\n",
    ] {
        assert_eq!(cut(body), None, "{body:?}");
    }
}

#[test]
fn every_sign_of_a_cut_is_named() {
    for (body, sign) in [
        ("/ip address\r\nadd addr", "last line does not end"),
        (
            "/ip address\r\nadd address=192.0.2.1/24\r",
            "between carriage return",
        ),
        (
            "/ip address\r\nadd comment=\"half\r\n",
            "inside a quoted string",
        ),
        (
            "/ip address\r\nadd comment=\"half",
            "inside a quoted string",
        ),
        (
            "/ip address\r\nadd comment=a \\\r\n",
            "where a line goes on",
        ),
        ("/ip address\r\nadd comment=a \\", "where a line goes on"),
        ("/ip address\r\n", "a menu without an item"),
        (
            "/ip address\r\n#error exporting /interface bridge calea\r\n",
            "a menu without an item",
        ),
        (
            "/interface bridge calea\r\n#error exporting /interface bridge calea\r\n/ip address\r\n",
            "a menu without an item",
        ),
        (
            "/ip address\r\n#error exporting \"/ip/pool\" (timeout)\r\n",
            "a menu without an item",
        ),
        (
            "/ip ipsec identity\r\n#error exporting \"/ip/ipsec\" (timeout)\r\n",
            "a menu without an item",
        ),
        (
            "/ip pool\r\n#error exporting \"/ip/pool\" (timeout)\r\n/ip pool used\r\n",
            "a menu without an item",
        ),
        (
            "/ip pool\r\n#error exporting \"/ip/pool\" (timeout)\r\n#interrupted\r\n",
            "#interrupted",
        ),
        (
            "/ip firewall nat\r\n# wan not ready\r\n",
            "state comment of an item",
        ),
        (
            "/ip firewall nat\r\nadd a=b\r\n# the-interface-of-a-customer not rea\r\ndy\r\n",
            "state comment of an item",
        ),
        (
            "/ip address\r\nadd a=b\r\n# nobody knows this one\r\n",
            "state comment of an item",
        ),
        (
            "/ip address\r\nadd a=b\radd a=c\r\n",
            "carriage return without",
        ),
        (
            "/ip address\r\nadd a=\\\r    b\r\n",
            "carriage return without",
        ),
        (
            "/ip address\r\n# note\rset a=b\r\nset a=c\r\n",
            "carriage return without",
        ),
        (
            "/ip address\r\nadd a=b\r\n#error exporting /ip socks\r\n#interrupted\r\n",
            "#interrupted",
        ),
        ("/ip address\r\n#interrupted\r\nadd a=b\r\n", "#interrupted"),
        (
            "/ip address\r\nadd a=b\r\naction timed out - try again (13)\r\n",
            "an error of the router's console stands in it: \"action timed out - try again (13)\"",
        ),
        // Behind a comment that may go on in a line without a mark.
        (
            "/ip neighbor discovery-settings\r\n# ipv6 neighbor configuration has changed, please \
             restart the device in order to apply the new settings\r\ninterrupted\r\n\
             /ip service\r\nset telnet disabled=yes\r\n",
            "\"interrupted\"",
        ),
        (
            "/ip address\r\nadd a=b\r\ninterrupted\r\n",
            "\"interrupted\"",
        ),
        (
            "/ip address\r\nadd a=b\r\nfailure: no\r\n/ip pool\r\nadd a=b\r\n",
            "an error of",
        ),
    ] {
        let found = cut(body);
        assert!(
            found.as_deref().is_some_and(|f| f.contains(sign)),
            "{body:?}: {found:?}"
        );
    }
}

#[test]
fn the_place_of_a_cut_is_told_without_its_content() {
    for body in [
        "/ppp secret\r\nadd name=a password=\"example-only",
        "/ppp secret add name=a password=\"example-only",
    ] {
        let bytes = HEADER.len() + body.len();
        assert_eq!(
            cut(body),
            Some(format!(
                "it ends inside a quoted string, after {bytes} bytes, in menu /ppp secret"
            ))
        );
    }
}

#[test]
fn menus_that_did_not_answer_are_told_from_those_that_are_not_there() {
    let text = format!(
        "{HEADER}#error exporting \"/ipv6/route\" (timeout)\r\n/ip address\r\nadd a=b\r\n\
         #error exporting /interface bridge calea\r\n#error exporting \"/ipv6/route\" (timeout)\r\n"
    );
    let findings = examine(&text, &Normalizer::default());
    assert_eq!(findings.cut, None);
    assert_eq!(findings.incomplete_menus, ["/ipv6/route"]);
    assert_eq!(findings.unavailable_menus, ["/interface bridge calea"]);

    let text = format!("{HEADER}/ip pool\r\n#error exporting \"/ip/pool\" (timeout)\r\n");
    let findings = examine(&text, &Normalizer::default());
    assert_eq!(findings.cut, None);
    assert_eq!(
        findings.incomplete_menus,
        ["/ip/pool"],
        "waited for like others"
    );
}
