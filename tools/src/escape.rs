//! Backslash escapes in arguments, for bytes that are hard to write in a shell.

/// Replaces the escapes `\n`, `\t`, `\r`, `\0`, `\\` and `\xHH` in `text` by their bytes.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let (byte, used) = escaped(rest).ok_or_else(|| {
            format!("`{text}`: a backslash must be followed by n, t, r, 0, \\ or xHH (a byte in hexadecimal)")
        })?;
        out.push(byte);
        rest = &rest[used..];
    }
    Ok(out)
}

/// Parses the characters after a backslash. Returns the byte and the number of characters parsed.
fn escaped(rest: &[u8]) -> Option<(u8, usize)> {
    match rest {
        [b'n', ..] => Some((b'\n', 1)),
        [b't', ..] => Some((b'\t', 1)),
        [b'r', ..] => Some((b'\r', 1)),
        [b'0', ..] => Some((0, 1)),
        [b'\\', ..] => Some((b'\\', 1)),
        [b'x', high, low, ..] => {
            let digit = |c: &u8| char::from(*c).to_digit(16);
            Some(((digit(high)? * 16 + digit(low)?) as u8, 3))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_replaced_by_their_bytes() {
        assert_eq!(unescape(r"a\tb\n\0\r\\\x7f\xFF"), Ok(b"a\tb\n\0\r\\\x7f\xff".to_vec()));
        assert_eq!(unescape("plain ü"), Ok("plain ü".as_bytes().to_vec()));
    }

    #[test]
    fn an_unknown_or_incomplete_escape_is_an_error() {
        for text in [r"\", r"\q", r"\x1", r"\xzz"] {
            assert!(unescape(text).is_err(), "{text}");
        }
    }
}
