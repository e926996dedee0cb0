//! Taking the values out of the fields of a request, each by the type of its rule.

use bytes::Bytes;

use super::{Fields, Given};
use crate::protocol::Refusal;
use crate::protocol::meta::Meta;
use crate::protocol::value::Plain;

impl Fields<'_> {
    pub(in crate::protocol) fn text(&mut self, name: &str) -> Option<String> {
        match self.given[self.index(name)].take() {
            Some(Given::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(in crate::protocol) fn required_text(&mut self, name: &str) -> Result<String, Refusal> {
        self.text(name).ok_or_else(|| self.missing(name))
    }

    pub(in crate::protocol) fn integer(&mut self, name: &str) -> Option<u64> {
        match self.given[self.index(name)] {
            Some(Given::Integer(integer)) => Some(integer),
            _ => None,
        }
    }

    pub(in crate::protocol) fn required_integer(&mut self, name: &str) -> Result<u64, Refusal> {
        self.integer(name).ok_or_else(|| self.missing(name))
    }

    /// The index of the chosen text; 0, the default, when absent.
    pub(in crate::protocol) fn choice(&mut self, name: &str) -> usize {
        match self.given[self.index(name)] {
            Some(Given::Choice(index)) => index,
            _ => 0,
        }
    }

    pub(in crate::protocol) fn object(&mut self, name: &str) -> Option<Meta> {
        match self.given[self.index(name)].take() {
            Some(Given::Object(meta)) => Some(meta),
            _ => None,
        }
    }

    /// Whether the field is there.
    pub(in crate::protocol) fn is_given(&self, name: &str) -> bool {
        self.given[self.index(name)].is_some()
    }

    /// The index of the chosen text; none when absent.
    pub(in crate::protocol) fn chosen(&mut self, name: &str) -> Option<usize> {
        match self.given[self.index(name)] {
            Some(Given::Choice(index)) => Some(index),
            _ => None,
        }
    }

    /// The index of the chosen text.
    ///
    /// # Errors
    /// When it is absent.
    pub(in crate::protocol) fn required_choice(&mut self, name: &str) -> Result<usize, Refusal> {
        self.chosen(name).ok_or_else(|| self.missing(name))
    }

    pub(in crate::protocol) fn boolean(&mut self, name: &str) -> Option<bool> {
        match self.given[self.index(name)] {
            Some(Given::Boolean(truth)) => Some(truth),
            _ => None,
        }
    }

    pub(in crate::protocol) fn value(&mut self, name: &str) -> Option<Plain> {
        match self.given[self.index(name)].take() {
            Some(Given::Value(plain)) => Some(plain),
            _ => None,
        }
    }

    pub(in crate::protocol) fn binary(&mut self, name: &str) -> Option<Bytes> {
        match self.given[self.index(name)].take() {
            Some(Given::Binary(bytes)) => Some(bytes),
            _ => None,
        }
    }

    pub(in crate::protocol) fn names(&mut self, name: &str) -> Option<Vec<String>> {
        match self.given[self.index(name)].take() {
            Some(Given::Names(names)) => Some(names),
            _ => None,
        }
    }

    /// The fields of an object.
    pub(in crate::protocol) fn map(&mut self, name: &str) -> Option<Fields<'static>> {
        match self.given[self.index(name)].take() {
            Some(Given::Map(fields)) => Some(*fields),
            _ => None,
        }
    }

    /// The fields of each object of a list.
    pub(in crate::protocol) fn list(&mut self, name: &str) -> Option<Vec<Fields<'static>>> {
        match self.given[self.index(name)].take() {
            Some(Given::List(fields)) => Some(fields),
            _ => None,
        }
    }
}
