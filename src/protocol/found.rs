//! One value of a request's body as it came, and whether its field's rule takes it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::protocol::checked::{Checked, Wrong};
use crate::protocol::fields::{Given, Names, Rule};
use crate::protocol::meta::Meta;
use crate::protocol::value::{self, Plain};
use crate::protocol::{INTEGER_MAX, NAME_BYTES_MAX};

/// A value as it came, before its field's rule was asked.
pub(super) enum Found {
    Null,
    Text(String),
    Integer(u64),
    Object(Meta),
    Boolean(bool),
    Value(Plain),
    /// An object in which something is wrong.
    Wrong(Wrong),
    /// Something that no field takes, in words.
    Other(&'static str),
}

impl Found {
    pub(super) fn raw(raw: &RawValue) -> Self {
        match raw.get() {
            "null" => Found::Null,
            text if text.starts_with('{') => match Meta::from_request(text) {
                Ok(meta) => Found::Object(meta),
                Err(Some(wrong)) => Found::Wrong(wrong),
                Err(None) => Found::Other("one that is broken inside"),
            },
            _ => Found::Other("another type"),
        }
    }

    pub(super) fn value_of_raw<E: de::Error>(raw: &RawValue) -> Result<Self, E> {
        Plain::of_raw(raw).map(Found::Value).map_err(E::custom)
    }

    pub(super) fn tree(Checked(value): Checked) -> Self {
        match value {
            Ok(serde_json::Value::Null) => Found::Null,
            Ok(object @ serde_json::Value::Object(_)) => {
                Found::Object(Meta(object.to_string().into()))
            }
            Err(wrong) => Found::Wrong(wrong),
            Ok(_) => Found::Other("another type"),
        }
    }

    /// The value, none for null; or what was found instead, in words.
    pub(super) fn by(self, rule: Rule, names: Names) -> Result<Option<Given>, Cow<'static, str>> {
        let given = match (rule, self) {
            (_, Found::Null) => return Ok(None),
            (Rule::Name, Found::Text(text)) if names.have(&text) => Given::Text(text),
            (Rule::Name, Found::Text(text)) => {
                let bytes = names.bytes_of(&text);
                return Err(match bytes <= NAME_BYTES_MAX && !text.is_empty() {
                    true => "one with control characters".into(),
                    false => format!("{bytes} bytes").into(),
                });
            }
            (Rule::Integer(min, max), Found::Integer(integer)) => {
                if !(min..=max).contains(&integer) {
                    return Err(integer.to_string().into());
                }
                Given::Integer(integer)
            }
            (Rule::Choice(names), Found::Text(text)) => {
                match names.iter().position(|name| *name == text) {
                    Some(index) => Given::Choice(index),
                    None => return Err(format!("\"{}\"", shortened(&text)).into()),
                }
            }
            (Rule::Object(max), Found::Object(meta)) => {
                if meta.0.len() > max {
                    return Err(format!("{} bytes", meta.0.len()).into());
                }
                Given::Object(meta)
            }
            (Rule::Boolean, Found::Boolean(truth)) => Given::Boolean(truth),
            (Rule::Value, Found::Value(plain)) => Given::Value(plain),
            (Rule::Base64, Found::Text(text)) => Given::Binary(value::decode_base64(&text)?),
            (_, Found::Text(_)) => return Err("text".into()),
            (_, Found::Integer(_)) => return Err("a number".into()),
            (_, Found::Object(_)) => return Err("an object".into()),
            (_, Found::Boolean(_)) => return Err("a truth value".into()),
            (_, Found::Value(_)) => return Err("a value".into()),
            (_, Found::Wrong(wrong)) => return Err(wrong.what.into()),
            (_, Found::Other(words)) => return Err(words.into()),
        };
        Ok(Some(given))
    }
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar)
    }
}

struct Scalar;

impl<'de> Visitor<'de> for Scalar {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, an integer or null")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Found, E> {
        Ok(Found::Boolean(truth))
    }

    fn visit_i64<E>(self, integer: i64) -> Result<Found, E> {
        // MessagePack writers may use the signed forms for what is not negative.
        Ok(u64::try_from(integer).map_or(Found::Other("a negative number"), Found::Integer))
    }

    fn visit_u64<E>(self, integer: u64) -> Result<Found, E> {
        Ok(match integer {
            0..=INTEGER_MAX => Found::Integer(integer),
            _ => Found::Other("a number that is out of range"),
        })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::Other(
            "a number with a fraction, an exponent or more digits than an integer has here",
        ))
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        Ok(Found::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Found, E> {
        Ok(Found::Other("binary"))
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Null)
    }

    fn visit_none<E>(self) -> Result<Found, E> {
        Ok(Found::Null)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Found, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Other("an object"))
    }
}

/// The beginning of a text from outside, for a message about it.
pub(super) fn shortened(text: &str) -> &str {
    const BYTES_MAX: usize = 64;
    let end = (0..=BYTES_MAX.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}
