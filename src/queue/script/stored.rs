//! What is kept of a message in Redis, as scripts hand it out again.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::protocol::meta::Meta;
use crate::protocol::value::{Kind, Value};

/// Digits of the push time that the script writes before the rest.
const TIME_DIGITS: usize = 13;

/// A message without its place in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub pushed_at_ms: u64,
    /// The one that the push gave.
    pub id: Option<String>,
    pub headers: Option<Meta>,
    pub payload: Value,
}

#[derive(Serialize, Deserialize)]
struct Packed<'a> {
    kind: Kind,
    #[serde(borrow)]
    id: Option<&'a str>,
    headers: Option<&'a str>,
    #[serde(with = "serde_bytes")]
    payload: &'a [u8],
}

impl Stored {
    /// What goes to the script; it adds the time.
    pub fn pack(payload: &Value, id: Option<&str>, headers: Option<&Meta>) -> Bytes {
        let packed = Packed {
            kind: payload.kind(),
            id,
            headers: headers.map(Meta::as_json),
            payload: payload.bytes(),
        };
        let packed = rmp_serde::to_vec(&packed).expect("a message has a form in MessagePack");
        packed.into()
    }

    /// Reads what a script hands out. What somebody changed by hand comes out as it is, as binary.
    pub fn unpack(kept: &Bytes) -> Self {
        let (time, rest) = kept.split_at(TIME_DIGITS.min(kept.len()));
        let pushed_at_ms = std::str::from_utf8(time).ok().and_then(|t| t.parse().ok());
        let pushed_at_ms = pushed_at_ms.unwrap_or(0);
        match rmp_serde::from_slice::<Packed<'_>>(rest) {
            Ok(packed) => Stored {
                pushed_at_ms,
                id: packed.id.map(str::to_owned),
                headers: packed.headers.and_then(|json| Meta::from_json(json).ok()),
                payload: Value::from_kept(packed.kind, kept.slice_ref(packed.payload)),
            },
            Err(_) => Stored {
                pushed_at_ms,
                id: None,
                headers: None,
                payload: Value::binary(kept.slice_ref(rest)),
            },
        }
    }

    /// The id that the push gave, or the one that stands for the sequence number.
    pub fn id_of(id: Option<&str>, seq: u64) -> String {
        match id {
            Some(id) => id.to_owned(),
            None => format!("{MADE_UP}{seq}"),
        }
    }

    /// The sequence number that a made up id stands for.
    pub fn seq_of(id: &str) -> Option<u64> {
        id.strip_prefix(MADE_UP)?.parse().ok()
    }
}

/// What ids begin with that no push gave.
const MADE_UP: &str = "seq-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_unpacked_as_it_was() {
        let headers = Meta::from_json(r#"{"a":"b"}"#).unwrap();
        for payload in [
            Value::text("é"),
            Value::json("[1.0]").unwrap(),
            Value::binary(vec![0, 255]),
        ] {
            let packed = Stored::pack(&payload, Some("id"), Some(&headers));
            let kept = Bytes::from([b"1700000000123", &packed[..]].concat());
            let stored = Stored::unpack(&kept);
            assert_eq!(stored.payload, payload);
            assert_eq!(stored.pushed_at_ms, 1_700_000_000_123);
            assert_eq!(stored.id.as_deref(), Some("id"));
            assert_eq!(stored.headers.as_ref(), Some(&headers));
        }
        assert_eq!(Stored::seq_of(&Stored::id_of(None, 7)), Some(7));
    }

    #[test]
    fn what_is_broken_comes_out_as_binary() {
        for broken in [&b""[..], b"17", b"1700000000123", b"1700000000123\xc1x"] {
            let stored = Stored::unpack(&Bytes::copy_from_slice(broken));
            assert_eq!(stored.payload.kind(), Kind::Binary);
        }
    }
}
