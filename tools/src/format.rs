//! `consume --format`: a format string with directives for the parts of a record, as in kcat and rpk.

use std::io::Write as _;

use crate::encoding::Encoding;
use crate::escape::unescape;
use crate::record::RecordView;

/// Description of the directives for `--help`. A test compares it with [`Field::from_letter`].
pub(crate) const LETTERS_HELP: &str = "\
%t topic, %p partition, %o offset, %k key, %v value (also %s), %k{hex} and %v{base64} encoded key or value, %h headers as NAME=VALUE,..., \
%T timestamp in milliseconds (also %d), %K key length in bytes, %V value length in bytes (also %S; -1 if there is none), %H number of headers, \
%% a percent sign, \\n \\t \\r \\0 \\\\ \\xHH bytes";

/// Part of a record that a directive prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Topic,
    Partition,
    Offset,
    Key(Encoding),
    Value(Encoding),
    Headers,
    Timestamp,
    KeyBytes,
    ValueBytes,
    HeaderCount,
}

impl Field {
    fn from_letter(letter: char) -> Option<Self> {
        Some(match letter {
            't' => Self::Topic,
            'p' => Self::Partition,
            'o' => Self::Offset,
            'k' => Self::Key(Encoding::Text),
            'v' | 's' => Self::Value(Encoding::Text),
            'h' => Self::Headers,
            'T' | 'd' => Self::Timestamp,
            'K' => Self::KeyBytes,
            'V' | 'S' => Self::ValueBytes,
            'H' => Self::HeaderCount,
            _ => return None,
        })
    }

    /// Returns the same part with the encoding named `name`.
    fn encoded(self, name: &str) -> Result<Self, String> {
        let encoding = Encoding::from_name(name).ok_or_else(|| {
            format!(
                "unknown encoding {{{name}}}; use {{hex}}, {{base64}} or {{text}}, or write \\x7b for a literal brace"
            )
        })?;
        match self {
            Self::Key(_) => Ok(Self::Key(encoding)),
            Self::Value(_) => Ok(Self::Value(encoding)),
            _ => Err(format!(
                "{{{name}}}: only keys and values can be encoded; write \\x7b for a literal brace"
            )),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(Vec<u8>),
    Field(Field),
}

/// A parsed format string.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Format(Vec<Piece>);

impl Format {
    /// Returns the default format: the value and a newline.
    pub(crate) fn lines() -> Self {
        Self(vec![Piece::Field(Field::Value(Encoding::Text)), Piece::Text(b"\n".to_vec())])
    }

    /// Parses a format string.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '%' => match chars.next() {
                    Some('%') => literal.push('%'),
                    Some(letter) => {
                        let mut field = Field::from_letter(letter).ok_or_else(|| {
                            format!("unknown directive %{letter}; the directives are {LETTERS_HELP}")
                        })?;
                        if chars.next_if_eq(&'{').is_some() {
                            let name: String = chars.by_ref().take_while(|c| *c != '}').collect();
                            field = field.encoded(&name)?;
                        }
                        push_text(&mut pieces, &mut literal)?;
                        pieces.push(Piece::Field(field));
                    }
                    None => {
                        return Err("unfinished directive % at the end; write %% for a percent sign".into());
                    }
                },
                '\\' => {
                    // Take the next character as well, so that it is not parsed as a directive: `\%`, `\\`.
                    literal.push(c);
                    literal.extend(chars.next());
                }
                _ => literal.push(c),
            }
        }
        push_text(&mut pieces, &mut literal)?;
        Ok(Self(pieces))
    }

    /// Appends a record to `out` in this format.
    pub(crate) fn write(&self, record: &RecordView<'_>, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Field(field) => write_field(*field, record, out),
            }
        }
    }
}

fn push_text(pieces: &mut Vec<Piece>, literal: &mut String) -> Result<(), String> {
    if !literal.is_empty() {
        pieces.push(Piece::Text(unescape(literal)?));
        literal.clear();
    }
    Ok(())
}

fn write_field(field: Field, record: &RecordView<'_>, out: &mut Vec<u8>) {
    match field {
        Field::Topic => out.extend_from_slice(record.topic.as_bytes()),
        Field::Partition => number(i64::from(record.partition), out),
        Field::Offset => number(record.offset, out),
        Field::Key(encoding) => encoding.encode(record.key.unwrap_or_default(), out),
        Field::Value(encoding) => encoding.encode(record.value.unwrap_or_default(), out),
        Field::Timestamp => number(record.timestamp_ms, out),
        Field::KeyBytes => number(record.key.map_or(-1, |key| key.len() as i64), out),
        Field::ValueBytes => number(record.value.map_or(-1, |value| value.len() as i64), out),
        Field::HeaderCount => number(record.headers.len() as i64, out),
        Field::Headers => {
            for (i, (name, value)) in record.headers.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(name);
                out.push(b'=');
                out.extend_from_slice(value.unwrap_or_default());
            }
        }
    }
}

fn number(n: i64, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "{n}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RecordView<'static> {
        RecordView {
            topic: "orders",
            partition: 3,
            offset: 42,
            timestamp_ms: 1_735_689_600_000,
            key: Some(b"u-\xff"),
            value: Some(b"two\twords"),
            headers: &[(b"trace", Some(b"abc")), (b"empty", None)],
        }
    }

    fn check(format: &str, expect: &[u8]) {
        let mut out = Vec::new();
        Format::parse(format).expect("the format is valid").write(&sample(), &mut out);
        assert_eq!(out, expect, "{format}");
    }

    #[test]
    fn every_directive_prints_its_part_of_the_record() {
        check(r"%k:%v\n", b"u-\xff:two\twords\n");
        check("%t/%p@%o %T", b"orders/3@42 1735689600000");
        check("%s %d", b"two\twords 1735689600000");
        check("%h|%H", b"trace=abc,empty=|2");
        check("%K %V %S", b"3 9 9");
        check(r"100%%\t\\\0\x41", b"100%\t\\\0A");
        check("", b"");
        check("%k{hex}:%v{base64}:%s{text}", b"752dff:dHdvCXdvcmRz:two\twords");
        check(r"%k\x7bhex}", b"u-\xff{hex}");
    }

    #[test]
    fn a_missing_key_or_value_prints_as_empty_with_length_minus_one() {
        let record = RecordView { key: None, value: None, headers: &[], ..sample() };
        let mut out = Vec::new();
        Format::parse("[%k][%v][%h]%K,%V").expect("a literal").write(&record, &mut out);
        assert_eq!(out, b"[][][]-1,-1");
    }

    #[test]
    fn the_error_for_an_unknown_directive_names_it_and_lists_the_known_ones() {
        let error = Format::parse("%q").expect_err("%q is unknown");
        assert!(error.contains("%q") && error.contains("%o offset"), "{error}");
        for text in ["50%", r"end\", r"\z", "%k{octal}", "%o{hex}", "%v{"] {
            assert!(Format::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_help_lists_exactly_the_known_directives() {
        for letter in ('a'..='z').chain('A'..='Z') {
            let is_listed = LETTERS_HELP.contains(&format!("%{letter}"));
            assert_eq!(is_listed, Field::from_letter(letter).is_some(), "%{letter}");
        }
    }

    #[test]
    fn the_default_format_is_the_value_and_a_newline() {
        assert_eq!(Format::parse(r"%v\n"), Ok(Format::lines()));
    }
}
