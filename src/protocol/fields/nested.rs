//! Fields whose values have parts: lists of names, objects with fields, lists of such objects.
//!
//! What is wrong in a part is named by its path: `messages[3].priority`.

use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::{Decoding, Field, Fields, Given, Rule};
use crate::protocol::error::{Code, ErrorReply};

impl Decoding<'_> {
    pub(super) fn take_nested<'de, A: MapAccess<'de>>(
        &mut self,
        index: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let Field { name, rule } = self.fields.schema[index];
        let mut refusal = None;
        let nested = Nested {
            name,
            rule,
            decoding: self,
            refusal: &mut refusal,
        };
        let given = map.next_value_seed(nested);
        if let Some(refusal) = refusal {
            return Err(self.refuse(refusal));
        }
        match given {
            Ok(given) => self.fields.given[index] = given,
            Err(error) => {
                let message = format!("`{name}` must be {rule}: {error}");
                return Err(self.refuse(ErrorReply::bad_field(name, message)));
            }
        }
        Ok(())
    }
}

/// The value of one field with parts.
struct Nested<'n, 'd, 'a> {
    name: &'static str,
    rule: Rule,
    decoding: &'n Decoding<'a>,
    refusal: &'d mut Option<ErrorReply>,
}

impl Nested<'_, '_, '_> {
    fn refuse<E: de::Error>(&mut self, refusal: ErrorReply) -> E {
        *self.refusal = Some(refusal);
        E::custom("refused")
    }

    fn too_many<E: de::Error>(&mut self, max: usize) -> E {
        let refusal = ErrorReply {
            field: Some(self.name.to_owned()),
            limit: Some(max as u64),
            ..ErrorReply::new(
                Code::TooManyItems,
                format!("`{}` has more than {max} items", self.name),
            )
        };
        self.refuse(refusal)
    }
}

impl<'de> DeserializeSeed<'de> for Nested<'_, '_, '_> {
    type Value = Option<Given>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested<'_, '_, '_> {
    type Value = Option<Given>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.rule, f)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self::Value, A::Error> {
        match self.rule {
            Rule::Names(max) => {
                let mut names: Vec<String> = Vec::new();
                while let Some(name) = seq.next_element::<String>()? {
                    if names.len() == max {
                        return Err(self.too_many(max));
                    }
                    if !self.decoding.fields.names.have(&name) {
                        let path = format!("{}[{}]", self.name, names.len());
                        let message = format!("`{path}` must be {}", Rule::Name);
                        return Err(self.refuse(ErrorReply::bad_field(path, message)));
                    }
                    names.push(name);
                }
                Ok(Some(Given::Names(names)))
            }
            Rule::List(schema, max) => {
                let mut items: Vec<Fields<'static>> = Vec::new();
                loop {
                    let part = Part {
                        schema,
                        path: || format!("{}[{}]", self.name, items.len()),
                        decoding: self.decoding,
                        refusal: self.refusal,
                    };
                    match seq.next_element_seed(part)? {
                        None => return Ok(Some(Given::List(items))),
                        Some(_) if items.len() == max => return Err(self.too_many(max)),
                        Some(fields) => items.push(fields),
                    }
                }
            }
            _ => Err(de::Error::invalid_type(de::Unexpected::Seq, &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let Rule::Map(schema) = self.rule else {
            return Err(de::Error::invalid_type(de::Unexpected::Map, &self));
        };
        let part = Part {
            schema,
            path: || self.name.to_owned(),
            decoding: self.decoding,
            refusal: self.refusal,
        };
        let fields = part.deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Some(Given::Map(Box::new(fields))))
    }
}

/// One object with fields, inside a field.
struct Part<'n, 'd, 'a, P> {
    schema: &'static [Field],
    path: P,
    decoding: &'n Decoding<'a>,
    refusal: &'d mut Option<ErrorReply>,
}

impl<'de, P: Fn() -> String> DeserializeSeed<'de> for Part<'_, '_, '_, P> {
    type Value = Fields<'static>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let Decoding {
            operation,
            encoding,
            ..
        } = *self.decoding;
        let names = self.decoding.fields.names;
        let mut decoding = Decoding::new((operation, self.schema), names, encoding);
        let read = deserializer.deserialize_map(&mut decoding);
        if let Some(mut refusal) = decoding.refusal {
            let path = (self.path)();
            if let Some(field) = &mut refusal.field {
                *field = format!("{path}.{field}");
            }
            refusal.message = format!("in `{path}`: {}", refusal.message).into();
            *self.refusal = Some(*refusal);
        }
        read?;
        Ok(decoding.fields.of_schema(self.schema))
    }
}

impl Fields<'_> {
    /// The same fields, known to be those of a schema that outlives every request.
    fn of_schema(self, schema: &'static [Field]) -> Fields<'static> {
        Fields {
            schema,
            names: self.names,
            given: self.given,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Names;
    use super::*;
    use crate::protocol::{Encoding, Refusal};

    const PART: &[Field] = &[
        Field::new("id", Rule::Name),
        Field::new("on", Rule::Boolean),
        Field::new("number", Rule::Integer(1, 9)),
    ];
    const FIELDS: &[Field] = &[
        Field::new("names", Rule::Names(2)),
        Field::new("part", Rule::Map(PART)),
        Field::new("parts", Rule::List(PART, 2)),
    ];

    fn decoded(body: &serde_json::Value) -> Result<Fields<'static>, Refusal> {
        let json = body.to_string();
        let pack = rmp_serde::to_vec_named(body).unwrap();
        let decode =
            |encoding, body: &[u8]| Fields::decode(("op", FIELDS), Names::OfTenant, encoding, body);
        let of_json = decode(Encoding::Json, json.as_bytes());
        let of_pack = decode(Encoding::MessagePack, &pack);
        match (&of_json, &of_pack) {
            (Err(a), Err(b)) => assert_eq!((a.code, &a.field), (b.code, &b.field), "{json}"),
            (Ok(_), Ok(_)) => {}
            _ => panic!("the encodings differ: {json}: {of_json:?} {of_pack:?}"),
        }
        of_json
    }

    #[test]
    fn parts_are_read() {
        let body = serde_json::json!({
            "names": ["a", "b"],
            "part": {"id": "x", "on": true},
            "parts": [{"number": 3}, {}],
        });
        let mut given = decoded(&body).unwrap();
        assert_eq!(
            given.names("names"),
            Some(vec!["a".to_owned(), "b".to_owned()])
        );
        let mut part = given.map("part").unwrap();
        assert_eq!(part.text("id").as_deref(), Some("x"));
        assert_eq!(
            (part.boolean("on"), part.integer("number")),
            (Some(true), None)
        );
        let mut parts = given.list("parts").unwrap();
        assert_eq!((parts.len(), parts[0].integer("number")), (2, Some(3)));
        let mut absent = decoded(&serde_json::json!({"parts": null})).unwrap();
        assert!(absent.list("parts").is_none() && absent.map("part").is_none());
    }

    #[test]
    fn what_is_wrong_in_a_part_is_named_by_its_path() {
        for (body, field) in [
            (
                serde_json::json!({"parts": [{}, {"number": 0}]}),
                "parts[1].number",
            ),
            (serde_json::json!({"parts": [{"x": 0}]}), "parts[0].x"),
            (serde_json::json!({"part": {"on": 1}}), "part.on"),
            (serde_json::json!({"names": ["a", ""]}), "names[1]"),
            (serde_json::json!({"names": [1]}), "names"),
            (serde_json::json!({"names": "a"}), "names"),
            (serde_json::json!({"part": []}), "part"),
            (serde_json::json!({"parts": {}}), "parts"),
            (serde_json::json!({"parts": [1]}), "parts"),
        ] {
            let refusal = decoded(&body).expect_err(field);
            assert_eq!(
                (refusal.code, refusal.field.as_deref()),
                (Code::BadRequest, Some(field))
            );
        }
        let twice = br#"{"parts":[{"on":true,"on":true}]}"#;
        let twice = Fields::decode(("op", FIELDS), Names::OfTenant, Encoding::Json, twice);
        let refusal = twice.unwrap_err();
        assert_eq!(refusal.field.as_deref(), Some("parts[0].on"));
    }

    #[test]
    fn lists_have_a_bound() {
        for body in [
            serde_json::json!({"names": ["a", "b", "c"]}),
            serde_json::json!({"parts": [{}, {}, {}]}),
        ] {
            let refusal = decoded(&body).expect_err("too many");
            assert_eq!((refusal.code, refusal.limit), (Code::TooManyItems, Some(2)));
        }
    }
}
