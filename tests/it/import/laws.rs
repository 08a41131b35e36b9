//! What holds for every inventory: nothing by halves, nothing lost, no panic.

use std::time::Duration;

use mikrotik_backup::domain::host_key::Fingerprint;
use mikrotik_backup::domain::session::{DeviceSettings, SshAlgorithms};
use mikrotik_backup::import::{
    ImportedDevice, PrivateKey, Secrets, from_csv, from_oxidized, to_csv,
};
use proptest::prelude::*;
use secrecy::SecretString;

use super::{config, seen, texts};

fn device() -> impl Strategy<Value = ImportedDevice> {
    // Names and labels as they come out of a file: trimmed, printable.
    let label = "[a-z\u{e4}\",'=][a-z0-9 ,;\"\u{e4}]{0,12}[a-z0-9\"]";
    // Divided by ; in its cell.
    let tag = "[a-z\u{e4}\",;\\\\]([a-z ,;\\\\\"]{0,6}[a-z;\\\\])?";
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
        (
            prop::collection::vec(tag, 0..4),
            prop::option::of(any::<[u8; 8]>()),
        ),
        settings(),
    )
        .prop_map(
            |(
                (name, address, port, username),
                (password, key),
                (tenant, group),
                (tags, host_key),
                settings,
            )| {
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
                    tags,
                    host_key: host_key.map(|blob| Fingerprint::of_key_blob(&blob)),
                    settings,
                }
            },
        )
}

fn settings() -> impl Strategy<Value = DeviceSettings> {
    let timeout = prop::option::of(1..=u64::from(DeviceSettings::LONGEST_TIMEOUT));
    let algorithms = prop::option::of(prop::sample::select(vec![
        SshAlgorithms::Modern,
        SshAlgorithms::Compatible,
    ]));
    (timeout, algorithms).prop_map(|(seconds, ssh_algorithms)| DeviceSettings {
        command_timeout: seconds.map(Duration::from_secs),
        ssh_algorithms,
    })
}

/// The devices under names of their own.
fn numbered(mut devices: Vec<ImportedDevice>) -> Vec<ImportedDevice> {
    for (index, device) in devices.iter_mut().enumerate() {
        device.name += &index.to_string();
    }
    devices
}

proptest! {
    #[test]
    fn what_is_exported_is_imported(devices in prop::collection::vec(device(), 0..6)) {
        let devices = numbered(devices);
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
        let devices = numbered(devices);
        let text = to_csv(&devices, Secrets::Omit);
        prop_assert_eq!(from_csv(text.as_bytes()).devices.len(), devices.len());
        let mut lines: Vec<&str> = text.lines().collect();
        let at = 1 + at.index(lines.len());
        lines.insert(at, bad);
        let import = from_csv((lines.join("\n") + "\n").as_bytes());
        prop_assert!(import.devices.is_empty());
        prop_assert!(import.problems.iter().any(|problem| problem.line == Some(at + 1)));
    }

    #[test]
    fn one_bad_node_anywhere_imports_nothing(
        count in 1usize..6,
        at in any::<prop::sample::Index>(),
        bad in prop::sample::select(vec![":", "x:192.0.2.9::p", "x:192.0.2.9:u:p:port", "n0", "a b:::"]),
    ) {
        let mut lines: Vec<String> = (0..count).map(|n| format!("n{n}:192.0.2.{n}:u:p")).collect();
        let good = from_oxidized(&config(""), lines.join("\n").as_bytes());
        prop_assert_eq!(good.devices.len(), count);
        let at = at.index(count + 1);
        lines.insert(at, bad.to_owned());
        let import = from_oxidized(&config(""), lines.join("\r\n").as_bytes());
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
