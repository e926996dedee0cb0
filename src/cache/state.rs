//! The cache of one node: everything it keeps and waits for. Plain code: views, requests, messages
//! and `now` in, [`Effect`]s out.

use std::collections::{BTreeMap, VecDeque};

use crate::cache::audit::Audits;
use crate::cache::backups::{Backup, Heard};
use crate::cache::claims::{Claims, Wish};
use crate::cache::copies::{Copied, Fills};
use crate::cache::entry::Key;
use crate::cache::event::Event;
use crate::cache::explain::Counts;
use crate::cache::home::Held;
use crate::cache::memory::Table;
use crate::cache::message::{Confirmed, Message, Old};
use crate::cache::moving::Moving;
use crate::cache::operation::{Answer, Why, Write};
use crate::cache::requests::Requests;
use crate::cache::sweeps::{SweepId, Sweeps};
use crate::cache::through::{Call, CallId};
use crate::cache::uses::Uses;
use crate::cache::writing::Writes;
use crate::ids::{BootId, NodeId};
use crate::view::cluster::{Command, View};
use crate::view::tenure::{Acting, Roster, Step, Tenure};

/// Requests that wait for a lease or for the end of a change of the view.
const PARKED_MAX: usize = 10_000;

/// Who waits for an answer, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter<T> {
    pub ticket: T,
    pub deadline_ms: u64,
}

/// Who asked for a read or a change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum By<T> {
    Client(T),
    /// A client that would load the value if nobody has it.
    Loader(T, Wish),
    /// A sweep of this node's, which removes the key.
    Sweep(SweepId, Key),
}

impl<T> Waiter<T> {
    pub(super) fn by_client(self) -> Waiter<By<T>> {
        Waiter {
            ticket: By::Client(self.ticket),
            deadline_ms: self.deadline_ms,
        }
    }
}

/// What the cache wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<T> {
    Answer {
        ticket: T,
        answer: Answer,
    },
    Send {
        to: NodeId,
        message: Message,
    },
    /// To be said to all nodes, together with others.
    Invalidate(Old),
    /// [`Cache::news`] has something to say, also without others.
    Confirm,
    Event(Event),
    /// Call the store, and say what came of it: [`Cache::store_answered`].
    Call {
        id: CallId,
        call: Call,
    },
    /// Find out whether the lock of a write's fence is held; if so, the write is to be tried again
    /// as it is here.
    LookUp {
        key: Key,
        write: Write,
        waiter: Waiter<T>,
    },
}

/// Parts of the protocol that tests leave out, to see that it is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaws {
    /// A write takes effect before its sharers have acknowledged.
    pub no_wait_for_acknowledgement: bool,
    /// A fill that an invalidation overtakes is installed.
    pub no_detach: bool,
    /// A backup of an earlier view is promoted.
    pub no_purge_of_backups: bool,
    /// Versions do not say under which view they were made.
    pub versions_without_epoch: bool,
    /// A second node does not keep the results of writes.
    pub no_results_at_second: bool,
    /// A repeat of something unknown is executed, also where something may be missing.
    pub repeats_are_new: bool,
    /// A write takes effect before the store has kept it.
    pub no_wait_for_store: bool,
    /// What the store had before an invalidation is installed after it.
    pub no_asking_after_voiding: bool,
    /// What comes with the news of a write is served before that has taken effect.
    pub serves_unconfirmed: bool,
    /// A home keeps no note of the sharers that keep what came with the news.
    pub no_note_of_updates: bool,
    /// That a write has taken effect counts for what came with the news of another.
    pub confirms_any: bool,
}

/// What one node's cache may take and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most that all entries, backups included, may take in bytes.
    pub bytes_max: usize,
    /// Whether each key's second node keeps what its home has; of no use with a store.
    pub backups: bool,
    /// Whether there is a store behind the memory of all nodes.
    pub store: bool,
    /// How long the result of a write with an id is kept.
    pub remember_ms: u64,
}

/// A request that nobody may decide now.
#[derive(Clone, Debug)]
pub(super) struct Parked<T> {
    key: Key,
    /// None to read.
    write: Option<Write>,
    pub(super) waiter: Waiter<T>,
}

/// The cache of one node. `T` stands for whoever asked.
#[derive(Clone, Debug)]
pub struct Cache<T> {
    pub(super) tenure: Tenure,
    pub(super) settings: Settings,
    /// Counts uses of entries, to know which was used least recently.
    pub(super) uses: u64,
    /// Counts the versions that this node gave.
    pub(super) sequence: u64,
    /// Counts the entries with fences that this node keeps no more.
    pub(super) fences_forgotten: u64,
    pub(super) held: Table<Held>,
    pub(super) copies: Table<Copied>,
    pub(super) backups: Table<Backup>,
    pub(super) writes: Writes<By<T>>,
    pub(super) fills: Fills<By<T>>,
    pub(super) sweeps: Sweeps<T>,
    pub(super) audits: Audits<T>,
    pub(super) copy_uses: Uses,
    pub(super) claims: Claims<By<T>>,
    pub(super) requests: Requests,
    /// Counts the calls of the store.
    pub(super) calls: u64,
    /// Of each home that this node is the second of.
    pub(super) heard: BTreeMap<NodeId, Heard>,
    pub(super) parked: VecDeque<Parked<By<T>>>,
    /// Whether nobody waits here any more for the right to decide.
    pub(super) is_dismissed: bool,
    pub(super) moving: Moving,
    /// To be said with the next news.
    pub(super) confirmed: Vec<Confirmed>,
    pub(super) effects: Vec<Effect<T>>,
    pub(super) counts: Counts,
    pub(super) flaws: Flaws,
}

impl<T> Cache<T> {
    /// `lease_ms` is how long this node acts on a view that it read.
    pub fn new((me, boot): (NodeId, BootId), lease_ms: u64, settings: Settings) -> Self {
        Cache {
            tenure: Tenure::new(me, boot, lease_ms),
            settings,
            uses: 0,
            sequence: 0,
            fences_forgotten: 0,
            held: Table::default(),
            copies: Table::default(),
            backups: Table::default(),
            writes: Writes::default(),
            fills: Fills::default(),
            sweeps: Sweeps::default(),
            audits: Audits::default(),
            copy_uses: Uses::default(),
            claims: Claims::default(),
            requests: Requests::default(),
            calls: 0,
            heard: BTreeMap::new(),
            parked: VecDeque::new(),
            is_dismissed: false,
            moving: Moving::default(),
            confirmed: Vec::new(),
            effects: Vec::new(),
            counts: Counts::default(),
            flaws: Flaws::default(),
        }
    }

    /// The same with parts of the protocol left out, for tests.
    #[cfg(test)]
    pub fn with_flaws(self, flaws: Flaws) -> Self {
        Cache { flaws, ..self }
    }

    /// What the calls before want done, in order.
    pub fn take_effects(&mut self) -> Vec<Effect<T>> {
        std::mem::take(&mut self.effects)
    }

    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// What is left of the lease.
    pub fn lease_left_ms(&self, now_ms: u64) -> u64 {
        self.tenure.left_ms(now_ms)
    }

    /// The node that decides about a key, as far as this node knows.
    pub fn home(&self, key: &str) -> Option<NodeId> {
        let home = self.tenure.acting()?.roster.home(key)?;
        Some(home.node)
    }

    /// Changes a key that this node is home to, for a client.
    pub fn write(&mut self, key: Key, write: Write, waiter: Waiter<T>, now_ms: u64) {
        self.write_by(key, write, waiter.by_client(), now_ms);
    }

    /// Whether this node may decide about a key now.
    pub(super) fn may_decide(&self, key: &str, now_ms: u64) -> bool {
        self.tenure
            .held(now_ms)
            .is_some_and(|acting| acting.is_home(key))
    }

    pub(super) fn park(&mut self, key: Key, write: Option<Write>, waiter: Waiter<By<T>>) {
        if self.is_dismissed {
            return self.refuse(waiter, Why::Stopping);
        }
        if self.parked.len() >= PARKED_MAX {
            return self.refuse(waiter, Why::TooMany);
        }
        self.parked.push_back(Parked { key, write, waiter });
    }

    pub(super) fn refuse(&mut self, waiter: Waiter<By<T>>, why: Why) {
        self.answer(waiter.ticket, Answer::Refused(why));
    }

    pub(super) fn answer(&mut self, by: By<T>, answer: Answer) {
        match by {
            By::Client(ticket) | By::Loader(ticket, _) => {
                self.effects.push(Effect::Answer { ticket, answer });
            }
            By::Sweep(sweep, key) => self.swept_key(sweep, key, &answer),
        }
    }

    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        self.effects.push(Effect::Send { to, message });
    }

    /// Takes in a view: `read_at_ms` as for [`Tenure::observe`].
    pub fn observe(&mut self, view: &View, read_at_ms: Option<u64>, now_ms: u64) {
        for step in self.tenure.observe(view, read_at_ms) {
            match step {
                Step::Discard => self.discard(),
                Step::Begin => {
                    self.begin_requests(view, now_ms);
                    self.adopt_arrivals(now_ms);
                    self.begin_sweeps(now_ms);
                }
                Step::Extend => {}
                Step::Freeze => self.freeze(now_ms),
                Step::Adopt(before) => self.adopt(&before, view, now_ms),
            }
        }
        self.forget_results(now_ms);
        self.settle_all(now_ms);
        self.retry(now_ms);
        self.step_sweeps(now_ms);
    }

    /// What this node has to say about the view; arguments as for [`Tenure::commands`].
    pub fn commands(&mut self, view: &View, now_ms: u64, leads: bool) -> Vec<Command> {
        let moved = self.moving.has_moved(now_ms);
        self.tenure.commands(view, (now_ms, leads, moved))
    }

    /// Takes a message of another node.
    pub fn receive(&mut self, from: NodeId, message: Message, now_ms: u64) {
        match message {
            Message::Fetch {
                epoch,
                asker,
                fill,
                key,
                wish,
            } => self.fetch(from, (epoch, asker, fill), (key, wish), now_ms),
            Message::Filled {
                epoch,
                asker,
                fill,
                found,
            } => self.filled(from, (epoch, asker, fill), found, now_ms),
            Message::Store {
                epoch,
                home,
                floor,
                write,
                told_ms,
                key,
                entry,
                done,
            } => {
                let (by, left) = ((epoch, home, floor), (key, entry, done));
                self.store(from, by, (write, told_ms), left, now_ms);
            }
            Message::Move {
                prepared,
                home,
                batch,
                entries,
                past,
            } => self.arrive(from, (prepared, home, batch), (entries, past), now_ms),
            Message::Remember {
                epoch,
                home,
                batch,
                past,
            } => self.take_past(from, (epoch, home, batch), past, now_ms),
            Message::Moved { home, batch } => self.moved(from, home, batch, now_ms),
            Message::Invalidated {
                home,
                writes,
                updated,
            } => {
                self.acknowledged(from, home, (&writes, &updated), now_ms);
                self.step_sweeps(now_ms);
            }
            Message::Stored {
                home,
                write,
                told_ms,
            } => {
                self.stored(from, home, (write, told_ms), now_ms);
                self.step_sweeps(now_ms);
            }
            Message::Sweep {
                epoch,
                asker,
                floor,
                sweep,
                matching,
            } => self.sweep(from, (epoch, asker, floor), (sweep, matching), now_ms),
            Message::Swept {
                asker,
                sweep,
                removed,
            } => self.swept(from, (asker, sweep), removed),
            Message::Used { keys } => self.used(&keys),
            Message::Compare { asker, audit, keys } => {
                self.compare(from, (asker, audit), keys, now_ms);
            }
            Message::Compared {
                asker,
                audit,
                found,
            } => self.compared(from, (asker, audit), found, now_ms),
        }
    }

    fn discard(&mut self) {
        self.fences_forgotten += 1;
        self.held.clear();
        self.copies.clear();
        self.backups.clear();
        self.requests.clear();
        self.heard.clear();
        self.confirmed.clear();
        self.forget_moving();
        self.abandon_writes(|_| true);
        self.abandon_fills(|_| true);
        self.forget_sweeps();
        self.forget_claims();
    }

    /// Copies of what moves are not kept up to date any more.
    fn freeze(&mut self, now_ms: u64) {
        let Some(acting) = self.tenure.acting() else {
            return;
        };
        self.copies.retain(|key, _| !acting.moves(key));
        let moving: Vec<Key> = self.fills.attached(|key| acting.moves(key));
        for key in moving {
            self.fills.detach(&key);
        }
        self.forget_arrivals();
        self.forget_arriving_results();
        self.begin_moving(now_ms);
    }

    fn adopt(&mut self, before: &Roster, view: &View, now_ms: u64) {
        let Some(acting) = self.tenure.acting() else {
            return;
        };
        let (roster, me) = (acting.roster.clone(), acting.stay);
        self.fences_forgotten += 1;
        let stays_home = |key: &str| roster.home(key) == before.home(key);
        self.copies.retain(|key, _| stays_home(key));
        self.held.retain(|key, _| roster.home(key) == Some(me));
        self.adopt_sharers(before, &roster);
        self.adopt_backups(before, &roster, now_ms);
        self.adopt_requests(before, view, now_ms);
        self.adopt_arrivals(now_ms);
        self.stop_moving();
        self.begin_refresh(before, &roster);
        self.abandon_writes(|key| roster.home(key) != Some(me));
        self.adopt_writes(before, &roster, now_ms);
        self.abandon_fills(|key| !stays_home(key));
        self.forget_sweeps();
        self.forget_claims();
        self.begin_sweeps(now_ms);
    }

    /// Lets time pass: sends again what was not answered, ends what nobody waits for any more.
    pub fn tick(&mut self, now_ms: u64) {
        self.forget_results(now_ms);
        self.tick_writes(now_ms);
        self.tick_fills(now_ms);
        self.tick_moving(now_ms);
        let parked = std::mem::take(&mut self.parked);
        for parked in parked {
            match parked.waiter.deadline_ms <= now_ms {
                true => self.refuse(parked.waiter, Why::NoLease),
                false => self.parked.push_back(parked),
            }
        }
        self.settle_all(now_ms);
        self.retry(now_ms);
        self.tick_sweeps(now_ms);
        self.end_audits(now_ms);
        self.tick_uses(now_ms);
        self.tick_updates();
        self.tick_claims(now_ms);
        self.trim(now_ms);
    }

    /// Whether values or results are on their way to other nodes since the view changes, or has changed.
    pub fn is_moving(&self) -> bool {
        self.moving.waits()
    }

    /// Whether [`Cache::tick`] has anything to look after.
    pub fn waits(&self) -> bool {
        !self.parked.is_empty()
            || !self.writes.is_empty()
            || !self.fills.is_empty()
            || self.is_moving()
            || self.sweeps.waits()
            || self.audits.waits()
            || self.copy_uses.waits()
            || !self.confirmed.is_empty()
            || self.claims.waits()
    }

    fn retry(&mut self, now_ms: u64) {
        for Parked { key, write, waiter } in std::mem::take(&mut self.parked) {
            match write {
                None => self.read_by(key, waiter, now_ms),
                Some(write) => self.write_by(key, write, waiter, now_ms),
            }
        }
    }

    pub(super) fn acting(&self) -> &Acting {
        self.tenure.acting().expect("asked for only while acting")
    }
}
