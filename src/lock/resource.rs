//! One resource: who holds it, who stands in its queue, and who may be let through.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::claim::Grip;
use super::waiting::Place;
use crate::ids::Token;
use crate::protocol::lock::Mode;

/// One resource. All its holders hold it in one mode.
///
/// The queue is kept in two parts, so that whether somebody stands before a place can be told at
/// once: `shared` waiters are compatible with each other, `strong` ones (exclusive and permits)
/// with nobody, since permits do not pass each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lock {
    /// Without holders it says nothing.
    pub(super) mode: Mode,
    pub(super) holders: BTreeSet<Token>,
    pub(super) strong: BTreeMap<Place, Grip>,
    pub(super) shared: BTreeSet<Place>,
    /// There while anybody holds or wants permits.
    pub(super) permits: Option<Box<Permits>>,
    /// Nobody gets it before this moment: the lock delay of a session that lost it.
    pub(super) closed_until_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Permits {
    /// On which all who hold or want permits agree.
    pub(super) limit: u32,
    pub(super) held: u32,
    /// Holders and waiters.
    pub(super) claims: u32,
}

impl Lock {
    /// Whether holders and a lock delay leave room for one more; who waits is not looked at.
    pub(super) fn admits(&self, grip: Grip, now_ms: u64) -> bool {
        !self.is_closed(now_ms) && self.holders_admit(grip)
    }

    pub(super) fn holders_admit(&self, grip: Grip) -> bool {
        self.holders.is_empty()
            || match grip {
                Grip::Exclusive => false,
                Grip::Shared => self.mode == Mode::Shared,
                Grip::Permits { permits, limit } => {
                    self.mode == Mode::Permit && self.permits_held() + permits <= limit
                }
            }
    }

    /// Whether only the number of permits is in the way: then some of the holders have to go, not
    /// all of them.
    pub(super) fn permits_only(&self, grip: Grip) -> bool {
        self.mode == Mode::Permit && grip.mode() == Mode::Permit
    }

    /// Whether the holder of `token` may become the exclusive one.
    pub(super) fn admits_upgrade(&self, token: Token, now_ms: u64) -> bool {
        !self.is_closed(now_ms) && self.holders.len() == 1 && self.holders.contains(&token)
    }

    /// Whether everybody who waits before `place` is compatible with one who wants this.
    pub(super) fn may_pass(&self, grip: Grip, place: Place) -> bool {
        let after = |first: Option<&Place>| first.is_none_or(|first| *first >= place);
        after(self.strong.keys().next()) && (grip == Grip::Shared || after(self.shared.first()))
    }

    pub(super) fn is_closed(&self, now_ms: u64) -> bool {
        self.closed_until_ms.is_some_and(|until| until > now_ms)
    }

    /// Whether nothing of it has to be kept.
    pub(super) fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.queue_len() == 0 && self.closed_until_ms.is_none()
    }

    pub(super) fn queue_len(&self) -> usize {
        self.strong.len() + self.shared.len()
    }

    /// The first waiter behind a place, with whether it is a strong one.
    pub(super) fn next_waiter(&self, after: Place) -> Option<(Place, bool)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (Excluded(after), Unbounded);
        let strong = self.strong.range(range).next().map(|(place, _)| *place);
        let shared = self.shared.range(range).next().copied();
        match (strong, shared) {
            (Some(strong), Some(shared)) if shared < strong => Some((shared, false)),
            (Some(strong), _) => Some((strong, true)),
            (None, shared) => shared.map(|place| (place, false)),
        }
    }

    /// Everybody who waits, in the order of service.
    pub(super) fn waiters(&self) -> impl Iterator<Item = Place> {
        self.waiters_behind(Place::FIRST)
    }

    /// Everybody who waits behind a place, in the order of service.
    pub(super) fn waiters_behind(&self, mut after: Place) -> impl Iterator<Item = Place> {
        std::iter::from_fn(move || {
            let (place, _) = self.next_waiter(after)?;
            after = place;
            Some(place)
        })
    }

    pub(super) fn add_waiter(&mut self, place: Place, grip: Grip) {
        match grip {
            Grip::Shared => {
                self.shared.insert(place);
            }
            strong => {
                self.strong.insert(place, strong);
            }
        }
        self.claim_permits(grip);
    }

    pub(super) fn remove_waiter(&mut self, place: Place, grip: Grip) {
        let known = match grip {
            Grip::Shared => self.shared.remove(&place),
            _ => self.strong.remove(&place).is_some(),
        };
        assert!(known, "a waiter stands in its queue");
        self.leave_permits(grip);
    }

    pub(super) fn add_holder(&mut self, token: Token, grip: Grip) {
        self.mode = grip.mode();
        self.holders.insert(token);
        self.claim_permits(grip);
        if let (Grip::Permits { permits, .. }, Some(all)) = (grip, &mut self.permits) {
            all.held += permits;
        }
    }

    pub(super) fn remove_holder(&mut self, token: Token, grip: Grip) {
        assert!(self.holders.remove(&token), "a holder holds");
        if let (Grip::Permits { permits, .. }, Some(all)) = (grip, &mut self.permits) {
            all.held -= permits;
        }
        self.leave_permits(grip);
    }

    /// The limit that those who hold or want permits agreed on, if it is another.
    pub(super) fn other_limit(&self, grip: Grip) -> Option<u32> {
        match (grip, &self.permits) {
            (Grip::Permits { limit, .. }, Some(all)) => (all.limit != limit).then_some(all.limit),
            _ => None,
        }
    }

    fn permits_held(&self) -> u32 {
        self.permits.as_ref().map_or(0, |all| all.held)
    }

    fn claim_permits(&mut self, grip: Grip) {
        if let Grip::Permits { limit, .. } = grip {
            let all = self.permits.get_or_insert_with(|| {
                Box::new(Permits {
                    limit,
                    held: 0,
                    claims: 0,
                })
            });
            all.claims += 1;
        }
    }

    fn leave_permits(&mut self, grip: Grip) {
        if let (Grip::Permits { .. }, Some(all)) = (grip, &mut self.permits) {
            all.claims -= 1;
            if all.claims == 0 {
                self.permits = None;
            }
        }
    }
}
