//! How a text lies in the archive: zstd, then AES-256-GCM, and proven by its hash when opened.
//!
//! AES-GCM as the key's other users write it has no associated data, so a ciphertext alone does not
//! tell whose it is. The version does: it names the hash, and a text with another one, put in its
//! place by accident or by malice, is refused.

use std::io::Read;

use crate::credentials::Key;
use crate::domain::digest::Digest;
use crate::domain::snapshot::ConfigText;

/// zstd's own default: exports shrink to about a sixth, and higher levels gain a few per cent for
/// several times the work.
const LEVEL: i32 = 3;

/// The room that a text gets by its stated size alone, in bytes: the default of
/// `CONFIG_BACKUP_MAX_EXPORT_BYTES`.
const MAX_ROOM: usize = 128 << 20;

/// A sealed text as it is stored.
pub(super) struct Sealed {
    /// Fingerprint of the key that it was sealed under.
    pub(super) key_id: String,
    /// Nonce, ciphertext and tag.
    pub(super) bytes: Vec<u8>,
}

/// Why a sealed text could not be opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Unopened {
    /// It was sealed under another key, whose fingerprint this is.
    #[error("sealed under the key {0}")]
    OtherKey(String),
    /// It is not what was stored.
    #[error("{0}")]
    Damaged(String),
}

/// Seals and opens texts under one key.
pub(super) struct Sealer {
    key: Key,
    key_id: String,
}

impl Sealer {
    pub(super) fn new(key: Key) -> Self {
        let digest = Digest::of_fields([b"archive key".as_slice(), key.expose()]);
        let mut key_id = digest.to_string();
        key_id.truncate(16);
        Self { key, key_id }
    }

    /// A fingerprint of the key: 16 hexadecimal digits of a SHA-256 that only ever serves to tell
    /// keys apart. A key is 32 random bytes, so it cannot be guessed from it.
    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Compresses and encrypts `text` under a random nonce. Random nonces of 96 bits are safe for
    /// 2³² texts under one key (NIST SP 800-38D, 8.3).
    pub(super) fn seal(&self, nonce: [u8; 12], text: &ConfigText) -> std::io::Result<Sealed> {
        self.seal_bytes(nonce, text.expose().as_bytes())
    }

    /// The same for bytes of any kind.
    pub(super) fn seal_bytes(&self, nonce: [u8; 12], bytes: &[u8]) -> std::io::Result<Sealed> {
        let compressed = zstd::encode_all(bytes, LEVEL)?;
        Ok(Sealed {
            key_id: self.key_id.clone(),
            bytes: self.key.seal(nonce, &compressed),
        })
    }

    /// Opens bytes of any kind, at most `bytes` of them.
    pub(super) fn open_bytes(&self, sealed: &Sealed, bytes: u64) -> Result<Vec<u8>, Unopened> {
        if sealed.key_id != self.key_id {
            return Err(Unopened::OtherKey(sealed.key_id.clone()));
        }
        let compressed = self
            .key
            .open(&sealed.bytes)
            .map_err(|_| Unopened::Damaged("it does not decrypt".to_owned()))?;
        // Growing step by step, it would take twice as much in the end.
        let room = usize::try_from(bytes).map_or(0, |bytes| bytes.saturating_add(1).min(MAX_ROOM));
        let mut opened = Vec::with_capacity(room);
        let unpacked = zstd::Decoder::new(compressed.as_slice())
            // One more than there should be, so that too many are noticed and never pile up.
            .and_then(|decoder| {
                decoder
                    .take(bytes.saturating_add(1))
                    .read_to_end(&mut opened)
            });
        unpacked.map_err(|error| Unopened::Damaged(format!("it does not decompress: {error}")))?;
        Ok(opened)
    }

    /// Opens what must be the text of this `hash` and of `bytes` bytes.
    pub(super) fn open(
        &self,
        sealed: &Sealed,
        hash: &Digest,
        bytes: u64,
    ) -> Result<ConfigText, Unopened> {
        let damaged = |reason: &str| Unopened::Damaged(reason.to_owned());
        let text = self.open_bytes(sealed, bytes)?;
        if Digest::of(&text) != *hash {
            return Err(damaged("its SHA-256 is not the recorded one"));
        }
        let text = String::from_utf8(text).map_err(|_| damaged("it is not UTF-8"))?;
        Ok(ConfigText::new(text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(Key::from_bytes([byte; 32]))
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_nothing_else(
            text in ".{0,400}",
            nonce: [u8; 12],
            flip: prop::sample::Index,
        ) {
            let text = ConfigText::new(text);
            let (hash, bytes) = (text.digest(), text.expose().len() as u64);
            let mut sealed = sealer(1).seal(nonce, &text).expect("memory to write to");
            prop_assert_eq!(sealer(1).open(&sealed, &hash, bytes), Ok(text));
            let other = sealer(2).open(&sealed, &hash, bytes).expect_err("another key");
            prop_assert_eq!(other, Unopened::OtherKey(sealer(1).key_id().to_owned()));
            let at = flip.index(sealed.bytes.len());
            sealed.bytes[at] ^= 0x10;
            prop_assert!(matches!(sealer(1).open(&sealed, &hash, bytes), Err(Unopened::Damaged(_))));
        }
    }

    #[test]
    fn a_text_in_the_place_of_another_is_refused() {
        let [a, b] = ["/ip dns\n", "/ip arp\n"].map(ConfigText::new);
        let sealed = sealer(1).seal([0; 12], &b).expect("memory to write to");
        let opened = sealer(1).open(&sealed, &a.digest(), 8);
        assert_eq!(
            opened,
            Err(Unopened::Damaged(
                "its SHA-256 is not the recorded one".into()
            ))
        );
    }

    #[test]
    fn a_text_that_grows_beyond_its_size_is_not_unpacked() {
        let bomb = ConfigText::new("a".repeat(1 << 20));
        let sealed = sealer(1).seal([0; 12], &bomb).expect("memory to write to");
        assert!(sealed.bytes.len() < 1000, "it is small as it lies there");
        assert!(sealer(1).open(&sealed, &bomb.digest(), 10).is_err());
    }

    #[test]
    fn a_fingerprint_names_a_key_without_showing_it() {
        assert_eq!(sealer(7).key_id().len(), 16);
        assert_ne!(sealer(7).key_id(), sealer(8).key_id());
        assert!(!sealer(7).key_id().contains("0707"));
    }
}
