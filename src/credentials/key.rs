//! The encryption key of the service: AES-256-GCM as other systems already write it.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::{Zeroize, Zeroizing};
use secrecy::{ExposeSecret, SecretBox};

/// The nonce before the ciphertext, in bytes: what AES-GCM is made for (NIST SP 800-38D, 5.2.1.1).
const NONCE_BYTES: usize = 12;
/// The tag after the ciphertext, in bytes.
const TAG_BYTES: usize = 16;

/// The 32 bytes of `CREDENTIAL_ENCRYPTION_KEY`. Wiped from memory on drop; `Debug` shows nothing.
pub struct Key(SecretBox<[u8; 32]>);

impl Key {
    /// Wraps key bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    /// Reads standard base64 of exactly 32 bytes, ignoring blanks around it (a file ends in a
    /// newline).
    ///
    /// # Errors
    /// [`KeyError`] tells what is wrong without repeating the text.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let decoded = STANDARD
            .decode(text.trim())
            .map_err(|_| KeyError::NotBase64)?;
        let mut decoded = Zeroizing::new(decoded);
        let bytes: [u8; 32] = decoded
            .as_slice()
            .try_into()
            .map_err(|_| KeyError::Length(decoded.len()))?;
        decoded.zeroize();
        Ok(Self::from_bytes(bytes))
    }

    /// The bytes, for the cipher and for judging them.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }

    /// Encrypts `plaintext` under a `nonce` that must never be used twice with this key: twelve
    /// bytes from a cryptographic generator. Returns nonce, ciphertext and tag in one.
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], plaintext: &[u8]) -> Vec<u8> {
        let ciphertext = self
            .cipher()
            .encrypt(&Nonce::from(nonce), plaintext)
            .expect("AES-GCM takes 64 GiB at once, and memory holds less");
        let mut sealed = nonce.to_vec();
        sealed.extend_from_slice(&ciphertext);
        sealed
    }

    /// Decrypts what [`Key::seal`] made; the result is wiped on drop.
    ///
    /// # Errors
    /// [`Unsealable`] when it is too short, damaged or sealed with another key.
    pub fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        if sealed.len() < NONCE_BYTES + TAG_BYTES {
            return Err(Unsealable::TooShort(sealed.len()));
        }
        let (nonce, ciphertext) = sealed
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(Unsealable::TooShort(sealed.len()))?;
        self.cipher()
            .decrypt(&Nonce::from(*nonce), ciphertext)
            .map(Zeroizing::new)
            .map_err(|_| Unsealable::WrongKey)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.0.expose_secret().into())
    }
}

impl Clone for Key {
    fn clone(&self) -> Self {
        Self::from_bytes(*self.0.expose_secret())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key([REDACTED])")
    }
}

/// Text that is no encryption key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// Not base64.
    #[error("not base64 in the standard alphabet; make a key with: openssl rand -base64 32")]
    NotBase64,
    /// Base64 of another number of bytes.
    #[error("base64 of {0} bytes instead of 32; make a key with: openssl rand -base64 32")]
    Length(usize),
}

/// A ciphertext that this key does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsealable {
    /// Shorter than nonce and tag.
    #[error("{0} bytes are too short for a nonce of 12 and a tag of 16 bytes")]
    TooShort(usize),
    /// The tag does not fit.
    #[error(
        "it was encrypted with another key than CREDENTIAL_ENCRYPTION_KEY, or it is damaged; \
         correct the key or store the credentials again"
    )]
    WrongKey,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_nonce_ciphertext_tag() {
        // Test case 13 of the AES-256 cases in McGrew and Viega, "The Galois/Counter Mode of
        // Operation": zero key, zero nonce, no text.
        let zero = Key::from_bytes([0; 32]);
        assert_eq!(
            hex::encode(zero.seal([0; 12], b"")),
            format!("{}530f8afbc74536b9a963b4f1c4cb738b", "00".repeat(12))
        );
        // Test case 14: one block of zeros.
        assert_eq!(
            hex::encode(zero.seal([0; 12], &[0; 16])),
            format!(
                "{}cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
                "00".repeat(12)
            )
        );
    }

    #[test]
    fn keys_are_base64_of_32_bytes() {
        let text = STANDARD.encode([7; 32]);
        let read = Key::from_base64(&format!("{text}\n")).expect("a key file ends in a newline");
        assert_eq!(read.0.expose_secret(), &[7; 32]);
        assert!(!format!("{read:?}").contains('7'), "Debug shows no byte");
        assert_eq!(
            Key::from_base64(&STANDARD.encode([7; 31])).expect_err("too short"),
            KeyError::Length(31)
        );
        assert_eq!(
            Key::from_base64("not base64!").expect_err("no key"),
            KeyError::NotBase64
        );
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_any_flipped_bit_is_found(
            plain in proptest::collection::vec(any::<u8>(), 0..200),
            nonce: [u8; 12],
            flip: prop::sample::Index,
        ) {
            let mut sealed = Key::from_bytes([7; 32]).seal(nonce, &plain);
            let opened = Key::from_bytes([7; 32]).open(&sealed).expect("opens");
            prop_assert_eq!(opened.as_slice(), plain.as_slice());
            prop_assert!(Key::from_bytes([8; 32]).open(&sealed).is_err());
            let at = flip.index(sealed.len());
            sealed[at] ^= 1;
            prop_assert_eq!(Key::from_bytes([7; 32]).open(&sealed).expect_err("damaged"), Unsealable::WrongKey);
        }
    }
}
