//! What a request gives as an object, looked through: a field that is there twice and a number that JSON
//! does not have are refused by their place, since each would silently become something else.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

use crate::protocol::found::shortened;

/// What is wrong inside an object, and where: `.a[2].b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub path: String,
    pub what: &'static str,
}

impl Wrong {
    fn within(self, part: &str) -> Self {
        Wrong {
            path: format!("{part}{}", self.path),
            ..self
        }
    }
}

/// A value in which everything is right, or the first thing that is not.
pub struct Checked(pub Result<Value, Wrong>);

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Looking).map(Checked)
    }
}

struct Looking;

impl<'de> Visitor<'de> for Looking {
    type Value = Result<Value, Wrong>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what JSON has, too")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Ok(truth.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Ok(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Ok(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        let number = Number::from_f64(number).map(Value::Number);
        Ok(number.ok_or_else(|| Wrong {
            path: String::new(),
            what: "is a number that JSON does not have",
        }))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Ok(text.into()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Ok(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Ok(Vec::new());
        let mut at = 0;
        while let Some(Checked(item)) = seq.next_element()? {
            add(&mut items, item, || format!("[{at}]"), Vec::push);
            at += 1;
        }
        Ok(items.map(Value::Array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Ok(Map::new());
        while let Some((name, Checked(value))) = map.next_entry::<String, Checked>()? {
            let part = format!(".{}", shortened(&name));
            let is_known = fields
                .as_ref()
                .is_ok_and(|f: &Map<_, _>| f.contains_key(&name));
            let value = match is_known {
                true => Err(Wrong {
                    path: String::new(),
                    what: "is given twice",
                }),
                false => value,
            };
            add(
                &mut fields,
                value,
                || part,
                |fields, value| {
                    fields.insert(name, value);
                },
            );
        }
        Ok(fields.map(Value::Object))
    }
}

/// Adds one more part to what is whole so far.
fn add<T>(
    whole: &mut Result<T, Wrong>,
    part: Result<Value, Wrong>,
    place: impl FnOnce() -> String,
    put: impl FnOnce(&mut T, Value),
) {
    match (whole.as_mut(), part) {
        (Ok(whole), Ok(value)) => put(whole, value),
        (Ok(_), Err(wrong)) => *whole = Err(wrong.within(&place())),
        // The first counts.
        (Err(_), _) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use crate::protocol::request::Envelope;
    use crate::protocol::{Code, Operation, Request};

    fn refused(operation: Operation, body: &[u8]) -> (Code, String, String) {
        let (_, request) = Request::decode(Some(operation), Envelope::default(), body);
        let refusal = request.expect_err("refused");
        let field = refusal.field.clone().expect("a field");
        (refusal.code, field, refusal.message.to_string())
    }

    #[test]
    fn a_number_that_json_does_not_have_is_named() {
        #[derive(Serialize)]
        struct Body {
            resource: &'static str,
            meta: BTreeMap<&'static str, Vec<f64>>,
        }
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let body = Body {
                resource: "a",
                meta: BTreeMap::from([("n", vec![0.5, number])]),
            };
            let body = rmp_serde::to_vec_named(&body).unwrap();
            let (code, field, message) = refused(Operation::LockAcquire, &body);
            assert_eq!((code, &*field), (Code::BadRequest, "meta.n[1]"));
            assert_eq!(message, "`meta.n[1]` is a number that JSON does not have");
        }
    }

    #[test]
    fn a_field_that_is_there_twice_is_named_in_both_encodings() {
        let json = br#"{"topic":"a","payload":1,"headers":{"k":"1","k":"2"}}"#;
        let pack = b"\x83\xa5topic\xa1a\xa7payload\x01\xa7headers\x82\xa1k\xa11\xa1k\xa12";
        for body in [&json[..], &pack[..]] {
            let (code, field, message) = refused(Operation::QueuePush, body);
            assert_eq!((code, &*field), (Code::BadRequest, "headers.k"));
            assert_eq!(message, "`headers.k` is given twice");
        }
    }
}
