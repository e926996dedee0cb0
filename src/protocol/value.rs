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

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::protocol::error::{Code, ErrorReply};
use crate::protocol::fields::Fields;
use crate::protocol::{Encoding, Refusal};

mod plain;

/// The greatest value in bytes: brokers carry messages of 1 MiB, and its envelope has to fit too.
pub const VALUE_BYTES_MAX: usize = 900 * 1024;
/// How deep a JSON value may nest: readers of JSON stop at 128 levels, and replies add some.
pub const JSON_DEPTH_MAX: usize = 100;

/// What a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

impl InFields {
    /// Writes the fields of a reply as one in `encoding` has them. Those that do not fit together stay as they are.
    pub fn rewrite(
        (plain, base64, kind): (&mut Option<Plain>, &mut Option<String>, &mut Kind),
        encoding: Encoding,
    ) {
        let fields = InFields {
            plain: plain.clone(),
            base64: base64.clone(),
            kind: *kind,
        };
        if let Ok(value) = Value::from_reply(fields) {
            let written = value.in_reply(encoding);
            (*plain, *base64, *kind) = (written.plain, written.base64, written.kind);
        }
    }
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
                let message = format!("give either `{name}` or `{base64}`, not both");
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
    ErrorReply::bad_field(name, format!("`{name}` is not valid JSON: {why}")).into()
}

fn too_large(name: &str, bytes: usize) -> Refusal {
    let message = format!("`{name}` has {bytes} bytes; at most {VALUE_BYTES_MAX} are allowed");
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

/// Base64 of the standard alphabet, with padding.
pub(super) fn decode_base64(text: &str) -> Result<Bytes, Cow<'static, str>> {
    BASE64_STANDARD
        .decode(text)
        .map(Bytes::from)
        .map_err(|error| error.to_string().into())
}

#[cfg(test)]
mod tests;
