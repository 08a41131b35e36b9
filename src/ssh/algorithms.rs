//! What the client offers: modern algorithms first, then those that old RouterOS needs.

use std::borrow::Cow;
use std::sync::Arc;

use russh::client::{Config, GexParams};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Limits, Preferred, SshId, cipher, compression, kex, mac};

use super::Negotiated;

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

/// The client's configuration for one connection.
pub(super) fn config(limits: Limits) -> Arc<Config> {
    Arc::new(Config {
        // RFC 4253, section 4.2: no blank and no minus sign in the software version.
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-mikrotik_backup_",
            env!("CARGO_PKG_VERSION")
        ))),
        limits,
        window_size: WINDOW,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            key: Cow::Borrowed(HOST_KEY),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(CIPHER),
            mac: Cow::Borrowed(MAC),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
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
