//! How a value is written into a reply and read from a body.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Plain;
use crate::protocol::checked::{Checked, Wrong};

impl Serialize for Plain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Plain::Text(bytes) => serializer.serialize_str(&text(bytes)),
            Plain::Json(bytes) if serializer.is_human_readable() => {
                let raw: &RawValue =
                    serde_json::from_slice(bytes).map_err(serde::ser::Error::custom)?;
                raw.serialize(serializer)
            }
            Plain::Json(bytes) => serializer.serialize_str(&text(bytes)),
            Plain::Binary(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

/// Valid text as it is, and fast: almost all of it is.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// As a reply has it: in JSON everything is JSON until [`Value::from_reply`](super::Value::from_reply) knows the kind.
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

    /// A list or a map, looked through.
    fn tree<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Plain, D::Error> {
        match Checked::deserialize(deserializer)?.0 {
            Ok(tree) => Packed::json(tree),
            Err(Wrong { path, what }) => Err(de::Error::custom(format!("one whose {path} {what}"))),
        }
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
        Packed::tree(de::value::SeqAccessDeserializer::new(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Plain, A::Error> {
        Packed::tree(de::value::MapAccessDeserializer::new(map))
    }
}
