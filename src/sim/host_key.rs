//! Host keys of simulated routers: derived from a seed, so that a restart keeps them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use sha2::{Digest as _, Sha256};

use crate::domain::host_key::Fingerprint;

/// Four keys in a file: generating RSA takes seconds, so routers share them. See the file's head.
const SIMULATION_ONLY_RSA_KEYS: &str = include_str!("simulation_only_rsa_keys.txt");

/// `host-key-type` of a router.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum HostKeyKind {
    /// Ed25519 (RouterOS 7.9 and later): every router has its own.
    #[default]
    Ed25519,
    /// RSA with 2048 bits: taken from four public ones, neighbours have different ones.
    Rsa,
}

/// The host key of router `seed` after `generation` changes of the key.
pub(super) fn host_key(kind: HostKeyKind, seed: u64, generation: u64) -> PrivateKey {
    match kind {
        HostKeyKind::Ed25519 => {
            let mut hash = Sha256::new();
            hash.update(b"host key of a simulated router");
            hash.update(seed.to_be_bytes());
            hash.update(generation.to_be_bytes());
            let pair = Ed25519Keypair::from_seed(&hash.finalize().into());
            PrivateKey::new(KeypairData::Ed25519(pair), "simulated")
                .expect("a key pair without a passphrase is always accepted")
        }
        HostKeyKind::Rsa => {
            let lines = SIMULATION_ONLY_RSA_KEYS.lines();
            let keys: Vec<&str> = lines.filter(|line| !line.starts_with('#')).collect();
            let index = seed.wrapping_add(generation) % keys.len() as u64;
            let line = keys[usize::try_from(index).expect("less than the number of keys")];
            let blob = STANDARD
                .decode(line)
                .expect("the file is part of the build");
            PrivateKey::from_bytes(&blob).expect("the file is part of the build")
        }
    }
}

/// The fingerprint of `key` as a client sees it.
pub(super) fn fingerprint(key: &PrivateKey) -> Fingerprint {
    let blob = key.public_key().to_bytes();
    Fingerprint::of_key_blob(&blob.expect("a public key can be encoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_from_seed_and_generation() {
        for kind in [HostKeyKind::Ed25519, HostKeyKind::Rsa] {
            let print = |seed, generation| fingerprint(&host_key(kind, seed, generation));
            assert_eq!(print(1, 0), print(1, 0));
            assert_ne!(
                print(1, 0),
                print(2, 0),
                "{kind:?}: a neighbour has another"
            );
            assert_ne!(print(1, 0), print(1, 1), "{kind:?}: a change changes it");
        }
    }
}
