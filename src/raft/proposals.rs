//! Commands on their way into the log: waiting, proposed, or forwarded. Plain code.
//!
//! ```text
//!             leader: propose, two entries at a time
//!            ┌────────────────► in flight ──applied──► answered
//!  submit ─► queue                  │
//!            └────────────────► forwarded ─applied───► answered (by the leader, directly)
//!             follower: forward     │
//!                   ▲               │ an entry of a later term is applied first:
//!                   └───────────────┘ it never took effect, so it goes again
//! ```
//!
//! Terms in a log never go back. So when the first entry of a later term is applied, whatever was
//! proposed or forwarded in an earlier term and has not been applied never will be: it is submitted
//! again, and nothing takes effect twice. A leader takes forwards of its own term only, each
//! sequence once, so a forward that the broker delivers late or twice does no harm.
//!
//! A command that waits here takes the time from its client: what it lets the state wait for is cut to what
//! is left each time that it goes on its way.
//!
//! How many commands an entry carries is up to what waits when it is made; under load it waits a
//! moment for more ([`gathering`]).
//!
//! Bounds: [`QUEUE_MAX`] commands wait, then new ones are refused as overloaded; [`BATCH_MAX`]
//! commands or about [`BATCH_BYTES_MAX`] bytes make an entry; [`IN_FLIGHT_MAX`] entries are in
//! flight; [`FORWARDED_MAX`] commands are forwarded and unanswered.

mod batches;
mod endings;
mod forwards;
mod gathering;
#[cfg(test)]
mod tests;
mod waits;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

pub use forwards::{FORWARD_AGAIN, FORWARDED_MAX, Forward};

use self::forwards::Forwarded;
use self::gathering::Gathering;
use self::waits::Waits;
use crate::ids::{BootId, NodeId};
use crate::lock::command::Asked;
use crate::protocol::ReplyTo;
use crate::protocol::subject::Operation;
use crate::protocol::tenant::seat::Seat;
use crate::raft::command::{Batch, Command, Origin, Proposed};
use crate::raft::state::Outcome;
use crate::time::Instant;

/// Commands that may wait for a leader or for room in the log.
pub const QUEUE_MAX: usize = 65_536;
/// Commands in one entry: a node applies them in about as long as the entry takes to commit, and the
/// first of them waits for all.
pub const BATCH_MAX: usize = 512;
/// Encoded size of one entry, about: a broker message holds it with room to spare.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Entries in flight: a second one fills the time in which the first is fsynced and replicated.
pub const IN_FLIGHT_MAX: usize = 2;

/// The start of a term waits for room in the log as long as the term has any.
const TERM_START_KEPT: Duration = Duration::from_secs(3600);

/// Who is told the outcome of a command.
#[derive(Debug)]
pub enum Ticket {
    /// A client, through the broker.
    Client {
        to: ReplyTo,
        received: Instant,
        /// Held until it is answered.
        seat: Seat,
    },
    /// A task of this node.
    Caller(oneshot::Sender<Result<Outcome, Refusal>>),
    /// The same, for what only the leader of this term may say: it is neither forwarded nor sent again later.
    Leader(oneshot::Sender<Result<Outcome, Refusal>>, u64),
    /// Nobody: the answer is given already, or not wanted.
    Nobody,
}

/// Why a command has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody led until the deadline; not applied.
    NoLeader,
    /// It found no room in the log until the deadline; not applied.
    Timeout,
    /// It may have been applied, or may still be.
    Indeterminate,
    /// Too many commands wait; not applied.
    Overloaded,
    /// This node is stopping; not applied.
    ShuttingDown,
}

/// A command with the ticket of whoever wants to know.
#[derive(Debug)]
pub struct Submission {
    pub command: Command,
    pub ticket: Ticket,
    /// When to stop trying and say so.
    pub deadline: Instant,
}

/// What this node is to the log right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nobody leads, as far as is known.
    Leaderless,
    /// Commands go to `leader`.
    Follower { leader: NodeId, term: u64 },
    /// Elected, but entries of earlier terms may still be unapplied: commands wait.
    Elected { term: u64 },
    /// Leads, and has applied an entry of its own term.
    Leader { term: u64 },
}

/// What to do next to get commands into the log.
#[derive(Debug)]
pub enum Work {
    /// For the log of this very term.
    Propose {
        term: u64,
        batch: Batch,
    },
    Forward {
        to: NodeId,
        forward: Forward,
    },
}

/// An answer that came due: the caller of the method gives it.
#[derive(Debug)]
pub struct Due {
    pub ticket: Ticket,
    /// What the client asked for; none for commands of the nodes themselves.
    pub operation: Option<Operation>,
    pub asked: Asked,
    pub result: Result<Outcome, Refusal>,
    /// It came by a forward: the client could have asked this node directly.
    pub forwarded: bool,
}

#[derive(Debug)]
struct Queued {
    command: Command,
    ticket: Ticket,
    deadline: Instant,
    origin: Option<Origin>,
}

impl Queued {
    /// As it goes on its way now. Of what was forwarded only its sender knows how long the client waits.
    fn leave(mut self, now: Instant) -> Self {
        if self.origin.is_none() {
            let left = self.deadline.saturating_duration_since(now);
            self.command.cut_wait(left);
        }
        self
    }
}

#[derive(Debug)]
struct InFlight {
    term: u64,
    number: u64,
    commands: Arc<Vec<Proposed>>,
    tickets: Vec<(Ticket, Instant)>,
    proposed_at: Instant,
}

/// The commands that this node has accepted and not yet answered.
#[derive(Debug)]
pub struct Proposals {
    me: NodeId,
    boot: BootId,
    role: Role,
    queue: VecDeque<Queued>,
    in_flight: VecDeque<InFlight>,
    /// Which commands are waited for since the last entry of this node was applied.
    gathering: Option<Gathering>,
    /// Raft has refused a batch: it would refuse the next one, too.
    is_refused: bool,
    batches: u64,
    forwarded: BTreeMap<u64, Forwarded>,
    next_sequence: u64,
    /// As a leader: the next sequence of each forwarding node in this term.
    accepted: HashMap<(NodeId, BootId), u64>,
    /// Of what is here, nobody has to hear before.
    deadline: Option<Instant>,
    waits: Waits,
}

impl Proposals {
    pub fn new(me: NodeId, boot: BootId) -> Self {
        Proposals {
            me,
            boot,
            role: Role::Leaderless,
            queue: VecDeque::new(),
            gathering: None,
            is_refused: false,
            in_flight: VecDeque::new(),
            batches: 0,
            forwarded: BTreeMap::new(),
            next_sequence: 1,
            accepted: HashMap::new(),
            deadline: None,
            waits: Waits::default(),
        }
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether no command is queued, in an entry that is not applied, or forwarded.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty() && self.forwarded.is_empty()
    }

    /// Commands that wait, are in an entry that is not applied, or were forwarded.
    pub fn pending(&self) -> usize {
        let flying = self.in_flight.iter().map(|entry| entry.commands.len());
        self.queue.len() + flying.sum::<usize>() + self.forwarded.len()
    }

    /// Whether an entry of this node is on its way: then time reaches the state with it.
    pub fn is_proposing(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Takes on the role that the log has for this node now.
    pub fn set_role(&mut self, role: Role) {
        if self.role == role {
            return;
        }
        let leads = |role| matches!(role, Role::Elected { .. } | Role::Leader { .. });
        let term = |role| match role {
            Role::Elected { term } | Role::Leader { term } | Role::Follower { term, .. } => term,
            Role::Leaderless => 0,
        };
        if !(leads(self.role) && leads(role) && term(self.role) == term(role)) {
            // Forwards were accepted for the term that is over; their senders send them again. What
            // begins that term, or is its leader's to say, is of no use to another.
            self.queue.retain(|queued| {
                let begins_term = matches!(queued.command, Command::TermStarted { .. });
                let is_of_term = matches!(queued.ticket, Ticket::Leader(..));
                queued.origin.is_none() && !begins_term && !is_of_term
            });
            self.accepted.clear();
        }
        self.role = role;
        self.is_refused = false;
    }

    /// Accepts a command, or returns it as overloaded; or as without a leader, if only the leader of another
    /// term might say it.
    pub fn submit(&mut self, submission: Submission) -> Result<(), Box<Due>> {
        let Submission {
            command,
            ticket,
            deadline,
        } = submission;
        if self.queue.len() >= QUEUE_MAX || self.forwarded.len() >= FORWARDED_MAX {
            return Err(Box::new(refused(ticket, &command, Refusal::Overloaded)));
        }
        if let Ticket::Leader(_, term) = ticket
            && self.role != (Role::Leader { term })
        {
            return Err(Box::new(refused(ticket, &command, Refusal::NoLeader)));
        }
        self.hear_by(deadline);
        self.queue.push_back(Queued {
            command,
            ticket,
            deadline,
            origin: None,
        });
        Ok(())
    }

    /// Somebody is to hear by then.
    fn hear_by(&mut self, deadline: Instant) {
        self.deadline = self.deadline.into_iter().chain([deadline]).min();
    }

    /// When the time of a client that is owed an answer may be up, if one is: not later.
    pub fn next_deadline(&self) -> Option<Instant> {
        let of_waits = self.waits.next_deadline();
        self.deadline.into_iter().chain(of_waits).min()
    }

    /// Puts the first command of a term before all others.
    pub fn start_term(&mut self, command: Command, now: Instant) {
        let deadline = now + TERM_START_KEPT;
        let ticket = Ticket::Nobody;
        self.queue.push_front(Queued {
            command,
            ticket,
            deadline,
            origin: None,
        });
    }

    /// Whether something waits to be proposed or forwarded.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// An entry was applied: answers for what it settles. Returns the time since it was proposed,
    /// if this node proposed it.
    pub fn applied(
        &mut self,
        now: Instant,
        term: u64,
        batch: &Batch,
        commands: &[Proposed],
        outcomes: Vec<Outcome>,
        due: &mut Vec<Due>,
    ) -> Option<Instant> {
        self.settle_forwarded(commands, &outcomes, due);
        let mut proposed_at = None;
        if batch.proposer == self.me && batch.boot == self.boot {
            // Batches before this one that were not applied never will be.
            let earlier = |flying: &InFlight| flying.number < batch.number;
            let count = self.in_flight.iter().take_while(|f| earlier(f)).count();
            let lost: Vec<InFlight> = self.in_flight.drain(..count).collect();
            for lost in lost.into_iter().rev() {
                self.submit_again(lost);
            }
            let first = self.in_flight.front();
            if first.is_some_and(|first| first.number == batch.number) {
                let settled = self.in_flight.pop_front().expect("looked at just now");
                proposed_at = Some(settled.proposed_at);
                self.gathering = Gathering::after(settled.commands.len(), self.queue.len(), now);
                self.settle(settled.tickets, commands, outcomes, due);
            }
        }
        self.term_applied(term);
        proposed_at
    }

    /// Answers for a batch that this node proposed.
    fn settle(
        &mut self,
        tickets: Vec<(Ticket, Instant)>,
        commands: &[Proposed],
        outcomes: Vec<Outcome>,
        due: &mut Vec<Due>,
    ) {
        let answers = commands.iter().zip(outcomes);
        for ((ticket, deadline), (proposed, outcome)) in tickets.into_iter().zip(answers) {
            let forwarded = proposed.origin.is_some();
            if !forwarded {
                self.note_wait(&ticket, &outcome, deadline);
            }
            if !matches!(ticket, Ticket::Nobody) {
                due.push(Due {
                    ticket,
                    operation: proposed.command.operation(),
                    asked: proposed.command.asked(),
                    result: Ok(outcome),
                    forwarded,
                });
            }
        }
    }

    fn note_wait(&mut self, ticket: &Ticket, outcome: &Outcome, deadline: Instant) {
        if let Ticket::Client { to, .. } = ticket
            && outcome.is_waiting()
        {
            self.waits.insert(to.clone(), deadline);
        }
    }

    /// A wait in the log is over, so its client is told by whoever leads.
    pub fn wait_ended(&mut self, to: &ReplyTo) {
        self.waits.remove(&to.subject);
    }

    /// An entry of `term` was applied: what was sent in earlier terms goes again.
    pub fn term_applied(&mut self, term: u64) {
        if self
            .in_flight
            .front()
            .is_some_and(|first| first.term < term)
        {
            let (lost, kept): (VecDeque<_>, _) = mem::take(&mut self.in_flight)
                .into_iter()
                .partition(|batch| batch.term < term);
            self.in_flight = kept;
            for batch in lost.into_iter().rev() {
                self.submit_again(batch);
            }
        }
        if self
            .forwarded
            .first_key_value()
            .is_some_and(|(_, first)| first.term < term)
        {
            let (lost, kept): (BTreeMap<_, _>, _) = mem::take(&mut self.forwarded)
                .into_iter()
                .partition(|(_, forwarded)| forwarded.term < term);
            self.forwarded = kept;
            for (_, lost) in lost.into_iter().rev() {
                let Forwarded {
                    command,
                    ticket,
                    deadline,
                    ..
                } = lost;
                self.queue.push_front(Queued {
                    command,
                    ticket,
                    deadline,
                    origin: None,
                });
            }
        }
    }

    /// A batch that Raft did not take: its commands wait until [`Proposals::propose_again`], or for another role.
    pub fn refused(&mut self, number: u64) {
        self.is_refused = true;
        let index = self
            .in_flight
            .iter()
            .position(|batch| batch.number == number);
        if let Some(lost) = index.and_then(|index| self.in_flight.remove(index)) {
            self.submit_again(lost);
        }
    }

    /// Some time has passed since a batch was refused, if one was.
    pub fn propose_again(&mut self) {
        self.is_refused = false;
    }

    /// Puts back what never took effect. While the term that it was meant for goes on, what other
    /// nodes forwarded, what begins the term, and what is its leader's to say, stay with this node.
    /// In a later term a forward is its sender's to send again.
    fn submit_again(&mut self, lost: InFlight) {
        let same_term = matches!(
            self.role,
            Role::Elected { term } | Role::Leader { term } if term == lost.term
        );
        for (index, (ticket, deadline)) in lost.tickets.into_iter().enumerate().rev() {
            let Proposed { origin, command } = &lost.commands[index];
            let begins_term = matches!(command, Command::TermStarted { .. });
            let kept = match origin {
                Some(_) => same_term,
                None => match ticket {
                    Ticket::Nobody => begins_term && same_term,
                    Ticket::Leader(..) => same_term,
                    Ticket::Client { .. } | Ticket::Caller(_) => true,
                },
            };
            if kept {
                self.queue.push_front(Queued {
                    command: command.clone(),
                    ticket,
                    deadline,
                    origin: *origin,
                });
            }
        }
    }
}

fn refused(ticket: Ticket, command: &Command, refusal: Refusal) -> Due {
    Due {
        ticket,
        operation: command.operation(),
        asked: command.asked(),
        result: Err(refusal),
        forwarded: false,
    }
}
