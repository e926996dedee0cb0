//! Forwards: commands that clients gave to a follower, on their way to the leader and into its queue.
//!
//! Each has a sequence of its sender. The leader of a term takes each sequence once and in order; what
//! arrives with a gap before it is dropped, since its sender repeats everything that it does not see
//! applied. What a sender gave up (its client was told) leaves no gap: each forward says which
//! sequences are still waited for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BATCH_BYTES_MAX, BATCH_MAX, Due, Proposals, QUEUE_MAX, Queued, Role, Ticket, Work};
use crate::ids::{BootId, NodeId};
use crate::protocol::ReplyTo;
use crate::protocol::tenant::seat::Seat;
use crate::raft::command::{Command, Origin, Proposed};
use crate::raft::state::Outcome;
use crate::time::Instant;

/// Commands forwarded and not yet seen applied.
pub const FORWARDED_MAX: usize = 65_536;
/// A forward that was not seen applied for this long is sent again; the leader drops repeats.
pub const FORWARD_AGAIN: Duration = Duration::from_millis(500);

/// Commands on their way from a follower to the leader of `term`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    pub from: NodeId,
    pub boot: BootId,
    /// The leader takes it only while it leads this very term.
    pub term: u64,
    /// The lowest sequence of this term that its sender still waits for: what is missing below has
    /// been given up and never comes.
    pub oldest: u64,
    /// The sequence of the first command here; the others follow on.
    pub first: u64,
    pub commands: Vec<(Option<ReplyTo>, Command)>,
    /// Which of them, counted from 0, belong to a trace, with the header that goes along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traces: Vec<(usize, String)>,
}

#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) term: u64,
    pub(super) command: Command,
    pub(super) ticket: Ticket,
    pub(super) deadline: Instant,
    pub(super) sent_at: Instant,
}

impl Proposals {
    /// As the leader: takes what another node forwards, each sequence once and in order. What does
    /// not fit now comes again.
    pub fn accept_forward(&mut self, forward: Forward, now: Instant, far: Instant) {
        let leads = match self.role {
            Role::Elected { term } | Role::Leader { term } => term == forward.term,
            _ => false,
        };
        let count = forward.commands.len();
        let numbered = forward.first.checked_add(count as u64).is_some();
        if !leads || !numbered || self.queue.len() + count > QUEUE_MAX {
            return;
        }
        let next = self
            .accepted
            .entry((forward.from, forward.boot))
            .or_insert(forward.oldest);
        *next = (*next).max(forward.oldest);
        if forward.first > *next {
            return; // A gap: what is missing comes again, and this with it.
        }
        for ((reply, command), sequence) in forward.commands.into_iter().zip(forward.first..) {
            if sequence == *next {
                *next += 1;
                let origin = Origin {
                    node: forward.from,
                    boot: forward.boot,
                    sequence,
                };
                let ticket = match reply {
                    // It is in hand at the node that forwarded it.
                    Some(to) => Ticket::Client {
                        to,
                        received: now,
                        seat: Seat::default(),
                    },
                    None => Ticket::Nobody,
                };
                self.queue.push_back(Queued {
                    command,
                    ticket,
                    deadline: far,
                    origin: Some(origin),
                });
            }
        }
        self.hear_by(far);
    }

    pub(super) fn forward(&mut self, term: u64, now: Instant) -> Option<Forward> {
        if self.forwarded.len() >= FORWARDED_MAX {
            return None;
        }
        let first = self.next_sequence;
        let mut commands = Vec::new();
        let mut bytes = 0;
        while commands.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Some(queued) = self.queue.pop_front() else {
                break;
            };
            let queued = queued.leave(now);
            let reply = reply_of(&queued.ticket);
            bytes += forwarded_bytes(reply.as_ref(), &queued.command);
            commands.push((reply, queued.command.clone()));
            let Queued {
                command,
                ticket,
                deadline,
                ..
            } = queued;
            let forwarded = Forwarded {
                term,
                command,
                ticket,
                deadline,
                sent_at: now,
            };
            self.forwarded.insert(self.next_sequence, forwarded);
            self.next_sequence += 1;
        }
        Some(self.forward_frame(term, first, commands))
    }

    fn forward_frame(
        &self,
        term: u64,
        first: u64,
        commands: Vec<(Option<ReplyTo>, Command)>,
    ) -> Forward {
        let waiting = self.forwarded.iter().find(|(_, f)| f.term == term);
        let onward = |reply: &Option<ReplyTo>| reply.as_ref()?.trace.onward();
        let traces = commands.iter().enumerate();
        let traces = traces.filter_map(|(index, (reply, _))| Some((index, onward(reply)?)));
        Forward {
            from: self.me,
            boot: self.boot,
            term,
            oldest: waiting.map_or(first, |(sequence, _)| *sequence),
            first,
            traces: traces.collect(),
            commands,
        }
    }

    /// Once a forward of this term should have been seen, it and all that were sent after it, to be sent again.
    /// The leader drops whatever comes after a gap: of what is left out here, clients would make the next gap.
    pub fn forward_again(&mut self, now: Instant) -> Vec<Work> {
        let Role::Follower { leader, term } = self.role else {
            return Vec::new();
        };
        let is_late =
            |forwarded: &Forwarded| now.duration_since(forwarded.sent_at) >= FORWARD_AGAIN;
        let mut of_term = self.forwarded.iter().filter(|(_, f)| f.term == term);
        let mut next = of_term.find(|(_, f)| is_late(f)).map(|(first, _)| *first);
        let mut works = Vec::new();
        while let Some(first) = next {
            let forward = self.run_from(first, term, now);
            let end = first + forward.commands.len() as u64;
            next = self.forwarded.range(end..).next().map(|(first, _)| *first);
            works.push(Work::Forward {
                to: leader,
                forward,
            });
        }
        works
    }

    /// A run of sequences without a gap, as long as a forward may be; all are of this term.
    fn run_from(&mut self, first: u64, term: u64, now: Instant) -> Forward {
        let mut commands = Vec::new();
        let mut bytes = 0;
        for (expected, (sequence, forwarded)) in (first..).zip(self.forwarded.range_mut(first..)) {
            if expected != *sequence || commands.len() >= BATCH_MAX || bytes >= BATCH_BYTES_MAX {
                break;
            }
            let reply = reply_of(&forwarded.ticket);
            bytes += forwarded_bytes(reply.as_ref(), &forwarded.command);
            forwarded.sent_at = now;
            let left = forwarded.deadline.saturating_duration_since(now);
            forwarded.command.cut_wait(left);
            commands.push((reply, forwarded.command.clone()));
        }
        self.forward_frame(term, first, commands)
    }

    /// Commands that this node forwarded and now sees in the log.
    pub(super) fn settle_forwarded(
        &mut self,
        commands: &[Proposed],
        outcomes: &[Outcome],
        due: &mut Vec<Due>,
    ) {
        if self.forwarded.is_empty() {
            return;
        }
        for (proposed, outcome) in commands.iter().zip(outcomes) {
            let Some(origin) = proposed.origin else {
                continue;
            };
            if origin.node != self.me || origin.boot != self.boot {
                continue;
            }
            let Some(settled) = self.forwarded.remove(&origin.sequence) else {
                continue;
            };
            self.note_wait(&settled.ticket, outcome, settled.deadline);
            if let Ticket::Caller(_) = settled.ticket {
                due.push(Due {
                    ticket: settled.ticket,
                    operation: settled.command.operation(),
                    asked: settled.command.asked(),
                    result: Ok(outcome.clone()),
                    forwarded: true,
                });
            }
        }
    }
}

/// About how many bytes a command takes in a forward; reply subjects are as long as clients like.
fn forwarded_bytes(reply: Option<&ReplyTo>, command: &Command) -> usize {
    command.size_hint() + reply.map_or(0, |to| to.subject.len())
}

fn reply_of(ticket: &Ticket) -> Option<ReplyTo> {
    match ticket {
        Ticket::Client { to, .. } => Some(to.clone()),
        Ticket::Caller(_) | Ticket::Leader(..) | Ticket::Nobody => None,
    }
}
