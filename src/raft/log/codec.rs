//! How votes, log ids and payloads lie in the log's files.
//!
//! The log cuts a record that ends with the file before it is whole, for that is what a crash in
//! the middle of a write leaves. Damage must never look like that, or acknowledged entries would
//! be cut as well. So nothing here makes a reader want more bytes than the record has because a
//! byte changed: log ids and votes have fixed sizes and start with a tag that tells them apart
//! (the record's type may be what changed), and the length of a payload has its own check before
//! it is believed. The log adds a CRC32 to each record.

use std::io::{self, Read, Write};

use codeq::{Decode, Encode};
use openraft::EntryPayload;
use openraft::impls::leader_id_std::LeaderId;
use openraft::type_config::alias::CommittedLeaderIdOf;
use xxhash_rust::xxh3::xxh3_64;

use super::flush::FlushDone;
use crate::ids::NodeId;
use crate::raft::command::{Batch, Proposed};
use crate::raft::types::{LogId, Member, TypeConfig, Vote};

/// What raft-log is instantiated with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogTypes;

impl raft_log::Types for LogTypes {
    type LogId = StoredLogId;
    type LogPayload = StoredPayload;
    type Vote = StoredVote;
    type Callback = FlushDone;
    type UserData = ();

    fn log_index(log_id: &StoredLogId) -> u64 {
        log_id.0.index
    }

    fn payload_size(payload: &StoredPayload) -> u64 {
        payload.memory_bytes()
    }
}

pub(super) type Payload = EntryPayload<Batch, NodeId, Member>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StoredLogId(pub LogId);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd)]
pub(super) struct StoredVote(pub Vote);

#[derive(Clone, Debug)]
pub(super) struct StoredPayload(pub Payload);

/// First bytes of log ids and votes. Neither is 0 or 1, which start an optional field.
const LOG_ID_TAG: u8 = b'L';
const VOTE_TAG: u8 = b'V';

/// What an entry is taken to weigh beside its commands: log id, stamp, maps around it.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// What a membership of some ten nodes weighs.
const MEMBERSHIP_BYTES: usize = 1024;

impl StoredPayload {
    /// About how many bytes this entry takes in a message.
    pub fn wire_bytes(&self) -> usize {
        match &self.0 {
            EntryPayload::Blank => ENTRY_OVERHEAD_BYTES,
            EntryPayload::Normal(batch) => ENTRY_OVERHEAD_BYTES + batch.encoded.len(),
            EntryPayload::Membership(_) => ENTRY_OVERHEAD_BYTES + MEMBERSHIP_BYTES,
        }
    }

    /// About how many bytes this entry holds in memory: a proposer's copy keeps the commands
    /// decoded beside the encoded ones.
    fn memory_bytes(&self) -> u64 {
        let decoded = match &self.0 {
            EntryPayload::Normal(batch) => batch.count as usize * size_of::<Proposed>(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        };
        (self.wire_bytes() + decoded) as u64
    }
}

impl Encode for StoredLogId {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let mut bytes = [LOG_ID_TAG; 17];
        bytes[1..9].copy_from_slice(&self.0.leader_id.term.to_be_bytes());
        bytes[9..].copy_from_slice(&self.0.index.to_be_bytes());
        w.write_all(&bytes)?;
        Ok(bytes.len())
    }
}

impl Decode for StoredLogId {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        expect_tag(&mut r, LOG_ID_TAG, "log id")?;
        let term = u64::decode(&mut r)?;
        let index = u64::decode(&mut r)?;
        let leader_id = CommittedLeaderIdOf::<TypeConfig>::new(term);
        Ok(StoredLogId(LogId { leader_id, index }))
    }
}

impl Encode for StoredVote {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let Vote {
            leader_id,
            committed,
        } = &self.0;
        let mut bytes = [VOTE_TAG; 18];
        bytes[1..9].copy_from_slice(&leader_id.term.to_be_bytes());
        bytes[9..17].copy_from_slice(&leader_id.voted_for.0.to_be_bytes());
        bytes[17] = u8::from(*committed);
        w.write_all(&bytes)?;
        Ok(bytes.len())
    }
}

impl Decode for StoredVote {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        expect_tag(&mut r, VOTE_TAG, "vote")?;
        let term = u64::decode(&mut r)?;
        let voted_for = NodeId(u64::decode(&mut r)?);
        let committed = match u8::decode(&mut r)? {
            0 => false,
            1 => true,
            other => return Err(damaged(format!("a vote is committed or not, not {other}"))),
        };
        let leader_id = LeaderId { term, voted_for };
        Ok(StoredVote(Vote {
            leader_id,
            committed,
        }))
    }
}

/// Length (4 bytes), check of the length (4 bytes), MessagePack.
///
/// The two numbers together are as long as a record's checksum, so that a record whose type
/// changed into this one still has bytes for them.
impl Encode for StoredPayload {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        // A failure here would leave half a record in the log's buffer, hence no error.
        let bytes = rmp_serde::to_vec(&self.0).expect("a payload always encodes");
        let length = u32::try_from(bytes.len()).expect("a payload is far below 4 GB");
        w.write_all(&length.to_be_bytes())?;
        w.write_all(&length_check(length).to_be_bytes())?;
        w.write_all(&bytes)?;
        Ok(8 + bytes.len())
    }
}

impl Decode for StoredPayload {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let length = u32::decode(&mut r)?;
        let check = u32::decode(&mut r)?;
        if check != length_check(length) {
            return Err(damaged("a payload's length fails its check".into()));
        }
        let mut bytes = Vec::new();
        r.take(length.into()).read_to_end(&mut bytes)?;
        if bytes.len() < length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rmp_serde::from_slice(&bytes)
            .map(StoredPayload)
            .map_err(|e| damaged(format!("a payload cannot be decoded: {e}")))
    }
}

/// Differs from the length also where both would be zero, as in blocks that were never written.
fn length_check(length: u32) -> u32 {
    xxh3_64(&length.to_be_bytes()) as u32
}

fn expect_tag<R: Read>(mut r: R, tag: u8, what: &str) -> io::Result<()> {
    match u8::decode(&mut r)? {
        found if found == tag => Ok(()),
        found => Err(damaged(format!(
            "a {what} starts with {tag}, not with {found}"
        ))),
    }
}

fn damaged(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BootId;
    use crate::raft::command::{Command, Stamp};

    #[test]
    fn commands_lie_in_a_payload_as_one_run_of_bytes() {
        let stamp = Stamp {
            now_ms: 7,
            proposer: NodeId(1),
            boot: BootId(2),
            number: 3,
        };
        let grace = Command::TermStarted { grace_ms: 250 };
        let commands = vec![
            Proposed {
                origin: None,
                command: grace
            };
            100
        ];
        let batch = Batch::new(stamp, commands);
        let encoded = batch.encoded.clone();
        let mut bytes = Vec::new();
        let written = StoredPayload(EntryPayload::Normal(batch))
            .encode(&mut bytes)
            .unwrap();
        assert_eq!(written, bytes.len());
        assert!(bytes.windows(encoded.len()).any(|run| run == encoded));
        assert!(bytes.len() < encoded.len() + 40, "{}", bytes.len());

        let decoded = StoredPayload::decode(&bytes[..]).unwrap().0;
        let EntryPayload::Normal(batch) = decoded else {
            panic!("a batch stays a batch");
        };
        assert_eq!(batch.encoded, encoded);
        assert_eq!(batch.commands().unwrap().len(), 100);
    }

    #[test]
    fn no_length_checks_as_zero() {
        assert_ne!(length_check(0), 0);
    }
}
