//! Sweeps: the removal of everything that matches, wherever it is. Plain code.
//!
//! ```text
//!   client ─► asked node ─ Sweep ─► each member of the view ─ deletes what it is home to
//!                 ▲                             │
//!                 └────────── Swept ────────────┘ all of it is deleted, and every write is over
//!                                                 that had begun when the sweep came
//! ```
//!
//! A home removes each key by an ordinary delete, which waits in its turn for writes of the key, and
//! takes effect when no node has a copy. What a write under way will leave is removed likewise: if it is set
//! under a claim it was loaded before the sweep. The home also waits for the writes that had begun before: an
//! entry that makes room for others is gone from the home while copies of it may be left.
//!
//! **Why nothing is missed.** A home says that it is done only while it holds the lease and has seen no
//! preparation: then the view of the sweep is still the active one, for no other can become active
//! before this home has frozen or its lease is over. So when all members of one view have said so,
//! each key was removed by the only node that decided about it. When the view changes, the sweep
//! begins anew in the next one.

use std::collections::BTreeMap;

use crate::cache::entry::{Key, NEVER};
use crate::cache::event::Event;
use crate::cache::home::Held;
use crate::cache::message::{Matching, Message};
use crate::cache::operation::{Answer, Change, Operation, Why};
use crate::cache::state::{By, Cache, Effect, Waiter};
use crate::cache::through::Voiding;
use crate::cache::writing::Doing;
use crate::ids::{Epoch, Incarnation, NodeId};
use crate::view::tenure::{Acting, Stay};

/// Sweeps that clients wait for at one node; a further one is refused as overloaded.
const SWEEPS_MAX: usize = 64;
/// The same of one tenant, so that it leaves room for others.
const SWEEPS_OF_TENANT_MAX: usize = 32;
/// Keys that one sweep removes at once at one home.
const OPEN_MAX: usize = 1_000;
/// Keys that one sweep begins to remove in one go.
const STEP_MAX: usize = 4_000;
/// How long until members are told again, at first; it doubles up to the greatest.
const TELL_AGAIN_MS: u64 = 40;
const TELL_AGAIN_MS_MAX: u64 = 320;

/// A sweep: who carries it out for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SweepId {
    asker: Stay,
    number: u64,
}

/// A sweep that a client of this node waits for.
#[derive(Clone, Debug)]
struct Asked<T> {
    matching: Matching,
    waiter: Waiter<T>,
    /// The members that are not done; none of them is known while this node is in no view.
    pending: Vec<Stay>,
    removed: u64,
    again_at_ms: u64,
    pause_ms: u64,
}

/// A sweep of what this node is home to.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) matching: Matching,
    /// What the store has of it; none once that is void, or without a store.
    pub(super) voiding: Option<Voiding>,
    /// What is not being removed yet.
    left: Vec<Key>,
    /// How many keys are being removed.
    open: usize,
    /// Every write below this one has to be over.
    after: u64,
    removed: u64,
}

/// The sweeps under way.
#[derive(Clone, Debug)]
pub struct Sweeps<T> {
    asked: BTreeMap<u64, Asked<T>>,
    last: u64,
    pub(super) taken: BTreeMap<SweepId, Taken>,
    /// What was removed by each that is done, until its asker says that it is over.
    done: BTreeMap<SweepId, u64>,
    /// Below which sweep of each asker everything is over.
    floors: BTreeMap<Stay, u64>,
}

impl<T> Default for Sweeps<T> {
    fn default() -> Self {
        Sweeps {
            asked: BTreeMap::new(),
            last: 0,
            taken: BTreeMap::new(),
            done: BTreeMap::new(),
            floors: BTreeMap::new(),
        }
    }
}

impl<T> Sweeps<T> {
    pub fn waits(&self) -> bool {
        !self.asked.is_empty() || !self.taken.is_empty()
    }
}

impl<T> Cache<T> {
    /// Removes everything that matches, for a client.
    pub fn invalidate(&mut self, matching: Matching, waiter: Waiter<T>, now_ms: u64) {
        let asked = self.sweeps.asked.values().map(|asked| &asked.matching);
        let of_tenant = matching.account().map_or(0, |account| {
            let same = |one: &&Matching| one.account() == Some(account);
            asked.filter(same).count()
        });
        if self.sweeps.asked.len() >= SWEEPS_MAX || of_tenant >= SWEEPS_OF_TENANT_MAX {
            return self.refuse(waiter.by_client(), Why::TooMany);
        }
        let asked = Asked {
            matching,
            waiter,
            pending: Vec::new(),
            removed: 0,
            again_at_ms: 0,
            pause_ms: TELL_AGAIN_MS,
        };
        self.sweeps.last += 1;
        self.sweeps.asked.insert(self.sweeps.last, asked);
        self.begin_sweep(self.sweeps.last, now_ms);
    }

    /// Begins the sweeps that clients wait for, under the view that this node acts on now.
    pub(super) fn begin_sweeps(&mut self, now_ms: u64) {
        for (_, mut asked) in std::mem::take(&mut self.sweeps.asked) {
            // What members say of the former view counts no more.
            asked.pending = Vec::new();
            self.sweeps.last += 1;
            self.sweeps.asked.insert(self.sweeps.last, asked);
            self.begin_sweep(self.sweeps.last, now_ms);
        }
    }

    fn begin_sweep(&mut self, number: u64, now_ms: u64) {
        if let (Some(acting), Some(asked)) =
            (self.tenure.acting(), self.sweeps.asked.get_mut(&number))
        {
            asked.pending = acting.roster.stays().to_vec();
            asked.pause_ms = TELL_AGAIN_MS;
            self.tell_sweep(number, now_ms);
        }
    }

    /// Tells every member that is not done.
    fn tell_sweep(&mut self, number: u64, now_ms: u64) {
        let (epoch, me) = (self.acting().epoch, self.acting().stay);
        let floor = self.sweeps.asked.keys().next().copied().unwrap_or(number);
        let Some(asked) = self.sweeps.asked.get_mut(&number) else {
            return;
        };
        asked.again_at_ms = now_ms + asked.pause_ms;
        let (pending, matching) = (asked.pending.clone(), asked.matching.clone());
        for stay in pending.iter().filter(|stay| **stay != me) {
            let message = Message::Sweep {
                epoch,
                asker: me.incarnation,
                floor,
                sweep: number,
                matching: matching.clone(),
            };
            self.send(stay.node, message);
        }
        if pending.contains(&me) {
            let asker = (epoch, me.incarnation, floor);
            self.sweep(me.node, asker, (number, matching), now_ms);
        }
    }

    /// Begins to remove what matches, for a member of the same view.
    pub(super) fn sweep(
        &mut self,
        from: NodeId,
        (epoch, asker, floor): (Epoch, Incarnation, u64),
        (number, matching): (u64, Matching),
        now_ms: u64,
    ) {
        let Some(acting) = self.tenure.acting() else {
            return;
        };
        let asker = Stay {
            node: from,
            incarnation: asker,
        };
        if acting.epoch != epoch || acting.roster.stay(from) != Some(asker) {
            return;
        }
        let known = self.sweeps.floors.entry(asker).or_default();
        *known = floor.max(*known);
        let floor = *known;
        let sweep = SweepId { asker, number };
        let is_over = |id: &SweepId| id.asker == asker && id.number < floor;
        self.sweeps.taken.retain(|id, _| !is_over(id));
        self.sweeps.done.retain(|id, _| !is_over(id));
        if let Some(removed) = self.sweeps.done.get(&sweep) {
            return self.say_swept(sweep, *removed);
        }
        if is_over(&sweep) || self.sweeps.taken.contains_key(&sweep) {
            return;
        }
        self.void_claims(&matching, now_ms);
        let taken = Taken {
            voiding: self.settings.store.then(Voiding::default),
            left: self.to_sweep(&matching),
            open: 0,
            after: self.writes.next_id(),
            removed: 0,
            matching,
        };
        self.sweeps.taken.insert(sweep, taken);
        if self.settings.store {
            self.ask_again_after_voiding();
        }
        self.step_sweep(sweep, now_ms);
    }

    /// The keys of what matches and is here, or will be by a write under way.
    fn to_sweep(&self, matching: &Matching) -> Vec<Key> {
        let is_here = |key: &Key, held: &Held| matching.is_of(key, &held.entry);
        let mut keys = self.held.keys_where(is_here);
        let writes = self.writes.by_key.iter();
        keys.extend(writes.filter_map(|(key, writing)| {
            let is_new = self.held.peek(key).is_none_or(|held| !is_here(key, held));
            let is_put = matches!(&writing.doing,
                Doing::Change(Change::Put(entry)) if matching.is_of(key, entry));
            (is_new && is_put).then(|| key.clone())
        }));
        keys
    }

    /// Lets this node's part of each sweep go on.
    pub(super) fn step_sweeps(&mut self, now_ms: u64) {
        let sweeps: Vec<SweepId> = self.sweeps.taken.keys().copied().collect();
        for sweep in sweeps {
            self.step_sweep(sweep, now_ms);
        }
    }

    pub(super) fn step_sweep(&mut self, sweep: SweepId, now_ms: u64) {
        if self.settings.store && self.is_voiding_for(sweep, now_ms) {
            return;
        }
        for _ in 0..STEP_MAX {
            let taken = self.sweeps.taken.get_mut(&sweep);
            let Some(taken) = taken.filter(|taken| taken.open < OPEN_MAX) else {
                break;
            };
            let Some(key) = taken.left.pop() else {
                break;
            };
            taken.open += 1;
            let left = taken.left.len();
            let waiter = Waiter {
                ticket: By::Sweep(sweep, key.clone()),
                deadline_ms: NEVER,
            };
            self.write_by(key, Operation::Invalidate.into(), waiter, now_ms);
            let is_back = |taken: &Taken| taken.left.len() > left;
            if self.sweeps.taken.get(&sweep).is_some_and(is_back) {
                // There is no room for it now.
                break;
            }
        }
        let Some(taken) = self.sweeps.taken.get(&sweep) else {
            return;
        };
        let is_removed = taken.left.is_empty() && taken.open == 0;
        let is_active = |acting: &Acting| acting.preparation().is_none();
        if is_removed
            && taken.after <= self.writes.floor()
            && self.tenure.held(now_ms).is_some_and(is_active)
        {
            let removed = taken.removed;
            self.sweeps.taken.remove(&sweep);
            self.sweeps.done.insert(sweep, removed);
            self.say_swept(sweep, removed);
        }
    }

    /// One key of a sweep is removed, or could not be now.
    pub(super) fn swept_key(&mut self, sweep: SweepId, key: Key, answer: &Answer) {
        let Some(taken) = self.sweeps.taken.get_mut(&sweep) else {
            return;
        };
        taken.open -= 1;
        match answer {
            Answer::Removed { existed } => taken.removed += u64::from(*existed),
            _ => taken.left.push(key),
        }
    }

    fn say_swept(&mut self, SweepId { asker, number }: SweepId, removed: u64) {
        if asker.node == self.tenure.me() {
            return self.swept(asker.node, (asker.incarnation, number), removed);
        }
        let message = Message::Swept {
            asker: asker.incarnation,
            sweep: number,
            removed,
        };
        self.send(asker.node, message);
    }

    /// A member has removed all that it is home to.
    pub(super) fn swept(
        &mut self,
        from: NodeId,
        (asker, number): (Incarnation, u64),
        removed: u64,
    ) {
        let mine = self.tenure.acting().map(|acting| acting.stay.incarnation);
        let Some(asked) = self.sweeps.asked.get_mut(&number) else {
            return;
        };
        let place = asked.pending.iter().position(|stay| stay.node == from);
        let (true, Some(place)) = (mine == Some(asker), place) else {
            return;
        };
        asked.pending.swap_remove(place);
        asked.removed += removed;
        if asked.pending.is_empty()
            && let Some(asked) = self.sweeps.asked.remove(&number)
        {
            self.effects.push(Effect::Event(Event::invalidated(
                asked.matching,
                asked.removed,
            )));
            self.effects.push(Effect::Answer {
                ticket: asked.waiter.ticket,
                answer: Answer::Swept {
                    removed: asked.removed,
                },
            });
        }
    }

    /// Ends this node's part of all sweeps: who asked begins them anew under the next view.
    pub(super) fn forget_sweeps(&mut self) {
        self.sweeps.taken.clear();
        self.sweeps.done.clear();
        self.parked
            .retain(|parked| !matches!(parked.waiter.ticket, By::Sweep(..)));
        let stays: Vec<Stay> = match self.tenure.acting() {
            Some(acting) => acting.roster.stays().to_vec(),
            None => Vec::new(),
        };
        self.sweeps.floors.retain(|asker, _| stays.contains(asker));
    }

    /// Ends the sweeps that clients have given up by now.
    pub(super) fn end_sweeps(&mut self, now_ms: u64) {
        let is_late = |asked: &Asked<T>| asked.waiter.deadline_ms <= now_ms;
        for (_, asked) in self.sweeps.asked.extract_if(.., |_, asked| is_late(asked)) {
            let why = match asked.pending.is_empty() {
                true => Why::NoLease,
                false => Why::Indeterminate,
            };
            self.effects.push(Effect::Answer {
                ticket: asked.waiter.ticket,
                answer: Answer::Refused(why),
            });
        }
    }

    pub(super) fn tick_sweeps(&mut self, now_ms: u64) {
        self.end_sweeps(now_ms);
        if self.tenure.acting().is_some() {
            let due = self.sweeps.asked.iter_mut();
            let due = due.filter(|(_, asked)| asked.again_at_ms <= now_ms);
            let due: Vec<u64> = due
                .map(|(number, asked)| {
                    asked.pause_ms = (asked.pause_ms * 2).min(TELL_AGAIN_MS_MAX);
                    *number
                })
                .collect();
            for number in due {
                self.tell_sweep(number, now_ms);
            }
        }
        self.step_sweeps(now_ms);
    }
}
