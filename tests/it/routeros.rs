//! RouterOS text, from the outside: fixtures in the real form.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mikrotik_backup::routeros::{Dialogue, ExportCommand, Verdict, normalize, normalize_text};

use crate::corpus_report::report::judging::{answered, judge};

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Fixture {
    name: String,
    export: Vec<u8>,
    normalized: String,
}

fn fixtures() -> Vec<Fixture> {
    let root = manifest_dir().join("tests/fixtures/routeros");
    let mut fixtures = Vec::new();
    for entry in fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fixtures.push(Fixture {
                name: path.file_name().unwrap().to_string_lossy().into_owned(),
                export: fs::read(path.join("export.rsc")).unwrap(),
                normalized: fs::read_to_string(path.join("normalized.rsc")).unwrap(),
            });
        }
    }
    assert!(
        fixtures.len() >= 10,
        "fixtures are missing in {}",
        root.display()
    );
    fixtures
}

#[test]
fn every_fixture_is_whole_and_normalises_as_written_down() {
    for fixture in fixtures() {
        let export = judge(&fixture.export).unwrap_or_else(|why| panic!("{}: {why}", fixture.name));
        let normalized = normalize(&export);
        assert_eq!(
            normalized.text.expose(),
            fixture.normalized,
            "{}",
            fixture.name
        );
        assert_eq!(normalized.hash, normalized.text.digest());
        assert_eq!(
            normalized.unknown_comments,
            Vec::<String>::new(),
            "{}",
            fixture.name
        );
        assert_eq!(
            normalize_text(&fixture.normalized),
            fixture.normalized,
            "{}",
            fixture.name
        );
    }
}

#[test]
fn line_ends_and_the_date_of_the_header_make_no_difference() {
    for fixture in fixtures() {
        let text = String::from_utf8(fixture.export).unwrap();
        let unix = text.replace("\r\n", "\n");
        let dos = unix.replace('\n', "\r\n");
        let (first, rest) = unix.split_once('\n').unwrap();
        let version = first.rsplit(' ').next().unwrap();
        let later = format!("# 2031-12-31 23:59:59 by RouterOS {version}\n{rest}");
        for variant in [unix.clone(), dos, later] {
            let export = judge(variant.as_bytes()).unwrap();
            assert_eq!(
                normalize(&export).text.expose(),
                fixture.normalized,
                "{}",
                fixture.name
            );
        }
    }
}

#[test]
fn every_cut_inside_a_line_of_a_fixture_is_refused() {
    for fixture in fixtures() {
        let whole_lines = whole_line_ends(&fixture.export);
        for cut in 0..fixture.export.len() {
            if whole_lines.contains(&cut) {
                continue;
            }
            let verdict = judge(&fixture.export[..cut]);
            assert!(
                verdict.is_err(),
                "{} cut at {cut} was taken for whole",
                fixture.name
            );
        }
    }
}

/// Offsets right behind a line feed that ends neither a wrapped line nor a menu nor a comment of
/// an item: where a cut shows nothing. By plain text, as an independent reading of the format.
fn whole_line_ends(export: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    for line in export.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        let goes_on = text.ends_with('\\');
        let menu = text.starts_with('/') && !text.contains(" add ") && !text.contains(" set ");
        if line.ends_with(b"\n") && !goes_on && !menu {
            ends.push(at);
        }
    }
    ends
}

#[test]
fn headers_are_typed_metadata() {
    let by_name: BTreeMap<_, _> = fixtures().into_iter().map(|f| (f.name, f.export)).collect();
    let hex = judge(&by_name["hex_6.49.10"]).unwrap().header;
    assert_eq!(hex.routeros_version, "6.49.10");
    assert_eq!(hex.machine.software_id.as_deref(), Some("ABCD-EF12"));
    assert_eq!(hex.machine.model.as_deref(), Some("RB750Gr3"));
    assert_eq!(hex.machine.serial_number.as_deref(), Some("A1B2C3D4E5F6"));
    let chr = judge(&by_name["chr_7.22.1_system-id"]).unwrap();
    assert_eq!(chr.header.machine.system_id.as_deref(), Some("a/Bc0+dEfGh"));
    assert_eq!(chr.header.machine.software_id, None);
    assert_eq!(
        chr.unavailable_menus,
        [
            "/system/routerboard/mode-button",
            "/system/routerboard/reset-button",
            "/system/routerboard/wps-button"
        ]
    );
}

#[test]
fn ledgers_count_what_was_taken_out() {
    let by_name: BTreeMap<_, _> = fixtures().into_iter().map(|f| (f.name, f.export)).collect();
    let ledger = |name: &str| {
        let ledger = normalize(&judge(&by_name[name]).unwrap()).ledger;
        ledger.into_iter().collect::<Vec<_>>()
    };
    let entries = |entries: &[(&str, u64)]| -> Vec<(String, u64)> {
        entries
            .iter()
            .map(|(rule, count)| ((*rule).to_owned(), *count))
            .collect()
    };
    assert_eq!(
        ledger("cap_7.13.1_state-comments"),
        entries(&[
            ("bare-header-line", 1),
            ("dated-header", 1),
            ("wireless-cap-empty", 1),
            ("wireless-channel", 2),
            ("wireless-managed", 2),
        ])
    );
    assert_eq!(
        ledger("chr_7.10_error-exporting"),
        entries(&[
            ("bare-header-line", 1),
            ("dated-header", 1),
            ("error-exporting", 2),
            ("interface-not-ready", 1),
            ("terse-item-rejoined", 1),
        ])
    );
    assert_eq!(
        ledger("hap-ax3_7.19.4_wrapped-comment"),
        entries(&[
            ("dated-header", 1),
            ("restart-device", 1),
            ("wifi-mode", 1),
            ("wifi-no-capsman", 1),
        ])
    );
}

#[test]
fn shapes_count_secrets_and_digest_menus_whatever_the_form() {
    let by_name: BTreeMap<_, _> = fixtures().into_iter().map(|f| (f.name, f.export)).collect();
    let shape = |name: &str| normalize(&judge(&by_name[name]).unwrap()).shape;
    for (name, secrets) in [
        ("hex_6.49.10", 2),
        ("chr_6.48.6", 0),
        ("rb5009_7.18.2", 2),
        ("cap_7.13.1_state-comments", 1),
        ("hap-ax3_7.19.4_wrapped-comment", 1),
        ("ccr_6.47.10_scripts", 1),
    ] {
        assert_eq!(shape(name).secrets, secrets, "{name}");
    }
    let menus: Vec<_> = shape("chr_7.10_error-exporting").menus;
    let names: Vec<_> = menus.iter().map(|menu| menu.menu.as_str()).collect();
    assert_eq!(
        names,
        [
            "/interface bridge",
            "/interface bridge settings",
            "/ip firewall address-list",
            "/ip firewall nat",
            "/ip firewall service-port"
        ]
    );
    let terse =
        "# 2026-01-02 03:04:05 by RouterOS 7.10\n/ip pool add name=a \\\n    ranges=192.0.2.9\n";
    let plain = "# 2026-01-02 03:04:05 by RouterOS 7.10\n/ip pool\nadd name=a ranges=192.0.2.9\n";
    let of = |text: &str| normalize(&judge(text.as_bytes()).unwrap()).shape;
    assert_eq!(of(terse), of(plain));
}

#[test]
fn an_old_router_is_asked_again_on_the_same_connection() {
    let mut dialogue = Dialogue::new(None);
    assert_eq!(dialogue.command(), ExportCommand::ShowSensitive);
    let rejection = answered(b"expected end of command (line 1 column 9)\r\n");
    assert_eq!(
        dialogue.judge(&rejection),
        Verdict::Ask(ExportCommand::Plain)
    );
    let export = &fixtures()
        .into_iter()
        .find(|f| f.name == "hex_6.49.10")
        .unwrap()
        .export;
    assert!(matches!(
        dialogue.judge(&answered(export)),
        Verdict::Whole(_)
    ));
}
