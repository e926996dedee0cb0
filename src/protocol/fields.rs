//! Strict decoding of a request's body: one map, every field by its rule.
//!
//! A body goes straight into typed values, without a tree in between. Refused, each by name and
//! with what would be right: unknown fields, duplicates, wrong types, fractions and exponents,
//! integers out of range, trailing bytes. `null` equals absent.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, MapAccess, Visitor};

use crate::protocol::error::{Code, ErrorReply};
use crate::protocol::found::{Found, shortened};
use crate::protocol::meta::Meta;
use crate::protocol::{Encoding, NAME_BYTES_MAX, Refusal};

mod items;

/// The most fields that an operation has; sizes the place where they are collected.
const FIELDS_MAX: usize = 16;

/// How deep a MessagePack body may nest, so that recursion over it stays within the stack. JSON
/// has the same bound, 128, from its parser.
const DEPTH_MAX: usize = 128;

/// One field of an operation and what it takes.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    rule: Rule,
}

impl Field {
    pub(super) const fn new(name: &'static str, rule: Rule) -> Self {
        Field { name, rule }
    }

    /// What the field takes, in JSON Schema.
    #[cfg(test)]
    pub(super) fn json_schema(&self) -> serde_json::Value {
        use serde_json::{Map, json};
        match self.rule {
            Rule::Name => json!({
                "type": "string",
                "minLength": 1,
                "maxLength": NAME_BYTES_MAX,
                "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$",
            }),
            Rule::Integer(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
            Rule::Choice(names) => json!({"type": "string", "enum": names}),
            Rule::Object(_) => json!({"type": "object"}),
            Rule::List(max, schema) => {
                let properties = schema.iter().map(|f| (f.name.to_owned(), f.json_schema()));
                json!({"type": "array", "minItems": 1, "maxItems": max, "items": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": Map::from_iter(properties),
                }})
            }
        }
    }
}

/// What a field takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// 1 to 256 bytes of UTF-8 without control characters.
    Name,
    /// Between the two, both included.
    Integer(u64, u64),
    /// One of the texts, the first being the default.
    Choice(&'static [&'static str]),
    /// An object of at most so many bytes as JSON without white space.
    Object(usize),
    /// At least one and at most so many maps with these fields.
    List(usize, &'static [Field]),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Name => write!(
                f,
                "text of 1 to {NAME_BYTES_MAX} bytes without control characters"
            ),
            Rule::Integer(min, max) => write!(f, "an integer from {min} to {max}"),
            Rule::Choice(names) => {
                let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
                f.write_str(&quoted.join(" or "))
            }
            Rule::Object(max) => write!(f, "an object of at most {max} bytes as JSON"),
            Rule::List(max, _) => write!(f, "a list of 1 to {max} objects"),
        }
    }
}

/// A value that its field's rule takes.
#[derive(Debug)]
pub(super) enum Given {
    Text(String),
    Integer(u64),
    Choice(usize),
    Object(Meta),
    List(Vec<Fields<'static>>),
}

/// The fields of one request, each valid by its rule.
#[derive(Debug)]
pub struct Fields<'a> {
    schema: &'a [Field],
    given: [Option<Given>; FIELDS_MAX],
}

impl<'a> Fields<'a> {
    /// Decodes a body by the fields that `operation` has.
    ///
    /// # Errors
    /// `bad_request` with the field and what would be right, or where the syntax is wrong.
    pub(super) fn decode(
        operation: &'a str,
        schema: &'a [Field],
        encoding: Encoding,
        body: &[u8],
    ) -> Result<Self, Refusal> {
        let mut decoding = Decoding::new(operation, schema, encoding);
        match decoding.run(body) {
            Ok(()) => Ok(decoding.fields),
            Err(syntax) => Err(decoding.refusal.take().unwrap_or_else(|| {
                Box::new(ErrorReply::new(
                    Code::BadRequest,
                    format!("the body is not one map: {syntax}"),
                ))
            })),
        }
    }

    /// Fills in a name that came outside the body: by subject suffix or header.
    ///
    /// # Errors
    /// `bad_request` when it is no name, or when the body has another one.
    pub(super) fn fill(&mut self, name: &str, source: &str, text: &str) -> Result<(), Refusal> {
        let index = self.index(name);
        match &self.given[index] {
            Some(Given::Text(body)) if body == text => Ok(()),
            Some(_) => Err(ErrorReply::bad_field(
                name,
                format!("`{name}` in the body differs from that in the {source}"),
            )
            .into()),
            None if is_name(text) => {
                self.given[index] = Some(Given::Text(text.to_owned()));
                Ok(())
            }
            None => Err(ErrorReply::bad_field(
                name,
                format!("`{name}` in the {source} must be {}", Rule::Name),
            )
            .into()),
        }
    }

    pub(super) fn has_field(&self, name: &str) -> bool {
        self.schema.iter().any(|field| field.name == name)
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.given[self.index(name)].take() {
            Some(Given::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn required_text(&mut self, name: &str) -> Result<String, Refusal> {
        self.text(name).ok_or_else(|| self.missing(name))
    }

    pub(super) fn integer(&mut self, name: &str) -> Option<u64> {
        match self.given[self.index(name)] {
            Some(Given::Integer(integer)) => Some(integer),
            _ => None,
        }
    }

    pub(super) fn required_integer(&mut self, name: &str) -> Result<u64, Refusal> {
        self.integer(name).ok_or_else(|| self.missing(name))
    }

    /// The index of the chosen text; 0, the default, when absent.
    pub(super) fn choice(&mut self, name: &str) -> usize {
        match self.given[self.index(name)] {
            Some(Given::Choice(index)) => index,
            _ => 0,
        }
    }

    /// # Errors
    /// When it is absent: there is no default.
    pub(super) fn required_choice(&mut self, name: &str) -> Result<usize, Refusal> {
        match self.given[self.index(name)] {
            Some(Given::Choice(index)) => Ok(index),
            _ => Err(self.missing(name)),
        }
    }

    pub(super) fn list(&mut self, name: &str) -> Option<Vec<Fields<'static>>> {
        match self.given[self.index(name)].take() {
            Some(Given::List(items)) => Some(items),
            _ => None,
        }
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given[self.index(name)].is_some()
    }

    pub(super) fn object(&mut self, name: &str) -> Option<Meta> {
        match self.given[self.index(name)].take() {
            Some(Given::Object(meta)) => Some(meta),
            _ => None,
        }
    }

    fn index(&self, name: &str) -> usize {
        self.schema
            .iter()
            .position(|field| field.name == name)
            .expect("a request is built from the fields of its own operation")
    }

    fn missing(&self, name: &str) -> Refusal {
        let rule = self.schema[self.index(name)].rule;
        ErrorReply::bad_field(name, format!("`{name}` is missing: it must be {rule}")).into()
    }
}

pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A decode of one map on its way. Refusals leave through `refusal`, since the errors of the two formats
/// carry nothing but text.
struct Decoding<'a> {
    operation: &'a str,
    encoding: Encoding,
    fields: Fields<'a>,
    refusal: Option<Refusal>,
}

impl<'a> Decoding<'a> {
    fn new(operation: &'a str, schema: &'a [Field], encoding: Encoding) -> Self {
        Decoding {
            operation,
            encoding,
            fields: Fields {
                schema,
                given: [const { None }; FIELDS_MAX],
            },
            refusal: None,
        }
    }

    fn run(&mut self, body: &[u8]) -> Result<(), String> {
        match self.encoding {
            _ if body.is_empty() => Ok(()),
            Encoding::Json => {
                let mut json = serde_json::Deserializer::from_slice(body);
                json.deserialize_map(&mut *self)
                    .map_err(|e| e.to_string())?;
                json.end().map_err(|e| e.to_string())
            }
            Encoding::MessagePack => {
                let mut rest = body;
                let mut pack = rmp_serde::Deserializer::new(&mut rest);
                pack.set_max_depth(DEPTH_MAX);
                pack.deserialize_map(&mut *self)
                    .map_err(|e| e.to_string())?;
                match rest.len() {
                    0 => Ok(()),
                    more => Err(format!("{more} bytes follow it")),
                }
            }
        }
    }

    fn refuse<E: de::Error>(&mut self, refusal: ErrorReply) -> E {
        self.refusal = Some(Box::new(refusal));
        E::custom("refused")
    }

    fn unknown(&self, name: &str) -> ErrorReply {
        let fields: Vec<Cow<'static, str>> =
            self.fields.schema.iter().map(|f| f.name.into()).collect();
        let message = format!(
            "unknown field `{}`: {} has {}",
            shortened(name),
            self.operation,
            fields.join(", ")
        );
        ErrorReply {
            fields,
            ..ErrorReply::bad_field(shortened(name), message)
        }
    }
}

impl<'de> Visitor<'de> for &mut Decoding<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = [false; FIELDS_MAX];
        while let Some(index) = map.next_key_seed(Key(self))? {
            let field = self.fields.schema[index];
            if std::mem::replace(&mut seen[index], true) {
                let message = format!("`{}` is there twice", field.name);
                return Err(self.refuse(ErrorReply::bad_field(field.name, message)));
            }
            if let Rule::List(max, schema) = field.rule {
                let name = field.name;
                self.fields.given[index] = map.next_value_seed(items::Items {
                    decoding: &mut *self,
                    name,
                    max,
                    schema,
                })?;
                continue;
            }
            let found = match (field.rule, self.encoding) {
                // The text keeps numbers as they were written; only JSON has it.
                (Rule::Object(_), Encoding::Json) => map.next_value().map(Found::raw),
                (Rule::Object(_), Encoding::MessagePack) => map.next_value().map(Found::tree),
                _ => map.next_value(),
            };
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    let message = format!("`{}` cannot be read: {error}", field.name);
                    return Err(self.refuse(ErrorReply::bad_field(field.name, message)));
                }
            };
            match found.by(field.rule) {
                Ok(given) => self.fields.given[index] = given,
                Err(found) => {
                    let message = format!("`{}` must be {}, not {found}", field.name, field.rule);
                    return Err(self.refuse(ErrorReply::bad_field(field.name, message)));
                }
            }
        }
        Ok(())
    }
}

/// The name of a field, as its place in the schema.
struct Key<'a, 'b>(&'a mut Decoding<'b>);

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<usize, E> {
        match self.0.fields.schema.iter().position(|f| f.name == name) {
            Some(index) => Ok(index),
            None => {
                let unknown = self.0.unknown(name);
                Err(self.0.refuse(unknown))
            }
        }
    }
}
