//! How far topics have come, told to the log now and then, and learnt from it by the next owner.
//!
//! Also the claim: after each connect to Redis this node asks the log for the view before it does
//! anything there. A Redis that lost its newest writes may have lost the epoch that shut out a former
//! owner; that one then learns from the log that it is one, or does nothing while it cannot ask.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::{Known, QueueService, REMEMBERED_MAX, Shared, lock};
use crate::protocol::Refusal;
use crate::protocol::error::{Code, ErrorReply};
use crate::protocol::tenant::Tenant;
use crate::queue::marks::{Mark, Report};
use crate::queue::script::Caller;
use crate::queue::store::{CallError, Store};
use crate::raft::command::Command;
use crate::view::rendezvous::Placement;

/// Between two reports of one node: what is lost within it together with the owner goes unnoticed.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Topics of one command; names of the greatest length make it 70 KB.
const REPORTED_MAX: usize = 256;
/// Commands of one report; what is beyond waits for the next.
const COMMANDS_MAX: usize = 16;
/// How long a command may take; one that fails is repeated with the next report.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

impl QueueService {
    /// Reports how far topics have come, until `stopped`. Topics without traffic cost nothing.
    pub(super) async fn report(self, mut stopped: watch::Receiver<bool>) {
        let shared = self.0;
        loop {
            tokio::select! {
                biased;
                _ = stopped.changed() => return,
                () = shared.some_unreported.notified() => {}
            }
            for _ in 0..COMMANDS_MAX {
                if !shared.report_some().await {
                    break;
                }
            }
            tokio::select! {
                biased;
                _ = stopped.changed() => return,
                () = tokio::time::sleep(REPORT_EVERY) => {}
            }
            if !lock(&shared.unreported).is_empty() {
                shared.some_unreported.notify_one();
            }
        }
    }
}

impl Shared {
    /// Remembers how far a topic has come; `change` returns whether the log is to know.
    pub(super) fn note(&self, topic: &Arc<str>, change: impl FnOnce(&mut Known) -> bool) {
        let mut known = lock(&self.known);
        if !known.contains_key(topic) && known.len() >= REMEMBERED_MAX {
            known.pop_first();
        }
        let entry = known.entry(topic.clone()).or_default();
        if change(entry) && !entry.is_unreported {
            entry.is_unreported = true;
            lock(&self.unreported).push_back(topic.clone());
            self.some_unreported.notify_one();
        }
    }

    /// Remembers what an answer of Redis says.
    pub(super) fn note_done(&self, topic: &Arc<str>, (opseq, seq, bytes): (u64, u64, u64)) {
        self.note(topic, |known| {
            let is_further = opseq > known.opseq;
            if opseq >= known.opseq {
                known.bytes = bytes;
            }
            known.opseq = known.opseq.max(opseq);
            known.seq = known.seq.max(seq);
            is_further
        });
    }

    /// Returns whether there was something to report and it was taken.
    async fn report_some(&self) -> bool {
        let names: Vec<Arc<str>> = {
            let mut unreported = lock(&self.unreported);
            let count = unreported.len().min(REPORTED_MAX);
            unreported.drain(..count).collect()
        };
        let reports: Vec<Report> = {
            let mut known = lock(&self.known);
            let each = names.iter().filter_map(|name| {
                let known = known.get_mut(name)?;
                known.is_unreported = false;
                Some(Report {
                    topic: name.to_string(),
                    mark: Mark {
                        epoch: known.epoch,
                        opseq: known.opseq,
                        seq: known.seq.max(known.floor),
                        bytes: known.bytes,
                    },
                })
            });
            each.collect()
        };
        if reports.is_empty() {
            return false;
        }
        let command = Command::Marks(reports);
        let told = self.parts.handle.call(command, COMMAND_TIMEOUT).await;
        if told.is_err() {
            for name in &names {
                self.note(name, |_| true);
            }
        }
        told.is_ok()
    }

    /// What the next owner of a topic would know of its sequence numbers.
    pub(super) fn marked_seq(&self, topic: &str) -> u64 {
        let mark = self.parts.handle.read(|state, _| state.marks.get(topic));
        mark.map_or(0, |mark| mark.seq)
    }

    /// What this node knows of a topic, as a script is told. In a new view what the log knows is added.
    pub(super) fn caller(&self, topic: &Arc<str>, placement: &Placement) -> Caller {
        let epoch = placement.epoch().0;
        let mut known = lock(&self.known).get(topic).copied().unwrap_or_default();
        if known.epoch != epoch {
            let mark = self.parts.handle.read(|state, _| state.marks.get(topic));
            known.enter(epoch, mark.unwrap_or_default());
            self.note(topic, |before| {
                *before = known;
                false
            });
        }
        Caller {
            epoch,
            opseq: known.opseq,
            seq_floor: known.floor,
            losses: known.losses,
            spare: false,
            counts_bytes: Tenant::of_name(topic).is_some(),
        }
    }

    /// Whether the tenant whose topic it is may keep so many bytes more. What others took in of its topics
    /// since they told the log, a second ago at most, is not counted.
    pub(super) fn has_room(&self, topic: &str, more: u64) -> Result<(), Refusal> {
        let most = self.parts.tenant_bytes_max;
        let Some(tenant) = Tenant::of_name(topic).filter(|_| most > 0) else {
            return Ok(());
        };
        let (sum, mark) = self.parts.handle.read(|state, _| {
            let mark = state.marks.get(topic).unwrap_or_default();
            (state.marks.bytes_of(&tenant), mark)
        });
        let known = lock(&self.known).get(topic).copied();
        let known = known.filter(|known| known.opseq >= mark.opseq);
        let here = known.map_or(mark.bytes, |known| known.bytes);
        if sum - mark.bytes + here + more <= most {
            return Ok(());
        }
        let message = format!(
            "this team may keep {most} bytes in its queues: what is acknowledged or purged makes room"
        );
        Err(ErrorReply::new(Code::QueueFull, message).into())
    }

    /// Makes sure that the log was asked for the view since this way to Redis is there: one that came about
    /// by the change of that number. Returns whether it had to be asked.
    pub(super) async fn claim(&self, store: &Store, number: u64) -> Result<bool, CallError> {
        if self.claimed.load(Ordering::Acquire) >= number {
            return Ok(false);
        }
        let _one_at_a_time = self.claiming.lock().await;
        if self.claimed.load(Ordering::Acquire) >= number {
            return Ok(true);
        }
        let changes = store.changes();
        // A command that is applied here comes after all that was decided before it was sent.
        let command = Command::Marks(Vec::new());
        let asked = self.parts.handle.call(command, COMMAND_TIMEOUT).await;
        if asked.is_err() {
            return Err(CallError::Unclaimed);
        }
        self.claimed.store(changes, Ordering::Release);
        Ok(true)
    }
}

impl Known {
    /// Begins a view, with what the log knows of the topic.
    fn enter(&mut self, epoch: u64, mark: Mark) {
        // Else the mark is this node's own, or of one before it, and may be from before a loss.
        if mark.epoch > self.epoch {
            // Another node had the topic meanwhile, and may have told a loss.
            self.opseq = mark.opseq;
            self.bytes = mark.bytes;
        }
        self.epoch = epoch;
        self.seq = self.seq.max(mark.seq);
        // Numbers that were given out are not given out again.
        self.floor = self.floor.max(mark.seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(epoch: u64, opseq: u64, seq: u64) -> Mark {
        Mark {
            epoch,
            opseq,
            seq,
            bytes: 0,
        }
    }

    #[test]
    fn a_new_owner_knows_what_the_log_knows() {
        let mut known = Known::default();
        known.enter(4, mark(3, 10, 6));
        assert_eq!((known.epoch, known.opseq, known.floor), (4, 10, 6));
        // It stays the owner, and the log is behind.
        known.opseq = 12;
        known.seq = 8;
        known.enter(5, mark(4, 11, 7));
        assert_eq!((known.opseq, known.seq), (12, 8));
        // It told a loss, and the log does not know yet.
        known.opseq = 3;
        known.enter(6, mark(4, 11, 7));
        assert_eq!((known.opseq, known.seq), (3, 8));
        // Another one had it, and told a loss.
        known.enter(9, mark(7, 5, 9));
        assert_eq!((known.opseq, known.seq, known.floor), (5, 9, 9));
    }
}
