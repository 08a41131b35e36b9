//! What every imported device must be like, wherever it came from.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use secrecy::{ExposeSecret, SecretString};

use super::{ImportedDevice, InputFile, PrivateKey};
use crate::domain::device::Endpoint;

/// Longest name, in bytes: longer ones are a column too far, not a name.
const LONGEST_NAME: usize = 255;

/// What is wrong with a device; names no value.
pub(super) fn faults(device: &ImportedDevice) -> Vec<String> {
    let mut faults: Vec<String> = [name(&device.name), address(&device.address)]
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    if device.port == 0 {
        faults.push("the port is not a number from 1 to 65535".to_owned());
    }
    let expose = |secret: &Option<SecretString>| {
        secret
            .as_ref()
            .is_some_and(|secret| has_control(secret.expose_secret()))
    };
    let plain = |text: &Option<String>| text.as_deref().is_some_and(has_control);
    for (what, bad) in [
        ("username", plain(&device.username)),
        ("tenant", plain(&device.tenant)),
        ("group", plain(&device.group)),
        ("tags", device.tags.iter().any(|tag| has_control(tag))),
        ("password", expose(&device.password)),
        (
            "private key's passphrase",
            expose(&device.private_key_passphrase),
        ),
    ] {
        if bad {
            faults.push(format!(
                "the {what} has a line break, tab or other control character"
            ));
        }
    }
    match &device.private_key {
        Some(PrivateKey::Text(key))
            if !key.expose_secret().trim_start().starts_with("-----BEGIN") =>
        {
            faults.push(
                "the private key is not in OpenSSH or PEM form; the path of a key belongs in \
                 private_key_file"
                    .to_owned(),
            );
        }
        Some(PrivateKey::File(path)) if has_control(path) => {
            faults.push("the path of the private key has a control character".to_owned());
        }
        Some(_) => {}
        None if device.private_key_passphrase.is_some() => {
            faults.push("there is a passphrase, but no private key".to_owned());
        }
        None => {}
    }
    let secret = device.password.is_some() || device.private_key.is_some();
    if device.username.is_none() && secret {
        faults.push("there is a password or a private key, but no username".to_owned());
    }
    faults
}

fn name(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        Some("the name is empty")
    } else if name.len() > LONGEST_NAME {
        Some("the name is longer than 255 bytes")
    } else if has_control(name) {
        Some("the name has a line break, tab or other control character")
    } else if name.starts_with('#') {
        Some(
            "the name begins with #, but CSV has no comments; remove the line or rename the device",
        )
    } else {
        None
    }
}

fn address(address: &str) -> Option<&'static str> {
    const NEITHER: &str = "the address is neither an IP address nor a DNS name";
    if address.trim().is_empty() {
        return Some("the address is empty");
    }
    let endpoint = Endpoint {
        host: address.to_owned(),
        port: 22,
    };
    let Ok(target) = endpoint.target() else {
        return Some(NEITHER);
    };
    let host = target.host.split('%').next().unwrap_or_default();
    let numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    if host.contains(':') && host.parse::<Ipv6Addr>().is_err() {
        Some(
            "the address has a colon, but is not an IPv6 address; a port belongs in its own column",
        )
    } else if numeric && host.parse::<IpAddr>().is_err() {
        Some("the address is not an IPv4 address: it takes four numbers from 0 to 255")
    } else {
        None
    }
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// The names seen so far, each in its tenant or group, and their lines.
#[derive(Default)]
pub(super) struct Names(HashMap<(Option<String>, String), usize>);

impl Names {
    /// The line where the name of this device was first, if it was; else remembers it.
    ///
    /// The scope of a name is the tenant in our CSV. In Oxidized it is the group: a node's full
    /// name is `group/name` (`Node#serialize` in `lib/oxidized/node.rb`).
    pub(super) fn taken(&mut self, file: InputFile, device: &ImportedDevice) -> Option<usize> {
        let scope = match file {
            InputFile::Csv => &device.tenant,
            InputFile::Config | InputFile::RouterDb => &device.group,
        };
        let key = (scope.clone(), device.name.clone());
        match self.0.entry(key) {
            std::collections::hash_map::Entry::Occupied(first) => Some(*first.get()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(device.line);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_without_port_or_user() {
        for good in [
            "192.0.2.1",
            "2001:db8::1",
            "[2001:db8::1]",
            "fe80::1%ether1",
            "edge-1.example.net",
            "edge_1",
        ] {
            assert_eq!(address(good), None, "{good}");
        }
        for (bad, why) in [
            ("", "empty"),
            ("192.0.2.1:22", "its own column"),
            ("192.0.2.300", "0 to 255"),
            ("192.0.2", "0 to 255"),
            ("admin@192.0.2.1", "neither"),
            ("192.0.2.0/24", "neither"),
            ("edge 1", "neither"),
        ] {
            let text = address(bad).expect(bad);
            assert!(text.contains(why), "{bad}: {text}");
        }
    }
}
