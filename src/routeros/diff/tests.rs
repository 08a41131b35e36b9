//! Tests of the diff as a whole: fixtures, and the real `patch` where it is installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const PLAIN: Style<'static> = Style {
    color: false,
    escape_controls: false,
    labels: ("old", "new"),
};

const CONFIG: &str = "# software id = ABCD-EF12\n/interface bridge\nadd name=bridge\n\
    /ip firewall filter\nadd action=accept chain=input\nadd action=drop chain=input comment=\\\n    \
    \"the rest\"\n/system identity\nset name=r1\n/system script\nadd name=a source=\"one\\r\\\n    \
    \\ntwo\\r\\\n    \\n\"\n";

fn counts(diff: &Diff<'_>) -> (u64, u64) {
    (diff.added, diff.removed)
}

/// What the unified diff `text` makes of `old`, by its own line numbers.
fn applied(old: &str, text: &str) -> String {
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let mut made = String::new();
    let mut at = 0;
    let mut lines = text.split_inclusive('\n').skip(2).peekable();
    while let Some(line) = lines.next() {
        let content = &line[1..];
        let content = match lines.next_if(|next| next.starts_with('\\')) {
            Some(_) => content.trim_end_matches('\n'),
            None => content,
        };
        match line.as_bytes()[0] {
            b'@' => {
                let numbers = line.split(['-', ' ', ',']).nth(2).unwrap();
                let start: usize = numbers.parse().unwrap();
                let empty = line.split(' ').nth(1).unwrap().ends_with(",0");
                let start = if empty { start } else { start - 1 };
                made.extend(old[at..start].iter().copied());
                at = start;
            }
            b'+' => made.push_str(content),
            sign => {
                assert_eq!(old[at], content);
                at += 1;
                if sign == b' ' {
                    made.push_str(content);
                }
            }
        }
    }
    made.extend(old[at..].iter().copied());
    made
}

#[test]
fn hunks_are_named_by_their_menus() {
    let new = CONFIG
        .replace(
            "chain=input\nadd action=drop",
            "chain=input\nadd action=log\nadd action=drop",
        )
        .replace("two", "three");
    let diff = diff(CONFIG, &new, 1);
    assert_eq!(
        render(&diff, &PLAIN),
        "--- old\n+++ new\n@@ -5,2 +5,3 @@ /ip firewall filter\n add action=accept chain=input\n\
         +add action=log\n add action=drop chain=input comment=\\\n\
         @@ -11,3 +12,3 @@ /system script\n add name=a source=\"one\\r\\\n-    \\ntwo\\r\\\n\
         +    \\nthree\\r\\\n     \\n\"\n"
    );
    assert_eq!(
        diff.summary(),
        "2 lines added, 1 removed in /ip firewall filter, /system script"
    );
}

#[test]
fn a_hunk_over_two_menus_names_both_and_context_decides() {
    let new = CONFIG
        .replace("\"the rest\"", "rest")
        .replace("name=r1", "name=r2");
    let wide = diff(CONFIG, &new, 3);
    assert_eq!(wide.hunks.len(), 1);
    assert_eq!(
        wide.hunks[0].menus,
        ["/ip firewall filter", "/system identity"]
    );
    let narrow = diff(CONFIG, &new, 0);
    assert_eq!(narrow.hunks.len(), 2);
    assert_eq!(counts(&narrow), counts(&wide));
}

#[test]
fn terse_lines_carry_their_menu() {
    let old = "/ip address add address=192.0.2.1/24\n/ip pool add name=a\n";
    let new = "/ip address add address=192.0.2.2/24\n/ip pool add name=a\n/ip dns set servers=\\\n    192.0.2.53\n";
    let diff = diff(old, new, 0);
    let menus: Vec<_> = diff.hunks.iter().map(|hunk| hunk.menus.clone()).collect();
    assert_eq!(menus, [["/ip address"], ["/ip dns"]]);
    assert_eq!(
        diff.summary(),
        "3 lines added, 1 removed in /ip address, /ip dns"
    );
}

#[test]
fn changes_before_the_first_menu_and_of_whole_menus_have_names() {
    let header = diff(
        "# model = a\n/ip pool\nadd name=a\n",
        "# model = b\n/ip pool\nadd name=a\n",
        3,
    );
    assert_eq!(header.summary(), "1 line added, 1 removed in the header");
    assert!(render(&header, &PLAIN).contains("@@ -1,3 +1,3 @@\n"));
    let gone = diff(CONFIG, CONFIG.split("/system identity").next().unwrap(), 3);
    assert_eq!(
        gone.summary(),
        "6 lines removed in /system identity, /system script"
    );
    let gone = diff(CONFIG, "", 3);
    assert_eq!(gone.menus.len(), 5);
    let none = diff(CONFIG, CONFIG, 3);
    assert_eq!(
        (none.summary(), render(&none, &PLAIN)),
        ("no change".into(), String::new())
    );
}

#[test]
fn a_menu_that_was_not_exported_is_not_gone() {
    let whole = "/ip address\nadd address=192.0.2.1/24\n/ipv6 route\nadd gateway=2001:db8::1\n\
        /system identity\nset name=r1\n";
    let part = "/ip address\nadd address=192.0.2.1/24\n#error exporting \"/ipv6/route\" (timeout)\n\
        /system identity\nset name=r2\n";
    let missing = ["/ipv6/route".to_owned()];
    let there = diff(whole, Side::from(part).incomplete(&missing), 3);
    assert_eq!(
        there.summary(),
        "1 line added, 1 removed in /system identity; not exported by one side: /ipv6 route"
    );
    assert_eq!(applied(whole, &render(&there, &PLAIN)), part);
    let back = diff(Side::from(part).incomplete(&missing), whole, 3);
    assert_eq!(back.summary(), there.summary());
    // What was really exported counts, on either side.
    let counted = diff(whole, part, 3);
    assert_eq!(
        counts(&counted),
        (1, 3),
        "only the comment is known to be none"
    );
    let missing = ["/system script".to_owned()];
    let added = diff(
        Side::from(whole),
        Side::from(CONFIG).incomplete(&missing),
        3,
    );
    assert!(
        added
            .menus
            .iter()
            .any(|menu| menu.menu == "/system script" && menu.added == 4)
    );
}

#[test]
fn a_terminal_is_coloured_and_not_obeyed() {
    let diff = diff(
        "/system note\nset note=a\n",
        "/system note\nset note=\"\u{1b}[2J\u{202e}\"\n",
        3,
    );
    let style = Style {
        color: true,
        escape_controls: true,
        labels: ("old\n+++ x", "new"),
    };
    let text = render(&diff, &style);
    assert!(text.contains("\x1b[31m-set note=a\x1b[0m\n"), "{text:?}");
    assert!(
        text.contains("\x1b[32m+set note=\"\\u{1b}[2J\\u{202e}\"\x1b[0m\n"),
        "{text:?}"
    );
    assert!(
        text.starts_with("\x1b[1m--- old +++ x\x1b[0m\n"),
        "{text:?}"
    );
    assert!(text.contains("\x1b[36m@@ -1,2 +1,2 @@ /system note\x1b[0m\n"));
}

#[test]
fn debug_shows_no_line() {
    let diff = diff("a=example-only\n", "b=example-only\n", 3);
    let shown = format!("{diff:?} {:?}", diff.hunks[0].lines);
    assert!(!shown.contains("example-only"), "{shown}");
}

#[test]
fn a_changed_secret_is_a_change_though_it_is_masked() {
    let config = |psk: &str, key: &str| {
        Redacted::new(&format!(
            "/ppp secret\nadd name=a password={psk}\nadd name=b password=same private-key={key}\n"
        ))
    };
    let (old, new, same) = (config("one", "x"), config("two", "x"), config("one", "x"));
    let diff = diff(&old, &new, 0);
    assert_eq!(
        render(&diff, &PLAIN),
        "--- old\n+++ new\n@@ -2 +2 @@ /ppp secret\n-add name=a password=*****\n\
         +add name=a password=*****\n"
    );
    assert!(super::diff(&old, &same, 3).is_empty());
}

fn patched(old: &str, patch: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("config"), old).unwrap();
    fs::write(at("patch"), patch).unwrap();
    let done = Command::new("patch")
        .args(["--silent", "--fuzz=0", "--unified", "config", "patch"])
        .current_dir(folder.path())
        .output()
        .ok()?;
    assert!(done.status.success(), "{done:?}\n{patch}");
    // A patched file that is empty is removed.
    Some(fs::read_to_string(at("config")).unwrap_or_default())
}

#[test]
fn patch_makes_the_new_text_of_the_old_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/routeros");
    let mut texts = vec!["/ip pool\nadd name=no-end".to_owned(), CONFIG.to_owned()];
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path().join("normalized.rsc");
        if path.exists() {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
    assert!(texts.len() > 10, "the fixtures are missing");
    texts.sort();
    for pair in texts.windows(2) {
        let edited = pair[0]
            .replace("name=", "name=x")
            .replace("add a", "add disabled=yes a");
        for (old, new) in [
            (&pair[0], &pair[1]),
            (&pair[1], &pair[0]),
            (&pair[0], &edited),
        ] {
            for context in [0, 3] {
                let text = render(&diff(old, new, context), &PLAIN);
                if text.is_empty() {
                    assert_eq!(old, new);
                    continue;
                }
                assert_eq!(applied(old, &text), *new);
                // `patch` needs context to be sure where it is.
                if context > 0
                    && let Some(made) = patched(old, &text)
                {
                    assert_eq!(made, *new);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn the_text_of_a_diff_applies_and_its_counts_are_its_signs(
        old in "([ab]=\\\\?\n|/[ab]\n|#c\n|\"\n){0,30}[ab]?",
        new in "([ab]=\\\\?\n|/[ab]\n|#c\n|\"\n){0,30}[ab]?",
        context in 0_usize..4,
    ) {
        let diff = diff(&old, &new, context);
        let text = render(&diff, &PLAIN);
        prop_assert_eq!(diff.is_empty(), old == new);
        if !diff.is_empty() {
            prop_assert_eq!(applied(&old, &text), new.clone());
        }
        let signs = |sign: char| text.lines().skip(2).filter(|l| l.starts_with(sign)).count();
        prop_assert_eq!(counts(&diff), (signs('+') as u64, signs('-') as u64));
        for hunk in &diff.hunks {
            let of = |other| hunk.lines.iter().filter(|line| line.change != other).count();
            prop_assert_eq!(of(Change::Added), hunk.old.len());
            prop_assert_eq!(of(Change::Removed), hunk.new.len());
        }
    }
}
