//! A device as the inventory describes it, and the digests that tell which part of it was edited.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::digest::Digest;
use super::host_key::Pin;
use super::session::DeviceSettings;

/// Identifies one router.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub Uuid);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies who owns a router.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(pub Uuid);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a device listens for SSH, exactly as the inventory says it: not checked yet, so that a
/// bad row is a visible failure of that device and not of the inventory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// IPv4 address, IPv6 address (with or without brackets) or DNS name.
    pub host: String,
    /// TCP port; 22 where the inventory has none.
    pub port: i32,
}

impl Endpoint {
    /// The checked form, to dial.
    ///
    /// # Errors
    /// [`InvalidEndpoint`] names the part that is wrong and what is allowed.
    pub fn target(&self) -> Result<Target, InvalidEndpoint> {
        let host = self.host.trim();
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let printable = |c: char| c.is_ascii_graphic() && c != '/' && c != '@';
        if host.is_empty() || host.len() > 253 || !host.chars().all(printable) {
            return Err(InvalidEndpoint::Host {
                host: self.host.clone(),
            });
        }
        let port = u16::try_from(self.port).ok().filter(|port| *port != 0);
        let port = port.ok_or(InvalidEndpoint::Port { port: self.port })?;
        Ok(Target {
            host: host.to_owned(),
            port,
        })
    }
}

impl Endpoint {
    /// Under which text connections to here are counted: that of an IP address is one and the same
    /// however it is written, also as IPv4 in IPv6 (RFC 4291 section 2.5.5.2), that of a name has no
    /// capitals and no last dot. Of the router behind it nothing more is known before it is dialled.
    pub fn counted_at(&self) -> String {
        let host = self.host.trim_matches([' ', '[', ']']);
        let host = host.trim_end_matches('.').to_lowercase();
        let address = host.parse::<IpAddr>();
        let host = address.map_or(host, |address| address.to_canonical().to_string());
        format!("{host} port {}", self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target() {
            Ok(target) => target.fmt(f),
            Err(_) => write!(f, "{:?}:{}", self.host, self.port),
        }
    }
}

/// An address that can be dialled; prints as `192.0.2.1:22`, `[2001:db8::1]:22` or `name:22`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// IP address without brackets, or DNS name.
    pub host: String,
    /// TCP port, 1 to 65535.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A device row whose address cannot be dialled.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidEndpoint {
    /// The address is empty, too long or has characters that no host name has.
    #[error(
        "ip_address {host:?} is neither an IP address nor a DNS name; correct the device's row"
    )]
    Host {
        /// The stored text.
        host: String,
    },
    /// The port is out of range.
    #[error("ssh_port {port} is outside 1 to 65535; correct the device's row")]
    Port {
        /// The stored number.
        port: i32,
    },
}

/// Where the credentials of a device come from: the first of the four places that is not empty.
#[derive(Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// `devices.encrypted_credentials_transit`.
    DeviceTransit(String),
    /// `devices.encrypted_credentials`.
    DeviceSealed(Vec<u8>),
    /// `credential_profiles.encrypted_credentials_transit`.
    ProfileTransit(String),
    /// `credential_profiles.encrypted_credentials`.
    ProfileSealed(Vec<u8>),
}

impl CredentialSource {
    /// Picks the place that counts. It is final: what cannot be opened there is not looked for in
    /// the next place.
    pub fn choose(
        device_transit: Option<String>,
        device_sealed: Option<Vec<u8>>,
        profile_transit: Option<String>,
        profile_sealed: Option<Vec<u8>>,
    ) -> Option<Self> {
        device_transit
            .map(Self::DeviceTransit)
            .or(device_sealed.map(Self::DeviceSealed))
            .or(profile_transit.map(Self::ProfileTransit))
            .or(profile_sealed.map(Self::ProfileSealed))
    }

    /// The column it stands in, for messages.
    pub fn place(&self) -> &'static str {
        match self {
            Self::DeviceTransit(_) => "devices.encrypted_credentials_transit",
            Self::DeviceSealed(_) => "devices.encrypted_credentials",
            Self::ProfileTransit(_) => "credential_profiles.encrypted_credentials_transit",
            Self::ProfileSealed(_) => "credential_profiles.encrypted_credentials",
        }
    }

    fn ciphertext(&self) -> &[u8] {
        match self {
            Self::DeviceTransit(text) | Self::ProfileTransit(text) => text.as_bytes(),
            Self::DeviceSealed(bytes) | Self::ProfileSealed(bytes) => bytes,
        }
    }
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} bytes)", self.place(), self.ciphertext().len())
    }
}

/// One router of the inventory, with everything an attempt needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its identity.
    pub id: DeviceId,
    /// Its owner.
    pub tenant: TenantId,
    /// Its display name.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Where its credentials are.
    pub credentials: CredentialSource,
    /// Its trusted host key.
    pub pin: Pin,
    /// The RouterOS version it had last, as our own state or else the platform knows it: only a
    /// hint about what to try first.
    pub routeros_version: Option<String>,
    /// What differs for it from the service's own settings.
    pub settings: DeviceSettings,
}

impl Device {
    /// The digests of the three parts whose edit may lift a block.
    pub fn revision(&self) -> Revision {
        let port = self.endpoint.port.to_be_bytes();
        let pin = self.pin.as_column();
        Revision {
            endpoint: Digest::of_fields([self.endpoint.host.as_bytes(), &port]),
            credentials: Digest::of_fields([
                self.credentials.place().as_bytes(),
                self.credentials.ciphertext(),
            ]),
            pin: Digest::of_fields(pin.iter().map(|text| text.as_bytes())),
        }
    }

    /// Whether the last attempt was made at the address and port that the device has now, however they
    /// were written then: by its revision, if there is one, or by the text of [`Endpoint::counted_at`]
    /// that it `went_to`, where that is known.
    pub fn is_where(&self, last: Option<&Revision>, went_to: Option<&str>) -> bool {
        last.is_some_and(|last| {
            last.endpoint == self.revision().endpoint
                || went_to.is_some_and(|went_to| went_to == self.endpoint.counted_at())
        })
    }
}

/// What a device looked like when something happened to it: stored with every attempt, so that an
/// edit is recognised even across a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revision {
    /// Of address and port.
    pub endpoint: Digest,
    /// Of the effective credential ciphertext and its place.
    pub credentials: Digest,
    /// Of the stored fingerprint.
    pub pin: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device {
            id: DeviceId(Uuid::from_u128(1)),
            tenant: TenantId(Uuid::from_u128(2)),
            name: "edge-1".into(),
            endpoint: Endpoint {
                host: "192.0.2.1".into(),
                port: 22,
            },
            credentials: CredentialSource::DeviceSealed(vec![1, 2, 3]),
            pin: Pin::Unpinned,
            routeros_version: None,
            settings: DeviceSettings::default(),
        }
    }

    #[test]
    fn endpoints_print_as_they_are_dialled() {
        let target = |host: &str, port| {
            Endpoint {
                host: host.into(),
                port,
            }
            .target()
        };
        for (host, shown) in [
            ("192.0.2.1", "192.0.2.1:22"),
            ("2001:db8::1", "[2001:db8::1]:22"),
            ("[2001:db8::1]", "[2001:db8::1]:22"),
            (" router.example.net ", "router.example.net:22"),
        ] {
            assert_eq!(target(host, 22).expect("a valid host").to_string(), shown);
        }
        for bad in [
            "",
            "  ",
            "ssh://192.0.2.1",
            "admin@192.0.2.1",
            "a b",
            "r\u{f6}uter",
        ] {
            assert!(
                matches!(target(bad, 22), Err(InvalidEndpoint::Host { .. })),
                "{bad:?}"
            );
        }
        for bad in [0, -1, 65_536] {
            assert_eq!(
                target("192.0.2.1", bad),
                Err(InvalidEndpoint::Port { port: bad })
            );
        }
    }

    #[test]
    fn connections_are_counted_at_one_text_however_the_address_is_written() {
        for (counted, written) in [
            (
                "192.0.2.1 port 22",
                vec![
                    "192.0.2.1",
                    " 192.0.2.1 ",
                    "::ffff:192.0.2.1",
                    "[::FFFF:c000:201]",
                    "0:0:0:0:0:ffff:192.0.2.1",
                ],
            ),
            (
                "2001:db8::a port 22",
                vec!["2001:db8::A", "[2001:db8::a]", "2001:0db8:0:0::00:a"],
            ),
            (
                "router.example port 22",
                vec!["Router.Example", "router.example.", "ROUTER.EXAMPLE. "],
            ),
            // No other address: whoever writes it that way means a name, or nothing.
            ("::192.0.2 port 22", vec!["::192.0.2"]),
            ("fe80::1%ether1 port 22", vec!["fe80::1%Ether1"]),
        ] {
            for host in written {
                let endpoint = Endpoint {
                    host: host.to_owned(),
                    port: 22,
                };
                assert_eq!(endpoint.counted_at(), counted, "{host:?}");
            }
        }
    }

    #[test]
    fn first_credential_place_that_is_not_null_counts() {
        let chosen = CredentialSource::choose(None, None, Some("vault:v1:x".into()), Some(vec![1]));
        assert_eq!(
            chosen,
            Some(CredentialSource::ProfileTransit("vault:v1:x".into()))
        );
        let empty_but_there = CredentialSource::choose(None, Some(vec![]), Some("t".into()), None);
        assert_eq!(
            empty_but_there,
            Some(CredentialSource::DeviceSealed(vec![]))
        );
        assert_eq!(CredentialSource::choose(None, None, None, None), None);
    }

    #[test]
    fn an_edit_changes_only_its_own_digest() {
        let old = device().revision();
        let mut edited = device();
        edited.endpoint.port = 2222;
        let new = edited.revision();
        assert_ne!(old.endpoint, new.endpoint);
        assert_eq!((old.credentials, old.pin), (new.credentials, new.pin));

        edited = device();
        edited.credentials = CredentialSource::ProfileSealed(vec![1, 2, 3]);
        assert_ne!(old.credentials, edited.revision().credentials);

        edited = device();
        edited.pin = Pin::Unreadable(String::new());
        assert_ne!(
            old.pin,
            edited.revision().pin,
            "an empty text is a pin, NULL is none"
        );
    }

    #[test]
    fn debug_shows_no_ciphertext() {
        assert!(!format!("{:?}", device()).contains("[1, 2, 3]"));
    }
}
