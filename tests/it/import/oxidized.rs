//! Oxidized's `router.db` and `config`, in the forms of its documentation.

use mikrotik_backup::import::{Import, InputFile, from_oxidized, router_db_path};

use super::{assert_devices, assert_problems, config, fixture, texts};

fn oxidized(name: &str) -> Import {
    let config = fixture(&format!("{name}.config"));
    from_oxidized(&config, fixture(&format!("{name}.router.db")).as_bytes())
}

/// "Advanced Configuration" of Oxidized's `docs/Configuration.md`.
#[test]
fn oxidized_advanced_configuration_is_read() {
    let import = oxidized("advanced");
    assert_devices(
        &import,
        &[
            (
                "edge-1.example.net",
                "edge-1.example.net",
                22,
                "collector",
                Some("Gl0bal-Example"),
                None,
            ),
            (
                "edge-2.example.net",
                "edge-2.example.net",
                22,
                "second",
                Some("Own-Example"),
                None,
            ),
            (
                "edge-3.example.net",
                "edge-3.example.net",
                22,
                "collector",
                Some("Gl0bal-Example"),
                None,
            ),
        ],
    );
    let skipped: Vec<String> = import.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(
        skipped,
        [
            "line 5: core-1.example.net is skipped: its model is junos, not routeros",
            "line 7: switch-1.example.net is skipped: its model is ios, not routeros",
            "line 8: silent.example.net is skipped: its model is junos, not routeros",
        ]
    );
    let path = router_db_path(&fixture("advanced.config")).expect("a good config");
    assert_eq!(path.as_deref(), Some("~/.config/oxidized/router.db"));
}

/// "Source: CSV" of Oxidized's `docs/Sources.md`.
#[test]
fn oxidized_source_with_addresses_is_read() {
    assert_devices(
        &oxidized("address"),
        &[
            (
                "rtr01.local",
                "192.0.2.1",
                22,
                "oxidized",
                Some("N0t-a-Secret"),
                None,
            ),
            ("rtr02.local", "192.0.2.2", 22, "oxidized", Some(""), None),
            (
                "rtr03.local",
                "rtr03.local",
                22,
                "collector",
                Some("Gl0bal-Example"),
                None,
            ),
        ],
    );
}

/// "Advanced Group Configuration", "Public Key Authentication with SSH" and "SSH Auth Methods" of
/// Oxidized's `docs/Configuration.md`, with settings at every place.
#[test]
fn oxidized_settings_count_in_the_order_of_oxidized() {
    let import = oxidized("groups");
    let (all, ed25519) = (Some("~/.ssh/id_rsa"), Some("~/.ssh/id_ed25519"));
    assert_devices(
        &import,
        &[
            (
                "192.0.2.1",
                "192.0.2.1",
                2201,
                "admin",
                Some("In-Group-Example"),
                all,
            ),
            (
                "192.0.2.2",
                "192.0.2.2",
                2201,
                "admin",
                Some("In-Group-Example"),
                all,
            ),
            ("192.0.2.4", "192.0.2.4", 22, "keyed", None, ed25519),
            (
                "192.0.2.5",
                "192.0.2.5",
                2201,
                "by-model",
                Some("Gl0bal-Example"),
                None,
            ),
            (
                "192.0.2.6",
                "192.0.2.6",
                2201,
                "by-model",
                Some("Gl0bal-Example"),
                all,
            ),
        ],
    );
    let groups: Vec<_> = import
        .devices
        .iter()
        .map(|device| device.group.as_deref())
        .collect();
    assert_eq!(
        groups,
        [
            Some("mikrotik"),
            Some("mikrotik"),
            Some("keys"),
            Some("lab"),
            None
        ]
    );
    assert_eq!(import.skipped.len(), 1);
    assert!(import.skipped[0].why.contains("airos"));
    let note = "router.db, line 4: ssh_keys names several keys; only the first is used";
    assert_eq!(texts(&import.notes), [note]);
}

#[test]
fn a_mapped_variable_that_is_missing_is_not_looked_for_elsewhere() {
    let config = config("vars: {ssh_port: 2222}\n");
    let import = from_oxidized(
        &config,
        b"a:192.0.2.1:u:p:8022\nb:192.0.2.2:u:p\nc:192.0.2.3:u:p:nil\n",
    );
    let ports: Vec<u16> = import.devices.iter().map(|device| device.port).collect();
    assert_eq!((ports, import.problems), (vec![8022, 22, 22], vec![]));
}

#[test]
fn nodes_that_cannot_be_reached_by_ssh_alone_are_skipped() {
    let import = from_oxidized(
        &config(""),
        b"a:192.0.2.1:u:p:22:jump.example.net\nb:192.0.2.2:u:p::\n",
    );
    assert_eq!((import.devices.len(), import.problems), (1, vec![]));
    assert!(import.skipped[0].why.contains("ssh_proxy"));
    let import = from_oxidized(&config("input: {default: telnet}\n"), b"a:192.0.2.1:u:p\n");
    assert!(import.skipped[0].why.contains("not ssh"));
}

#[test]
fn each_fault_of_an_oxidized_inventory_is_told_with_its_line_and_nothing_is_imported() {
    let good = "good:192.0.2.1:user:hunter2\n";
    assert_eq!(from_oxidized(&config(""), good.as_bytes()).devices.len(), 1);
    for (line, problem) in [
        (
            "a:192.0.2.2:user:hunter2:ssh",
            "router.db, line 2: … 1 to 65535",
        ),
        (
            "a:192.0.2.2::hunter2",
            "router.db, line 2: … username is empty … write nil",
        ),
        (
            "a:192.0.2.2:nil:hunter2",
            "router.db, line 2: … no username",
        ),
        (
            "a:192.0.2.2:user:nil",
            "router.db, line 2: … neither password nor key",
        ),
        (
            ":192.0.2.2:user:hunter2",
            "router.db, line 2: … name is empty",
        ),
        (
            "a b:nil:user:hunter2",
            "router.db, line 2: … neither an IP address nor a DNS name",
        ),
        (
            "good:192.0.2.2:user:hunter2",
            "router.db, line 2: … already in line 1",
        ),
    ] {
        let import = from_oxidized(&config(""), format!("{good}{line}\n").as_bytes());
        assert_problems(&import, &[problem]);
        assert!(!texts(&import.problems)[0].contains("hunter2"));
    }
    assert_problems(
        &from_oxidized(&config(""), b"good:192.0.2.1:user:hunter2\nn\xf6rd:::\n"),
        &["router.db, line 2: … not UTF-8"],
    );
    for (config, problem) in [
        ("", "config: … empty"),
        ("a: [\n", "config, line … not YAML"),
        ("username: u\n", "config: … no source.csv"),
        ("source: {default: sql}\n", "config, line 1: … not csv"),
        (
            "source:\n  csv:\n    map: {ip: 0}\n",
            "config, line 3: … where the name is",
        ),
        (
            "source:\n  csv:\n    map: {name: first}\n",
            "config, line 3: … position of name",
        ),
        (
            "source:\n  csv:\n    delimiter: !ruby/regexp /(/\n",
            "config, line 3: … regular expression",
        ),
        (
            "source:\n  csv:\n    delimiter: ''\n",
            "config, line 3: … delimiter is empty",
        ),
    ] {
        let import = from_oxidized(config, good.as_bytes());
        assert!(import.devices.is_empty());
        let found = texts(&import.problems).join("\n");
        for word in problem.split(" … ") {
            assert!(
                found.contains(word),
                "{config:?}: {found:?} has no {word:?}"
            );
        }
    }
    let import = from_oxidized(
        &config("username: [u]\n"),
        b"a:192.0.2.1:nil:p\nb:192.0.2.2:nil:p\n",
    );
    assert_problems(
        &import,
        &["config, line 7: … username is not a single text"],
    );
}

#[test]
fn an_encrypted_router_db_says_so_and_a_decrypted_one_is_read() {
    let config = "model: routeros\nusername: u\npassword: p\nsource:\n  csv:\n    gpg: true\n    \
                  gpg_password: 'hunter2'\n    map: {name: 0}\n";
    for encrypted in [
        b"-----BEGIN PGP MESSAGE-----\n".as_slice(),
        b"\x85\x01\x0c\x03",
    ] {
        assert_problems(
            &from_oxidized(config, encrypted),
            &["router.db: … encrypted with GPG"],
        );
    }
    assert_eq!(from_oxidized(config, b"192.0.2.1\n").devices.len(), 1);
}

#[test]
fn anchors_and_merge_keys_are_followed_within_bounds() {
    let config = "model: routeros\ngroups:\n  a: &a {username: u, password: p}\n  b: {<<: *a, username: v}\n\
                  source: {csv: {map: {name: 0, group: 1}}}\n";
    let import = from_oxidized(config, b"192.0.2.1:a\n192.0.2.2:b\n");
    assert_devices(
        &import,
        &[
            ("192.0.2.1", "192.0.2.1", 22, "u", Some("p"), None),
            ("192.0.2.2", "192.0.2.2", 22, "v", Some("p"), None),
        ],
    );
    let mut laughs = String::from("a0: &a0 [lol, lol]\n");
    for level in 1..40 {
        let below = level - 1;
        laughs += &format!("a{level}: &a{level} [*a{below}, *a{below}]\n");
    }
    assert_problems(&from_oxidized(&laughs, b""), &["config, line … too much"]);
    for deep in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "{a: ".repeat(100_000),
        "? ".repeat(100_000),
    ] {
        let import = from_oxidized(&deep, b"");
        assert_eq!(import.problems[0].file, InputFile::Config);
    }
}
