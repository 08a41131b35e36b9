//! SHA-256 digests: how snapshots, menus and device revisions are told apart.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest, printed and stored as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Hashes `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes.as_ref()).into())
    }

    /// Hashes several fields so that no two different lists give the same input: each field is
    /// preceded by its length.
    pub fn of_fields<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = Sha256::new();
        for field in fields {
            hasher.update((field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        Self(hasher.finalize().into())
    }

    /// Reads 64 hexadecimal digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A digest in the making, of bytes that come one part after the other.
#[derive(Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Goes on with `bytes`.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes);
    }

    /// The digest of all of them.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_as_lower_case_hex() {
        // FIPS 180-4, the digest of the empty message.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of("").to_string(), empty);
        assert_eq!(Digest::parse(empty), Some(Digest::of("")));
        assert_eq!(Digest::parse("e3b0"), None);
        assert_eq!(Digest::parse(&"zz".repeat(32)), None);
    }

    #[test]
    fn parts_are_hashed_as_one() {
        let mut hasher = Hasher::default();
        hasher.update("ab");
        hasher.update("");
        hasher.update("c");
        assert_eq!(hasher.finish(), Digest::of("abc"));
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let ab_c = Digest::of_fields([b"ab".as_slice(), b"c"]);
        let a_bc = Digest::of_fields([b"a".as_slice(), b"bc"]);
        assert_ne!(ab_c, a_bc);
    }
}
