//! Replies and events as a tenant sees them: every name without the account in front of it.
//!
//! They are made of names from inside, in many types. Instead of taking each apart, this stands
//! between a reply and its encoder, and shortens the text of the fields that hold names. What users
//! put in ([`OPAQUE`]) passes as it is.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::Tenant;

/// Fields of replies and events that hold a name or several.
const NAMES: &[&str] = &[
    "cursor",
    "holds",
    "key",
    "owner",
    "prefix",
    "request_id",
    "resource",
    "session",
    "tag",
    "topic",
    "victim",
    "waits_for_owner",
];
/// Text for people, which may quote names.
const TEXTS: &[&str] = &["message"];
/// What users gave and get back.
const OPAQUE: &[&str] = &["headers", "meta", "payload", "value"];

/// A part of a reply, as the tenant may see it.
pub struct Outward<'a, T: ?Sized> {
    value: &'a T,
    view: View<'a>,
}

#[derive(Clone, Copy)]
struct View<'a> {
    tenant: &'a Tenant,
    part: Part,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Name,
    Text,
    Opaque,
    Other,
}

impl<'a, T: Serialize + ?Sized> Outward<'a, T> {
    /// The whole of a reply.
    pub fn new(value: &'a T, tenant: &'a Tenant) -> Self {
        let part = Part::Other;
        Outward {
            value,
            view: View { tenant, part },
        }
    }
}

impl<'a> View<'a> {
    fn of<'b, T: ?Sized>(self, value: &'b T) -> Outward<'b, T>
    where
        'a: 'b,
    {
        Outward { value, view: self }
    }

    fn field<'b, T: ?Sized>(self, name: &str, value: &'b T) -> Outward<'b, T>
    where
        'a: 'b,
    {
        let part = match name {
            _ if self.part == Part::Opaque || OPAQUE.contains(&name) => Part::Opaque,
            _ if NAMES.contains(&name) => Part::Name,
            _ if TEXTS.contains(&name) => Part::Text,
            _ => Part::Other,
        };
        View { part, ..self }.of(value)
    }
}

impl<T: Serialize + ?Sized> Serialize for Outward<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.view.part {
            Part::Opaque => self.value.serialize(serializer),
            _ => self.value.serialize(Shown {
                inner: serializer,
                view: self.view,
            }),
        }
    }
}

/// An encoder behind the view of a tenant.
struct Shown<'a, S> {
    inner: S,
    view: View<'a>,
}

macro_rules! pass_on {
    ($($method:ident($type:ty))*) => {
        $(fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        })*
    };
}

macro_rules! compounds {
    ($($method:ident -> $compound:ident($($arg:ident: $type:ty),*);)*) => {
        $(fn $method(self, $($arg: $type),*) -> Result<Self::$compound, S::Error> {
            let inner = self.inner.$method($($arg),*)?;
            Ok(Shown { inner, view: self.view })
        })*
    };
}

impl<'a, S: Serializer> Serializer for Shown<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Shown<'a, S::SerializeSeq>;
    type SerializeTuple = Shown<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Shown<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Shown<'a, S::SerializeTupleVariant>;
    type SerializeMap = Shown<'a, S::SerializeMap>;
    type SerializeStruct = Shown<'a, S::SerializeStruct>;
    type SerializeStructVariant = Shown<'a, S::SerializeStructVariant>;

    pass_on! {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32)
        serialize_i64(i64) serialize_i128(i128) serialize_u8(u8) serialize_u16(u16)
        serialize_u32(u32) serialize_u64(u64) serialize_u128(u128) serialize_f32(f32)
        serialize_f64(f64) serialize_char(char) serialize_bytes(&[u8])
        serialize_unit_struct(&'static str)
    }

    compounds! {
        serialize_seq -> SerializeSeq(len: Option<usize>);
        serialize_tuple -> SerializeTuple(len: usize);
        serialize_tuple_struct -> SerializeTupleStruct(name: &'static str, len: usize);
        serialize_tuple_variant -> SerializeTupleVariant(
            name: &'static str, index: u32, variant: &'static str, len: usize);
        serialize_map -> SerializeMap(len: Option<usize>);
        serialize_struct -> SerializeStruct(name: &'static str, len: usize);
        serialize_struct_variant -> SerializeStructVariant(
            name: &'static str, index: u32, variant: &'static str, len: usize);
    }

    fn serialize_str(self, text: &str) -> Result<S::Ok, S::Error> {
        let View { tenant, part } = self.view;
        match part {
            Part::Name => self.inner.serialize_str(tenant.outside(text)),
            Part::Text => {
                let shown = text.replace(&tenant.namespace(), "");
                self.inner.serialize_str(&shown)
            }
            Part::Opaque | Part::Other => self.inner.serialize_str(text),
        }
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&self.view.of(value))
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner
            .serialize_newtype_struct(name, &self.view.of(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner
            .serialize_newtype_variant(name, index, variant, &self.view.of(value))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident)*) => {
        $(impl<S: $trait> $trait for Shown<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                self.inner.$method(&self.view.of(value))
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        })*
    };
}

elements! {
    SerializeSeq::serialize_element
    SerializeTuple::serialize_element
    SerializeTupleStruct::serialize_field
    SerializeTupleVariant::serialize_field
}

macro_rules! fields {
    ($($trait:ident)*) => {
        $(impl<S: $trait> $trait for Shown<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                self.inner.serialize_field(name, &self.view.field(name, value))
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        })*
    };
}

fields! { SerializeStruct SerializeStructVariant }

/// Flattened structs come as maps.
impl<S: SerializeMap> SerializeMap for Shown<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.view.part = self.view.field(&text_of(key), &()).view.part;
        self.inner.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.inner.serialize_value(&self.view.of(value))
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), S::Error> {
        let shown = self.view.field(&text_of(key), value);
        self.inner.serialize_entry(key, &shown)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

/// The text of a map's key; empty for a key that is no text.
fn text_of<K: Serialize + ?Sized>(key: &K) -> String {
    match serde_json::to_value(key) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}
