//! Inventories as operators have them: our CSV, and Oxidized's example configurations.

use std::fs;
use std::path::Path;

use mikrotik_backup::import::{
    CSV_FORMAT, Finding, Import, ImportedDevice, InputFile, PrivateKey, Secrets, from_csv,
    from_oxidized, router_db_path, to_csv,
};
use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/import")
        .join(name);
    fs::read_to_string(path).expect("read a fixture")
}

/// Everything about a device but its line, with its secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    name: String,
    endpoint: (String, u16),
    username: Option<String>,
    password: Option<String>,
    key: Option<Result<String, String>>,
    passphrase: Option<String>,
    scope: (Option<String>, Option<String>),
}

fn seen(device: &ImportedDevice) -> Seen {
    let expose = |secret: &SecretString| secret.expose_secret().to_owned();
    Seen {
        name: device.name.clone(),
        endpoint: (device.address.clone(), device.port),
        username: device.username.clone(),
        password: device.password.as_ref().map(expose),
        key: device.private_key.as_ref().map(|key| match key {
            PrivateKey::File(path) => Ok(path.clone()),
            PrivateKey::Text(text) => Err(expose(text)),
        }),
        passphrase: device.private_key_passphrase.as_ref().map(expose),
        scope: (device.tenant.clone(), device.group.clone()),
    }
}

/// The devices of an import without problems: name, address, port, user, password, key file.
type Row<'a> = (
    &'a str,
    &'a str,
    u16,
    &'a str,
    Option<&'a str>,
    Option<&'a str>,
);

fn assert_devices(import: &Import, expected: &[Row]) {
    assert_eq!(import.problems, []);
    let found: Vec<Seen> = import.devices.iter().map(seen).collect();
    let found: Vec<Row> = found
        .iter()
        .map(|device| {
            let key = device
                .key
                .as_ref()
                .map(|key| key.as_deref().expect("a path"));
            (
                device.name.as_str(),
                device.endpoint.0.as_str(),
                device.endpoint.1,
                device.username.as_deref().unwrap_or(""),
                device.password.as_deref(),
                key,
            )
        })
        .collect();
    assert_eq!(found, expected);
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// Asserts that nothing is imported, and that each line is told with each of these words.
fn assert_problems(import: &Import, expected: &[&str]) {
    assert!(import.devices.is_empty());
    let found = texts(&import.problems);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        for word in expected.split(" … ") {
            assert!(found.contains(word), "{found:?} has no {word:?}");
        }
    }
}

#[test]
fn a_csv_inventory_is_read() {
    let import = from_csv(fixture("fleet.csv").as_bytes());
    assert_devices(
        &import,
        &[
            (
                "edge-1",
                "192.0.2.1",
                22,
                "backup",
                Some("correct horse"),
                None,
            ),
            (
                "edge, old",
                "2001:db8::1",
                2222,
                "backup",
                Some("say \"hi\", twice"),
                None,
            ),
            (
                "cpe-1",
                "cpe-1.example.net",
                22,
                "backup",
                None,
                Some("~/.ssh/backup_ed25519"),
            ),
            ("factory", "192.0.2.9", 22, "admin", Some(""), None),
            ("later", "192.0.2.10", 22, "", None, None),
        ],
    );
    let lines: Vec<usize> = import.devices.iter().map(|device| device.line).collect();
    assert_eq!(lines, [2, 3, 4, 5, 6]);
    assert_eq!(import.devices[0].tenant.as_deref(), Some("Northwind"));
    assert_eq!(import.devices[3].group.as_deref(), Some("cpe"));
    assert!(import.devices[3].has_login() && !import.devices[4].has_login());
    assert!(import.skipped.is_empty() && import.notes.is_empty());
}

#[test]
fn columns_come_in_any_order_and_under_their_other_names() {
    let text = "\u{feff}Tenant-ID,SSH port,user,IP,Hostname\r\n\
                7f9c,8022, backup ,192.0.2.1,edge-1\r\n";
    let import = from_csv(text.as_bytes());
    assert_devices(
        &import,
        &[("edge-1", "192.0.2.1", 8022, "backup", None, None)],
    );
    assert_eq!(import.devices[0].tenant.as_deref(), Some("7f9c"));
}

#[test]
fn each_fault_of_a_csv_file_is_told_with_its_line_and_nothing_is_imported() {
    let good = "name,address,port,password,user\nedge-1,192.0.2.1,22,hunter2,backup\n";
    assert_eq!(from_csv(good.as_bytes()).devices.len(), 1);
    for (tail, problem) in [
        (
            "edge-2,192.0.2.2,hunter2,22,backup\n",
            "line 3: … port … 1 to 65535",
        ),
        ("edge-2,192.0.2.2,0,,\n", "line 3: … port … 1 to 65535"),
        ("edge-2,192.0.2.2,65536,,\n", "line 3: … port … 1 to 65535"),
        ("edge-2,192.0.2.2:22,,,\n", "line 3: … its own column"),
        ("edge-2,,,,\n", "line 3: … the address is empty"),
        (",192.0.2.2,,,\n", "line 3: … the name is empty"),
        ("#edge-2,192.0.2.2,,,\n", "line 3: … no comments"),
        (
            "\n\nedge-1,192.0.2.2,,,\n",
            "line 5: … edge-1 is already in line 2",
        ),
        (
            "edge-2,192.0.2.2,,hunter2\n",
            "line 3: … 4 values … 5 columns",
        ),
        (
            "edge-2,192.0.2.2,,hunter2,,\n",
            "line 3: … 6 values … 5 columns",
        ),
        ("edge-2,192.0.2.2,,hunter2,\n", "line 3: … no username"),
        (
            "edge-2,192.0.2.2,,\"hunter2,backup\nedge-3,,,\n",
            "line 3: … never closed",
        ),
        (
            "edge-2,192.0.2.2,,\"hunter2\nx\",backup\n",
            "line 3: … password … control character",
        ),
        (
            "edge-2,192.0.2.2,,hun\u{0}ter2,backup\n",
            "line 3: … password … control character",
        ),
    ] {
        let import = from_csv(format!("{good}{tail}").as_bytes());
        assert_problems(&import, &[problem]);
        assert!(!texts(&import.problems)[0].contains("hunter2"), "{problem}");
    }
    for (text, problem) in [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("edge-1,192.0.2.1,22,hunter2\n", "line 1: … no header"),
        ("name;address\nedge-1;192.0.2.1\n", "line 1: … semicolons"),
        ("name\nedge-1\n", "line 1: … no column address"),
        (
            "name,address,adress\n",
            "line 1: … column 3 (adress) is unknown",
        ),
        ("name,address,\n", "line 1: … column 3 () is unknown"),
        ("name,address,ip\n", "line 1: … two columns for address"),
        (
            "name,address,private_key,private_key_file\nedge-1,192.0.2.1,-----BEGIN,~/.ssh/id\n",
            "line 2: … both",
        ),
        (
            "name,address,user,private_key\nedge-1,192.0.2.1,backup,~/.ssh/id\n",
            "line 2: … private_key_file",
        ),
        (
            "name,address,user,private_key_passphrase\nedge-1,192.0.2.1,backup,hunter2\n",
            "line 2: … no private key",
        ),
    ] {
        assert_problems(&from_csv(text.as_bytes()), &[problem]);
    }
}

#[test]
fn all_problems_of_a_csv_file_are_listed_at_once_in_order() {
    let text = "name,address,port,nickname\na,192.0.2.1,x,\nb,192.0.2.2,22,\nb,,70000,\n";
    assert_problems(
        &from_csv(text.as_bytes()),
        &[
            "line 1: … nickname",
            "line 2: … port",
            "line 4: … already in line 3",
            "line 4: … address is empty",
            "line 4: … port",
        ],
    );
}

#[test]
fn text_in_another_encoding_is_told_with_the_line_where_it_begins() {
    let latin = b"name,address\nedge-1,192.0.2.1\nn\xf6rd,192.0.2.2\n";
    assert_problems(&from_csv(latin), &["line 3: … not UTF-8"]);
    let utf16: Vec<u8> = "\u{feff}name"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_problems(&from_csv(&utf16), &["UTF-16"]);
}

#[test]
fn the_same_name_is_fine_for_another_tenant() {
    let text = "name,address,tenant\nedge-1,192.0.2.1,a\nedge-1,192.0.2.1,b\n";
    assert_eq!(from_csv(text.as_bytes()).devices.len(), 2);
}

#[test]
fn debug_shows_no_secret() {
    let text = "name,address,user,password,private_key,private_key_passphrase\n\
                edge-1,192.0.2.1,backup,hunter2,-----BEGIN hunter3,hunter4\n";
    let import = from_csv(text.as_bytes());
    assert_eq!(import.devices.len(), 1);
    assert!(!format!("{import:?}").contains("hunter"));
}

#[test]
fn an_export_holds_secrets_only_where_they_are_asked_for() {
    let devices = from_csv(fixture("fleet.csv").as_bytes()).devices;
    let plain = to_csv(&devices, Secrets::Omit);
    assert!(plain.contains("~/.ssh/backup_ed25519"));
    for secret in ["correct horse", "hi", "password"] {
        assert!(!plain.contains(secret), "{secret}");
    }
    let back = from_csv(plain.as_bytes());
    assert_eq!((back.problems, back.devices.len()), (vec![], devices.len()));
    assert!(to_csv(&devices, Secrets::Include).contains("correct horse"));
}

#[test]
fn the_help_names_every_column_of_an_export() {
    let export = to_csv(&[], Secrets::Include);
    for column in export.trim().split(',') {
        assert!(CSV_FORMAT.contains(&format!("\n  {column} ")), "{column}");
    }
}

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

/// A config whose nodes are `name:ip:username:password:ssh_port`, with more appended.
fn config(more: &str) -> String {
    format!(
        "source:\n  default: csv\n  csv:\n    map: {{name: 0, ip: 1, username: 2, password: 3}}\n    \
         vars_map: {{ssh_port: 4, ssh_proxy: 5}}\nmodel: routeros\n{more}"
    )
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

fn device() -> impl Strategy<Value = ImportedDevice> {
    // Names and labels as they come out of a file: trimmed, printable.
    let label = "[a-z\u{e4}\",'=][a-z0-9 ,;\"\u{e4}]{0,12}[a-z0-9\"]";
    let secret = || prop::option::of("[ -~\u{e4}]{0,20}".prop_map(SecretString::from));
    let host = prop_oneof![
        any::<std::net::IpAddr>().prop_map(|ip| ip.to_string()),
        "[a-z][a-z0-9-]{0,20}\\.example",
    ];
    let key = prop_oneof![
        "[~/a-z\",]{1,20}".prop_map(PrivateKey::File),
        "-----BEGIN[ -~\r\n]{0,60}".prop_map(|text| PrivateKey::Text(text.into())),
    ];
    (
        (label, host, 1..=u16::MAX, label),
        (secret(), prop::option::of((key, secret()))),
        (prop::option::of(label), prop::option::of(label)),
    )
        .prop_map(
            |((name, address, port, username), (password, key), (tenant, group))| {
                let (private_key, private_key_passphrase) =
                    key.map_or((None, None), |(k, p)| (Some(k), p));
                ImportedDevice {
                    line: 0,
                    name,
                    address,
                    port,
                    username: Some(username),
                    password,
                    private_key,
                    private_key_passphrase,
                    tenant,
                    group,
                }
            },
        )
}

proptest! {
    #[test]
    fn what_is_exported_is_imported(devices in prop::collection::vec(device(), 0..6)) {
        let mut devices = devices;
        for (index, device) in devices.iter_mut().enumerate() {
            device.name += &index.to_string();
        }
        let back = from_csv(to_csv(&devices, Secrets::Include).as_bytes());
        prop_assert_eq!(texts(&back.problems), Vec::<String>::new());
        let seen = |devices: &[ImportedDevice]| devices.iter().map(seen).collect::<Vec<_>>();
        prop_assert_eq!(seen(&back.devices), seen(&devices));
    }

    #[test]
    fn one_bad_line_anywhere_imports_nothing(
        devices in prop::collection::vec(device(), 1..6),
        at in any::<prop::sample::Index>(),
        bad in prop::sample::select(vec!["x", "a,192.0.2.1,port,,,,", "\"", "#,192.0.2.1,22,,,,"]),
    ) {
        let text = to_csv(&devices, Secrets::Omit);
        let mut lines: Vec<&str> = text.lines().collect();
        let at = 1 + at.index(lines.len());
        lines.insert(at, bad);
        let import = from_csv((lines.join("\n") + "\n").as_bytes());
        prop_assert!(import.devices.is_empty());
        prop_assert!(import.problems.iter().any(|problem| problem.line == Some(at + 1)));
    }

    #[test]
    fn no_bytes_panic_an_importer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = from_csv(&bytes);
        let _ = from_oxidized(&String::from_utf8_lossy(&bytes), &bytes);
        let _ = from_oxidized(&config(""), &bytes);
    }

    #[test]
    fn no_csv_panics_the_importer(text in "(name|address|port|\"|,|\n|\r|a| ){0,40}") {
        let import = from_csv(text.as_bytes());
        prop_assert!(import.problems.is_empty() || import.devices.is_empty());
    }

    #[test]
    fn no_configuration_panics_the_importer(
        text in "(source|csv|map|name|vars|groups|: |:|\n|  |- |\\[|\\]|\\{|\\}|, |&a|\\*a|<<|!ruby/regexp |/:/|'|~|0|-1){0,60}",
        nodes in "(a|:|\n|nil|,){0,30}",
    ) {
        let _ = from_oxidized(&text, nodes.as_bytes());
        let _ = from_oxidized(&format!("{}{text}", config("")), nodes.as_bytes());
    }

    #[test]
    fn positions_of_any_size_are_harmless(position: i64, nodes in "(a|:|\n){0,30}") {
        let config = format!("source: {{csv: {{map: {{name: 0, model: {position}}}}}}}\n");
        let _ = from_oxidized(&config, nodes.as_bytes());
    }
}
