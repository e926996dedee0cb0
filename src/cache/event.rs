//! What watchers are told of the cache: plain values.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::cache::entry::{Key, Version};
use crate::cache::message::Matching;
use crate::protocol::Tenant;

/// What watchers are told in JSON, under `<prefix>.event.<kind>`, by a key's home when a change of it
/// has taken effect, and by the node that was asked for an invalidation when that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Event {
    Set {
        key: Key,
        #[serde(serialize_with = "as_text")]
        version: Version,
    },
    Deleted {
        key: Key,
        why: Gone,
    },
    /// One of the first three says what was removed.
    Invalidated {
        #[serde(skip_serializing_if = "Option::is_none")]
        tag: Option<Key>,
        #[serde(skip_serializing_if = "Option::is_none")]
        prefix: Option<Key>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        all: bool,
        count: u64,
    },
}

/// Why there is no value any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gone {
    /// A client deleted it.
    Deleted,
    /// An invalidation removed it.
    Invalidated,
    /// Its lifetime is over, or it was not read for too long.
    Expired,
    /// It made room for others.
    Evicted,
}

impl Event {
    pub fn invalidated(matching: Matching, count: u64) -> Self {
        let (tag, prefix, all) = match matching {
            Matching::All => (None, None, true),
            Matching::Prefix(prefix) => (None, Some(prefix), false),
            Matching::Tag(tag) => (Some(tag), None, false),
        };
        Event::Invalidated {
            tag,
            prefix,
            all,
            count,
        }
    }

    /// The tenant whom it concerns, and nobody else but operators.
    pub fn tenant(&self) -> Option<Tenant> {
        match self {
            Event::Set { key, .. } | Event::Deleted { key, .. } => Tenant::of_name(key),
            Event::Invalidated { tag, prefix, .. } => {
                Tenant::of_name(tag.as_ref().or(prefix.as_ref())?)
            }
        }
    }

    /// The same as the tenant whom it concerns asked for it: everything under its account is all that it has.
    pub fn as_seen_by(&self, tenant: &Tenant) -> Cow<'_, Self> {
        match self {
            Event::Invalidated {
                prefix: Some(prefix),
                count,
                ..
            } if **prefix == *tenant.namespace() => {
                Cow::Owned(Event::invalidated(Matching::All, *count))
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// The last tokens of the subjects that watchers hear of events under.
    pub const KINDS: [&'static str; 3] = ["cache.set", "cache.delete", "cache.invalidate"];

    /// The place of this event's kind in [`Event::KINDS`].
    pub fn kind_index(&self) -> usize {
        match self {
            Event::Set { .. } => 0,
            Event::Deleted { .. } => 1,
            Event::Invalidated { .. } => 2,
        }
    }
}

fn as_text<S: Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(version)
}
