//! How keys and values that are no text are written: in hexadecimal or base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::ValueEnum;

/// How bytes are written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Encoding {
    /// As they are
    #[default]
    Text,
    /// Two hexadecimal digits for each byte
    Hex,
    /// Base64 with padding
    Base64,
}

impl Encoding {
    /// The encoding of this name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "text" => Self::Text,
            "hex" => Self::Hex,
            "base64" => Self::Base64,
            _ => return None,
        })
    }

    /// Appends the bytes as they are written.
    pub(crate) fn encode(self, bytes: &[u8], out: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        match self {
            Self::Text => out.extend_from_slice(bytes),
            Self::Hex => {
                let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
                out.extend(bytes.iter().flat_map(digits));
            }
            Self::Base64 => out.extend_from_slice(BASE64.encode(bytes).as_bytes()),
        }
    }

    /// The bytes that are written as `text`; none for [`Encoding::Text`], where they are the text itself. `what` names the part of the record.
    pub(crate) fn decode(self, what: &str, text: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let decoded = match self {
            Self::Text => return Ok(None),
            Self::Hex => decode_hex(text),
            Self::Base64 => BASE64.decode(text).map_err(|e| e.to_string()),
        };
        let name = if self == Self::Hex { "hexadecimal" } else { "base64" };
        decoded.map(Some).map_err(|e| format!("the {what} is not {name}: {e}"))
    }
}

fn decode_hex(text: &[u8]) -> Result<Vec<u8>, String> {
    let digit = |at: usize| {
        let c = char::from(text[at]);
        c.to_digit(16).ok_or_else(|| format!("`{}` at position {at} is no digit of it", c.escape_default()))
    };
    if !text.len().is_multiple_of(2) {
        return Err(format!("it has {} digits, and a byte has two", text.len()));
    }
    (0..text.len()).step_by(2).map(|at| Ok((digit(at)? * 16 + digit(at + 1)?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_to_the_same_bytes() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&b""[..], b"a", b"\xff\x00", &all] {
            for encoding in [Encoding::Hex, Encoding::Base64] {
                let mut text = Vec::new();
                encoding.encode(bytes, &mut text);
                assert_eq!(encoding.decode("value", &text), Ok(Some(bytes.to_vec())), "{encoding:?}");
            }
        }
        let mut text = Vec::new();
        Encoding::Hex.encode(b"\x00\x7f\xff", &mut text);
        assert_eq!(text, b"007fff");
        assert_eq!(Encoding::Hex.decode("value", b"00FfAB"), Ok(Some(vec![0, 0xff, 0xab])));
    }

    #[test]
    fn what_is_no_encoding_says_what_of_the_record_and_why() {
        for (encoding, text) in [
            (Encoding::Hex, &b"abc"[..]),
            (Encoding::Hex, b"0x"),
            (Encoding::Hex, b"\xff\xff"),
            (Encoding::Base64, b"a"),
            (Encoding::Base64, b"?"),
        ] {
            let error = encoding.decode("key", text).expect_err("not the encoding");
            assert!(error.starts_with("the key is not "), "{error}");
        }
    }
}
