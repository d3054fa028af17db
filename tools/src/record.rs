//! A record as it is printed, and its JSON form.
//!
//! `produce --json` reads what `consume --json` prints, so a pipe of the two copies keys, values, headers, timestamps and partitions exactly.
//! Bytes that are not UTF-8 are written to separate fields, `key_base64` and `value_base64`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

/// A record to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordView<'a> {
    /// Name of the topic.
    pub topic: &'a str,
    /// Partition number.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since the Unix epoch; -1 for none.
    pub timestamp_ms: i64,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values of the headers, in order.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Bytes as a JSON string: `text` if they are UTF-8, else `base64`. Both are `None` if there are no bytes.
#[derive(Default)]
struct JsonBytes<'a> {
    text: Option<&'a str>,
    base64: Option<String>,
}

impl<'a> JsonBytes<'a> {
    fn new(bytes: Option<&'a [u8]>) -> Self {
        match bytes.map(|b| (b, std::str::from_utf8(b))) {
            None => Self::default(),
            Some((_, Ok(text))) => Self { text: Some(text), base64: None },
            Some((raw, Err(_))) => Self { text: None, base64: Some(BASE64.encode(raw)) },
        }
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

/// Appends a record as a line of JSON.
pub(crate) fn write_json(record: &RecordView<'_>, out: &mut Vec<u8>) {
    let (key, value) = (JsonBytes::new(record.key), JsonBytes::new(record.value));
    let headers = record
        .headers
        .iter()
        .map(|(name, bytes)| {
            let (name, value) = (JsonBytes::new(Some(name)), JsonBytes::new(*bytes));
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
    serde_json::to_writer(&mut *out, &line).expect("strings and numbers serialize to JSON");
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_input::read_json;

    fn view<'a>(
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        headers: &'a [(&'a [u8], Option<&'a [u8]>)],
    ) -> RecordView<'a> {
        RecordView { topic: "t", partition: 1, offset: 7, timestamp_ms: 1000, key, value, headers }
    }

    #[test]
    fn a_record_is_printed_as_one_json_object_per_line() {
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
    fn a_printed_record_reads_back_unchanged() {
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
}
