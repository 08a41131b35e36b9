//! The SSH algorithms that RouterOS versions offer, as far as russh has them.

use std::borrow::Cow;

use clap::ValueEnum;
use russh::kex::dh::groups::{DH_GROUP1, DH_GROUP14, DhGroup};
use russh::keys::{Algorithm, HashAlg};
use russh::{Preferred, cipher, kex, mac};

use super::host_key::HostKeyKind;

/// What a router offers in its key exchange.
///
/// The lists are those that users report of real routers; blowfish, 3DES and hmac-md5 are left out
/// because russh has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum SshProfile {
    /// RouterOS 6 with `strong-crypto=no`: group exchange answers 1024 bits whatever is asked,
    /// `ssh-rsa` signatures with SHA-1, only `hmac-sha1`.
    V6,
    /// RouterOS 6 with `strong-crypto=yes`: only group exchange with SHA-256, 2048 bits.
    V6Strong,
    /// An older RouterOS 7 with `strong-crypto=no`: as version 6, with 2048 bits and rsa-sha2.
    V7WithoutGcm,
    /// A newer RouterOS 7 with `strong-crypto=no`: the same with GCM.
    V7,
    /// RouterOS 7 with `strong-crypto=yes`.
    V7Strong,
    /// What a current OpenSSH offers: cheap for the processor, so large fleets use it.
    #[default]
    Modern,
}

const V6_KEX: &[kex::Name] = &[
    kex::DH_GEX_SHA256,
    kex::DH_GEX_SHA1,
    kex::DH_G14_SHA1,
    kex::DH_G1_SHA1,
];
const STRONG_KEX: &[kex::Name] = &[kex::DH_GEX_SHA256];
const SHA1_RSA: &[Algorithm] = &[Algorithm::Rsa { hash: None }];
const V7_KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha256),
    },
    Algorithm::Rsa { hash: None },
];
const V6_CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
    cipher::AES_128_CBC,
    cipher::AES_192_CBC,
    cipher::AES_256_CBC,
];
const V7_CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
    cipher::AES_128_CBC,
    cipher::AES_192_CBC,
    cipher::AES_256_CBC,
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
];
const STRONG_CIPHERS: &[cipher::Name] = &[
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
    cipher::AES_192_CBC,
    cipher::AES_256_CBC,
];
const WEAK_MACS: &[mac::Name] = &[mac::HMAC_SHA1];
const STRONG_MACS: &[mac::Name] = &[mac::HMAC_SHA256];

impl SshProfile {
    pub(super) fn preferred(self) -> Preferred {
        let (kex, key, cipher, mac) = match self {
            Self::V6 => (V6_KEX, SHA1_RSA, V6_CIPHERS, WEAK_MACS),
            Self::V6Strong => (STRONG_KEX, SHA1_RSA, STRONG_CIPHERS, STRONG_MACS),
            Self::V7WithoutGcm => (V6_KEX, V7_KEYS, V6_CIPHERS, WEAK_MACS),
            Self::V7 => (V6_KEX, V7_KEYS, V7_CIPHERS, WEAK_MACS),
            Self::V7Strong => (STRONG_KEX, V7_KEYS, STRONG_CIPHERS, STRONG_MACS),
            Self::Modern => return Preferred::DEFAULT,
        };
        Preferred {
            kex: Cow::Borrowed(kex),
            key: Cow::Borrowed(key),
            cipher: Cow::Borrowed(cipher),
            mac: Cow::Borrowed(mac),
            ..Preferred::DEFAULT
        }
    }

    /// The group that group exchange answers, whatever the client asks for.
    pub(super) fn group(self) -> DhGroup {
        match self {
            Self::V6 => DH_GROUP1,
            Self::V6Strong | Self::V7WithoutGcm | Self::V7 | Self::V7Strong | Self::Modern => {
                DH_GROUP14
            }
        }
    }

    /// RouterOS 6 has RSA host keys only.
    pub(super) fn host_key_kind(self, wanted: HostKeyKind) -> HostKeyKind {
        match self {
            Self::V6 | Self::V6Strong => HostKeyKind::Rsa,
            Self::V7WithoutGcm | Self::V7 | Self::V7Strong | Self::Modern => wanted,
        }
    }

    /// The identification string.
    pub(super) fn identification(self) -> &'static str {
        match self {
            Self::Modern => "SSH-2.0-simulated-router",
            _ => "SSH-2.0-ROSSSH",
        }
    }
}
