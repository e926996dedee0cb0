//! The envelope of every message between nodes, and its encoding.
//!
//! A frame is three MessagePack values, one after the other: the header (an array of integers), the
//! body (whatever its lane says), and the XXH3 checksum of everything before it as a `uint64`. One
//! pass encodes all three into one buffer; decoding shares the received buffer.
//!
//! The header lets a receiver conclude who speaks and to whom before it looks at the body. What does
//! not decode is an error value here and never more than that.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{BootId, DiskId, NodeId};

/// A frame has to pass a broker whose `max_payload` is 1 MiB, with room for the broker's own part.
pub const FRAME_BYTES_MAX: usize = 1_000_000;

/// Changes when another version could not read the header or what Raft says any more; nodes of two numbers do not
/// talk. What caches say is read by nodes of the same version only, and dropped by others.
const MAGIC_AND_VERSION: u32 = 0x4d46_0001;

/// A MessagePack `uint64`: its marker and eight bytes.
const CHECKSUM_BYTES: usize = 9;
const UINT64_MARKER: u8 = 0xcf;

/// The class of a message. Each class has a subscription of its own, since the broker promises
/// order only within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Votes, pre-votes, transfers of leadership: one request, one answer.
    Vote,
    /// Heartbeats: one request, one answer, never an older one after a newer.
    Beat,
    /// Streams of log entries.
    Append,
    /// Snapshots in chunks.
    Snapshot,
    /// Requests of the other parts of a node.
    Call,
    /// Answers to all of these.
    Reply,
    /// Requests of clients that another node executes.
    Relay,
    /// What the caches of two nodes say to each other.
    Cache,
    /// What a cache says to all nodes.
    Invalidate,
}

impl Lane {
    /// The lane's token in subjects.
    pub fn token(self) -> &'static str {
        match self {
            Lane::Vote => "vote",
            Lane::Beat => "beat",
            Lane::Append => "append",
            Lane::Snapshot => "snapshot",
            Lane::Call => "call",
            Lane::Reply => "reply",
            Lane::Relay => "relay",
            Lane::Cache => "cache.to",
            Lane::Invalidate => "cache.invalidate",
        }
    }
}

/// What every message says about itself. An answer repeats `stream` and `sequence` of what it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    magic: u32,
    pub lane: Lane,
    pub from: NodeId,
    /// The sender's data directory: a node that lost its disk is not the node that voted.
    pub from_disk: DiskId,
    /// The sender's run: what an earlier run left in the broker is told apart by it.
    pub from_boot: BootId,
    /// The data directory that is meant; none only in calls to a node whose disk nobody knows yet.
    pub to_disk: Option<DiskId>,
    /// Numbers the streams and transfers of one boot of the sender; a greater one replaces a lesser.
    pub stream: u64,
    /// The position in the stream, or the id of a single request.
    pub sequence: u64,
}

impl Header {
    pub fn new(lane: Lane, from: &super::network::Identity, to_disk: Option<DiskId>) -> Self {
        Header {
            magic: MAGIC_AND_VERSION,
            lane,
            from: from.node,
            from_disk: from.disk,
            from_boot: from.boot,
            to_disk,
            stream: 0,
            sequence: 0,
        }
    }

    /// The same at this place of this stream.
    pub fn at(self, stream: u64, sequence: u64) -> Self {
        Header {
            stream,
            sequence,
            ..self
        }
    }
}

/// A received message whose checksum held; the body is still encoded.
#[derive(Clone, Debug)]
pub struct Frame {
    pub header: Header,
    body: Bytes,
}

/// Why bytes are no frame, or a value does not fit into one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("too short for a frame")]
    Short,
    #[error("the checksum does not hold")]
    Checksum,
    #[error("another protocol version")]
    Version,
    #[error("does not decode: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("does not encode: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    #[error("a frame of {0} bytes is more than {FRAME_BYTES_MAX}")]
    TooLarge(usize),
}

/// Encodes header, body and checksum into one buffer. `size_hint` in bytes saves growing it.
///
/// # Errors
/// [`FrameError::TooLarge`] above [`FRAME_BYTES_MAX`]; [`FrameError::Encode`] when the body has no
/// MessagePack form.
pub fn encode(
    header: &Header,
    body: &impl Serialize,
    size_hint: usize,
) -> Result<Bytes, FrameError> {
    /// More than any header with its checksum takes.
    const HEADER_BYTES: usize = 96;
    let mut buffer = Vec::with_capacity(HEADER_BYTES + size_hint);
    rmp_serde::encode::write(&mut buffer, header)?;
    rmp_serde::encode::write(&mut buffer, body)?;
    finish(buffer)
}

/// Encodes version, body and checksum: for messages whose body says all that a header would.
///
/// # Errors
/// As those of [`encode`].
pub fn seal(body: &impl Serialize) -> Result<Bytes, FrameError> {
    let mut buffer = Vec::new();
    rmp_serde::encode::write(&mut buffer, &MAGIC_AND_VERSION)?;
    rmp_serde::encode::write(&mut buffer, body)?;
    finish(buffer)
}

/// Reads what [`seal`] made.
///
/// # Errors
/// Whatever the bytes are, an error and not a panic.
pub fn unseal<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    let mut rest = checked(payload)?;
    let version = u32::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))?;
    if version != MAGIC_AND_VERSION {
        return Err(FrameError::Version);
    }
    Ok(rmp_serde::from_slice(rest)?)
}

fn finish(mut buffer: Vec<u8>) -> Result<Bytes, FrameError> {
    let checksum = xxh3_64(&buffer);
    buffer.push(UINT64_MARKER);
    buffer.extend_from_slice(&checksum.to_be_bytes());
    if buffer.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge(buffer.len()));
    }
    Ok(buffer.into())
}

/// What stands before the checksum, if that holds.
fn checked(payload: &[u8]) -> Result<&[u8], FrameError> {
    let end = payload
        .len()
        .checked_sub(CHECKSUM_BYTES)
        .ok_or(FrameError::Short)?;
    let (content, checksum) = payload.split_at(end);
    let expected = xxh3_64(content).to_be_bytes();
    if checksum[0] != UINT64_MARKER || checksum[1..] != expected {
        return Err(FrameError::Checksum);
    }
    Ok(content)
}

impl Frame {
    /// Checks the checksum and reads the header; the body waits for [`Frame::body`].
    ///
    /// # Errors
    /// Whatever the bytes are, an error and not a panic.
    pub fn decode(payload: &Bytes) -> Result<Frame, FrameError> {
        let content = checked(payload)?;
        let (end, mut rest) = (content.len(), content);
        let header = Header::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))?;
        if header.magic != MAGIC_AND_VERSION {
            return Err(FrameError::Version);
        }
        Ok(Frame {
            header,
            body: payload.slice(end - rest.len()..end),
        })
    }

    /// Whether an answer is a refusal, whatever the question was.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self.body::<Result<serde::de::IgnoredAny, super::message::Refusal>>(),
            Ok(Err(_))
        )
    }

    /// # Errors
    /// When the body is not a `T`.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        Ok(rmp_serde::from_slice(&self.body)?)
    }

    /// A part of the body, sharing the received buffer.
    ///
    /// # Panics
    /// When `part` is not a part of this body.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.body.slice_ref(part)
    }

    /// The body as a value that borrows from the received buffer.
    ///
    /// # Errors
    /// When the body is not a `T`.
    pub fn body_ref<'a, T: Deserialize<'a>>(&'a self) -> Result<T, FrameError> {
        Ok(rmp_serde::from_slice(&self.body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        let identity = super::super::network::Identity {
            node: NodeId(1),
            disk: DiskId(u64::MAX),
            boot: BootId(3),
        };
        Header::new(Lane::Append, &identity, Some(DiskId(9))).at(7, u64::MAX)
    }

    #[test]
    fn what_is_encoded_decodes() {
        let bytes = encode(&header(), &("body", 5_u8), 0).unwrap();
        let frame = Frame::decode(&bytes).unwrap();
        assert_eq!(frame.header, header());
        assert_eq!(
            frame.body::<(String, u8)>().unwrap(),
            ("body".to_owned(), 5)
        );
        assert!(frame.body::<u64>().is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = encode(&header(), &"body", 0).unwrap();
        for at in 0..bytes.len() {
            assert!(Frame::decode(&bytes.slice(..at)).is_err());
            for bit in 0..8 {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 1 << bit;
                assert!(Frame::decode(&damaged.into()).is_err());
            }
        }
    }

    #[test]
    fn another_version_and_too_large_a_frame_are_refused() {
        let other = Header {
            magic: 1,
            ..header()
        };
        let bytes = encode(&other, &(), 0).unwrap();
        assert!(matches!(Frame::decode(&bytes), Err(FrameError::Version)));
        let large = Bytes::from(vec![0; FRAME_BYTES_MAX]);
        assert!(matches!(
            encode(&header(), &large, 0),
            Err(FrameError::TooLarge(_))
        ));
    }

    proptest! {
        #[test]
        fn random_bytes_are_errors_and_never_panics(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
            with_checksum in any::<bool>(),
        ) {
            if with_checksum {
                let checksum = xxh3_64(&bytes);
                bytes.push(UINT64_MARKER);
                bytes.extend_from_slice(&checksum.to_be_bytes());
            }
            prop_assert!(Frame::decode(&bytes.into()).is_err());
        }
    }

    #[test]
    fn a_sealed_body_is_read_only_as_it_was_written() {
        let body = (7u64, "text".to_owned());
        let sealed = seal(&body).unwrap();
        assert_eq!(unseal::<(u64, String)>(&sealed).unwrap(), body);
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut damaged = sealed.to_vec();
                damaged[at] ^= 1 << bit;
                assert!(unseal::<(u64, String)>(&damaged).is_err());
            }
            assert!(unseal::<(u64, String)>(&sealed[..at]).is_err());
        }
    }
}
