//! Claims: of all who miss a value, one loads it, and the others wait for it. Plain code.
//!
//! ```text
//!   a loader reads, nothing is there          it sets the value under its claim
//!   ------------------------------> claimed ------------------------------------> others read it
//!                                    |   |
//!        its time is over: the next --+   +-- any other write, or an invalidation: it is void, since
//!        who waits has the claim              what is being loaded may be old; the next has a claim
//! ```
//!
//! A write ends the claim when it takes effect: one that is refused leaves it. Nobody waits longer than the
//! client who asked, so that the next claim is given to somebody who is there.
//!
//! Claims live at the key's home and nowhere else: with a change of its home they are over. A set under
//! a claim that is over is refused, so that what was loaded before a write never comes after it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cache::entry::{Key, Version};
use crate::cache::home::Reader;
use crate::cache::message::{Found, Matching};
use crate::cache::state::{By, Cache};
use crate::cache::writes::QUEUE_MAX;
use crate::ids::{Incarnation, NodeId};

/// Claims that are open at one home; a further loader is told that there is no value.
const CLAIMS_MAX: usize = 20_000;

/// How long before its client gives up a wait is over: the answer has to come in time.
const ANSWER_MS: u64 = 100;

/// What a loader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// How long its claim lasts, if it gets one.
    pub load_ms: u64,
    /// Until when it waits for somebody else's value; on the way, how long.
    pub wait_until_ms: u64,
}

impl Wish {
    /// The same of a client that gives up at `deadline_ms`.
    pub fn within(self, deadline_ms: u64) -> Self {
        let answered_ms = deadline_ms.saturating_sub(ANSWER_MS);
        Wish {
            wait_until_ms: self.wait_until_ms.min(answered_ms),
            ..self
        }
    }

    /// As it travels.
    pub fn sent(self, now_ms: u64) -> Self {
        Wish {
            wait_until_ms: self.wait_until_ms.saturating_sub(now_ms),
            ..self
        }
    }

    /// As it is kept where it came to.
    pub fn kept(self, now_ms: u64) -> Self {
        Wish {
            wait_until_ms: now_ms.saturating_add(self.wait_until_ms),
            ..self
        }
    }
}

/// A question of another node.
type Question = (NodeId, Incarnation, u64);

/// Who may load one key, and who waits.
#[derive(Clone, Debug)]
struct Claim<T> {
    claim: Version,
    until_ms: u64,
    /// The question that got it, which is told again when it comes again.
    question: Option<Question>,
    waiting: Vec<Reader<T>>,
}

/// The claims that are open.
#[derive(Clone, Debug)]
pub struct Claims<T> {
    by_key: BTreeMap<Key, Claim<T>>,
}

impl<T> Default for Claims<T> {
    fn default() -> Self {
        Claims {
            by_key: BTreeMap::new(),
        }
    }
}

impl<T> Claims<T> {
    pub fn waits(&self) -> bool {
        !self.by_key.is_empty()
    }

    pub fn is_claimed(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    pub fn is_open(&self, key: &str, claim: Version, now_ms: u64) -> bool {
        let open = self.by_key.get(key);
        open.is_some_and(|open| open.claim == claim && now_ms < open.until_ms)
    }

    /// Ends the key's claim; those who wait for it.
    fn void(&mut self, key: &str) -> Vec<Reader<T>> {
        let claim = self.by_key.remove(key);
        claim.map_or(Vec::new(), |claim| claim.waiting)
    }
}

impl<T> Reader<By<T>> {
    fn wish(&self) -> Option<Wish> {
        match self {
            Reader::Client(waiter) => waiter.ticket.wish(),
            Reader::Peer { wish, .. } => *wish,
        }
    }

    /// Whether its client has given up by now.
    fn is_gone(&self, now_ms: u64) -> bool {
        match self {
            Reader::Client(waiter) => waiter.deadline_ms <= now_ms,
            Reader::Peer { .. } => false,
        }
    }

    /// Whether it waits no more for the value that somebody else loads.
    fn waits_no_more(&self, now_ms: u64) -> bool {
        let wish = self.wish();
        wish.is_none_or(|wish| wish.wait_until_ms <= now_ms)
    }

    fn question(&self) -> Option<Question> {
        match self {
            Reader::Client(_) => None,
            Reader::Peer {
                node, asker, fill, ..
            } => Some((*node, *asker, *fill)),
        }
    }
}

impl<T> By<T> {
    pub(super) fn wish(&self) -> Option<Wish> {
        match self {
            By::Loader(_, wish) => Some(*wish),
            By::Client(_) | By::Sweep(..) => None,
        }
    }
}

impl<T> Cache<T> {
    /// Answers a reader of a key that this node is home to and has no value of in memory. Who has a claim
    /// has it since the store had none, either.
    pub(super) fn miss(&mut self, key: Key, reader: Reader<By<T>>, now_ms: u64) {
        match self.settings.store && !self.claims.is_claimed(&key) {
            true => self.bring_for_reader(key, reader, now_ms),
            false => self.have_none(key, reader, now_ms),
        }
    }

    /// Answers a reader of a key that has no value anywhere.
    pub(super) fn have_none(&mut self, key: Key, reader: Reader<By<T>>, now_ms: u64) {
        let Some(wish) = reader.wish() else {
            return self.say(reader, Found::Miss);
        };
        if self.writes.contains(&key) {
            // A value may be about to come.
            let readers = self.writes.readers(&key);
            match readers.len() >= QUEUE_MAX {
                true => self.say(reader, Found::NotNow),
                false => readers.push(reader),
            }
            return;
        }
        if let Some(open) = self.claims.by_key.get_mut(&key) {
            let question = reader.question();
            if question.is_some() && open.question == question {
                let claim = open.claim;
                return self.say(reader, Found::Claimed { claim });
            }
            let asks_again = |other: &Reader<By<T>>| other.question() == question;
            if question.is_some() && open.waiting.iter().any(asks_again) {
                return;
            }
            if wish.wait_until_ms <= now_ms || open.waiting.len() >= QUEUE_MAX {
                return self.say(reader, Found::Miss);
            }
            return open.waiting.push(reader);
        }
        if self.claims.by_key.len() >= CLAIMS_MAX || reader.is_gone(now_ms) {
            return self.say(reader, Found::Miss);
        }
        let claim = self.next_version();
        let open = Claim {
            claim,
            until_ms: now_ms.saturating_add(wish.load_ms),
            question: reader.question(),
            waiting: Vec::new(),
        };
        self.claims.by_key.insert(key, open);
        self.say(reader, Found::Claimed { claim });
    }

    /// Ends the key's claim. Who waits for it reads anew, unless the wait is over: nobody would use the next
    /// claim then.
    pub(super) fn end_claim(&mut self, key: &Key, now_ms: u64) {
        for reader in self.claims.void(key) {
            match reader.waits_no_more(now_ms) {
                true => self.say(reader, Found::Miss),
                false => self.read_for(key.clone(), reader, now_ms),
            }
        }
    }

    /// Ends the claims of all that an invalidation may be about. Which tags a value will have is not
    /// known before it is there.
    pub(super) fn void_claims(&mut self, matching: &Matching, now_ms: u64) {
        let is_about = |key: &Key| match matching {
            Matching::Prefix(prefix) => key.starts_with(&**prefix),
            Matching::All | Matching::Tag(_) => true,
        };
        let about = self.claims.by_key.keys().filter(|key| is_about(key));
        let about: Vec<Key> = about.cloned().collect();
        for key in about {
            self.end_claim(&key, now_ms);
        }
    }

    /// Ends all claims: this node's right to decide about the keys has changed.
    pub(super) fn forget_claims(&mut self) {
        for (key, claim) in std::mem::take(&mut self.claims.by_key) {
            for reader in claim.waiting {
                match reader {
                    Reader::Client(waiter) => self.park(key.clone(), None, waiter),
                    peer @ Reader::Peer { .. } => self.say(peer, Found::NotNow),
                }
            }
        }
    }

    /// Ends claims whose time is over, and waits.
    pub(super) fn tick_claims(&mut self, now_ms: u64) {
        let is_over = |claim: &Claim<By<T>>| claim.until_ms <= now_ms;
        let over = self.claims.by_key.iter().filter(|(_, c)| is_over(c));
        let over: Vec<Key> = over.map(|(key, _)| key.clone()).collect();
        for key in over {
            self.end_claim(&key, now_ms);
        }
        let waits_no_more = |reader: &mut Reader<By<T>>| reader.waits_no_more(now_ms);
        let mut late = Vec::new();
        for claim in self.claims.by_key.values_mut() {
            late.extend(claim.waiting.extract_if(.., waits_no_more));
        }
        for reader in late {
            self.say(reader, Found::Miss);
        }
    }
}
