//! Parses lines of JSON, as printed by `consume --json`, into records.
//!
//! A line is deserialized directly. Only if that fails, it is parsed again as a generic value, to describe the error in terms of the input.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;

/// Fields of a line, for error texts.
const FIELDS: &str =
    "key, value, headers, timestamp, partition, key_base64, value_base64 (topic and offset are ignored)";

/// A record to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RecordInput {
    /// The key, if any.
    pub key: Option<Vec<u8>>,
    /// The value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values of the headers, in order.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Milliseconds since the Unix epoch, if given.
    pub timestamp_ms: Option<i64>,
    /// Partition number, if given.
    pub partition: Option<u32>,
}

/// Parses a line.
pub(crate) fn read_json(line: &[u8]) -> Result<RecordInput, String> {
    let Object(line) =
        serde_json::from_slice::<Object<LineIn<'_>>>(line).map_err(|error| describe_error(line, &error))?;
    let headers = line.headers.unwrap_or_default().0;
    let value = BytesField { text: line.value, base64: line.value_base64 }.decode("value")?;
    Ok(RecordInput {
        key: BytesField { text: line.key, base64: line.key_base64 }.decode("key")?.into_option(),
        value: value.required(|| {
            "`value` is missing; write \"value\":null for a tombstone, which deletes its key in a compacted topic"
        })?,
        headers,
        // `consume --json` prints -1 for a record without a timestamp.
        timestamp_ms: line.timestamp.filter(|t| *t >= 0),
        partition: line.partition,
    })
}

/// Deserializes `T` from an object only. Derived code would also accept a list.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        from.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// A string, borrowed from the line if possible.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A field that distinguishes absence from null.
#[derive(Default)]
enum Field<T> {
    #[default]
    Absent,
    Null,
    Present(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(from)?.map_or(Self::Null, Self::Present))
    }
}

impl<T> Field<T> {
    fn into_option(self) -> Option<T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }

    /// Returns the value, or `None` for null. Fails if the field is absent.
    fn required<E>(self, error: impl FnOnce() -> E) -> Result<Option<T>, E> {
        match self {
            Self::Absent => Err(error()),
            field => Ok(field.into_option()),
        }
    }
}

/// Fields of a line. Unknown fields are rejected, so that a misspelt `vlaue` does not become a record without a value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineIn<'a> {
    #[serde(borrow, default)]
    key: Field<Text<'a>>,
    #[serde(borrow, default)]
    key_base64: Field<Text<'a>>,
    #[serde(borrow, default)]
    value: Field<Text<'a>>,
    #[serde(borrow, default)]
    value_base64: Field<Text<'a>>,
    headers: Option<Headers>,
    timestamp: Option<i64>,
    partition: Option<u32>,
    // Origin of a record printed by `consume`. The destination is given on the command line.
    #[serde(rename = "topic")]
    _topic: Option<de::IgnoredAny>,
    #[serde(rename = "offset")]
    _offset: Option<de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderIn<'a> {
    #[serde(borrow, default)]
    key: Field<Text<'a>>,
    #[serde(borrow, default)]
    key_base64: Field<Text<'a>>,
    #[serde(borrow, default)]
    value: Field<Text<'a>>,
    #[serde(borrow, default)]
    value_base64: Field<Text<'a>>,
}

/// Bytes of a key or value, given as text or as base64.
struct BytesField<'a> {
    text: Field<Text<'a>>,
    base64: Field<Text<'a>>,
}

impl BytesField<'_> {
    fn decode(self, name: &str) -> Result<Field<Vec<u8>>, String> {
        match (self.text, self.base64) {
            (Field::Present(_), Field::Present(_)) => {
                Err(format!("both `{name}` and `{name}_base64` are given; use one of them"))
            }
            (Field::Present(Text(text)), _) => Ok(Field::Present(text.into_owned().into_bytes())),
            (_, Field::Present(Text(encoded))) => {
                let bytes = BASE64.decode(encoded.as_bytes());
                bytes.map(Field::Present).map_err(|e| format!("`{name}_base64` is not base64: {e}"))
            }
            (Field::Absent, Field::Absent) => Ok(Field::Absent),
            _ => Ok(Field::Null),
        }
    }
}

/// Headers in order, from a list of objects with key and value, or from one object of names and values.
#[derive(Default)]
struct Headers(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(HeadersVisitor)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Headers, A::Error> {
        let mut headers = Vec::new();
        while let Some(Object(header)) = list.next_element::<Object<HeaderIn<'_>>>()? {
            headers.push(header.decode().map_err(de::Error::custom)?);
        }
        Ok(Headers(headers))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = Vec::new();
        while let Some((Text(name), value)) = map.next_entry::<Text<'_>, Option<Text<'_>>>()? {
            let value = value.map(|Text(value)| value.into_owned().into_bytes());
            headers.push((name.into_owned().into_bytes(), value));
        }
        Ok(Headers(headers))
    }
}

impl HeaderIn<'_> {
    fn decode(self) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
        let key = BytesField { text: self.key, base64: self.key_base64 }.decode("key")?.into_option();
        let key = key.ok_or("a header has no `key`")?;
        let value = BytesField { text: self.value, base64: self.value_base64 }.decode("value")?;
        let name = || String::from_utf8_lossy(&key).into_owned();
        let value = value.required(|| format!("the header `{}` has no `value`; it may be null", name()))?;
        Ok((key, value))
    }
}

/// Describes the error in a line that failed to parse.
fn describe_error(line: &[u8], error: &serde_json::Error) -> String {
    let fields = match serde_json::from_slice(line) {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => {
            let kind = kind_of(&other);
            return format!("expected an object such as {{\"key\":\"k\",\"value\":\"v\"}}, found {kind}");
        }
        Err(error) => return format!("not JSON: {} (column {})", reason(&error), error.column()),
    };
    for (name, value) in &fields {
        let wrong = |expected: &str| format!("`{name}` is {}; expected {expected}", kind_of(value));
        let is_text = value.is_string() || value.is_null();
        match name.as_str() {
            "key" | "value" | "key_base64" | "value_base64" if !is_text => {
                return wrong("a string or null");
            }
            "timestamp" if !value.is_i64() && !value.is_null() => {
                return wrong("milliseconds since 1970");
            }
            "partition" if value.as_u64().is_none_or(|n| n > u32::MAX.into()) && !value.is_null() => {
                return wrong("a partition number, from 0");
            }
            "headers" => {
                if let Some(description) = describe_headers_error(value) {
                    return description;
                }
            }
            "key" | "value" | "key_base64" | "value_base64" | "timestamp" | "partition" | "topic"
            | "offset" => {}
            unknown => return format!("unknown field `{unknown}`; the fields of a record are {FIELDS}"),
        }
    }
    reason(error)
}

fn describe_headers_error(headers: &Value) -> Option<String> {
    const EXAMPLE: &str = r#"[{"key":"name","value":"text"}] or {"name":"text"}"#;
    match headers {
        Value::Null => None,
        Value::Array(list) => list.iter().find_map(|header| match header.as_object() {
            None => Some(format!("`headers` contains {}; expected {EXAMPLE}", kind_of(header))),
            Some(fields) => fields.iter().find_map(|(name, value)| match name.as_str() {
                "key" | "key_base64" | "value" | "value_base64" => {
                    let is_wrong = !value.is_string() && !value.is_null();
                    is_wrong.then(|| format!("`{name}` of a header is {}; expected a string", kind_of(value)))
                }
                unknown => Some(format!("unknown field `{unknown}` of a header; expected {EXAMPLE}")),
            }),
        }),
        Value::Object(fields) => {
            let wrong = fields.iter().find(|(_, value)| !value.is_string() && !value.is_null());
            wrong.map(|(name, value)| {
                format!("the header `{name}` is {}; expected a string or null", kind_of(value))
            })
        }
        other => Some(format!("`headers` is {}; expected {EXAMPLE}", kind_of(other))),
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(n) => format!("the number {n}"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Returns serde's error text without the position, which is meaningless for a single line.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    reason.replace("EOF while parsing", "the line ends in the middle of")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    #[test]
    fn a_line_sets_the_fields_of_the_record() {
        let line =
            br#" {"partition":5,"key":"k","value":"v \"w\"","timestamp":7,"topic":"elsewhere","offset":12} "#;
        let record = read_json(line).expect("a record");
        assert_eq!((record.key, record.value), (Some(bytes("k")), Some(bytes("v \"w\""))));
        assert_eq!((record.timestamp_ms, record.partition), (Some(7), Some(5)));
        assert!(record.headers.is_empty());
    }

    #[test]
    fn a_tombstone_has_an_explicit_null_value_and_a_missing_value_is_an_error() {
        assert_eq!(read_json(br#"{"key":"k","value":null}"#).expect("a tombstone").value, None);
        assert_eq!(read_json(br#"{"value_base64":null}"#).expect("a tombstone").value, None);
        for (line, words) in [
            (&b"{}"[..], "`value` is missing"),
            (br#"{"key":"k"}"#, "`value` is missing"),
            (br#"{"headers":[{"key":"h"}],"value":"v"}"#, "the header `h` has no `value`"),
        ] {
            let error = read_json(line).expect_err("the value is missing");
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn headers_are_a_list_or_an_object_and_keep_their_order() {
        let expect = vec![(b"b".to_vec(), Some(bytes("1"))), (b"a".to_vec(), None)];
        for headers in [r#"[{"key":"b","value":"1"},{"key":"a","value":null}]"#, r#"{"b":"1","a":null}"#] {
            let line = format!(r#"{{"value":"v","headers":{headers}}}"#);
            assert_eq!(read_json(line.as_bytes()).expect("a record").headers, expect, "{headers}");
        }
        assert!(read_json(br#"{"value":"v","headers":null}"#).expect("a record").headers.is_empty());
    }

    #[test]
    fn errors_are_described_in_terms_of_the_input() {
        for (line, words) in [
            (r#"{"vlaue":"x"}"#, &["unknown field `vlaue`", "value"][..]),
            (r#"{"value":5}"#, &["`value` is the number 5", "a string"]),
            (r#"{"value":{"a":1}}"#, &["`value` is an object", "a string"]),
            (r#"{"value":"x","value_base64":"eA=="}"#, &["both `value` and `value_base64`"]),
            (r#"{"value_base64":"?"}"#, &["`value_base64` is not base64"]),
            (r#"{"value":"x","timestamp":"now"}"#, &["`timestamp` is a string", "milliseconds"]),
            (r#"{"value":"x","partition":-1}"#, &["`partition` is the number -1", "from 0"]),
            (r#"{"value":"x","partition":"5"}"#, &["`partition` is a string", "number"]),
            (r#"{"value":"x","headers":"h"}"#, &["`headers` is a string", r#"{"name":"text"}"#]),
            (r#"{"value":"x","headers":["h"]}"#, &["`headers` contains a string"]),
            (r#"{"value":"x","headers":[["h","1"]]}"#, &["`headers` contains a list"]),
            (r#"{"value":"x","headers":[{"name":"h"}]}"#, &["unknown field `name`"]),
            (r#"{"value":"x","headers":[{"value":"x"}]}"#, &["no `key`"]),
            (r#"{"value":"x","headers":{"h":1}}"#, &["header `h` is the number 1"]),
            (r#"{"value":"x","value":"y"}"#, &["duplicate", "value"]),
            ("[]", &["an object", "a list"]),
            (r#"["k",null,"v",null]"#, &["an object", "a list"]),
            ("not json", &["not JSON", "column 2"]),
            (r#"{"value":"x"#, &["not JSON", "ends in the middle"]),
        ] {
            let error = read_json(line.as_bytes()).expect_err(line);
            assert!(words.iter().all(|word| error.contains(word)), "{line}: {error}");
            for internal in ["struct", "LineIn", "HeaderIn", "sequence", "line 1"] {
                assert!(!error.contains(internal), "{line}: {error}");
            }
        }
    }
}
