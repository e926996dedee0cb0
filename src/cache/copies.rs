//! Copies of what other nodes are home to, and the questions that bring them. Plain code.
//!
//! ```text
//!            a reader asks: Fetch                 Filled, and the home knows of the copy
//!   absent ------------------------> filling ------------------------------------------> valid
//!     ^  ^                              |                                                   |
//!     |  +---- Invalidation: detached --+            Invalidation, deadline, eviction       |
//!     +-------------------------------------------------------------------------------------+
//! ```
//!
//! News of a write may bring what it will leave: then a valid copy becomes an unconfirmed one
//! ([`updates`](crate::cache::updates)).
//!
//! A fill that an invalidation overtakes is detached: those who wait for it may have the answer, since
//! they asked before the write took effect, but it is not installed, and who asks later asks anew. An
//! answer of which the home keeps no note, or that comes when the lease is over, counts only for those who
//! asked before the question left.
//!
//! The question of several loaders is that of the one who waits longest: the home lets it wait so long, and the
//! claim that it may give lasts as long as this one asked. For those whose waits are over earlier it is asked
//! anew, which the home answers at once.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::cache::claims::Wish;
use crate::cache::entry::{Entry, Key, NEVER, Sent, cost};
use crate::cache::message::{Found, Invalidation, Message};
use crate::cache::operation::{Answer, Hit, Source, Why};
use crate::cache::state::{By, Cache, Waiter};
use crate::ids::{Epoch, Incarnation, NodeId};
use crate::view::tenure::{DRIFT_PERCENT, Stay};

/// Questions open at once; a further one is refused as overloaded.
const FILLS_MAX: usize = 20_000;
/// Readers of one key that wait for one question.
const WAITERS_MAX: usize = 10_000;
/// How long until a question is asked again, at first; it doubles up to the greatest.
const ASK_AGAIN_MS: u64 = 40;
const ASK_AGAIN_MS_MAX: u64 = 320;

/// A value that another node is home to. Its lifetime ends here before it does there.
#[derive(Clone, Debug)]
pub struct Copied {
    pub entry: Entry,
    /// Whether the home is to hear of the next use.
    pub(super) tells: bool,
    /// Whether it may be served: false until the write that left it is known to have taken effect.
    pub(super) is_confirmed: bool,
    /// How many writes it has followed without being read.
    pub(super) unread: u8,
}

impl Copied {
    /// What the home had.
    fn filled(entry: Entry, tells: bool) -> Self {
        Copied {
            entry,
            tells,
            is_confirmed: true,
            unread: 0,
        }
    }
}

/// A question to a home.
#[derive(Clone, Debug)]
struct Fill<T> {
    key: Key,
    home: Stay,
    /// When it was first asked.
    sent_ms: u64,
    again_at_ms: u64,
    pause_ms: u64,
    /// Whether it is asked for loaders.
    is_load: bool,
    /// Who asked before the question left, of loaders the one first who waits longest; then who came later.
    starters: Vec<Waiter<T>>,
    joined: Vec<Waiter<T>>,
}

/// The open questions.
#[derive(Clone, Debug)]
pub struct Fills<T> {
    by_id: BTreeMap<u64, Fill<T>>,
    /// Those whose answer may be installed: of readers, and of loaders.
    by_key: BTreeMap<Key, u64>,
    of_loaders: BTreeMap<Key, u64>,
    last_id: u64,
}

impl<T> Default for Fills<T> {
    fn default() -> Self {
        Fills {
            by_id: BTreeMap::new(),
            by_key: BTreeMap::new(),
            of_loaders: BTreeMap::new(),
            last_id: 0,
        }
    }
}

impl<T> Fills<T> {
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The keys for which `wanted`, of fills that may be installed.
    pub fn attached(&self, wanted: impl Fn(&Key) -> bool) -> Vec<Key> {
        let keys = self.by_key.keys().chain(self.of_loaders.keys());
        keys.filter(|key| wanted(key)).cloned().collect()
    }

    /// The answer of the key's fill will not be installed.
    pub fn detach(&mut self, key: &str) {
        self.by_key.remove(key);
        self.of_loaders.remove(key);
    }

    fn attached_for(&mut self, is_load: bool) -> &mut BTreeMap<Key, u64> {
        match is_load {
            true => &mut self.of_loaders,
            false => &mut self.by_key,
        }
    }

    /// The fill, which is over; and whether its answer may be installed.
    fn close(&mut self, id: u64) -> Option<(Fill<T>, bool)> {
        let fill = self.by_id.remove(&id)?;
        let attached = self.attached_for(fill.is_load);
        let is_attached = attached.get(&fill.key) == Some(&id);
        if is_attached {
            attached.remove(&fill.key);
        }
        Some((fill, is_attached))
    }
}

impl<T> Fill<By<T>> {
    /// What the question says of the loader for whom it is asked.
    fn wish(&self) -> Option<Wish> {
        self.starters.first().and_then(|first| first.ticket.wish())
    }

    /// Whether the home may let the question wait.
    fn may_wait(&self, now_ms: u64) -> bool {
        self.wish().is_some_and(|wish| wish.wait_until_ms > now_ms)
    }
}

impl<T> Cache<T> {
    /// Asks the key's home, or waits for who asked before.
    pub(super) fn fill(&mut self, key: Key, home: Stay, waiter: Waiter<By<T>>, now_ms: u64) {
        let is_load = waiter.ticket.wish().is_some();
        if let Some(&id) = self.fills.attached_for(is_load).get(&key) {
            let fill = self
                .fills
                .by_id
                .get_mut(&id)
                .expect("an attached fill is open");
            if fill.home == home {
                if fill.joined.len() >= WAITERS_MAX {
                    return self.refuse(waiter, Why::TooMany);
                }
                fill.joined.push(waiter);
                return;
            }
            self.fills.attached_for(is_load).remove(&key);
        }
        self.begin_fill(key, home, vec![waiter], now_ms);
    }

    /// The answer may be installed unless that of another question may.
    fn begin_fill(&mut self, key: Key, home: Stay, mut starters: Vec<Waiter<By<T>>>, now_ms: u64) {
        if self.fills.by_id.len() >= FILLS_MAX {
            for waiter in starters {
                self.refuse(waiter, Why::TooMany);
            }
            return;
        }
        self.counts.fills += 1;
        self.fills.last_id += 1;
        let id = self.fills.last_id;
        let is_load = starters.iter().any(|w| w.ticket.wish().is_some());
        starters.sort_by_key(|w| Reverse(w.ticket.wish().map(|wish| wish.wait_until_ms)));
        let fill = Fill {
            key: key.clone(),
            home,
            sent_ms: now_ms,
            again_at_ms: now_ms + ASK_AGAIN_MS,
            pause_ms: ASK_AGAIN_MS,
            is_load,
            starters,
            joined: Vec::new(),
        };
        self.fills.by_id.insert(id, fill);
        let attached = self.fills.attached_for(is_load);
        attached.entry(key.clone()).or_insert(id);
        self.ask(id, key, home.node, now_ms);
    }

    fn ask(&mut self, fill: u64, key: Key, home: NodeId, now_ms: u64) {
        let acting = self.acting();
        let wish = self.fills.by_id[&fill].wish();
        let message = Message::Fetch {
            epoch: acting.epoch,
            asker: acting.stay.incarnation,
            fill,
            key,
            wish: wish.map(|wish| wish.sent(now_ms)),
        };
        self.send(home, message);
    }

    /// Takes what a home had when it was asked.
    pub(super) fn filled(
        &mut self,
        from: NodeId,
        (epoch, asker, id): (Epoch, Incarnation, u64),
        found: Found,
        now_ms: u64,
    ) {
        let Some(acting) = self.tenure.acting() else {
            return;
        };
        let is_asked = |fill: &Fill<By<T>>| fill.home.node == from;
        if acting.stay.incarnation != asker || !self.fills.by_id.get(&id).is_some_and(is_asked) {
            return;
        }
        let (fill, attached) = self.fills.close(id).expect("it was just there");
        let acting = self.acting();
        let current = epoch == acting.epoch
            && acting.roster.home(&fill.key) == Some(fill.home)
            && !acting.moves(&fill.key);
        let Fill {
            key,
            home,
            sent_ms,
            starters,
            joined,
            ..
        } = fill;
        let (answer, shared) = match found {
            Found::NotNow => {
                for waiter in starters.into_iter().chain(joined) {
                    self.park(key.clone(), None, waiter);
                }
                return;
            }
            Found::Claimed { claim } => {
                let mut waiters = starters.into_iter().chain(joined);
                if let Some(first) = waiters.next() {
                    self.counts.misses += 1;
                    self.answer(first.ticket, Answer::Claimed { claim });
                }
                let others: Vec<_> = waiters.collect();
                if !others.is_empty() {
                    self.begin_fill(key, home, others, now_ms);
                }
                return;
            }
            Found::StoreAway => {
                for waiter in starters.into_iter().chain(joined) {
                    self.refuse(waiter, Why::StoreAway);
                }
                return;
            }
            Found::Miss => (Answer::Missed, false),
            Found::Hit {
                entry,
                shared,
                tell_uses,
                brought,
            } => {
                let left_ms = entry.left_ms;
                let install = shared && (attached || self.flaws.no_detach) && current;
                let entry = shortened(entry).kept(sent_ms);
                let hit = self.take_copy(&key, (entry, tell_uses), install, now_ms);
                let source = match brought {
                    true => Source::Store,
                    false => Source::Home,
                };
                let hit = Hit {
                    left_ms,
                    source,
                    ..hit
                };
                (Answer::Found(hit), shared)
            }
        };
        // Without a lease the others may have gone on, and a write may have taken effect before some of
        // those asked who came later.
        let is_of_now = shared && self.tenure.held(now_ms).is_some();
        let (told, again) = match is_of_now {
            true => (starters.into_iter().chain(joined).collect(), Vec::new()),
            false => (starters, joined),
        };
        for waiter in told {
            match &answer {
                Answer::Found(hit) => self.counts.hit(hit.source),
                _ => self.counts.misses += 1,
            }
            self.answer(waiter.ticket, answer.clone());
        }
        if !again.is_empty() {
            self.begin_fill(key, home, again, now_ms);
        }
    }

    /// Installs a copy if it may be; the value for those who wait.
    fn take_copy(
        &mut self,
        key: &Key,
        (mut entry, tells): (Entry, bool),
        install: bool,
        now_ms: u64,
    ) -> Hit {
        let hit = Hit {
            value: entry.value.clone(),
            version: entry.version,
            left_ms: None,
            source: Source::Home,
        };
        if entry.idle_at_ms != NEVER {
            // The home hears of reads by questions only, so that one has to come in time.
            entry.idle_at_ms = now_ms + entry.idle_at_ms.saturating_sub(now_ms) / 2;
        }
        let bytes = cost(key, &entry);
        // What is not confirmed may never be: the store may have refused its write.
        let newer = self
            .copies
            .peek(key)
            .is_none_or(|copied| !copied.is_confirmed || copied.entry.version <= entry.version);
        if install && newer && self.make_room(bytes, key, now_ms) {
            self.uses += 1;
            let copied = Copied::filled(entry, tells);
            self.copies.insert(key.clone(), (copied, bytes), self.uses);
            self.trim(now_ms);
        }
        hit
    }

    /// Takes the news that copies are old. It is acknowledged also where nothing is kept.
    pub fn invalidated(&mut self, from: NodeId, news: Invalidation, now_ms: u64) {
        let Invalidation {
            home,
            nodes,
            items,
            tell_uses,
            confirmed,
        } = news;
        self.confirm(confirmed);
        let me = self.tenure.me();
        let place = nodes.iter().position(|node| *node == me);
        let sender = Stay {
            node: from,
            incarnation: home,
        };
        let (mut writes, mut updated) = (Vec::new(), Vec::new());
        for old in items {
            let is_pending = place.is_some_and(|place| old.pending >> place & 1 == 1);
            self.fills.detach(&old.key);
            let update = old.update.filter(|_| is_pending);
            let update = update.map(|sent| (sent, tell_uses));
            let follows = self.outdate((&old.key, old.version), (sender, update), now_ms);
            match (is_pending, follows) {
                (false, _) => {}
                (true, true) => updated.push(old.write),
                (true, false) => writes.push(old.write),
            }
        }
        if !writes.is_empty() || !updated.is_empty() {
            let message = Message::Invalidated {
                home,
                writes,
                updated,
            };
            self.send(from, message);
        }
    }

    /// Ends fills whose home is not the key's any more; who waited reads anew.
    pub(super) fn abandon_fills(&mut self, over: impl Fn(&str) -> bool) {
        let over = self.fills.by_id.iter().filter(|(_, fill)| over(&fill.key));
        let ids: Vec<u64> = over.map(|(id, _)| *id).collect();
        for id in ids {
            let (fill, _) = self.fills.close(id).expect("it was just there");
            for waiter in fill.starters.into_iter().chain(fill.joined) {
                self.park(fill.key.clone(), None, waiter);
            }
        }
    }

    pub(super) fn tick_fills(&mut self, now_ms: u64) {
        let mut again = Vec::new();
        let mut late = Vec::new();
        let mut missed = Vec::new();
        let mut anew = Vec::new();
        for (id, fill) in &mut self.fills.by_id {
            let is_late = |waiter: &mut Waiter<By<T>>| waiter.deadline_ms <= now_ms;
            late.extend(fill.starters.extract_if(.., is_late));
            late.extend(fill.joined.extract_if(.., is_late));
            if fill.is_load {
                // To a question that waits no more the home has had time to answer.
                let may_wait = fill.may_wait(now_ms);
                let grace_ms = if may_wait { 0 } else { ASK_AGAIN_MS_MAX };
                let waits_no_more = |waiter: &mut Waiter<By<T>>| {
                    let wish = waiter.ticket.wish();
                    wish.is_none_or(|wish| wish.wait_until_ms + grace_ms <= now_ms)
                };
                let mut over: Vec<_> = fill.starters.extract_if(.., waits_no_more).collect();
                over.extend(fill.joined.extract_if(.., waits_no_more));
                match may_wait {
                    true if over.is_empty() => {}
                    true => anew.push((fill.key.clone(), fill.home, over)),
                    false => missed.extend(over),
                }
            }
            if fill.again_at_ms <= now_ms {
                fill.pause_ms = (fill.pause_ms * 2).min(ASK_AGAIN_MS_MAX);
                fill.again_at_ms = now_ms + fill.pause_ms;
                again.push((*id, fill.key.clone(), fill.home.node));
            }
        }
        for waiter in late {
            self.refuse(waiter, Why::TimedOut);
        }
        for waiter in missed {
            self.counts.misses += 1;
            self.answer(waiter.ticket, Answer::Missed);
        }
        for (key, home, waiters) in anew {
            self.begin_fill(key, home, waiters, now_ms);
        }
        for (id, key, home) in again {
            let fill = &self.fills.by_id[&id];
            if fill.starters.is_empty() && fill.joined.is_empty() {
                self.fills.close(id);
            } else {
                self.ask(id, key, home, now_ms);
            }
        }
    }
}

/// The same with a lifetime that is over before the home's: this node's clock may be slow, and the
/// home's fast.
pub(super) fn shortened(mut sent: Sent) -> Sent {
    let shorter = |left: u64| (left - left * 2 * DRIFT_PERCENT / 100).saturating_sub(1);
    sent.left_ms = sent.left_ms.map(shorter);
    sent
}
