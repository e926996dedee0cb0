//! The bodies of messages between nodes.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::types::{SnapshotMeta, TypeConfig, Vote};

pub(super) type Append = AppendEntriesRequest<TypeConfig>;

/// The body of [`Lane::Vote`](super::frame::Lane::Vote).
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Election {
    Vote(VoteRequest<TypeConfig>),
    /// Asks whether a vote would be granted; changes nothing where it is answered.
    PreVote(VoteRequest<TypeConfig>),
    TransferLeader(TransferLeaderRequest<TypeConfig>),
}

/// The body of [`Lane::Call`](super::frame::Lane::Call).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CallRequest {
    pub kind: String,
    pub body: Bytes,
}

/// The answer to a single question, in a `Result` with a [`Refusal`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Vote(VoteResponse<TypeConfig>),
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    Beat(AppendEntriesResponse<TypeConfig>),
    Call(Bytes),
}

/// Why a node does not act on a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The node's data directory is not the one that was meant: it lost its disk, or a second node
    /// runs under the same id.
    #[error("the node has another data directory")]
    OtherDisk,
    /// The membership names another data directory for the sender.
    #[error("the sender's data directory is not the one in the membership")]
    UnknownDisk,
    #[error("no such call")]
    UnknownCall,
    #[error("too much is being answered already")]
    Overloaded,
    #[error("the node stops")]
    Stopped,
    /// The handler's own reason.
    #[error("{0}")]
    Other(String),
}

/// The answer to one message of a stream of entries, in a `Result` with a [`Refusal`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum StreamAnswer {
    Appended(StreamAppendResult<TypeConfig>),
    /// The receiver is not at this position: the stream is of no use any more.
    Reset,
}

/// The body of [`Lane::Snapshot`](super::frame::Lane::Snapshot). The header's sequence is 0 for
/// `Begin`, 1 and on for the chunks, and one more for `End`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Transfer<'a> {
    Begin(Beginning),
    Chunk(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
    /// Asks for the outcome; everything else was acknowledged.
    End,
}

/// What a snapshot's receiver has to know first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Beginning {
    /// The leader's vote; a follower with a higher one does not install.
    pub vote: Vote,
    pub meta: SnapshotMeta,
    /// Length of the whole in bytes.
    pub size: u64,
    /// XXH3 of the whole.
    pub hash: u64,
}

/// The answer to one message of a transfer, in a `Result` with a [`Refusal`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum TransferAnswer {
    /// This message was taken, now or before.
    Taken,
    /// All chunks are here and are being installed.
    Installing,
    Installed(SnapshotResponse<TypeConfig>),
    /// The receiver does not know this transfer, or what it assembled has another hash: begin again.
    Lost,
    /// More than a receiver takes.
    TooLarge,
}
