//! Records as the command line shows them and reads them: a view for printing, and a line of JSON both ways.
//!
//! The same line goes both ways, so `consume --json | produce --json` copies keys, values, headers and timestamps exactly.
//! Bytes that are not UTF-8 travel in a field of their own, `key_base64`, `value_base64`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

/// A record to be printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordView<'a> {
    /// Name of the topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the Unix epoch; -1 for none.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// A record to be sent, as read from a line of JSON.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RecordInput {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Milliseconds since the Unix epoch, if the line says.
    pub timestamp_ms: Option<i64>,
}

/// Text or, if it is not UTF-8, base64: exactly one of the two, or neither for none.
#[derive(Default)]
struct Split<'a> {
    text: Option<&'a str>,
    base64: Option<String>,
}

impl<'a> Split<'a> {
    fn of(bytes: Option<&'a [u8]>) -> Self {
        match bytes.map(|b| (b, std::str::from_utf8(b))) {
            None => Self::default(),
            Some((_, Ok(text))) => Self { text: Some(text), base64: None },
            Some((raw, Err(_))) => Self { text: None, base64: Some(BASE64.encode(raw)) },
        }
    }
}

fn join(
    what: &str,
    text: Option<Cow<'_, str>>,
    base64: Option<Cow<'_, str>>,
) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("both `{what}` and `{what}_base64` are given; one of them")),
        (Some(text), None) => Ok(Some(text.into_owned().into_bytes())),
        (None, Some(code)) => BASE64
            .decode(code.as_bytes())
            .map(Some)
            .map_err(|e| format!("`{what}_base64` is not base64: {e}")),
        (None, None) => Ok(None),
    }
}

#[derive(Serialize)]
struct HeaderOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    value: Option<&'a str>,
}

#[derive(Serialize)]
struct LineOut<'a> {
    topic: &'a str,
    partition: u32,
    offset: i64,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    value: Option<&'a str>,
    headers: Vec<HeaderOut<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderIn<'a> {
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key_base64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value_base64: Option<Cow<'a, str>>,
}

/// Unknown names are refused: a mistyped `vlaue` must not become a record without a value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineIn<'a> {
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key_base64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    headers: Vec<HeaderIn<'a>>,
    timestamp: Option<i64>,
    // Where a record came from, when the line was printed by `consume`. Where it goes is said on the command line.
    #[serde(rename = "topic")]
    _topic: Option<serde::de::IgnoredAny>,
    #[serde(rename = "partition")]
    _partition: Option<serde::de::IgnoredAny>,
    #[serde(rename = "offset")]
    _offset: Option<serde::de::IgnoredAny>,
}

/// Appends a record as a line of JSON.
pub(crate) fn write_json(record: &RecordView<'_>, out: &mut Vec<u8>) {
    let (key, value) = (Split::of(record.key), Split::of(record.value));
    let headers = record
        .headers
        .iter()
        .map(|(name, bytes)| {
            let (name, value) = (Split::of(Some(name)), Split::of(*bytes));
            HeaderOut {
                key: name.text,
                key_base64: name.base64,
                value: value.text,
                value_base64: value.base64,
            }
        })
        .collect();
    let line = LineOut {
        topic: record.topic,
        partition: record.partition,
        offset: record.offset,
        timestamp: record.timestamp_ms,
        key: key.text,
        key_base64: key.base64,
        value: value.text,
        value_base64: value.base64,
        headers,
    };
    serde_json::to_writer(&mut *out, &line).expect("strings and numbers always have a JSON form");
    out.push(b'\n');
}

/// Reads a line of JSON.
pub(crate) fn read_json(line: &[u8]) -> Result<RecordInput, String> {
    let line: LineIn<'_> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let headers = line
        .headers
        .into_iter()
        .map(|header| {
            let key = join("key", header.key, header.key_base64)?.ok_or("a header without `key`")?;
            Ok((key, join("value", header.value, header.value_base64)?))
        })
        .collect::<Result<_, String>>()?;
    Ok(RecordInput {
        key: join("key", line.key, line.key_base64)?,
        value: join("value", line.value, line.value_base64)?,
        headers,
        // A record without a time is printed with -1; the broker's clock does not know that number either.
        timestamp_ms: line.timestamp.filter(|t| *t >= 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view<'a>(
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        headers: &'a [(&'a [u8], Option<&'a [u8]>)],
    ) -> RecordView<'a> {
        RecordView { topic: "t", partition: 1, offset: 7, timestamp_ms: 1000, key, value, headers }
    }

    #[test]
    fn a_record_is_one_line_with_its_parts_by_name() {
        let mut out = Vec::new();
        write_json(&view(Some(b"k"), Some(b"a \"b\"\n"), &[(b"h", Some(b"1"))]), &mut out);
        assert_eq!(
            String::from_utf8(out).expect("JSON is text"),
            r#"{"topic":"t","partition":1,"offset":7,"timestamp":1000,"key":"k","value":"a \"b\"\n","headers":[{"key":"h","value":"1"}]}"#
                .to_owned()
                + "\n"
        );
    }

    #[test]
    fn what_was_printed_reads_back_exactly() {
        let headers: &[(&[u8], Option<&[u8]>)] =
            &[(b"a", Some(b"\xfe\xff")), (b"\xff", None), (b"", Some(b""))];
        for (key, value) in [
            (None, None),
            (Some(&b""[..]), Some(&b"\0\x01\xff"[..])),
            (Some("schlüssel".as_bytes()), Some("\u{1F30A} wave".as_bytes())),
        ] {
            let mut out = Vec::new();
            write_json(&view(key, value, headers), &mut out);
            let back = read_json(&out).expect("our own line");
            assert_eq!(back.key.as_deref(), key);
            assert_eq!(back.value.as_deref(), value);
            assert_eq!(back.timestamp_ms, Some(1000));
            let got: Vec<_> = back.headers.iter().map(|(n, v)| (n.as_slice(), v.as_deref())).collect();
            assert_eq!(got, headers);
        }
    }

    #[test]
    fn a_mistyped_name_and_a_doubled_value_are_refused() {
        for line in [
            &br#"{"vlaue":"x"}"#[..],
            br#"{"value":"x","value_base64":"eA=="}"#,
            br#"{"value_base64":"?"}"#,
            br#"{"value":5}"#,
            br#"{"headers":[{"value":"x"}]}"#,
            b"[]",
            b"not json",
        ] {
            assert!(read_json(line).is_err(), "{}", String::from_utf8_lossy(line));
        }
    }
}
