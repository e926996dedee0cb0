//! One topic at its owner: what waits to be done, and the calls that do it. Plain code.
//!
//! ```text
//!   push, ack, nack, extend ──► pending ──┐
//!                                         ├──► call (at most two at a time) ──► answers
//!   pop ──► waiting (first come, first) ──┘
//! ```
//!
//! Everything that waits goes into the next call, however much it is (up to the bounds). Beside a call
//! under way another one goes when as many requests wait as that one carries; else they go together when
//! it has ended. Clients come back when they are answered, so that groups which never wait for each other
//! would take turns for ever, each with a write to Redis' disk of its own, be it for one request. In a call
//! acknowledgements come first and pops last, so that a pop gets what was pushed or handed back in the
//! same call. A pop that got nothing waits on, before all that came later; it is tried again when a
//! message may have become ready: by a push or a hand-back here, by time, by what was left over. One that a
//! call did not get to, having enough to do for others, goes with the next; none is told that there is
//! nothing before a call has looked.
//!
//! `T` is what stands for a client. Times are milliseconds of the node's own clock.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::protocol::error::ErrorReply;
use crate::protocol::queue::Receipt;
use crate::queue::script::{BatchReply, NewMessage, PoppedMessage};

mod call;
mod late;
mod line;

use line::{Behind, Line, Look, Waiter};

/// Calls under way. One would leave Redis idle while its answer travels; more would make batches small.
const CALLS_MAX: usize = 2;
/// Messages and receipts of one call, pops behind receipts, and messages that other pops ask for. Redis does nothing
/// else while a script runs. The script bounds what it hands out: of pops that it did not get to it says so.
const ITEMS_MAX: usize = 1_000;
/// Bytes of the messages of one call.
const BYTES_MAX: usize = 4 << 20;
/// Pops of one call that are not behind receipts.
const POPS_MAX: usize = 256;
/// Pops that wait at one topic.
pub const WAITERS_MAX: usize = 10_000;
/// Requests that are not in a call yet.
pub const PENDING_MAX: usize = 50_000;
/// Wake-ups may be lost where nobody sees it: waiting pops look again so often whatever happens.
pub const SWEEP_MS: u64 = 1_000;

/// A pop, and until when it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub max: u64,
    /// 0: as the topic says.
    pub visibility_ms: u64,
    pub consumer: String,
    /// Random, for the receipts of this pop.
    pub token: String,
    /// The most bytes that fit into the answer.
    pub bytes_max: u64,
    /// 0: it does not wait.
    pub until_ms: u64,
}

/// What a client asks for.
#[derive(Debug)]
pub enum Ask {
    Push(Vec<NewMessage>),
    Ack(Vec<Receipt>, Option<Wanted>),
    Nack(Vec<Receipt>, Return),
    Extend(Vec<Receipt>, u64),
    Pop(Wanted),
}

/// How a message is handed back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return {
    /// `c` counts as a failure, `u` does not, `d` sends it to the dead state.
    pub mode: char,
    /// Absent: by the topic's backoff.
    pub delay_ms: Option<u64>,
    pub reason: String,
}

impl Return {
    /// Of messages that nobody got.
    pub fn unheard() -> Self {
        Return {
            mode: 'u',
            delay_ms: None,
            reason: String::new(),
        }
    }
}

/// What a client is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// Sequence number and whether the id was known, of each; none if the topic has no room.
    Pushed(Option<Vec<(u64, bool)>>),
    /// The results of an acknowledgement as the script has them; of its pop, if there was one and Redis has looked
    /// for messages, the token of the receipts and the messages.
    Acked(Vec<(Receipt, u64)>, Option<(String, Vec<PoppedMessage>)>),
    Nacked(Vec<(Receipt, u64)>),
    Extended(Vec<(Receipt, u64)>),
    /// The token of the receipts, and the messages.
    Popped(String, Vec<PoppedMessage>),
    /// A pop that got nothing, since the topic is paused.
    Paused,
    /// The call did nothing, or nobody knows; of a pop that waited, the newest that looked for it.
    Refused(Arc<ErrorReply>),
}

/// A pop that waited and was given up.
#[derive(Debug, PartialEq, Eq)]
pub enum Dismissed<T> {
    /// It may wait elsewhere.
    Waits(T, Wanted),
    /// A part of it was done, so that it ends here.
    Done(T, Told),
}

#[derive(Debug)]
struct Item<T> {
    /// None: nobody is told, as for messages whose requester is gone.
    client: Option<T>,
    ask: Ask,
}

/// One call: what it carries, until its answer is there.
#[derive(Debug)]
pub struct Call<T> {
    items: Vec<Item<T>>,
    pops: Vec<Waiter<T>>,
    /// For each item that is an acknowledgement with a pop: the item's and the pop's place.
    joined: Vec<(usize, usize)>,
    /// Why Redis does not look for messages, if it has no memory.
    spare: Option<Arc<ErrorReply>>,
}

/// A topic at its owner.
#[derive(Debug)]
pub struct Owner<T> {
    pending: VecDeque<Item<T>>,
    waiting: Line<T>,
    next_place: u64,
    calls: usize,
    /// Requests in them.
    carried: usize,
    pop_calls: usize,
    /// Something may be ready that no waiting pop was offered.
    wake: bool,
    /// When time makes something ready, or the next look is due.
    wake_at_ms: u64,
}

impl<T> Default for Owner<T> {
    fn default() -> Self {
        Owner {
            pending: VecDeque::new(),
            waiting: Line::default(),
            next_place: 0,
            calls: 0,
            carried: 0,
            pop_calls: 0,
            wake: false,
            wake_at_ms: 0,
        }
    }
}

impl<T> Owner<T> {
    /// Takes a request; gives it back when too many wait.
    pub fn ask(&mut self, client: Option<T>, ask: Ask) -> Result<(), T> {
        match (client, ask) {
            (Some(client), Ask::Pop(wanted)) => {
                if self.waiting.len() >= WAITERS_MAX {
                    return Err(client);
                }
                let place = self.new_place();
                self.waiting.enter(Waiter {
                    client: Some(client),
                    wanted,
                    place,
                    behind: Behind::Nothing,
                    look: Look::Missing,
                });
            }
            (Some(client), _) if self.pending.len() >= PENDING_MAX => return Err(client),
            (client, ask) => self.pending.push_back(Item { client, ask }),
        }
        Ok(())
    }

    /// Whether nothing is left to do or to wait for.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.waiting.is_empty() && self.calls == 0
    }

    pub fn waiters(&self) -> usize {
        self.waiting.len()
    }

    /// Lets waiting pops look again: the topic was resumed, or filled by another road.
    pub fn wake(&mut self) {
        self.wake = true;
    }

    /// When [`Owner::call`] or [`Owner::expire`] may have something to do by time alone; none when
    /// no pop waits that was looked for: others go with the next call that there is room for.
    pub fn next_ms(&self) -> Option<u64> {
        let first = self.waiting.first_end_ms()?;
        Some(first.min(self.wake_at_ms))
    }

    /// The next call, if there is something to do and room for it.
    pub fn call(&mut self, now_ms: u64) -> Option<Call<T>> {
        if !self.has_room() {
            return None;
        }
        let mut call = Call {
            items: Vec::new(),
            pops: Vec::new(),
            joined: Vec::new(),
            spare: None,
        };
        let makes_ready = self.take_items(&mut call);
        self.take_pops(&mut call, makes_ready, now_ms);
        // The pops of the other call may come back before this one has made something ready.
        self.wake |= makes_ready && call.pops.is_empty() && self.pop_calls > 0;
        if call.items.is_empty() && call.pops.is_empty() {
            return None;
        }
        self.calls += 1;
        self.carried += call.requests();
        self.pop_calls += usize::from(!call.pops.is_empty());
        Some(call)
    }

    /// Whether the next call is to be made now. What has to wait goes when a call ends.
    pub fn has_room(&self) -> bool {
        let new = self.pending.len() + self.waiting.new_ones();
        self.calls == 0 || self.calls < CALLS_MAX && new >= self.carried
    }

    /// Returns whether some of the items may make messages ready.
    fn take_items(&mut self, call: &mut Call<T>) -> bool {
        let (mut count, mut bytes, mut makes_ready) = (0, 0, false);
        while let Some(item) = self.pending.pop_front() {
            let (items, size) = item.ask.size();
            if !call.items.is_empty() && (count + items > ITEMS_MAX || bytes + size > BYTES_MAX) {
                self.pending.push_front(item);
                break;
            }
            (count, bytes) = (count + items, bytes + size);
            makes_ready |= matches!(item.ask, Ask::Push(_) | Ask::Nack(..));
            // An acknowledgement may let the next of its group through.
            makes_ready |= matches!(item.ask, Ask::Ack(..));
            call.items.push(item);
        }
        makes_ready
    }

    fn take_pops(&mut self, call: &mut Call<T>, makes_ready: bool, now_ms: u64) {
        for (at, item) in call.items.iter_mut().enumerate() {
            if let Item {
                client: client @ Some(_),
                ask: Ask::Ack(_, wanted @ Some(_)),
            } = item
            {
                call.joined.push((at, call.pops.len()));
                self.next_place += 1;
                call.pops.push(Waiter {
                    place: self.next_place,
                    client: client.take(),
                    wanted: wanted.take().expect("it was just seen"),
                    behind: Behind::Ack,
                    look: Look::Missing,
                });
            }
        }
        // Pops that waited before keep their place: no second call may give others what they want.
        if self.waiting.has_old_ones() && self.pop_calls > 0 {
            return;
        }
        let is_new = self.waiting.new_ones() > 0;
        let is_due = now_ms >= self.wake_at_ms;
        let again = makes_ready || self.wake || is_due;
        if self.waiting.is_empty() || !(again || is_new) {
            return;
        }
        self.wake = false;
        let joined = call.pops.len();
        let (mut count, mut wanted) = (0, 0);
        let mut has_room = |waiter: &Waiter<T>| {
            let has_room = count < POPS_MAX && wanted < ITEMS_MAX as u64;
            count += 1;
            wanted += waiter.wanted.max;
            has_room
        };
        // Without a reason to look again for others those behind them, who are new, must get their look.
        let mut taken = match again {
            true => Vec::new(),
            false => self.waiting.take_next(true, &mut has_room),
        };
        taken.extend(self.waiting.take_next(false, &mut has_room));
        taken.sort_by_key(|waiter| waiter.place);
        call.pops.extend(taken);
        if joined > 0 {
            // Those that waited come first.
            call.pops.rotate_left(joined);
            let waited = call.pops.len() - joined;
            for (_, pop) in &mut call.joined {
                *pop += waited;
            }
        }
    }

    /// Takes the answer to a call, and returns what clients are told.
    pub fn done(&mut self, call: Call<T>, reply: BatchReply, now_ms: u64) -> Vec<(T, Told)> {
        self.end(&call);
        let mut told = Vec::with_capacity(call.items.len() + call.pops.len());
        let looked = !call.pops.is_empty();
        let mut pops = call.pops;
        let (mut acks, mut nacks) = (reply.acks.into_iter(), reply.nacks.into_iter());
        let (mut extends, mut pushes) = (reply.extends.into_iter(), reply.pushes.into_iter());
        let mut joined = call.joined.into_iter().peekable();
        for (at, Item { client, ask }) in call.items.into_iter().enumerate() {
            let what = match ask {
                Ask::Push(messages) => Told::Pushed(pushes.by_ref().take(messages.len()).collect()),
                Ask::Ack(receipts, _) => Told::Acked(paired(receipts, &mut acks), None),
                Ask::Nack(receipts, _) => Told::Nacked(paired(receipts, &mut nacks)),
                Ask::Extend(receipts, _) => Told::Extended(paired(receipts, &mut extends)),
                Ask::Pop(_) => unreachable!("pops are not among the items"),
            };
            match (client, what, joined.next_if(|(item, _)| *item == at)) {
                (_, Told::Acked(results, _), Some((_, pop))) => {
                    pops[pop].behind = Behind::Acked(results)
                }
                (Some(client), what, _) => told.push((client, what)),
                (None, ..) => {}
            }
        }
        let mut got: Vec<Vec<PoppedMessage>> = pops.iter().map(|_| Vec::new()).collect();
        for message in reply.popped {
            got[message.pop].push(message);
        }
        let reached = pops.len().saturating_sub(reply.pops_left);
        for (at, (mut waiter, messages)) in pops.into_iter().zip(got).enumerate() {
            let is_reached = at < reached;
            waiter.look = match &call.spare {
                Some(refusal) => Look::Refused(refusal.clone()),
                None if !is_reached => Look::Missing,
                None if reply.paused => Look::Paused,
                None => Look::InVain,
            };
            if waiter.client.is_none() {
                self.hand_back(&waiter, &messages);
            } else if !is_reached || messages.is_empty() && waiter.wanted.until_ms > now_ms {
                self.waiting.enter(waiter);
            } else {
                told.extend(waiter.end(messages));
            }
        }
        self.wake |= reply.ready_left > 0 && !reply.paused;
        // Only a call with pops hears when something is due.
        if looked && !self.waiting.is_empty() {
            let due_in_ms = reply.due_in_ms.unwrap_or(SWEEP_MS).min(SWEEP_MS);
            self.wake_at_ms = now_ms + due_in_ms.max(1);
        }
        told
    }

    /// Takes the news that a call did nothing, or that nobody knows. Pops that wait go on waiting,
    /// unless `all` are to be told; returns what clients are told.
    pub fn failed(
        &mut self,
        call: Call<T>,
        (refusal, all): (&Arc<ErrorReply>, bool),
        now_ms: u64,
    ) -> Vec<(T, Told)> {
        self.end(&call);
        let clients = call.items.into_iter().filter_map(|item| item.client);
        let mut told: Vec<(T, Told)> = clients
            .map(|client| (client, Told::Refused(refusal.clone())))
            .collect();
        for mut waiter in call.pops {
            waiter.look = Look::Refused(refusal.clone());
            let waits = waiter.client.is_some() && waiter.wanted.until_ms > now_ms;
            // Behind an acknowledgement the client has to hear that it is not known to be done.
            if !all && !matches!(waiter.behind, Behind::Ack) && waits {
                self.waiting.enter(waiter);
            } else {
                told.extend(waiter.end(Vec::new()));
            }
        }
        self.wake_at_ms = now_ms + SWEEP_MS;
        told
    }

    fn new_place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    fn end(&mut self, call: &Call<T>) {
        self.calls -= 1;
        self.carried -= call.requests();
        self.pop_calls -= usize::from(!call.pops.is_empty());
    }

    /// Whether pops wait that no call has got to.
    pub fn some_missed(&self) -> bool {
        self.waiting.new_ones() > 0
    }

    /// Ends the waits whose time is over. What no call has looked for yet is looked for first.
    pub fn expire(&mut self, now_ms: u64) -> Vec<(T, Told)> {
        let over = self
            .waiting
            .take(|waiter| !waiter.is_new() && waiter.wanted.until_ms <= now_ms);
        over.into_iter()
            .filter_map(|waiter| waiter.end(Vec::new()))
            .collect()
    }

    /// Gives up everything that is not in a call: the topic is no longer this node's. The first are
    /// requests that were not begun, the second pops that wait.
    pub fn abandon(&mut self) -> (Vec<T>, Vec<Dismissed<T>>) {
        let pending = self.pending.drain(..).filter_map(|item| item.client);
        (pending.collect(), self.dismiss(|_| true))
    }

    /// Gives up the pops that wait of these clients.
    pub fn dismiss(&mut self, which: impl Fn(&T) -> bool) -> Vec<Dismissed<T>> {
        let out = self
            .waiting
            .take(|waiter| waiter.client.as_ref().is_some_and(&which));
        let dismissed = out.into_iter().filter_map(|waiter| match waiter.behind {
            Behind::Acked(_) => {
                let (client, told) = waiter.end(Vec::new())?;
                Some(Dismissed::Done(client, told))
            }
            _ => Some(Dismissed::Waits(waiter.client?, waiter.wanted)),
        });
        dismissed.collect()
    }

    /// Whether every request but pops that wait is answered.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.calls == 0
    }
}

fn paired(receipts: Vec<Receipt>, results: &mut impl Iterator<Item = u64>) -> Vec<(Receipt, u64)> {
    receipts.into_iter().zip(results).collect()
}

impl Ask {
    /// Items and bytes that it adds to a call.
    fn size(&self) -> (usize, usize) {
        match self {
            Ask::Push(messages) => (messages.len(), messages.iter().map(NewMessage::bytes).sum()),
            Ask::Ack(receipts, pop) => (receipts.len() + usize::from(pop.is_some()), 0),
            Ask::Nack(receipts, _) | Ask::Extend(receipts, _) => (receipts.len(), 0),
            Ask::Pop(_) => (1, 0),
        }
    }
}

#[cfg(test)]
mod tests;
