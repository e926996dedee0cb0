//! `meta`: a JSON object that a client gives to be shown to others.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use super::checked::{Checked, Wrong};

/// A JSON object as the text that was received, without the white space between its parts. In
/// MessagePack it is a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta(pub(super) Box<str>);

impl Meta {
    /// # Errors
    /// When the text is not one JSON object with at most 128 levels, in which every number and
    /// every escaped character is one that all JSON readers take.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        // Raw text may be broken inside (a number beyond all bounds, half a surrogate pair), which
        // a MessagePack reply could not carry; a tree may not.
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)?;
        Ok(Meta(compact(text).into()))
    }

    /// What a request gives: as [`Meta::from_json`], and looked through.
    ///
    /// # Errors
    /// What is wrong inside, if the text is a JSON object at all.
    pub(super) fn from_request(text: &str) -> Result<Self, Option<Wrong>> {
        let Checked(looked_through) = serde_json::from_str(text).map_err(|_| None)?;
        looked_through.map_err(Some)?;
        Ok(Meta(compact(text).into()))
    }

    /// Takes text that was a `Meta` before: what the replicated state kept of one.
    ///
    /// # Panics
    /// When a reply is made of text that is not JSON, since the state then lost its integrity.
    pub fn from_kept(text: impl Into<Box<str>>) -> Self {
        Meta(text.into())
    }

    pub fn as_json(&self) -> &str {
        &self.0
    }
}

/// What stands in a reply that always has the field.
pub(super) fn or_empty<S: Serializer>(meta: &Option<Meta>, to: S) -> Result<S::Ok, S::Error> {
    match meta {
        Some(meta) => meta.serialize(to),
        None => to.serialize_map(Some(0))?.end(),
    }
}

impl Serialize for Meta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const BROKEN: &str = "what was kept of a meta object is JSON";
        if serializer.is_human_readable() {
            let raw: &RawValue = serde_json::from_str(&self.0).expect(BROKEN);
            raw.serialize(serializer)
        } else {
            let value: serde_json::Value = serde_json::from_str(&self.0).expect(BROKEN);
            value.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let raw = Box::<RawValue>::deserialize(deserializer)?;
            Meta::from_json(raw.get()).map_err(de::Error::custom)
        } else {
            let map = serde_json::Map::deserialize(deserializer)?;
            Ok(Meta(serde_json::Value::Object(map).to_string().into()))
        }
    }
}

/// JSON without the white space outside its strings; numbers and order stay as they were.
fn compact(json: &str) -> String {
    let mut in_string = false;
    let mut escaped = false;
    json.chars()
        .filter(|&c| {
            if in_string {
                in_string = escaped || c != '"';
                escaped = !escaped && c == '\\';
                return true;
            }
            in_string = c == '"';
            !matches!(c, ' ' | '\t' | '\n' | '\r')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_white_space_between_the_parts_is_left_out() {
        for (text, kept) in [
            (" { } ", "{}"),
            (
                "{\"b\" : 1.0,\n \"a\":[ 12345678901234567890123 ]}",
                "{\"b\":1.0,\"a\":[12345678901234567890123]}",
            ),
            (
                r#"{"a b" : "c \" d \\" , "e" : "f g" }"#,
                r#"{"a b":"c \" d \\","e":"f g"}"#,
            ),
        ] {
            assert_eq!(Meta::from_json(text).unwrap().as_json(), kept);
        }
    }

    #[test]
    fn a_field_that_is_there_twice_is_named_by_its_place() {
        for (text, path) in [
            (r#"{"a":"1","a":"2"}"#, ".a"),
            (r#"{"a":{"b":1,"c":2,"b":1},"d":1,"d":1}"#, ".a.b"),
            (r#"{"a":[{},{"b":1,"b":1}]}"#, ".a[1].b"),
        ] {
            let wrong = Meta::from_request(text).expect_err(text).expect("a place");
            assert_eq!((&*wrong.path, wrong.what), (path, "is given twice"));
            assert!(
                Meta::from_json(text).is_ok(),
                "what was kept stays readable"
            );
        }
        let fine = r#"{"a":{"a":[1.5,-1,true,null,"a"]}}"#;
        assert_eq!(Meta::from_request(fine).unwrap().as_json(), fine);
        assert_eq!(Meta::from_request("{").err(), Some(None));
    }

    #[test]
    fn what_a_reply_could_not_carry_is_no_meta() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for text in [
            "[]",
            "1",
            "",
            "{} {}",
            r#"{"a":"\ud800"}"#,
            r#"{"a":1e999}"#,
            &deep,
        ] {
            assert!(Meta::from_json(text).is_err(), "{text}");
        }
    }
}
