//! Inventories as operators have them: our CSV, and Oxidized's example configurations.

mod csv;
mod laws;
mod oxidized;

use std::fs;
use std::path::Path;

use mikrotik_backup::domain::host_key::Fingerprint;
use mikrotik_backup::domain::session::DeviceSettings;
use mikrotik_backup::import::{Finding, Import, ImportedDevice, PrivateKey};
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
    tags: Vec<String>,
    host_key: Option<Fingerprint>,
    settings: DeviceSettings,
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
        tags: device.tags.clone(),
        host_key: device.host_key.clone(),
        settings: device.settings,
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

/// A config whose nodes are `name:ip:username:password:ssh_port`, with more appended.
fn config(more: &str) -> String {
    format!(
        "source:\n  default: csv\n  csv:\n    map: {{name: 0, ip: 1, username: 2, password: 3}}\n    \
         vars_map: {{ssh_port: 4, ssh_proxy: 5}}\nmodel: routeros\n{more}"
    )
}
