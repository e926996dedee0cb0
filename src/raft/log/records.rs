//! How votes, entries and marks lie in a frame: a run of records, each with its kind first.
//!
//! ```text
//! vote        1, term 8, voted for 8, committed 1
//! entry       2, term 8, index 8, length 4, check 8, payload (MessagePack)
//! truncated   3, first index that is gone 8
//! purged      4, term 8, index 8
//! committed   5, term 8, index 8
//! padding     0 until the end
//! ```
//!
//! Integers have their highest byte first. A frame's checksum covers its records; an entry has a check
//! of its own, since it is also read alone, long after the frame was.

use std::io;

use openraft::EntryPayload;
use openraft::impls::leader_id_std::LeaderId;
use openraft::type_config::alias::CommittedLeaderIdOf;
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::NodeId;
use crate::raft::command::{Batch, Proposed};
use crate::raft::types::{Entry, LogId, Member, TypeConfig, Vote};

pub(super) type Payload = EntryPayload<Batch, NodeId, Member>;

const PADDING: u8 = 0;
const VOTE: u8 = 1;
const ENTRY: u8 = 2;
const TRUNCATED: u8 = 3;
const PURGED: u8 = 4;
const COMMITTED: u8 = 5;

/// What an entry is taken to weigh beside its commands: log id, stamp, maps around it.
const ENTRY_OVERHEAD_BYTES: usize = 128;
/// What a membership of some ten nodes weighs.
const MEMBERSHIP_BYTES: usize = 1024;

/// One step of the log.
#[derive(Clone, Debug)]
pub(super) enum Record {
    Vote(Vote),
    /// The entry, and where its record begins in the frame's body.
    Entry(Entry, Place),
    /// Entries from this index on are gone.
    Truncated(u64),
    /// Entries up to this one are gone.
    Purged(LogId),
    Committed(LogId),
}

/// Where an entry's record lies within a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub offset: u64,
    pub bytes: u32,
}

/// About how many bytes an entry takes in a message.
pub(super) fn wire_bytes(payload: &Payload) -> usize {
    match payload {
        EntryPayload::Blank => ENTRY_OVERHEAD_BYTES,
        EntryPayload::Normal(batch) => ENTRY_OVERHEAD_BYTES + batch.encoded.len(),
        EntryPayload::Membership(_) => ENTRY_OVERHEAD_BYTES + MEMBERSHIP_BYTES,
    }
}

/// About how many bytes an entry holds in memory: a proposer's copy keeps the commands decoded
/// beside the encoded ones.
pub(super) fn memory_bytes(payload: &Payload) -> usize {
    let decoded = match payload {
        EntryPayload::Normal(batch) => batch.count as usize * size_of::<Proposed>(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    wire_bytes(payload) + decoded
}

pub(super) fn put_vote(body: &mut Vec<u8>, vote: &Vote) {
    body.push(VOTE);
    body.extend(vote.leader_id.term.to_be_bytes());
    body.extend(vote.leader_id.voted_for.0.to_be_bytes());
    body.push(u8::from(vote.committed));
}

/// Writes an entry and tells where its record lies in `body`.
pub(super) fn put_entry(body: &mut Vec<u8>, log_id: LogId, payload: &Payload) -> Place {
    let offset = body.len();
    body.push(ENTRY);
    put_log_id(body, log_id);
    body.extend([0; 12]);
    let start = body.len();
    rmp_serde::encode::write(body, payload).expect("a payload always encodes");
    let length = u32::try_from(body.len() - start).expect("a payload is far below 4 GB");
    let check = xxh3_64(&body[start..]);
    body[start - 12..start - 8].copy_from_slice(&length.to_be_bytes());
    body[start - 8..start].copy_from_slice(&check.to_be_bytes());
    Place {
        offset: offset as u64,
        bytes: (body.len() - offset) as u32,
    }
}

pub(super) fn put_truncated(body: &mut Vec<u8>, first: u64) {
    body.push(TRUNCATED);
    body.extend(first.to_be_bytes());
}

pub(super) fn put_purged(body: &mut Vec<u8>, upto: LogId) {
    body.push(PURGED);
    put_log_id(body, upto);
}

pub(super) fn put_committed(body: &mut Vec<u8>, upto: LogId) {
    body.push(COMMITTED);
    put_log_id(body, upto);
}

fn put_log_id(body: &mut Vec<u8>, log_id: LogId) {
    body.extend(log_id.leader_id.term.to_be_bytes());
    body.extend(log_id.index.to_be_bytes());
}

/// All records of a body whose checksum is right.
///
/// # Errors
/// When they are not records of this version.
pub(super) fn read_body(body: &[u8]) -> io::Result<Vec<Record>> {
    let mut rest = body;
    let mut records = Vec::new();
    loop {
        let offset = (body.len() - rest.len()) as u64;
        let kind = match take::<1>(&mut rest) {
            Ok([PADDING]) | Err(_) => return Ok(records),
            Ok([kind]) => kind,
        };
        records.push(match kind {
            VOTE => Record::Vote(read_vote(&mut rest)?),
            ENTRY => {
                let entry = read_entry_after_kind(&mut rest)?;
                let bytes = (body.len() - rest.len()) as u64 - offset;
                let bytes = bytes as u32;
                Record::Entry(entry, Place { offset, bytes })
            }
            TRUNCATED => Record::Truncated(read_u64(&mut rest)?),
            PURGED => Record::Purged(read_log_id(&mut rest)?),
            COMMITTED => Record::Committed(read_log_id(&mut rest)?),
            other => return Err(damaged(format!("{other} is no kind of record"))),
        });
    }
}

/// One entry, read alone.
///
/// # Errors
/// When the bytes are not the record of an entry, or fail its check.
pub(super) fn read_entry(mut bytes: &[u8]) -> io::Result<Entry> {
    match take::<1>(&mut bytes)? {
        [ENTRY] => read_entry_after_kind(&mut bytes),
        [other] => Err(damaged(format!("a record of kind {other} is no entry"))),
    }
}

fn read_entry_after_kind(rest: &mut &[u8]) -> io::Result<Entry> {
    let log_id = read_log_id(rest)?;
    let length = u32::from_be_bytes(take(rest)?) as usize;
    let check = read_u64(rest)?;
    if rest.len() < length {
        return Err(damaged("an entry is cut short".into()));
    }
    let (payload, after) = rest.split_at(length);
    *rest = after;
    if xxh3_64(payload) != check {
        return Err(damaged("checksum mismatch of an entry".into()));
    }
    let payload = rmp_serde::from_slice(payload)
        .map_err(|e| damaged(format!("an entry cannot be decoded: {e}")))?;
    Ok(Entry { log_id, payload })
}

fn read_vote(rest: &mut &[u8]) -> io::Result<Vote> {
    let term = read_u64(rest)?;
    let voted_for = NodeId(read_u64(rest)?);
    let committed = match take(rest)? {
        [0] => false,
        [1] => true,
        [other] => return Err(damaged(format!("a vote is committed or not, not {other}"))),
    };
    let leader_id = LeaderId { term, voted_for };
    Ok(Vote {
        leader_id,
        committed,
    })
}

fn read_log_id(rest: &mut &[u8]) -> io::Result<LogId> {
    let leader_id = CommittedLeaderIdOf::<TypeConfig>::new(read_u64(rest)?);
    let index = read_u64(rest)?;
    Ok(LogId { leader_id, index })
}

fn read_u64(rest: &mut &[u8]) -> io::Result<u64> {
    Ok(u64::from_be_bytes(take(rest)?))
}

fn take<const N: usize>(rest: &mut &[u8]) -> io::Result<[u8; N]> {
    let Some((taken, after)) = rest.split_first_chunk::<N>() else {
        return Err(damaged("a record is cut short".into()));
    };
    *rest = after;
    Ok(*taken)
}

pub(super) fn damaged(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BootId;
    use crate::raft::command::{Command, Stamp};

    #[test]
    fn commands_lie_in_an_entry_as_one_run_of_bytes() {
        let stamp = Stamp {
            now_ms: 7,
            proposer: NodeId(1),
            boot: BootId(2),
            number: 3,
        };
        let grace = Command::TermStarted {
            grace_ms: 250,
            keeps_over: false,
        };
        let commands = vec![
            Proposed {
                origin: None,
                command: grace
            };
            100
        ];
        let batch = Batch::new(stamp, commands);
        let encoded = batch.encoded.clone();
        let log_id = LogId {
            leader_id: CommittedLeaderIdOf::<TypeConfig>::new(4),
            index: 5,
        };
        let mut body = vec![9; 3];
        let place = put_entry(&mut body, log_id, &EntryPayload::Normal(batch));
        assert_eq!((place.offset, place.bytes as usize), (3, body.len() - 3));
        assert!(body.windows(encoded.len()).any(|run| run == encoded));
        assert!(body.len() < encoded.len() + 70);

        let entry = read_entry(&body[3..]).unwrap();
        assert_eq!(entry.log_id, log_id);
        let EntryPayload::Normal(batch) = entry.payload else {
            panic!("a batch stays a batch");
        };
        assert_eq!(batch.encoded, encoded);
        assert_eq!(batch.commands().unwrap().len(), 100);
        body[60] ^= 1;
        assert!(read_entry(&body[3..]).is_err());
    }
}
