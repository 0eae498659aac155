//! Bytes as text for people: base32 (RFC 4648 6, lower case) and base64url (RFC 4648 5), both without padding and canonical.

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Why a text holds no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextError {
    /// A character, at this index, that is not in the alphabet.
    Character(char, usize),
    /// A length that no byte string has, or bits that no encoder leaves at the end.
    Ending,
}

/// Lower-case base32.
pub(crate) fn to_base32(bytes: &[u8]) -> String {
    encode(bytes, BASE32, 5)
}

/// The bytes of lower-case base32.
pub(crate) fn from_base32(text: &str) -> Result<Vec<u8>, TextError> {
    decode(text, BASE32, 5)
}

/// The URL-safe base64 alphabet.
pub(crate) fn to_base64url(bytes: &[u8]) -> String {
    encode(bytes, BASE64URL, 6)
}

/// The bytes of URL-safe base64.
pub(crate) fn from_base64url(text: &str) -> Result<Vec<u8>, TextError> {
    decode(text, BASE64URL, 6)
}

fn encode(bytes: &[u8], alphabet: &[u8], width: u32) -> String {
    let mask = (1_u32 << width) - 1;
    let mut out = String::with_capacity((bytes.len() * 8).div_ceil(width as usize));
    let (mut held, mut bits) = (0_u32, 0);
    for &byte in bytes {
        held = (held << 8) | u32::from(byte);
        bits += 8;
        while bits >= width {
            bits -= width;
            out.push(char::from(alphabet[((held >> bits) & mask) as usize]));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        out.push(char::from(alphabet[((held << (width - bits)) & mask) as usize]));
    }
    out
}

fn decode(text: &str, alphabet: &[u8], width: u32) -> Result<Vec<u8>, TextError> {
    let mut out = Vec::with_capacity(text.len() * width as usize / 8);
    let (mut held, mut bits) = (0_u32, 0);
    for (index, character) in text.chars().enumerate() {
        let digit = u8::try_from(character).ok().and_then(|c| alphabet.iter().position(|&a| a == c));
        held = (held << width) | digit.ok_or(TextError::Character(character, index))? as u32;
        bits += width;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
        held &= (1 << bits) - 1;
    }
    if bits >= width || held != 0 { Err(TextError::Ending) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_vectors_of_rfc_4648() {
        for (bytes, base32, base64) in [
            ("", "", ""),
            ("f", "my", "Zg"),
            ("fo", "mzxq", "Zm8"),
            ("foo", "mzxw6", "Zm9v"),
            ("foob", "mzxw6yq", "Zm9vYg"),
            ("fooba", "mzxw6ytb", "Zm9vYmE"),
            ("foobar", "mzxw6ytboi", "Zm9vYmFy"),
        ] {
            assert_eq!(to_base32(bytes.as_bytes()), base32);
            assert_eq!(from_base32(base32), Ok(bytes.as_bytes().to_vec()));
            assert_eq!(to_base64url(bytes.as_bytes()), base64);
            assert_eq!(from_base64url(base64), Ok(bytes.as_bytes().to_vec()));
        }
        assert_eq!(to_base64url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn each_byte_string_has_one_text() {
        assert_eq!(from_base32("mz"), Err(TextError::Ending), "bits left over");
        assert_eq!(from_base32("a"), Err(TextError::Ending), "less than a byte");
        assert_eq!(from_base64url("Zh"), Err(TextError::Ending));
        assert_eq!(from_base32("mY"), Err(TextError::Character('Y', 1)));
        assert_eq!(from_base64url("Zg=="), Err(TextError::Character('=', 2)));
        assert_eq!(from_base64url("Z é"), Err(TextError::Character(' ', 1)));
    }

    proptest! {
        #[test]
        fn bytes_survive(bytes: Vec<u8>) {
            prop_assert_eq!(from_base32(&to_base32(&bytes)), Ok(bytes.clone()));
            prop_assert_eq!(from_base64url(&to_base64url(&bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_that_decodes_is_the_text_of_its_bytes(text in "[a-z2-7]{0,20}", other: String) {
            if let Ok(bytes) = from_base32(&text) {
                prop_assert_eq!(to_base32(&bytes), text);
            }
            if let Ok(bytes) = from_base64url(&other) {
                prop_assert_eq!(to_base64url(&bytes), other);
            }
        }
    }
}
