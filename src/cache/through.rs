//! A store behind the memory of all nodes: writes go through to it, and what is not in memory is asked of it.
//! Plain code; [`store`](crate::cache::store) makes the calls.
//!
//! ```text
//!                 a write                          Keep, until the store has it
//!   settled ------------------> writing (writes.rs) ---------------------------> settled
//!
//!            a read or a write of                 Brought
//!   absent --what is not in memory--> bringing -----------> in memory, or known to be nowhere
//!                                        |
//!                                        +--the store is away--> who waits is refused
//! ```
//!
//! **What the home may say.** A value is served from the home's memory only when the store has it, or something
//! that the same home wrote later: so whatever becomes of the home, nothing older is ever read from the store.
//! A write whose call may have been executed is called for again until the store has answered, also when its
//! client has given up. One that was certainly not executed is undone: it has told sharers to drop their copies,
//! and nothing else.
//!
//! **Old homes.** Each call carries the epoch of its home's view. The store keeps the highest that it has seen,
//! by reads too, and refuses calls of a lower one. Thus what a new home reads is what there will be until it
//! writes itself: no late call of a home before it comes after. Calls of one node are executed in the order of
//! its connections: one that comes over an earlier connection than another call of the node did is refused.
//!
//! **What the store takes the place of.** Second nodes keep nothing, and nothing moves with a change of the view: a
//! new home asks the store, which alone has what is certain to be the latest. Results of writes with ids are kept
//! there in the same step as what the write leaves.
//!
//! **Invalidations.** The store keeps for each tag and prefix, and for all, when it was invalidated last, counted in
//! its own writes; a value that was kept before is void. Nothing is asked of it meanwhile, and what it answers to
//! earlier questions does not count: it may be from before.

use crate::cache::entry::{Entry, Key, Sent, Version, cost};
use crate::cache::home::{Held, Reader};
use crate::cache::message::{Found, Matching};
use crate::cache::operation::{Change, Source, Why, Write};
use crate::cache::requests::Done;
use crate::cache::state::{By, Cache, Effect, Waiter};
use crate::cache::sweeps::SweepId;
use crate::cache::writes::{QUEUE_MAX, WRITES_MAX, removal_cost};
use crate::cache::writing::{Doing, Writing};
use crate::ids::Epoch;

/// How long until the store is told of an invalidation again.
const VOID_AGAIN_MS: u64 = 100;

/// What the store is asked to do, under the epoch of the view that its home acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Keep what a write leaves of a key, and its result if it had an id. Done again it changes nothing.
    Keep {
        epoch: Epoch,
        key: Key,
        version: Version,
        /// None when there is no value any more.
        entry: Option<Sent>,
        done: Option<Done>,
    },
    /// Say what there is of a key, and what became of the write with this id.
    Bring {
        epoch: Epoch,
        key: Key,
        id: Option<Key>,
    },
    /// Everything that matches and is kept now is void.
    Void { epoch: Epoch, matching: Matching },
}

impl Call {
    /// That of the view which its home acts on.
    pub fn epoch(&self) -> Epoch {
        match self {
            Call::Keep { epoch, .. } | Call::Bring { epoch, .. } | Call::Void { epoch, .. } => {
                *epoch
            }
        }
    }

    /// Whether the store needs room for what it is to keep.
    pub fn keeps_a_value(&self) -> bool {
        matches!(self, Call::Keep { entry: Some(_), .. })
    }
}

/// Which call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId {
    number: u64,
    about: About,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// The write, or question, with this id.
    Key(u64),
    Sweep(SweepId),
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is kept, or void.
    Done,
    Brought {
        entry: Option<Sent>,
        /// The result that was asked for, and how much longer it is kept.
        done: Option<(Done, u64)>,
    },
    /// Nothing was changed: the store has seen a call of a newer view, or over a newer connection.
    Fenced,
    /// Nothing was changed: the store cannot be asked now.
    Away,
    /// It may have been executed, or may be yet.
    Unknown,
}

/// A write that the store has not kept, or a question that it has not answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Through {
    /// The number of the call under way.
    call: Option<u64>,
    /// When it was made.
    called_ms: u64,
    /// Whether a call may have been executed that nobody knows the outcome of.
    may_be_kept: bool,
}

/// What the store has of a sweep is not void yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Voiding {
    call: Option<u64>,
    again_at_ms: u64,
}

impl<T> Cache<T> {
    /// Whether a write waits for what the store has.
    pub(super) fn is_to_bring(
        &self,
        key: &Key,
        write: &Write,
        has_none: bool,
        now_ms: u64,
    ) -> bool {
        let is_unknown = !has_none && self.held.peek(key).is_none() && !self.claims.is_claimed(key);
        (is_unknown && write.operation.needs_value()) || self.is_to_seek(key, write, now_ms)
    }

    /// Asks the store for a write of a key.
    pub(super) fn bring_for_write(
        &mut self,
        key: Key,
        write: Write,
        waiter: Waiter<By<T>>,
        now_ms: u64,
    ) {
        match self.begin_to_bring(&key, write.id.clone(), now_ms) {
            Some(bringing) => bringing.queue.push_back((write, waiter)),
            None => self.refuse(waiter, Why::TooMany),
        }
    }

    /// Asks the store for a reader of a key, or lets it wait for the write or question that is under way.
    pub(super) fn bring_for_reader(&mut self, key: Key, reader: Reader<By<T>>, now_ms: u64) {
        let under_way = match self.writes.contains(&key) {
            true => self.writes.by_key.get_mut(&key),
            false => self.begin_to_bring(&key, None, now_ms),
        };
        match under_way.filter(|under_way| under_way.readers.len() < QUEUE_MAX) {
            Some(under_way) => under_way.readers.push(reader),
            None => self.say(reader, Found::NotNow),
        }
    }

    fn begin_to_bring(
        &mut self,
        key: &Key,
        id: Option<Key>,
        now_ms: u64,
    ) -> Option<&mut Writing<By<T>>> {
        let bytes = removal_cost(key);
        if self.writes.len() >= WRITES_MAX || !self.make_room(bytes, key, now_ms) {
            return None;
        }
        self.counts.store_reads += 1;
        let number = self.writes.next_id();
        let doing = (Doing::Bring(id), Version::default());
        let mut bringing = Writing::new(number, doing, bytes, now_ms);
        bringing.through = Some(Through::default());
        self.writes.insert(key.clone(), bringing);
        self.call_store(key, now_ms);
        self.writes.by_key.get_mut(key)
    }

    /// Calls the store about a key, unless a call is under way, or none is needed.
    pub(super) fn call_store(&mut self, key: &Key, now_ms: u64) {
        let epoch = self.acting().epoch;
        let is_voiding = self.is_voiding();
        let Some(writing) = self.writes.by_key.get_mut(key) else {
            return;
        };
        let Some(through) = writing.through.as_mut().filter(|t| t.call.is_none()) else {
            return;
        };
        let key = key.clone();
        let call = match &writing.doing {
            Doing::Bring(_) if is_voiding => return,
            Doing::Bring(id) => Call::Bring {
                epoch,
                key,
                id: id.clone(),
            },
            Doing::Change(change) => Call::Keep {
                epoch,
                key,
                version: writing.version,
                entry: match change {
                    Change::Put(entry) => Some(entry.sent(now_ms)),
                    Change::Remove(_) => None,
                },
                done: writing.origin.as_ref().and_then(|o| o.done.clone()),
            },
        };
        self.calls += 1;
        through.call = Some(self.calls);
        through.called_ms = now_ms;
        let id = CallId {
            number: self.calls,
            about: About::Key(writing.id),
        };
        self.effects.push(Effect::Call { id, call });
    }

    /// Takes what came of a call of the store.
    pub fn store_answered(&mut self, id: CallId, outcome: Outcome, now_ms: u64) {
        match id.about {
            About::Key(write) => self.key_answered((write, id.number), outcome, now_ms),
            About::Sweep(sweep) => self.sweep_answered((sweep, id.number), &outcome, now_ms),
        }
        self.step_sweeps(now_ms);
    }

    fn key_answered(&mut self, (write, number): (u64, u64), outcome: Outcome, now_ms: u64) {
        let Some(key) = self.writes.by_id.get(&write).cloned() else {
            return;
        };
        let writing = self.writes.by_key.get_mut(&key).expect("it has this id");
        let through = writing.through.as_mut();
        let Some(through) = through.filter(|through| through.call == Some(number)) else {
            return;
        };
        through.call = None;
        match outcome {
            Outcome::Done => {
                self.counts.store_writes += 1;
                writing.through = None;
                self.settle(&key, now_ms);
            }
            Outcome::Brought { entry, done } => self.brought(key, entry, done, now_ms),
            // It is called for again when the view of now is known.
            Outcome::Fenced => {}
            Outcome::Away => self.store_failed(&key),
            Outcome::Unknown => {
                through.may_be_kept = true;
                self.store_failed(&key);
            }
        }
    }

    /// Refuses who waits for the store. What is certain to have changed nothing is over.
    fn store_failed(&mut self, key: &Key) {
        self.counts.store_errors += 1;
        let writing = self.writes.by_key.get_mut(key).expect("it was called for");
        let may_be_kept = writing.through.as_ref().is_some_and(|t| t.may_be_kept);
        let readers = std::mem::take(&mut writing.readers);
        let queue = std::mem::take(&mut writing.queue);
        if matches!(writing.doing, Doing::Bring(_)) || !may_be_kept {
            let over = self.writes.remove(key).expect("it was just there");
            self.refuse_origin(over.origin, Why::StoreAway);
        }
        for reader in readers {
            self.say(reader, Found::StoreAway);
        }
        for (_, waiter) in queue {
            self.refuse(waiter, Why::StoreAway);
        }
    }

    /// Takes what the store has of a key, and lets go on who waits for it.
    fn brought(&mut self, key: Key, sent: Option<Sent>, done: Option<(Done, u64)>, now_ms: u64) {
        let over = self.writes.remove(&key).expect("it was asked for");
        let Doing::Bring(sought) = over.doing else {
            unreachable!("what is kept is not brought");
        };
        let epoch = self.acting().epoch;
        let decides = self.may_decide(&key, now_ms);
        let is_unknown = decides && self.held.peek(&key).is_none();
        let mut why = None;
        if let Some(done) = done.filter(|_| decides)
            && !self.remember_brought(&key, done, now_ms)
        {
            why = Some(Why::TooManyIds);
        }
        let called_ms = over.through.map_or(0, |through| through.called_ms);
        // What is left of its lifetime counts from when the store was asked: nobody knows how long the answer
        // was on its way.
        let entry = sent.map(|sent| {
            let mut entry = sent.kept(called_ms).unread();
            entry.read(now_ms);
            entry
        });
        let entry = entry.filter(|entry| is_unknown && entry.is_live(now_ms));
        let has_none = is_unknown && entry.is_none();
        if let Some(entry) = entry
            && !self.install(&key, entry, now_ms)
        {
            why = Some(Why::Full);
        }
        if let Some(why) = why {
            for reader in over.readers {
                self.say(reader, Found::NotNow);
            }
            for (_, waiter) in over.queue {
                self.refuse(waiter, why);
            }
            return;
        }
        for reader in over.readers {
            match has_none {
                true => self.have_none(key.clone(), reader, now_ms),
                false => self.read_from(key.clone(), reader, Source::Store, now_ms),
            }
        }
        for (mut write, waiter) in over.queue {
            // What was not taken in is asked for again.
            if decides && sought.is_some() && write.id == sought {
                write.sought = Some(epoch);
            }
            self.write_knowing(key.clone(), (write, waiter), has_none, now_ms);
        }
        self.trim(now_ms);
    }

    /// Keeps in memory what the store had; false if there is no room.
    fn install(&mut self, key: &Key, entry: Entry, now_ms: u64) -> bool {
        let bytes = cost(key, &entry);
        let is_room = self.make_room(bytes, key, now_ms);
        if is_room {
            self.uses += 1;
            let held = Held::unshared(entry);
            self.held.insert(key.clone(), (held, bytes), self.uses);
        }
        is_room
    }

    /// Whether the store has not said that something is void.
    fn is_voiding(&self) -> bool {
        let mut taken = self.sweeps.taken.values();
        taken.any(|taken| taken.voiding.is_some())
    }

    /// A sweep has begun: what the store answers to questions from before may be from before it.
    pub(super) fn ask_again_after_voiding(&mut self) {
        if self.flaws.no_asking_after_voiding {
            return;
        }
        for writing in self.writes.by_key.values_mut() {
            if let (Doing::Bring(_), Some(through)) = (&writing.doing, &mut writing.through) {
                through.call = None;
            }
        }
    }

    /// Whether what the store has of a sweep is not void; then the store is told, if it is time.
    pub(super) fn is_voiding_for(&mut self, sweep: SweepId, now_ms: u64) -> bool {
        let Some(taken) = self.sweeps.taken.get_mut(&sweep) else {
            return false;
        };
        let Some(voiding) = &mut taken.voiding else {
            return false;
        };
        if voiding.call.is_none() && voiding.again_at_ms <= now_ms {
            self.calls += 1;
            voiding.call = Some(self.calls);
            let id = CallId {
                number: self.calls,
                about: About::Sweep(sweep),
            };
            let matching = taken.matching.clone();
            let epoch = self.acting().epoch;
            let call = Call::Void { epoch, matching };
            self.effects.push(Effect::Call { id, call });
        }
        true
    }

    fn sweep_answered(&mut self, (sweep, number): (SweepId, u64), outcome: &Outcome, now_ms: u64) {
        let Some(taken) = self.sweeps.taken.get_mut(&sweep) else {
            return;
        };
        let voiding = taken.voiding.as_mut();
        let Some(voiding) = voiding.filter(|voiding| voiding.call == Some(number)) else {
            return;
        };
        voiding.call = None;
        voiding.again_at_ms = now_ms + VOID_AGAIN_MS;
        if *outcome == Outcome::Done {
            taken.voiding = None;
        }
        let is_bringing = |writing: &Writing<By<T>>| matches!(writing.doing, Doing::Bring(_));
        let waiting = self.writes.by_key.iter();
        let waiting = waiting.filter(|(_, writing)| is_bringing(writing));
        let waiting: Vec<Key> = waiting.map(|(key, _)| key.clone()).collect();
        match outcome {
            Outcome::Done | Outcome::Brought { .. } => {
                for key in waiting {
                    self.call_store(&key, now_ms);
                }
            }
            Outcome::Fenced => {}
            Outcome::Away | Outcome::Unknown => {
                self.counts.store_errors += 1;
                for key in waiting {
                    self.store_failed(&key);
                }
            }
        }
    }
}
