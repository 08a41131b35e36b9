//! What the client offers: modern algorithms first, then those that old RouterOS needs.

use std::borrow::Cow;
use std::sync::Arc;

use russh::client::{Config, GexParams};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{AlgorithmKind, Limits, Preferred, SshId, cipher, compression, kex, mac};

use super::Negotiated;
use crate::domain::session::{SshAlgorithms, SshPart, WeakAlgorithm};

/// Two deliberate places in this order. `DH_G14_SHA1` comes before every group exchange: old
/// RouterOS answers a group exchange with 1024 bits whatever is asked, which ends the connection,
/// while group 14 has 2048. And group 1, with its 1024 bits, is the very last resort.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
    kex::DH_G17_SHA512,
    kex::DH_G15_SHA512,
    kex::DH_G14_SHA256,
    kex::DH_G14_SHA1,
    kex::DH_GEX_SHA256,
    kex::DH_GEX_SHA1,
    kex::DH_G1_SHA1,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];

const HOST_KEY: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP384,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP521,
    },
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha512),
    },
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha256),
    },
    // ssh-rsa with SHA-1, all that RouterOS 6 has.
    Algorithm::Rsa { hash: None },
];

/// GCM before ChaCha20: the Terrapin prefix truncation (CVE-2023-48795) concerns the latter where
/// a server lacks the strict key exchange, as RouterOS does.
const CIPHER: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
    cipher::AES_256_CBC,
    cipher::AES_192_CBC,
    cipher::AES_128_CBC,
];

const MAC: &[mac::Name] = &[
    mac::HMAC_SHA512_ETM,
    mac::HMAC_SHA256_ETM,
    mac::HMAC_SHA512,
    mac::HMAC_SHA256,
    mac::HMAC_SHA1_ETM,
    mac::HMAC_SHA1,
];

/// The receive window of a channel, in bytes. RouterOS loses the tail of its output when the
/// client's window runs out, so it never may. The largest number that is positive in 32 bits with
/// a sign; PuTTY announces the same one. Dropbear counts it as 500 MB, OpenSSH takes it as it is.
const WINDOW: u32 = 0x7fff_ffff;

/// Whether a name is of an algorithm that is weak by today's measure: SHA-1 where collisions or a
/// short key count, 1024-bit groups, MD5, CBC (whose SSH form leaks, CVE-2008-5161), and ciphers of
/// another century. Group exchange with SHA-256 is none: no group under 2048 bits is accepted.
fn is_weak(part: SshPart, name: &str) -> bool {
    match part {
        SshPart::Kex => name.ends_with("-sha1"),
        SshPart::HostKey | SshPart::UserKey => matches!(name, "ssh-rsa" | "ssh-dss"),
        SshPart::Cipher => name.ends_with("-cbc") || name.starts_with("arcfour") || name == "none",
        SshPart::Mac => name.starts_with("hmac-sha1") || name.starts_with("hmac-md5"),
    }
}

/// The weak ones among what was agreed on.
pub(super) fn weak(negotiated: &Negotiated) -> Vec<WeakAlgorithm> {
    let Negotiated {
        kex,
        host_key,
        cipher,
        mac,
    } = negotiated;
    let parts = [
        (SshPart::Kex, kex),
        (SshPart::HostKey, host_key),
        (SshPart::Cipher, cipher),
        (SshPart::Mac, mac),
    ];
    let weak = parts
        .into_iter()
        .filter(|(part, name)| is_weak(*part, name));
    weak.map(|(part, name)| WeakAlgorithm {
        part,
        name: name.clone(),
    })
    .collect()
}

/// What of `all` may be offered.
fn offer<T: Clone + 'static>(
    all: &'static [T],
    part: SshPart,
    name: impl Fn(&T) -> String,
    which: SshAlgorithms,
) -> Cow<'static, [T]> {
    match which {
        SshAlgorithms::Compatible => Cow::Borrowed(all),
        SshAlgorithms::Modern => {
            let strong = all.iter().filter(|item| !is_weak(part, &name(item)));
            Cow::Owned(strong.cloned().collect())
        }
    }
}

/// What `compatible` would have agreed on for this part with a server that offers `theirs`.
pub(super) fn compatible(part: &AlgorithmKind, theirs: &[String]) -> Option<String> {
    let Preferred {
        kex,
        key,
        cipher,
        mac,
        compression,
        ..
    } = preferred(SshAlgorithms::Compatible);
    let ours: Vec<String> = match part {
        AlgorithmKind::Kex => kex.iter().map(|name| name.as_ref().to_owned()).collect(),
        AlgorithmKind::Key => key.iter().map(ToString::to_string).collect(),
        AlgorithmKind::Cipher => cipher.iter().map(|name| name.as_ref().to_owned()).collect(),
        AlgorithmKind::Mac => mac.iter().map(|name| name.as_ref().to_owned()).collect(),
        AlgorithmKind::Compression => {
            let names = compression.iter().map(|name| name.as_ref().to_owned());
            names.collect()
        }
    };
    ours.into_iter().find(|name| theirs.contains(name))
}

/// The algorithms that are offered, in the order of preference.
fn preferred(which: SshAlgorithms) -> Preferred {
    Preferred {
        kex: offer(KEX, SshPart::Kex, |name| name.as_ref().to_owned(), which),
        key: offer(HOST_KEY, SshPart::HostKey, ToString::to_string, which),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: offer(
            CIPHER,
            SshPart::Cipher,
            |name| name.as_ref().to_owned(),
            which,
        ),
        mac: offer(MAC, SshPart::Mac, |name| name.as_ref().to_owned(), which),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

/// The client's configuration for one connection.
pub(super) fn config(limits: Limits, which: SshAlgorithms) -> Arc<Config> {
    Arc::new(Config {
        // RFC 4253, section 4.2: no blank and no minus sign in the software version.
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-mikrotik_backup_",
            env!("CARGO_PKG_VERSION")
        ))),
        limits,
        window_size: WINDOW,
        preferred: preferred(which),
        // RouterOS has no larger group than 2048 bits; russh accepts no smaller one.
        gex: GexParams::new(2048, 2048, 8192).expect("russh accepts groups from 2048 bits"),
        // A busy router pauses for tens of seconds within an export. The deadline bounds it all.
        inactivity_timeout: None,
        keepalive_interval: None,
        ..Config::default()
    })
}

/// The names of what was agreed on.
pub(super) fn negotiated(names: &russh::Names) -> Negotiated {
    let aead = [
        cipher::AES_256_GCM,
        cipher::AES_128_GCM,
        cipher::CHACHA20_POLY1305,
    ];
    let mac = if aead.contains(&names.cipher) {
        "implicit"
    } else {
        names.server_mac.as_ref()
    };
    Negotiated {
        kex: names.kex.as_ref().to_owned(),
        host_key: names.key.to_string(),
        cipher: names.cipher.as_ref().to_owned(),
        mac: mac.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &kex::Name) -> usize {
        let found = KEX.iter().position(|offered| offered == name);
        found.unwrap_or_else(|| panic!("{} is not offered", name.as_ref()))
    }

    #[test]
    fn group_14_comes_before_every_group_exchange_and_weak_ones_come_last() {
        let group14 = place(&kex::DH_G14_SHA1);
        assert!(group14 < place(&kex::DH_GEX_SHA256));
        assert!(place(&kex::DH_GEX_SHA256) < place(&kex::DH_GEX_SHA1));
        assert!(place(&kex::DH_GEX_SHA1) < place(&kex::DH_G1_SHA1));
        assert!(place(&kex::DH_G14_SHA256) < group14, "sha256 before sha1");
        assert_eq!(MAC.last(), Some(&mac::HMAC_SHA1));
        assert_eq!(HOST_KEY.last(), Some(&Algorithm::Rsa { hash: None }));
    }

    #[test]
    fn weak_ones_come_after_every_better_one_but_for_group_14() {
        let weak_then_strong = |part, names: Vec<String>| -> Vec<(String, String)> {
            let mut wrong = Vec::new();
            for (at, weak) in names
                .iter()
                .enumerate()
                .filter(|(_, name)| is_weak(part, name))
            {
                let better = names[at + 1..].iter().filter(|name| !is_weak(part, name));
                wrong.extend(better.map(|better| (weak.clone(), better.clone())));
            }
            wrong
        };
        let Preferred {
            kex,
            key,
            cipher,
            mac,
            ..
        } = preferred(SshAlgorithms::Compatible);
        let names = kex.iter().map(|name| name.as_ref().to_owned());
        let names = names.filter(|name| !name.starts_with("ext-info") && !name.contains("strict"));
        let exception = [
            "diffie-hellman-group14-sha1",
            "diffie-hellman-group-exchange-sha256",
        ];
        assert_eq!(
            weak_then_strong(SshPart::Kex, names.collect()),
            [(exception[0].to_owned(), exception[1].to_owned())],
            "old RouterOS answers a group exchange with 1024 bits"
        );
        let key = key.iter().map(ToString::to_string).collect();
        assert_eq!(weak_then_strong(SshPart::HostKey, key), []);
        let cipher = cipher.iter().map(|name| name.as_ref().to_owned()).collect();
        assert_eq!(weak_then_strong(SshPart::Cipher, cipher), []);
        let mac = mac.iter().map(|name| name.as_ref().to_owned()).collect();
        assert_eq!(weak_then_strong(SshPart::Mac, mac), []);
    }

    #[test]
    fn modern_offers_nothing_weak_and_keeps_the_rest() {
        let Preferred {
            kex,
            key,
            cipher,
            mac,
            ..
        } = preferred(SshAlgorithms::Modern);
        assert!(
            kex.contains(&kex::DH_GEX_SHA256) && kex.contains(&kex::EXTENSION_SUPPORT_AS_CLIENT)
        );
        assert!(!kex.iter().any(|name| is_weak(SshPart::Kex, name.as_ref())));
        assert_eq!(kex.len(), KEX.len() - 3);
        assert_eq!(key.len(), HOST_KEY.len() - 1);
        assert_eq!(cipher.len(), CIPHER.len() - 3);
        assert_eq!(mac.len(), MAC.len() - 2);
    }

    #[test]
    fn weak_algorithms_of_a_session_are_named() {
        let of = |kex: &str, host_key: &str, cipher: &str, mac: &str| {
            let negotiated = Negotiated {
                kex: kex.into(),
                host_key: host_key.into(),
                cipher: cipher.into(),
                mac: mac.into(),
            };
            weak(&negotiated)
                .into_iter()
                .map(|weak| (weak.part, weak.name))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(
                "diffie-hellman-group14-sha1",
                "ssh-rsa",
                "aes128-ctr",
                "hmac-sha1"
            ),
            [
                (SshPart::Kex, "diffie-hellman-group14-sha1".to_owned()),
                (SshPart::HostKey, "ssh-rsa".to_owned()),
                (SshPart::Mac, "hmac-sha1".to_owned()),
            ]
        );
        assert_eq!(
            of(
                "diffie-hellman-group-exchange-sha256",
                "rsa-sha2-256",
                "aes256-cbc",
                "hmac-sha2-256"
            ),
            [(SshPart::Cipher, "aes256-cbc".to_owned())]
        );
        assert_eq!(
            of(
                "curve25519-sha256",
                "ssh-ed25519",
                "aes256-gcm@openssh.com",
                "implicit"
            ),
            []
        );
    }

    #[test]
    fn every_profile_of_routeros_finds_a_partner() {
        // routeros-over-ssh.md, section 7.
        let default = [
            "diffie-hellman-group14-sha1",
            "ssh-rsa",
            "aes128-ctr",
            "hmac-sha1",
        ];
        let strong = [
            "diffie-hellman-group-exchange-sha256",
            "rsa-sha2-256",
            "aes256-ctr",
            "hmac-sha2-256",
        ];
        for [kex, key, cipher, mac] in [default, strong] {
            assert!(KEX.iter().any(|name| name.as_ref() == kex), "{kex}");
            assert!(HOST_KEY.iter().any(|name| name.to_string() == key), "{key}");
            assert!(
                CIPHER.iter().any(|name| name.as_ref() == cipher),
                "{cipher}"
            );
            assert!(MAC.iter().any(|name| name.as_ref() == mac), "{mac}");
        }
    }
}
