//! SSH host key fingerprints, the pin, and the trust-on-first-use comparison.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest as _, Sha256};

/// A host key fingerprint as `ssh-keygen -lf` prints it: `SHA256:` and the unpadded base64 of the
/// SHA-256 of the key blob.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of a public key blob in the encoding of RFC 4253, section 6.6.
    pub fn of_key_blob(blob: &[u8]) -> Self {
        Self(format!(
            "SHA256:{}",
            STANDARD_NO_PAD.encode(Sha256::digest(blob))
        ))
    }

    /// Reads a fingerprint; `None` unless it is `SHA256:` followed by exactly 32 bytes of unpadded
    /// base64.
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix("SHA256:")?;
        let bytes = STANDARD_NO_PAD.decode(encoded).ok()?;
        (bytes.len() == 32).then(|| Self(text.to_owned()))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is stored as the trusted host key of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Nothing is pinned: the first key seen after a successful login will be.
    Unpinned,
    /// Only this key is trusted.
    Pinned(Fingerprint),
    /// Something is stored that is no fingerprint. It is a pin all the same, and never matches.
    Unreadable(String),
}

impl Pin {
    /// Reads the stored column; `None` is SQL `NULL`.
    pub fn from_column(stored: Option<&str>) -> Self {
        match stored {
            None => Self::Unpinned,
            Some(text) => Fingerprint::parse(text)
                .map_or_else(|| Self::Unreadable(text.to_owned()), Self::Pinned),
        }
    }

    /// The stored text, `None` when nothing is pinned.
    pub fn as_column(&self) -> Option<&str> {
        match self {
            Self::Unpinned => None,
            Self::Pinned(fingerprint) => Some(fingerprint.as_str()),
            Self::Unreadable(text) => Some(text),
        }
    }

    /// Compares an offered key with the pin. With nothing pinned every key passes.
    ///
    /// # Errors
    /// [`HostKeyMismatch`] when something else is pinned, or something that is no fingerprint.
    pub fn verify(&self, offered: &Fingerprint) -> Result<(), HostKeyMismatch> {
        match self {
            Self::Unpinned => Ok(()),
            Self::Pinned(pinned) if pinned == offered => Ok(()),
            Self::Pinned(_) | Self::Unreadable(_) => Err(HostKeyMismatch {
                pin: self.clone(),
                offered: offered.clone(),
            }),
        }
    }
}

/// The key that a device offered is not the one that is pinned. No credential was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct HostKeyMismatch {
    /// What is pinned.
    pub pin: Pin,
    /// What the device offered.
    pub offered: Fingerprint,
}

impl fmt::Display for HostKeyMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offered = &self.offered;
        match &self.pin {
            Pin::Unreadable(text) => write!(
                f,
                "the stored host key fingerprint {text:?} is not of the form SHA256:<43 base64 \
                 characters> and can match no key; the device offered {offered}"
            ),
            Pin::Pinned(pinned) => {
                write!(
                    f,
                    "pinned host key is {pinned}, but the device offered {offered}"
                )
            }
            Pin::Unpinned => write!(f, "nothing is pinned; the device offered {offered}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";

    #[test]
    fn fingerprint_is_what_ssh_keygen_prints() {
        // Base64 of the SHA-256 of the empty message, without padding.
        assert_eq!(Fingerprint::of_key_blob(b"").as_str(), KEY);
    }

    #[test]
    fn any_stored_value_is_a_pin() {
        let offered = Fingerprint::of_key_blob(b"");
        assert_eq!(Pin::from_column(None).verify(&offered), Ok(()));
        assert_eq!(Pin::from_column(Some(KEY)).verify(&offered), Ok(()));
        for never in [
            "",
            "SHA256:",
            "MD5:00:11",
            &format!("{KEY}="),
            &KEY.to_lowercase(),
        ] {
            let pin = Pin::from_column(Some(never));
            assert_eq!(pin.as_column(), Some(never));
            assert!(pin.verify(&offered).is_err(), "{never:?} must not match");
        }
    }

    #[test]
    fn mismatch_names_both_fingerprints() {
        let pin = Pin::from_column(Some(KEY));
        let offered = Fingerprint::of_key_blob(b"other");
        let error = pin
            .verify(&offered)
            .expect_err("different keys")
            .to_string();
        assert!(
            error.contains(KEY) && error.contains(offered.as_str()),
            "{error}"
        );
    }
}
