//! From the queue into the log: when a batch is made, and of what.

use super::{BATCH_BYTES_MAX, BATCH_MAX, IN_FLIGHT_MAX, InFlight, Proposals, Role, Work};
use crate::raft::command::{Batch, Proposed, Stamp};
use crate::time::Instant;

impl Proposals {
    /// The next thing to do, if there is something to do and room for it. `lease_time` is asked
    /// only when a batch is made.
    pub fn next_work(&mut self, now: Instant, lease_time: impl FnOnce() -> u64) -> Option<Work> {
        if self.queue.is_empty() {
            return None;
        }
        match self.role {
            Role::Leader { term } if !self.is_refused && self.has_room(now) => {
                let batch = self.propose(term, now, lease_time());
                Some(Work::Propose { term, batch })
            }
            Role::Follower { leader, term } => {
                let forward = self.forward(term, now)?;
                Some(Work::Forward {
                    to: leader,
                    forward,
                })
            }
            _ => None,
        }
    }

    /// Whether the next batch is to be made now. Beside an entry in flight another one goes when
    /// as many commands wait as that one carries; else they go together when it is applied.
    fn has_room(&self, now: Instant) -> bool {
        match self.in_flight.back() {
            Some(last) => {
                self.in_flight.len() < IN_FLIGHT_MAX && self.queue.len() >= last.commands.len()
            }
            None => self.gather_until().is_none_or(|until| now >= until),
        }
    }

    /// Until when commands are waited for before the next entry is made, if they are.
    pub fn gather_until(&self) -> Option<Instant> {
        let leads = matches!(self.role, Role::Leader { .. });
        let gathering = self
            .gathering
            .filter(|_| leads && !self.is_refused && self.in_flight.is_empty())?;
        gathering.until(self.queue.len())
    }

    /// An entry without commands, which only carries time, and its term.
    pub fn tick(&mut self, now: Instant, now_ms: u64) -> Option<(u64, Batch)> {
        match self.role {
            Role::Leader { term } if self.queue.is_empty() && self.in_flight.is_empty() => {
                Some((term, self.propose(term, now, now_ms)))
            }
            _ => None,
        }
    }

    pub(super) fn propose(&mut self, term: u64, now: Instant, now_ms: u64) -> Batch {
        self.batches += 1;
        let room = self.queue.len().min(BATCH_MAX);
        let mut commands = Vec::with_capacity(room);
        let mut tickets = Vec::with_capacity(room);
        let mut bytes = 0;
        while commands.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Some(queued) = self.queue.pop_front() else {
                break;
            };
            let queued = queued.leave(now);
            bytes += queued.command.size_hint();
            commands.push(Proposed {
                origin: queued.origin,
                command: queued.command,
            });
            tickets.push((queued.ticket, queued.deadline));
        }
        let number = self.batches;
        let stamp = Stamp {
            now_ms,
            proposer: self.me,
            boot: self.boot,
            number,
        };
        let batch = Batch::new(stamp, commands);
        let commands = batch.commands().expect("the proposer has them decoded");
        self.in_flight.push_back(InFlight {
            term,
            number,
            commands,
            tickets,
            proposed_at: now,
        });
        batch
    }
}
