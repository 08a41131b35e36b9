//! Owns the reversible rule that carries arbitrary bytes as text.
//!
//! Exports are ASCII; banners, notes and error texts need not be. A byte `b` that is not part of
//! valid UTF-8 becomes U+F700+`b`, in the private use area. So that nothing else can look like
//! that, a genuine U+F780…U+F7FF is carried as its three bytes, each so mapped.

/// The offset at which bytes are carried.
const BASE: u32 = 0xF700;

/// Text for `bytes`; [`encode`] gives the bytes back.
pub fn decode(bytes: &[u8]) -> String {
    // Every mapped character is three bytes long and begins with 0xEF.
    if let Ok(text) = std::str::from_utf8(bytes)
        && !bytes.contains(&0xEF)
    {
        return text.to_owned();
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut valid = chunk.valid();
        while let Some(at) = valid.find(is_carrier) {
            let (before, carrier) = valid.split_at(at);
            let (carrier, after) = carrier.split_at('\u{F780}'.len_utf8());
            text.push_str(before);
            text.extend(carrier.bytes().filter_map(carry));
            valid = after;
        }
        text.push_str(valid);
        text.extend(chunk.invalid().iter().copied().filter_map(carry));
    }
    text
}

/// The bytes that [`decode`] made `text` of.
pub fn encode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_carrier) {
        let (before, carrier) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        let mut characters = carrier.chars();
        bytes.extend(characters.next().map(|c| (c as u32 - BASE) as u8));
        rest = characters.as_str();
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Whether `c` stands for a byte. Bytes below 0x80 are always valid, so no lower one does.
fn is_carrier(c: char) -> bool {
    ('\u{F780}'..='\u{F7FF}').contains(&c)
}

fn carry(byte: u8) -> Option<char> {
    char::from_u32(BASE + u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ascii_and_genuine_characters_are_themselves() {
        for text in ["", "add name=ether1\r\n", "Привет", "\u{F77F}\u{F800}"] {
            assert_eq!(decode(text.as_bytes()), text);
            assert_eq!(encode(text), text.as_bytes());
        }
    }

    #[test]
    fn a_stray_byte_is_carried_by_the_contracts_rule() {
        assert_eq!(decode(b"caf\xE9"), "caf\u{F7E9}");
        assert_eq!(decode("\u{F780}".as_bytes()), "\u{F7EF}\u{F79E}\u{F780}");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes: Vec<u8>) {
            prop_assert_eq!(encode(&decode(&bytes)), bytes);
        }

        #[test]
        fn any_text_comes_back(text in "[a\u{F770}-\u{F810}é]*") {
            prop_assert_eq!(encode(&decode(text.as_bytes())), text.as_bytes());
        }
    }
}
