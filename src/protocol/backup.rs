//! `admin.cluster.backup`: a copy of the replicated state, part by part.
//!
//! The first request makes the copy and gets its beginning; further ones name it and go on, at the node
//! that made it. What the parts amount to is a file with checksums of its own.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::{INTEGER_MAX, TIMEOUT_MS_FIELD};

/// Bytes of one part: below what any broker that nodes can use carries, also as base64.
pub const PART_BYTES: usize = 256 << 10;

/// Asks for one part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The copy, as the first answer named it; absent: make one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// How much of it the asker has.
    pub offset: u64,
    /// How long the asker waits for an answer, 1 to 120000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Request {
    pub(super) const FIELDS: &[Field] = &[
        Field::new("backup", Rule::Name),
        Field::new("offset", Rule::Integer(0, INTEGER_MAX)),
        TIMEOUT_MS_FIELD,
    ];

    pub(super) fn build(mut given: Fields<'_>) -> Self {
        Request {
            backup: given.text("backup"),
            offset: given.integer("offset").unwrap_or(0),
            timeout_ms: given.integer("timeout_ms"),
        }
    }
}

/// One part of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The node that has the copy; the envelope of the reply carries it.
    #[serde(skip_serializing)]
    pub node: NodeId,
    /// What to call the copy in the next request.
    pub backup: String,
    /// Bytes of the whole.
    pub size: u64,
    pub offset: u64,
    data_base64: String,
}

impl Part {
    /// The part of `whole` that begins at `offset`; none beyond its end.
    pub fn of(node: NodeId, backup: String, whole: &[u8], offset: u64) -> Option<Part> {
        let rest = whole.get(usize::try_from(offset).ok()?..)?;
        let data = &rest[..rest.len().min(PART_BYTES)];
        Some(Part {
            node,
            backup,
            size: whole.len() as u64,
            offset,
            data_base64: BASE64_STANDARD.encode(data),
        })
    }

    /// # Errors
    /// When it is not base64, which no node sends.
    pub fn data(&self) -> Result<Vec<u8>, String> {
        let decoded = BASE64_STANDARD.decode(&self.data_base64);
        decoded.map_err(|error| format!("`data_base64` is none: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_up_the_whole() {
        let whole: Vec<u8> = (0..2 * PART_BYTES + 5).map(|n| n as u8).collect();
        let mut joined = Vec::new();
        for length in [PART_BYTES, PART_BYTES, 5, 0] {
            let part = Part::of(NodeId(1), "b".into(), &whole, joined.len() as u64);
            let part = part.expect("not beyond the end");
            let data = part.data().expect("base64");
            assert_eq!((data.len(), part.size), (length, whole.len() as u64));
            joined.extend(data);
        }
        assert_eq!(joined, whole);
        let beyond = Part::of(NodeId(1), "b".into(), &whole, whole.len() as u64 + 1);
        assert_eq!(beyond, None);
    }
}
