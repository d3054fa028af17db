//! Encodings of binary keys and values: hexadecimal and base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::ValueEnum;

/// Encoding of bytes as text.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Encoding {
    /// Unchanged
    #[default]
    Text,
    /// Two hexadecimal digits for each byte
    Hex,
    /// Base64 with padding
    Base64,
}

impl Encoding {
    /// Returns the encoding with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "text" => Self::Text,
            "hex" => Self::Hex,
            "base64" => Self::Base64,
            _ => return None,
        })
    }

    /// Appends the encoded bytes to `out`.
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

    /// Decodes `text`. Returns `None` for [`Encoding::Text`], where the bytes are the text itself. `part` names the part of the record in
    /// error texts.
    pub(crate) fn decode(self, part: &str, text: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let decoded = match self {
            Self::Text => return Ok(None),
            Self::Hex => decode_hex(text),
            Self::Base64 => BASE64.decode(text).map_err(|e| e.to_string()),
        };
        let name = if self == Self::Hex { "hexadecimal" } else { "base64" };
        decoded.map(Some).map_err(|e| format!("the {part} is not {name}: {e}"))
    }
}

fn decode_hex(text: &[u8]) -> Result<Vec<u8>, String> {
    let digit = |at: usize| {
        let c = char::from(text[at]);
        c.to_digit(16)
            .ok_or_else(|| format!("`{}` at position {at} is not a hexadecimal digit", c.escape_default()))
    };
    if !text.len().is_multiple_of(2) {
        return Err(format!("it has {} digits; expected two for each byte", text.len()));
    }
    (0..text.len()).step_by(2).map(|at| Ok((digit(at)? * 16 + digit(at + 1)?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_reverses_encoding() {
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
    fn a_decoding_error_names_the_part_of_the_record() {
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
