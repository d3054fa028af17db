//! A line of JSON as a record to be sent. `consume --json` prints such lines.
//!
//! A line is read straight into the record. Only one that cannot be read is looked at again, to say what is wrong with it in terms of the line.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;

/// What a line may say, for people.
const FIELDS: &str = "key, value, headers, timestamp, partition, key_base64, value_base64 (and topic, offset, which have no effect)";

/// A record to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RecordInput {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; none for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Milliseconds since the Unix epoch, if the line says.
    pub timestamp_ms: Option<i64>,
    /// The partition, if the line says.
    pub partition: Option<u32>,
}

/// Reads a line.
pub(crate) fn read_json(line: &[u8]) -> Result<RecordInput, String> {
    let Object(line) =
        serde_json::from_slice::<Object<LineIn<'_>>>(line).map_err(|error| explain(line, &error))?;
    let headers = line.headers.unwrap_or_default().0;
    let value = Part { text: line.value, base64: line.value_base64 }.join("value")?;
    Ok(RecordInput {
        key: Part { text: line.key, base64: line.key_base64 }.join("key")?.given(),
        value: value.said(|| {
            "there is no `value`; a record without one, which deletes its key in a compacted topic, is written \"value\":null"
        })?,
        headers,
        // A record without a time is printed with -1.
        timestamp_ms: line.timestamp.filter(|t| *t >= 0),
        partition: line.partition,
    })
}

/// What is written as an object: derived code alone would take lists, too.
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

/// Text that borrows from the line if it can.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// What a line says of a field.
#[derive(Default)]
enum Field<T> {
    /// Nothing: the field is not named.
    #[default]
    Absent,
    Null,
    Given(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(from)?.map_or(Self::Null, Self::Given))
    }
}

impl<T> Field<T> {
    fn given(self) -> Option<T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }

    /// The value or none, if the line says either.
    fn said<E>(self, otherwise: impl FnOnce() -> E) -> Result<Option<T>, E> {
        match self {
            Self::Absent => Err(otherwise()),
            said => Ok(said.given()),
        }
    }
}

/// Unknown names are refused: a mistyped `vlaue` must not become a record without a value.
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
    // Where a record came from, when the line was printed by `consume`. Where it goes is said on the command line.
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

/// A key or a value: as text, or as base64 if it is none.
struct Part<'a> {
    text: Field<Text<'a>>,
    base64: Field<Text<'a>>,
}

impl Part<'_> {
    fn join(self, name: &str) -> Result<Field<Vec<u8>>, String> {
        match (self.text, self.base64) {
            (Field::Given(_), Field::Given(_)) => {
                Err(format!("both `{name}` and `{name}_base64` are given; one of them"))
            }
            (Field::Given(Text(text)), _) => Ok(Field::Given(text.into_owned().into_bytes())),
            (_, Field::Given(Text(code))) => {
                let bytes = BASE64.decode(code.as_bytes());
                bytes.map(Field::Given).map_err(|e| format!("`{name}_base64` is not base64: {e}"))
            }
            (Field::Absent, Field::Absent) => Ok(Field::Absent),
            _ => Ok(Field::Null),
        }
    }
}

/// Headers in order: a list of objects with key and value, or one object of names and values.
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
            headers.push(header.join().map_err(de::Error::custom)?);
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
    fn join(self) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
        let key = Part { text: self.key, base64: self.key_base64 }.join("key")?.given();
        let key = key.ok_or("a header has no `key`")?;
        let value = Part { text: self.value, base64: self.value_base64 }.join("value")?;
        let name = || String::from_utf8_lossy(&key).into_owned();
        let value = value.said(|| format!("the header `{}` has no `value`; it may be null", name()))?;
        Ok((key, value))
    }
}

/// What is wrong with a line that cannot be read.
fn explain(line: &[u8], error: &serde_json::Error) -> String {
    let fields = match serde_json::from_slice(line) {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => {
            let is = kind_of(&other);
            return format!(
                "a record is an object such as {{\"key\":\"k\",\"value\":\"v\"}}, and this is {is}"
            );
        }
        Err(error) => return format!("this is not JSON: {} (column {})", reason(&error), error.column()),
    };
    for (name, value) in &fields {
        let wrong = |expected: &str| format!("`{name}` is {}; expected is {expected}", kind_of(value));
        let is_text = value.is_string() || value.is_null();
        match name.as_str() {
            "key" | "value" | "key_base64" | "value_base64" if !is_text => {
                return wrong("text in quotes, or null");
            }
            "timestamp" if !value.is_i64() && !value.is_null() => {
                return wrong("a number of milliseconds since 1970");
            }
            "partition" if value.as_u64().is_none_or(|n| n > u32::MAX.into()) && !value.is_null() => {
                return wrong("the number of a partition, from 0");
            }
            "headers" => {
                if let Some(what) = explain_headers(value) {
                    return what;
                }
            }
            "key" | "value" | "key_base64" | "value_base64" | "timestamp" | "partition" | "topic"
            | "offset" => {}
            unknown => return format!("there is no field `{unknown}`; a record has {FIELDS}"),
        }
    }
    reason(error)
}

fn explain_headers(headers: &Value) -> Option<String> {
    const EXAMPLE: &str = r#"[{"key":"name","value":"text"}] or {"name":"text"}"#;
    match headers {
        Value::Null => None,
        Value::Array(list) => list.iter().find_map(|header| match header.as_object() {
            None => Some(format!("`headers` holds {}; expected is {EXAMPLE}", kind_of(header))),
            Some(fields) => fields.iter().find_map(|(name, value)| match name.as_str() {
                "key" | "key_base64" | "value" | "value_base64" => {
                    let is_wrong = !value.is_string() && !value.is_null();
                    is_wrong.then(|| {
                        format!("`{name}` of a header is {}; expected is text in quotes", kind_of(value))
                    })
                }
                unknown => Some(format!("a header has no field `{unknown}`; expected is {EXAMPLE}")),
            }),
        }),
        Value::Object(fields) => {
            let wrong = fields.iter().find(|(_, value)| !value.is_string() && !value.is_null());
            wrong.map(|(name, value)| {
                format!("the header `{name}` is {}; expected is text in quotes, or null", kind_of(value))
            })
        }
        other => Some(format!("`headers` is {}; expected is {EXAMPLE}", kind_of(other))),
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "true or false".to_owned(),
        Value::Number(n) => format!("the number {n}"),
        Value::String(_) => "text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// What serde says, without the place: that of a single line says nothing.
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
    fn a_line_says_what_a_record_has() {
        let line =
            br#" {"partition":5,"key":"k","value":"v \"w\"","timestamp":7,"topic":"elsewhere","offset":12} "#;
        let record = read_json(line).expect("a record");
        assert_eq!((record.key, record.value), (Some(bytes("k")), Some(bytes("v \"w\""))));
        assert_eq!((record.timestamp_ms, record.partition), (Some(7), Some(5)));
        assert!(record.headers.is_empty());
    }

    #[test]
    fn no_value_is_said_and_never_meant_by_leaving_it_out() {
        assert_eq!(read_json(br#"{"key":"k","value":null}"#).expect("a tombstone").value, None);
        assert_eq!(read_json(br#"{"value_base64":null}"#).expect("a tombstone").value, None);
        for line in [&b"{}"[..], br#"{"key":"k"}"#, br#"{"headers":[{"key":"h"}],"value":"v"}"#] {
            let error = read_json(line).expect_err("nothing is said of the value");
            assert!(error.contains("no `value`"), "{error}");
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
    fn what_is_wrong_with_a_line_is_said_in_its_own_terms() {
        for (line, words) in [
            (r#"{"vlaue":"x"}"#, &["no field `vlaue`", "value"][..]),
            (r#"{"value":5}"#, &["`value` is the number 5", "in quotes"]),
            (r#"{"value":{"a":1}}"#, &["`value` is an object", "in quotes"]),
            (r#"{"value":"x","value_base64":"eA=="}"#, &["both `value` and `value_base64`"]),
            (r#"{"value_base64":"?"}"#, &["`value_base64` is not base64"]),
            (r#"{"value":"x","timestamp":"now"}"#, &["`timestamp` is text", "milliseconds"]),
            (r#"{"value":"x","partition":-1}"#, &["`partition` is the number -1", "from 0"]),
            (r#"{"value":"x","partition":"5"}"#, &["`partition` is text", "number"]),
            (r#"{"value":"x","headers":"h"}"#, &["`headers` is text", r#"{"name":"text"}"#]),
            (r#"{"value":"x","headers":["h"]}"#, &["`headers` holds text"]),
            (r#"{"value":"x","headers":[["h","1"]]}"#, &["`headers` holds a list"]),
            (r#"{"value":"x","headers":[{"name":"h"}]}"#, &["no field `name`"]),
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
