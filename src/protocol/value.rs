//! Values: what a message carries (`payload`) and what a cache keeps (`value`).
//!
//! A value is text, JSON or binary, and comes back as what it was, in either encoding:
//!
//! | kind | in a JSON body | in a MessagePack body |
//! |---|---|---|
//! | text | a string | str |
//! | JSON | any other JSON value, or a string beside `encoding: "json"` | any other type, or str beside `encoding: "json"` |
//! | binary | base64, in the field with `_base64` behind its name | bin |
//!
//! Replies name the kind in `encoding`. JSON is kept as the text that was received, so that big
//! integers and `1.0` survive; only line breaks between its parts become spaces, since a reply in
//! JSON is one line. A reply in MessagePack carries JSON as its text.
//!
//! Limits: [`VALUE_BYTES_MAX`] bytes, and JSON of [`JSON_DEPTH_MAX`] levels, so that readers of
//! replies, which nest it deeper, can take it.

#![allow(dead_code)] // Until an operation takes a value.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::protocol::error::{Code, ErrorReply};
use crate::protocol::fields::Fields;
use crate::protocol::{Encoding, Refusal};

/// The greatest value in bytes: brokers carry messages of 1 MiB, and its envelope has to fit too.
pub const VALUE_BYTES_MAX: usize = 900 * 1024;
/// How deep a JSON value may nest: readers of JSON stop at 128 levels, and replies add some.
pub const JSON_DEPTH_MAX: usize = 100;

/// What a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[default]
    Text,
    Json,
    Binary,
}

impl Kind {
    /// As they stand in `encoding`.
    pub(super) const NAMES: &[&str] = &["text", "json", "binary"];

    pub fn name(self) -> &'static str {
        Kind::NAMES[self as usize]
    }

    fn nth(index: usize) -> Kind {
        [Kind::Text, Kind::Json, Kind::Binary][index]
    }
}

/// A value and what it is. The bytes of text and JSON are UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    kind: Kind,
    bytes: Bytes,
}

/// A value as it stands in a field of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plain {
    Text(Bytes),
    /// JSON as text.
    Json(Bytes),
    Binary(Bytes),
}

/// A value as the three fields of a body: the field of its name, the same with `_base64` behind,
/// and `encoding`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InFields {
    pub plain: Option<Plain>,
    pub base64: Option<String>,
    pub kind: Kind,
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Value {
            kind: Kind::Text,
            bytes: Bytes::from(text.into()),
        }
    }

    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Value {
            kind: Kind::Binary,
            bytes: bytes.into(),
        }
    }

    /// # Errors
    /// What is wrong, in words, when the text is not one JSON value of at most
    /// [`JSON_DEPTH_MAX`] levels.
    pub fn json(text: &str) -> Result<Self, String> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let text = raw.get();
        if depth(text) > JSON_DEPTH_MAX {
            return Err(format!("it nests deeper than {JSON_DEPTH_MAX} levels"));
        }
        // Line breaks stand between the parts only: strings have them escaped.
        let line: Vec<u8> = text.bytes().map(without_line_break).collect();
        Ok(Value {
            kind: Kind::Json,
            bytes: line.into(),
        })
    }

    /// What was kept of a value. Bytes that are not of their kind, as a store that was changed by
    /// hand may have them, are binary.
    pub fn from_kept(kind: Kind, bytes: Bytes) -> Self {
        let holds = match kind {
            Kind::Binary => true,
            Kind::Text => std::str::from_utf8(&bytes).is_ok(),
            Kind::Json => serde_json::from_slice::<&RawValue>(&bytes).is_ok(),
        };
        let kind = if holds { kind } else { Kind::Binary };
        Value { kind, bytes }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The text, the JSON as text, or the binary itself.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The value as a reply in `encoding` carries it.
    pub fn in_reply(&self, encoding: Encoding) -> InFields {
        let bytes = self.bytes.clone();
        let (plain, base64) = match (self.kind, encoding) {
            (Kind::Text, _) => (Some(Plain::Text(bytes)), None),
            (Kind::Json, _) => (Some(Plain::Json(bytes)), None),
            (Kind::Binary, Encoding::MessagePack) => (Some(Plain::Binary(bytes)), None),
            (Kind::Binary, Encoding::Json) => (None, Some(BASE64_STANDARD.encode(&bytes))),
        };
        InFields {
            plain,
            base64,
            kind: self.kind,
        }
    }

    /// The value as a request in `encoding` carries it. JSON goes as its text, which is right in
    /// both encodings, with `encoding` beside it.
    pub fn in_request(&self, encoding: Encoding) -> InFields {
        match self.kind {
            Kind::Json => InFields {
                plain: Some(Plain::Text(self.bytes.clone())),
                base64: None,
                kind: Kind::Json,
            },
            Kind::Text | Kind::Binary => self.in_reply(encoding),
        }
    }

    /// Reads a value from the fields of a reply.
    ///
    /// # Errors
    /// What does not fit together, in words.
    pub fn from_reply(fields: InFields) -> Result<Self, String> {
        let InFields {
            plain,
            base64,
            kind,
        } = fields;
        let bytes = match (plain, base64, kind) {
            (None, Some(base64), Kind::Binary) => BASE64_STANDARD
                .decode(base64)
                .map_err(|error| error.to_string())?
                .into(),
            (Some(Plain::Binary(bytes)), None, Kind::Binary)
            | (Some(Plain::Json(bytes) | Plain::Text(bytes)), None, Kind::Json) => bytes,
            (Some(Plain::Text(bytes)), None, Kind::Text) => bytes,
            // In JSON every value is JSON until `encoding` says otherwise.
            (Some(Plain::Json(raw)), None, Kind::Text) => {
                let text: String = serde_json::from_slice(&raw).map_err(|e| e.to_string())?;
                text.into()
            }
            _ => return Err(format!("there is no value that is {}", kind.name())),
        };
        Ok(Value { kind, bytes })
    }

    /// Takes the value of the field `name` (or `base64`) of a request; none if there is none.
    ///
    /// # Errors
    /// `bad_request` when the fields contradict each other or the text is not JSON although it is
    /// said to be, `payload_too_large` above [`VALUE_BYTES_MAX`].
    pub(super) fn build(
        given: &mut Fields<'_>,
        name: &'static str,
        base64: &'static str,
    ) -> Result<Option<Self>, Refusal> {
        let said = given.chosen("encoding").map(Kind::nth);
        let value = match (given.value(name), given.binary(base64)) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                let message =
                    format!("`{name}` and `{base64}` are both there: one value, one field");
                return Err(ErrorReply::bad_field(base64, message).into());
            }
            (None, Some(bytes)) => Value::binary(bytes),
            (Some(Plain::Text(bytes)), None) if said == Some(Kind::Json) => {
                json_of_text(name, &bytes)?
            }
            (Some(plain), None) => plain.into_value(name)?,
        };
        if said.is_some_and(|said| said != value.kind) {
            let message = format!(
                "`encoding` must be \"{}\" for this value, or absent",
                value.kind.name()
            );
            return Err(ErrorReply::bad_field("encoding", message).into());
        }
        if value.bytes.len() > VALUE_BYTES_MAX {
            return Err(too_large(name, value.bytes.len()));
        }
        Ok(Some(value))
    }
}

fn json_of_text(name: &str, bytes: &[u8]) -> Result<Value, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| not_json(name, "it is not UTF-8"))?;
    Value::json(text).map_err(|why| not_json(name, &why))
}

fn not_json(name: &str, why: &str) -> Refusal {
    ErrorReply::bad_field(
        name,
        format!("`{name}` is not the JSON it is said to be: {why}"),
    )
    .into()
}

fn too_large(name: &str, bytes: usize) -> Refusal {
    let message = format!("`{name}` has {bytes} bytes; the most is {VALUE_BYTES_MAX}");
    Box::new(ErrorReply {
        field: Some(name.to_owned()),
        limit: Some(VALUE_BYTES_MAX as u64),
        ..ErrorReply::new(Code::PayloadTooLarge, message)
    })
}

fn without_line_break(byte: u8) -> u8 {
    match byte {
        b'\n' | b'\r' => b' ',
        other => other,
    }
}

/// How many arrays and objects stand inside each other at most, in valid JSON.
fn depth(json: &str) -> usize {
    let (mut now, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' if !in_string => now -= 1,
            _ => {}
        }
    }
    deepest
}

impl Plain {
    /// A string is text, anything else is JSON.
    pub(super) fn of_raw(raw: &RawValue) -> Result<Self, serde_json::Error> {
        Ok(match raw.get().starts_with('"') {
            true => Plain::Text(serde_json::from_str::<String>(raw.get())?.into()),
            false => Plain::Json(Bytes::copy_from_slice(raw.get().as_bytes())),
        })
    }

    fn into_value(self, name: &str) -> Result<Value, Refusal> {
        Ok(match self {
            Plain::Text(bytes) => Value {
                kind: Kind::Text,
                bytes,
            },
            Plain::Binary(bytes) => Value::binary(bytes),
            Plain::Json(bytes) => json_of_text(name, &bytes)?,
        })
    }
}

impl Serialize for Plain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Plain::Text(bytes) => serializer.serialize_str(&String::from_utf8_lossy(bytes)),
            Plain::Json(bytes) if serializer.is_human_readable() => {
                let raw: &RawValue =
                    serde_json::from_slice(bytes).map_err(serde::ser::Error::custom)?;
                raw.serialize(serializer)
            }
            Plain::Json(bytes) => serializer.serialize_str(&String::from_utf8_lossy(bytes)),
            Plain::Binary(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

/// As a reply has it: in JSON everything is JSON until [`Value::from_reply`] knows the kind.
impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let raw = Box::<RawValue>::deserialize(deserializer)?;
            Ok(Plain::Json(String::from(Box::<str>::from(raw)).into()))
        } else {
            deserializer.deserialize_any(Packed)
        }
    }
}

/// A value in MessagePack: str, bin, or a tree that becomes JSON.
struct Packed;

impl Packed {
    fn json<E: de::Error>(tree: impl Into<serde_json::Value>) -> Result<Plain, E> {
        Ok(Plain::Json(tree.into().to_string().into()))
    }
}

impl<'de> Visitor<'de> for Packed {
    type Value = Plain;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, binary, or what JSON has too")
    }

    fn visit_str<E>(self, text: &str) -> Result<Plain, E> {
        Ok(Plain::Text(Bytes::copy_from_slice(text.as_bytes())))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Plain, E> {
        Ok(Plain::Binary(Bytes::copy_from_slice(bytes)))
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Plain, E> {
        Packed::json(truth)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Plain, E> {
        Packed::json(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Plain, E> {
        Packed::json(number)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Plain, E> {
        match serde_json::Number::from_f64(number) {
            Some(number) => Packed::json(number),
            None => Err(E::custom("a number that JSON does not have")),
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<Plain, E> {
        Packed::json(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Plain, A::Error> {
        let tree = serde_json::Value::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
        Packed::json(tree)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Plain, A::Error> {
        let tree = serde_json::Value::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Packed::json(tree)
    }
}

/// Base64 of the standard alphabet, with padding.
pub(super) fn decode_base64(text: &str) -> Result<Bytes, Cow<'static, str>> {
    BASE64_STANDARD
        .decode(text)
        .map(Bytes::from)
        .map_err(|error| error.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::fields::{Field, Rule};

    const FIELDS: &[Field] = &[
        Field::new("value", Rule::Value),
        Field::new("value_base64", Rule::Base64),
        Field::new("encoding", Rule::Choice(Kind::NAMES)),
    ];

    fn decoded(encoding: Encoding, body: &[u8]) -> Result<Option<Value>, Refusal> {
        let mut given = Fields::decode("cache.set", FIELDS, encoding, body)?;
        Value::build(&mut given, "value", "value_base64")
    }

    fn of_json(body: &str) -> Value {
        let value = decoded(Encoding::Json, body.as_bytes());
        value.expect("a good value").expect("a value")
    }

    fn of_pack(body: &impl Serialize) -> Value {
        let body = rmp_serde::to_vec_named(body).unwrap();
        let value = decoded(Encoding::MessagePack, &body);
        value.expect("a good value").expect("a value")
    }

    fn refused(body: &str) -> (Code, Option<String>) {
        let refusal = decoded(Encoding::Json, body.as_bytes()).expect_err(body);
        (refusal.code, refusal.field.clone())
    }

    #[test]
    fn json_bodies_have_text_json_and_base64() {
        assert_eq!(of_json(r#"{"value":"a\nb"}"#), Value::text("a\nb"));
        for json in [
            "12345678901234567890123",
            "1.0",
            "null",
            "true",
            "[1, {\"a\":1e3}]",
            "{\"value\" : 1}",
            r#"{"half":"\ud800"}"#,
        ] {
            let value = of_json(&format!("{{\"value\":{json}}}"));
            assert_eq!(
                (value.kind(), &value.bytes()[..]),
                (Kind::Json, json.as_bytes())
            );
        }
        assert_eq!(of_json("{\"value\":[1,\r\n2]}").bytes(), "[1,  2]");
        let binary = of_json(r#"{"value_base64":"AP8="}"#);
        assert_eq!(binary, Value::binary(vec![0, 255]));
        assert_eq!(decoded(Encoding::Json, b"{}"), Ok(None));
        assert_eq!(
            decoded(Encoding::Json, br#"{"value_base64":null}"#),
            Ok(None)
        );
    }

    #[test]
    fn messagepack_bodies_have_str_bin_and_trees() {
        #[derive(Serialize)]
        struct Body<T> {
            value: T,
        }
        assert_eq!(of_pack(&Body { value: "é" }), Value::text("é"));
        let value = serde_bytes::ByteBuf::from(vec![0, 255]);
        assert_eq!(of_pack(&Body { value }), Value::binary(vec![0, 255]));
        let tree = serde_json::json!({"a": [1, -2, 1.5, null, true, "x"]});
        let value = of_pack(&Body {
            value: tree.clone(),
        });
        assert_eq!(value, Value::json(&tree.to_string()).unwrap());
        assert_eq!(
            of_pack(&Body { value: u64::MAX }).bytes(),
            "18446744073709551615"
        );
        assert_eq!(of_pack(&Body { value: () }), Value::json("null").unwrap());
    }

    #[test]
    fn text_may_be_said_to_be_json_and_what_is_said_must_hold() {
        let json = of_json(r#"{"value":"{\"a\":1.0}","encoding":"json"}"#);
        assert_eq!(json, Value::json("{\"a\":1.0}").unwrap());
        assert_eq!(
            of_json(r#"{"value":"a","encoding":"text"}"#),
            Value::text("a")
        );
        let field = |name: &str| (Code::BadRequest, Some(name.to_owned()));
        assert_eq!(
            refused(r#"{"value":"{","encoding":"json"}"#),
            field("value")
        );
        assert_eq!(
            refused(r#"{"value":"a","encoding":"binary"}"#),
            field("encoding")
        );
        assert_eq!(
            refused(r#"{"value":1,"encoding":"text"}"#),
            field("encoding")
        );
        assert_eq!(
            refused(r#"{"value":1,"value_base64":"AA=="}"#),
            field("value_base64")
        );
        for wrong in ["A", "AP8", "A P8=", "é"] {
            let body = format!("{{\"value_base64\":\"{wrong}\"}}");
            assert_eq!(refused(&body), field("value_base64"), "{wrong}");
        }
        let deep = format!("{{\"value\":{}{}}}", "[".repeat(101), "]".repeat(101));
        assert_eq!(refused(&deep), field("value"));
        assert_eq!(refused(r#"{"value":"\ud800"}"#), field("value"));
    }

    #[test]
    fn a_value_has_a_greatest_size() {
        let body = |bytes: usize| format!("{{\"value\":\"{}\"}}", "x".repeat(bytes));
        assert_eq!(
            of_json(&body(VALUE_BYTES_MAX)).bytes().len(),
            VALUE_BYTES_MAX
        );
        let (code, field) = refused(&body(VALUE_BYTES_MAX + 1));
        assert_eq!(
            (code, field.as_deref()),
            (Code::PayloadTooLarge, Some("value"))
        );
    }

    #[test]
    fn a_reply_brings_back_what_was_sent_in_both_encodings() {
        #[derive(Serialize, Deserialize)]
        struct Reply {
            #[serde(default, skip_serializing_if = "Option::is_none")]
            value: Option<Plain>,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            value_base64: Option<String>,
            encoding: Kind,
        }
        let values = [
            Value::text("a \"text\"\n"),
            Value::text(""),
            Value::json("\"a\"").unwrap(),
            Value::json(r#"{"n": 1.0, "big": 12345678901234567890123}"#).unwrap(),
            Value::binary(vec![0, 1, 255]),
        ];
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            for value in &values {
                let fields = value.in_reply(encoding);
                let written = encoding.encode(&Reply {
                    value: fields.plain,
                    value_base64: fields.base64,
                    encoding: fields.kind,
                });
                let read: Reply = encoding.decode(&written).unwrap();
                let fields = InFields {
                    plain: read.value,
                    base64: read.value_base64,
                    kind: read.encoding,
                };
                assert_eq!(Value::from_reply(fields).as_ref(), Ok(value));
                let kept = Value::from_kept(value.kind(), value.bytes().clone());
                assert_eq!(&kept, value);
            }
        }
        let broken = Value::from_kept(Kind::Json, Bytes::from_static(b"{"));
        assert_eq!(broken.kind(), Kind::Binary);
    }
}
