//! How commands end that the log does not answer: their time is up, the state was replaced, or the
//! node stops.

use std::mem;

use super::forwards::Forwarded;
use super::{Due, Proposals, Refusal, Role, Ticket, refused};
use crate::protocol::ReplyTo;
use crate::time::Instant;

impl Proposals {
    /// Gives up what was sent, of which nobody here learns what came of it: the state was replaced by a snapshot,
    /// which may have it or not, or the node stops.
    pub fn give_up_sent(&mut self, due: &mut Vec<Due>) {
        for batch in mem::take(&mut self.in_flight) {
            for ((ticket, _), proposed) in batch.tickets.into_iter().zip(batch.commands.iter()) {
                if proposed.origin.is_none() {
                    due.push(refused(ticket, &proposed.command, Refusal::Indeterminate));
                }
            }
        }
        for (
            _,
            Forwarded {
                command, ticket, ..
            },
        ) in mem::take(&mut self.forwarded)
        {
            due.push(refused(ticket, &command, Refusal::Indeterminate));
        }
    }

    /// Answers whose time is up. Clients whose wait in the log should have ended by now are returned: the
    /// log stands still.
    pub fn sweep(
        &mut self,
        now: Instant,
        leads_a_quorum: bool,
        due: &mut Vec<Due>,
    ) -> Vec<ReplyTo> {
        let overdue: Vec<ReplyTo> = std::iter::from_fn(|| self.waits.take_overdue(now)).collect();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.end_late_commands(now, leads_a_quorum, due);
            self.deadline = self.first_deadline();
        }
        overdue
    }

    /// Of what is here; what has been answered is not waited for any more.
    fn first_deadline(&self) -> Option<Instant> {
        let queued = self.queue.iter().map(|queued| queued.deadline);
        let flying = self.in_flight.iter().flat_map(|entry| &entry.tickets);
        let owed = |(ticket, _): &&(Ticket, Instant)| !matches!(ticket, Ticket::Nobody);
        let flying = flying.filter(owed).map(|(_, deadline)| *deadline);
        let forwarded = self.forwarded.values().map(|sent| sent.deadline);
        queued.chain(flying).chain(forwarded).min()
    }

    fn end_late_commands(&mut self, now: Instant, leads_a_quorum: bool, due: &mut Vec<Due>) {
        let waiting = match self.role {
            Role::Leaderless => Refusal::NoLeader,
            Role::Elected { .. } | Role::Leader { .. } if !leads_a_quorum => Refusal::NoLeader,
            _ => Refusal::Timeout,
        };
        if self.queue.iter().any(|queued| queued.deadline <= now) {
            for queued in mem::take(&mut self.queue) {
                if queued.deadline <= now {
                    due.push(refused(queued.ticket, &queued.command, waiting));
                } else {
                    self.queue.push_back(queued);
                }
            }
        }
        for batch in &mut self.in_flight {
            for ((ticket, deadline), proposed) in batch.tickets.iter_mut().zip(&*batch.commands) {
                if *deadline <= now && !matches!(ticket, Ticket::Nobody) {
                    let ticket = mem::replace(ticket, Ticket::Nobody);
                    due.push(refused(ticket, &proposed.command, Refusal::Indeterminate));
                }
            }
        }
        let is_late = |forwarded: &Forwarded| forwarded.deadline <= now;
        if self.forwarded.values().any(is_late) {
            for (sequence, forwarded) in mem::take(&mut self.forwarded) {
                if is_late(&forwarded) {
                    let Forwarded {
                        ticket, command, ..
                    } = forwarded;
                    due.push(refused(ticket, &command, Refusal::Indeterminate));
                } else {
                    self.forwarded.insert(sequence, forwarded);
                }
            }
        }
    }

    /// Takes back what was never sent, and gives up what was: the node stops.
    pub fn shut_down(&mut self, due: &mut Vec<Due>) {
        for queued in mem::take(&mut self.queue) {
            if queued.origin.is_none() {
                due.push(refused(
                    queued.ticket,
                    &queued.command,
                    Refusal::ShuttingDown,
                ));
            }
        }
        self.give_up_sent(due);
    }
}
