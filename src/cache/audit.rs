//! Audits: copies of this node compared with what their homes have. Plain code.
//!
//! A home answers once a write has taken effect, when no node has an older copy. So a copy that is
//! there, under a lease, when the home's answer comes, and is older than what the home had or of
//! another value, was served against the promise: a defect, never a matter of timing. What the home
//! may not decide about, or is writing, says nothing, nor does a copy that is gone meanwhile.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::cache::copies::Copied;
use crate::cache::entry::{Entry, Key, Version};
use crate::cache::message::{Had, Message};
use crate::cache::operation::{Answer, Why};
use crate::cache::state::{By, Cache, Waiter};
use crate::ids::{Incarnation, NodeId};

/// Audits that clients wait for at one node; a further one is refused as overloaded.
const AUDITS_MAX: usize = 16;
/// How long homes have to answer; what they did not answer until then is not compared.
const ANSWER_MS: u64 = 1_000;
/// Keys in one question, of at most 321 bytes each.
const KEYS_MAX: usize = 500;
/// The most mismatches that are named.
const NAMED_MAX: usize = 10;

/// An audit that a client waits for.
#[derive(Clone, Debug)]
struct Audit<T> {
    waiter: Waiter<T>,
    until_ms: u64,
    /// The copies that no home has said anything about, as they were.
    open: BTreeMap<Key, Version>,
    report: Report,
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Copies that could be compared.
    pub compared: u64,
    pub mismatches: u64,
    /// The keys of the first few mismatches.
    pub keys: Vec<Key>,
}

/// The audits under way.
#[derive(Clone, Debug)]
pub struct Audits<T> {
    open: BTreeMap<u64, Audit<T>>,
    last: u64,
}

impl<T> Default for Audits<T> {
    fn default() -> Self {
        Audits {
            open: BTreeMap::new(),
            last: 0,
        }
    }
}

impl<T> Audits<T> {
    pub fn waits(&self) -> bool {
        !self.open.is_empty()
    }
}

impl<T> Cache<T> {
    /// Compares so many copies of this node with what their homes have, for a client: evenly chosen
    /// from those that were not used for long to those that were used just now.
    pub fn audit(&mut self, sample: usize, waiter: Waiter<T>, now_ms: u64) {
        if self.audits.open.len() >= AUDITS_MAX {
            return self.refuse(waiter.by_client(), Why::TooMany);
        }
        let Some(acting) = self.tenure.held(now_ms) else {
            return self.refuse(waiter.by_client(), Why::NoLease);
        };
        let step = self.copies.count().div_ceil(sample.max(1)).max(1);
        let mut open = BTreeMap::new();
        let mut asked: BTreeMap<NodeId, Vec<Key>> = BTreeMap::new();
        for (key, copied) in self.copies.iter().step_by(step) {
            if let (true, Some(home)) = (copied.is_confirmed, acting.roster.home(key)) {
                open.insert(key.clone(), copied.entry.version);
                asked.entry(home.node).or_default().push(key.clone());
            }
        }
        let asker = acting.stay.incarnation;
        self.audits.last += 1;
        let audit = self.audits.last;
        for (home, keys) in asked {
            for keys in keys.chunks(KEYS_MAX) {
                let keys = keys.to_vec();
                self.send(home, Message::Compare { asker, audit, keys });
            }
        }
        let until_ms = waiter.deadline_ms.min(now_ms + ANSWER_MS);
        let open = Audit {
            waiter,
            until_ms,
            open,
            report: Report::default(),
        };
        self.audits.open.insert(audit, open);
        self.end_audits(now_ms);
    }

    /// Says what this node has of keys, as far as it may decide about them.
    pub(super) fn compare(
        &mut self,
        from: NodeId,
        (asker, audit): (Incarnation, u64),
        keys: Vec<Key>,
        now_ms: u64,
    ) {
        let found = keys.into_iter().map(|key| {
            let decides = self.may_decide(&key, now_ms) && !self.writes.contains(&key);
            let had = decides.then(|| match self.held.peek(&key) {
                Some(held) => Had::Value {
                    version: held.entry.version,
                    digest: digest(&held.entry),
                },
                None => Had::Nothing,
            });
            (key, had)
        });
        let found = found.collect();
        self.send(
            from,
            Message::Compared {
                asker,
                audit,
                found,
            },
        );
    }

    /// Takes what a home had, and looks at the copies again.
    pub(super) fn compared(
        &mut self,
        from: NodeId,
        (asker, number): (Incarnation, u64),
        found: Vec<(Key, Option<Had>)>,
        now_ms: u64,
    ) {
        let acting = self.tenure.held(now_ms);
        let Some(acting) = acting.filter(|acting| acting.stay.incarnation == asker) else {
            return;
        };
        let Some(audit) = self.audits.open.get_mut(&number) else {
            return;
        };
        for (key, had) in found {
            let is_home = acting.roster.home(&key).map(|home| home.node) == Some(from);
            let Some(version) = audit.open.remove(&key).filter(|_| is_home) else {
                continue;
            };
            let is_same = |copied: &&Copied| copied.is_confirmed && copied.entry.version == version;
            let copy = self.copies.peek(&key).filter(is_same);
            let live = copy.filter(|copied| copied.entry.is_live(now_ms));
            let (Some(copied), Some(had)) = (live, had) else {
                continue;
            };
            audit.report.compared += 1;
            let agrees = match had {
                Had::Nothing => false,
                // The home's answer may be from before this copy.
                Had::Value { version: had, .. } if had < version => true,
                Had::Value {
                    version: had,
                    digest: value,
                } => had == version && value == digest(&copied.entry),
            };
            if !agrees {
                audit.report.mismatches += 1;
                if audit.report.keys.len() < NAMED_MAX {
                    audit.report.keys.push(key);
                }
            }
        }
        self.end_audits(now_ms);
    }

    /// Ends audits that have all answers, or have waited long enough.
    pub(super) fn end_audits(&mut self, now_ms: u64) {
        let is_over = |audit: &Audit<T>| audit.open.is_empty() || audit.until_ms <= now_ms;
        let over = self.audits.open.extract_if(.., |_, audit| is_over(audit));
        let over: Vec<Audit<T>> = over.map(|(_, audit)| audit).collect();
        for audit in over {
            let by = By::Client(audit.waiter.ticket);
            self.answer(by, Answer::Audited(audit.report));
        }
    }
}

fn digest(entry: &Entry) -> u64 {
    xxh3_64(entry.value.bytes())
}
