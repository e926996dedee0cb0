//! Fields that are lists of maps, each decoded by fields of its own.

use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};

use super::{Decoding, Field, Fields, Given};
use crate::protocol::error::{Code, ErrorReply};

/// The value of a list field; none for null.
pub(super) struct Items<'a, 'b> {
    pub decoding: &'a mut Decoding<'b>,
    pub name: &'static str,
    pub max: usize,
    pub schema: &'static [Field],
}

impl<'de> DeserializeSeed<'de> for Items<'_, '_> {
    type Value = Option<Given>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let (name, max) = (self.name, self.max);
        // The visitor says what is wrong within; that it is no list at all is said here.
        let mut refused = false;
        let Items {
            decoding, schema, ..
        } = self;
        let visitor = List {
            decoding: &mut *decoding,
            name,
            max,
            schema,
            refused: &mut refused,
        };
        deserializer.deserialize_any(visitor).map_err(|error| {
            if refused {
                return error;
            }
            let message = format!("`{name}` must be a list of 1 to {max} objects: {error}");
            decoding.refuse(ErrorReply::bad_field(name, message))
        })
    }
}

struct List<'a, 'b> {
    decoding: &'a mut Decoding<'b>,
    name: &'static str,
    max: usize,
    schema: &'static [Field],
    refused: &'a mut bool,
}

impl List<'_, '_> {
    fn refuse<E: de::Error>(&mut self, refusal: ErrorReply) -> E {
        *self.refused = true;
        self.decoding.refuse(refusal)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = Option<Given>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of 1 to {} objects", self.max)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (name, max) = (self.name, self.max);
        let mut items: Vec<Fields<'static>> = Vec::new();
        loop {
            let mut item = Decoding::new(name, self.schema, self.decoding.encoding);
            match seq.next_element_seed(Item(&mut item)) {
                Ok(Some(())) if items.len() == max => {
                    return Err(self.refuse(ErrorReply {
                        field: Some(name.to_owned()),
                        limit: Some(max as u64),
                        ..ErrorReply::new(
                            Code::TooManyItems,
                            format!("`{name}` has more than {max} items"),
                        )
                    }));
                }
                Ok(Some(())) => items.push(item.fields),
                Ok(None) if items.is_empty() => {
                    let message = format!("`{name}` must be a list of 1 to {max} objects");
                    return Err(self.refuse(ErrorReply::bad_field(name, message)));
                }
                Ok(None) => return Ok(Some(Given::List(items))),
                Err(error) => {
                    let inner = match item.refusal {
                        Some(refusal) => refusal.message,
                        None => format!("it cannot be read: {error}").into(),
                    };
                    let message = format!("`{name}[{}]`: {inner}", items.len());
                    return Err(self.refuse(ErrorReply::bad_field(name, message)));
                }
            }
        }
    }
}

/// One map of the list.
struct Item<'a>(&'a mut Decoding<'static>);

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self.0)
    }
}
