//! The credential key, and which keys and tokens are known to everybody.

use crate::credentials::Key;

/// Why everybody may know this key; `None` when nothing speaks against it.
pub fn weakness(key: &Key) -> Option<&'static str> {
    let bytes = key.expose();
    if bytes.iter().all(|byte| *byte == 0) {
        return Some("is all zero");
    }
    if PUBLISHED.contains(&bytes) {
        return Some("is a published example");
    }
    // A random key has neither property, with a chance below 2^-100.
    if (1..=16).any(|period| bytes.iter().zip(&bytes[period..]).all(|(a, b)| a == b)) {
        return Some("repeats a short pattern");
    }
    let step = bytes[1].wrapping_sub(bytes[0]);
    if bytes
        .windows(2)
        .all(|pair| pair[1].wrapping_sub(pair[0]) == step)
    {
        return Some("is a sequence");
    }
    placeholder(&String::from_utf8_lossy(bytes)).then_some("is a placeholder")
}

/// Keys that stand in documentation and test vectors, and are copied from there.
const PUBLISHED: &[&[u8; 32]] = &[
    // The AES-256 key of NIST SP 800-38A, appendix F.
    &[
        0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77,
        0x81, 0x1f, 0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14,
        0xdf, 0xf4,
    ],
    b"01234567890123456789012345678901",
    b"12345678901234567890123456789012",
    b"abcdefghijklmnopqrstuvwxyz012345",
    b"abcdefghijklmnopqrstuvwxyz123456",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ123456",
    b"thisis32bitlongpassphraseimusing",
    b"passphrasewhichneedstobe32bytes!",
    b"an example very very secret key.",
    b"this-is-a-32-byte-secret-key-123",
    b"AES256Key-32Characters1234567890",
];

/// Whether `text` is what a template says where a secret belongs.
pub fn placeholder(text: &str) -> bool {
    let plain: String = text
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .map(|c| c.to_ascii_lowercase())
        .collect();
    plain.starts_with("changeme") || plain.starts_with("replaceme") || plain.starts_with("example")
}

/// Why everybody may know this token or password; `None` when nothing speaks against it.
pub fn token_weakness(token: &str) -> Option<&'static str> {
    let zeros = !token.is_empty() && token.bytes().all(|byte| byte == b'0');
    // `dev-only-token`, `root` and `myroot` are what OpenBao's and Vault's guides start a
    // development server with.
    let published = ["dev-only-token", "myroot", "password", "hvs.root", "root"];
    if zeros {
        Some("is all zero")
    } else if placeholder(token) {
        Some("is a placeholder")
    } else if published.contains(&token) {
        Some("is a published example")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_everybody_knows_are_recognised() {
        let sequence: [u8; 32] = std::array::from_fn(|i| i as u8);
        for (bytes, why) in [
            (&[0; 32], "is all zero"),
            (&[0xff; 32], "repeats a short pattern"),
            (
                b"0123456789abcdef0123456789abcdef",
                "repeats a short pattern",
            ),
            (&sequence, "is a sequence"),
            (
                b"12345678901234567890123456789012",
                "is a published example",
            ),
            (b"CHANGE_ME_CHANGE_ME_CHANGE_ME_32", "is a placeholder"),
            (b"change-me-to-a-real-key-please!!", "is a placeholder"),
        ] {
            assert_eq!(weakness(&Key::from_bytes(*bytes)), Some(why), "{bytes:?}");
        }
    }

    #[test]
    fn tokens_that_everybody_knows_are_recognised() {
        for known in [
            "CHANGE_ME",
            "changeme-please",
            "root",
            "00000000",
            "dev-only-token",
        ] {
            assert!(token_weakness(known).is_some(), "{known}");
        }
        assert_eq!(token_weakness("s.Zx81-unremarkable"), None);
    }

    proptest::proptest! {
        #[test]
        fn random_keys_are_accepted(bytes: [u8; 32]) {
            // The generator shrinks towards zero, but draws uniformly.
            proptest::prop_assume!(bytes.iter().collect::<std::collections::BTreeSet<_>>().len() > 17);
            proptest::prop_assume!(!placeholder(&String::from_utf8_lossy(&bytes)));
            let step = bytes[1].wrapping_sub(bytes[0]);
            proptest::prop_assume!(bytes.windows(2).any(|p| p[1].wrapping_sub(p[0]) != step));
            proptest::prop_assert_eq!(weakness(&Key::from_bytes(bytes)), None);
        }

        #[test]
        fn debug_never_shows_the_key(bytes: [u8; 32]) {
            proptest::prop_assert_eq!(format!("{:?}", Key::from_bytes(bytes)), "Key([REDACTED])");
        }
    }
}
