//! What the log says, in memory: vote, marks, and where each entry is. Plain code.
//!
//! The newest entries are kept decoded, up to [`CACHE_BYTES_MAX`]; older ones are read from their files
//! when a follower needs them.

use std::collections::VecDeque;
use std::io;

use super::records::{self, Payload, Place, Record, damaged};
use crate::raft::types::{Entry, LogId, Vote};

/// Entries kept in memory: those that a follower a few seconds behind still needs.
pub(super) const CACHE_BYTES_MAX: usize = 32 << 20;

/// The state of a log beside its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub committed: Option<LogId>,
}

impl Marks {
    /// The marks as records, which every file begins with: older files may go.
    pub fn put(&self, body: &mut Vec<u8>) {
        if let Some(vote) = &self.vote {
            records::put_vote(body, vote);
        }
        if let Some(purged) = self.purged {
            records::put_purged(body, purged);
        }
        if let Some(committed) = self.committed {
            records::put_committed(body, committed);
        }
    }
}

/// Where an entry's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// In the flush of this number, which is not written yet.
    Flush(u64),
    /// In the file whose first frame has this number.
    File { first: u64, place: Place },
}

#[derive(Debug)]
struct Slot {
    log_id: LogId,
    location: Location,
    wire_bytes: u32,
    /// Kept while it is among the newest, and until it is written.
    payload: Option<Payload>,
}

/// An entry as it is to be read.
pub(super) enum Read<'a> {
    Cached(LogId, &'a Payload),
    /// From the file whose first frame has this number.
    From(u64, Place),
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub marks: Marks,
    /// Without gaps, oldest first.
    slots: VecDeque<Slot>,
    /// The slots before this one have no payload.
    cached_from: u64,
    cached_bytes: usize,
}

impl Index {
    pub fn last(&self) -> Option<LogId> {
        self.slots
            .back()
            .map(|slot| slot.log_id)
            .max(self.marks.purged)
    }

    /// The index of the first entry that is there, or would be.
    pub fn first_index(&self) -> u64 {
        match (self.slots.front(), self.marks.purged) {
            (Some(slot), _) => slot.log_id.index,
            (None, Some(purged)) => purged.index + 1,
            (None, None) => 0,
        }
    }

    /// The index after the last entry.
    pub fn end_index(&self) -> u64 {
        self.first_index() + self.slots.len() as u64
    }

    /// Whether entries follow what was purged.
    pub fn begins_right(&self) -> bool {
        let expected = self.marks.purged.map_or(0, |id| id.index + 1);
        self.slots.is_empty() || self.first_index() == expected
    }

    /// Adds an entry. The first one may have any index: what was purged before it may be known later.
    ///
    /// # Errors
    /// When it does not follow the last one.
    pub fn append(
        &mut self,
        (log_id, payload): (LogId, Payload),
        location: Location,
    ) -> io::Result<()> {
        let expected = self.end_index();
        let is_first = self.slots.is_empty() && self.marks.purged.is_none();
        if log_id.index != expected && !is_first {
            let what = format!("entry {} is where {expected} should be", log_id.index);
            return Err(damaged(what));
        }
        self.push((log_id, payload), location);
        Ok(())
    }

    fn push(&mut self, (log_id, payload): (LogId, Payload), location: Location) {
        if self.slots.is_empty() {
            self.cached_from = log_id.index;
        }
        self.cached_bytes += records::memory_bytes(&payload);
        self.slots.push_back(Slot {
            log_id,
            location,
            wire_bytes: records::wire_bytes(&payload) as u32,
            payload: Some(payload),
        });
        self.forget_old();
    }

    /// Entries from `first` on are gone.
    pub fn truncate(&mut self, first: u64) {
        while self
            .slots
            .back()
            .is_some_and(|slot| slot.log_id.index >= first)
        {
            let gone = self.slots.pop_back().expect("looked at just now");
            self.uncount(&gone);
        }
        self.cached_from = self.cached_from.min(self.end_index());
    }

    /// Entries up to `upto` are gone.
    pub fn purge(&mut self, upto: LogId) {
        self.marks.purged = self.marks.purged.max(Some(upto));
        while self
            .slots
            .front()
            .is_some_and(|slot| slot.log_id.index <= upto.index)
        {
            let gone = self.slots.pop_front().expect("looked at just now");
            self.uncount(&gone);
        }
        self.cached_from = self.cached_from.max(self.first_index());
    }

    fn uncount(&mut self, gone: &Slot) {
        if let Some(payload) = &gone.payload {
            self.cached_bytes -= records::memory_bytes(payload);
        }
    }

    /// Flush `number` is in the file whose first frame is `first`; these entries were in it, each
    /// with its place in that file.
    pub fn written(
        &mut self,
        number: u64,
        first: u64,
        entries: impl Iterator<Item = (u64, Place)>,
    ) {
        let begin = self.first_index();
        for (index, place) in entries {
            let slot = index
                .checked_sub(begin)
                .and_then(|nth| self.slots.get_mut(nth as usize));
            // A truncation may have taken it away since, and another one may have its index.
            if let Some(slot) = slot
                && slot.location == Location::Flush(number)
            {
                slot.location = Location::File { first, place };
            }
        }
        self.forget_old();
    }

    fn forget_old(&mut self) {
        while self.cached_bytes > CACHE_BYTES_MAX {
            let nth = self.cached_from.saturating_sub(self.first_index()) as usize;
            let Some(slot) = self.slots.get_mut(nth) else {
                return;
            };
            if matches!(slot.location, Location::Flush(_)) {
                return;
            }
            if let Some(payload) = slot.payload.take() {
                self.cached_bytes -= records::memory_bytes(&payload);
            }
            self.cached_from += 1;
        }
    }

    /// The entries from `from` up to but without `to` that are there, with their size in a message.
    pub fn read(&self, from: u64, to: u64) -> impl Iterator<Item = (Read<'_>, usize)> {
        let begin = self.first_index();
        let skip = from.saturating_sub(begin) as usize;
        let count = to.saturating_sub(from.max(begin)) as usize;
        self.slots.iter().skip(skip).take(count).map(|slot| {
            let read = match (&slot.payload, slot.location) {
                (Some(payload), _) => Read::Cached(slot.log_id, payload),
                (None, Location::File { first, place }) => Read::From(first, place),
                (None, Location::Flush(_)) => unreachable!("it is kept until it is written"),
            };
            (read, slot.wire_bytes as usize)
        })
    }

    /// Takes what a file says, in order. `place` tells where an entry of the body lies in the file.
    ///
    /// # Errors
    /// When it does not follow from what came before.
    pub fn recover(
        &mut self,
        record: Record,
        first: u64,
        place: impl Fn(Place) -> Place,
    ) -> io::Result<()> {
        match record {
            Record::Vote(vote) => self.marks.vote = Some(vote),
            Record::Entry(Entry { log_id, payload }, at) => {
                let place = place(at);
                // Purged since: its file is kept for what else is in it.
                if Some(log_id.index) <= self.marks.purged.map(|id| id.index) {
                    return Ok(());
                }
                let location = Location::File { first, place };
                if self.slots.is_empty() {
                    // What came before may have gone with its file, by a purge that is told further on:
                    // whether it has is looked at in the end, by `begins_right`.
                    self.push((log_id, payload), location);
                } else {
                    self.append((log_id, payload), location)?;
                }
            }
            Record::Truncated(from) => self.truncate(from),
            Record::Purged(upto) => self.purge(upto),
            Record::Committed(upto) => self.marks.committed = Some(upto),
        }
        Ok(())
    }
}
