//! Strict decoding of a request's body: one map, every field by its rule.
//!
//! A body goes straight into typed values, without a tree in between. Refused, each by name and
//! with what would be right: unknown fields, duplicates, wrong types, fractions and exponents,
//! integers out of range, trailing bytes. `null` equals absent.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserializer;
use serde::de::{self, DeserializeSeed, MapAccess, Visitor};

use crate::protocol::error::{Code, ErrorReply};
use crate::protocol::found::{Found, shortened};
use crate::protocol::meta::Meta;
use crate::protocol::tenant::ACCOUNT_BYTES_MAX;
use crate::protocol::value::Plain;
use crate::protocol::{Encoding, NAME_BYTES_MAX, Refusal, Tenant};

mod given;
mod nested;

/// The most fields that an operation has; sizes the place where they are collected.
const FIELDS_MAX: usize = 18;

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
    pub(super) fn json_schema(&self) -> serde_json::Value {
        use serde_json::json;
        match self.rule {
            // Behind the account, where the name is a tenant's and who asks is none.
            Rule::Name => json!({
                "type": "string",
                "minLength": 1,
                "pattern": format!(
                    "^([A-Za-z0-9_-]{{1,{ACCOUNT_BYTES_MAX}}}/)?\
                     [^\\u0000-\\u001f\\u007f-\\u009f]{{0,{NAME_BYTES_MAX}}}$"
                ),
            }),
            Rule::Integer(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
            Rule::Choice(names) => json!({"type": "string", "enum": names}),
            Rule::Object(_) => json!({"type": "object"}),
            Rule::Boolean => json!({"type": "boolean"}),
            Rule::Value => json!({}),
            Rule::Base64 => json!({"type": "string", "contentEncoding": "base64"}),
            Rule::Names(max) => json!({
                "type": "array",
                "maxItems": max,
                "items": Field::new("", Rule::Name).json_schema(),
            }),
            Rule::Map(fields) => map_schema(fields),
            Rule::List(fields, max) => json!({
                "type": "array",
                "maxItems": max,
                "items": map_schema(fields),
            }),
        }
    }
}

/// An object with these fields and no others, in JSON Schema.
pub(super) fn map_schema(fields: &[Field]) -> serde_json::Value {
    let properties = fields
        .iter()
        .map(|field| (field.name.to_owned(), field.json_schema()));
    let properties = serde_json::Value::Object(properties.collect());
    serde_json::json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// What a field takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// 1 to 256 bytes of UTF-8 without control characters, see [`Names`].
    Name,
    /// Between the two, both included.
    Integer(u64, u64),
    /// One of the texts, the first being the default.
    Choice(&'static [&'static str]),
    /// An object of at most so many bytes as JSON without white space.
    Object(usize),
    /// True or false.
    Boolean,
    /// Text, JSON or binary; null is JSON.
    Value,
    /// Binary as base64.
    Base64,
    /// At most so many names.
    Names(usize),
    /// An object with these fields.
    Map(&'static [Field]),
    /// At most so many objects with these fields.
    List(&'static [Field], usize),
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
            Rule::Boolean => f.write_str("true or false"),
            Rule::Value => f.write_str("text, JSON or binary"),
            Rule::Base64 => f.write_str("binary as base64 with padding"),
            Rule::Names(max) => write!(f, "a list of at most {max} names, each {}", Rule::Name),
            Rule::Map(_) => f.write_str("an object"),
            Rule::List(_, max) => write!(f, "a list of at most {max} objects"),
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
    Boolean(bool),
    Value(Plain),
    Binary(Bytes),
    Names(Vec<String>),
    Map(Box<Fields<'static>>),
    List(Vec<Fields<'static>>),
}

/// The fields of one request, each valid by its rule.
#[derive(Debug)]
pub struct Fields<'a> {
    schema: &'a [Field],
    names: Names,
    given: [Option<Given>; FIELDS_MAX],
}

impl<'a> Fields<'a> {
    /// Decodes a body by the fields that `operation` has.
    ///
    /// # Errors
    /// `bad_request` with the field and what would be right, or where the syntax is wrong.
    pub(super) fn decode(
        (operation, schema): (&'a str, &'a [Field]),
        names: Names,
        encoding: Encoding,
        body: &[u8],
    ) -> Result<Self, Refusal> {
        let mut decoding = Decoding::new((operation, schema), names, encoding);
        match decoding.run(body) {
            Ok(()) => Ok(decoding.fields),
            Err(syntax) => Err(decoding.refusal.take().unwrap_or_else(|| {
                Box::new(ErrorReply::new(
                    Code::BadRequest,
                    format!("the body is not a map: {syntax}"),
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
                format!("`{name}` in the body differs from the one in the {source}"),
            )
            .into()),
            None if self.names.have(text) => {
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

/// Whose names a request has, which decides how long they may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Names {
    /// A tenant's, as it knows them.
    OfTenant,
    /// Of a client outside all tenants: what is a tenant's has the account before it.
    FromOutside,
}

impl Names {
    pub(super) fn have(self, text: &str) -> bool {
        !text.is_empty()
            && self.bytes_of(text) <= NAME_BYTES_MAX
            && !text.chars().any(char::is_control)
    }

    /// How long the name is to whom it belongs to.
    pub(super) fn bytes_of(self, text: &str) -> usize {
        match self {
            Names::OfTenant => text.len(),
            Names::FromOutside => Tenant::own_part(text).len(),
        }
    }
}

/// A decode on its way. Refusals leave through `refusal`, since the errors of the two formats
/// carry nothing but text.
struct Decoding<'a> {
    operation: &'a str,
    encoding: Encoding,
    fields: Fields<'a>,
    refusal: Option<Refusal>,
}

impl<'a> Decoding<'a> {
    fn new((operation, schema): (&'a str, &'a [Field]), names: Names, encoding: Encoding) -> Self {
        Decoding {
            operation,
            encoding,
            fields: Fields {
                schema,
                names,
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

    /// Reads the value of one field by its rule.
    fn take_value<'de, A: MapAccess<'de>>(
        &mut self,
        index: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let field = self.fields.schema[index];
        let found = match (field.rule, self.encoding) {
            // The text keeps numbers as they were written; only JSON has it.
            (Rule::Object(_), Encoding::Json) => map.next_value().map(Found::raw),
            (Rule::Object(_), Encoding::MessagePack) => map.next_value().map(Found::tree),
            (Rule::Value, Encoding::Json) => map.next_value().and_then(Found::value_of_raw),
            (Rule::Value, Encoding::MessagePack) => map.next_value().map(Found::Value),
            (Rule::Names(_) | Rule::Map(_) | Rule::List(..), _) => {
                return self.take_nested(index, map);
            }
            _ => map.next_value(),
        };
        let found = match found {
            Ok(Found::Wrong(wrong)) => {
                let place = format!("{}{}", field.name, wrong.path);
                let message = format!("`{place}` {}", wrong.what);
                return Err(self.refuse(ErrorReply::bad_field(place, message)));
            }
            Ok(found) => found,
            Err(error) => {
                let message = format!("`{}` cannot be read: {error}", field.name);
                return Err(self.refuse(ErrorReply::bad_field(field.name, message)));
            }
        };
        match found.by(field.rule, self.fields.names) {
            Ok(given) => self.fields.given[index] = given,
            Err(found) => {
                let message = format!("`{}` must be {}, not {found}", field.name, field.rule);
                return Err(self.refuse(ErrorReply::bad_field(field.name, message)));
            }
        }
        Ok(())
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
                let message = format!("`{}` is given twice", field.name);
                return Err(self.refuse(ErrorReply::bad_field(field.name, message)));
            }
            self.take_value(index, &mut map)?;
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
