//! Remembered request ids, so that the repeat of a request is told what became of it.
//!
//! An id is known under its owner. It is kept while its wait or its grant lives and
//! [`REMEMBERED_MS`] after a grant's end (a little longer when many end together, since one entry
//! forgets only so many); a refusal and a wait that ended without a grant leave no
//! trace. None is forgotten early: at [`Limits::request_ids`](super::limits::Limits) new ids are
//! refused.

use imbl::Vector;
use serde::{Deserialize, Serialize};

use super::Name;
use super::claim::Wants;
use super::waiting::Place;
use super::weighed::Weighed;
use super::weight::Weight;
use crate::ids::Token;
use crate::protocol::Tenant;

/// How long an id outlives its grant: longer than a broker or a client delays a duplicate.
pub const REMEMBERED_MS: u64 = 300_000;

/// What is known of a request that changed the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) wants: Wants,
    pub(super) became: Became,
    /// Among whose ids it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<Tenant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Became {
    Waiting(Place),
    Held(Token),
    /// Released or expired; forgotten at `until_ms`.
    Ended {
        until_ms: u64,
    },
}

impl Became {
    /// The token that the request was granted, while that is held.
    pub(super) fn token(self) -> Option<Token> {
        match self {
            Became::Held(token) => Some(token),
            Became::Waiting(_) | Became::Ended { .. } => None,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Requests {
    by_owner_and_id: Weighed<(Name, Name), Remembered>,
    /// The ended ones in the order in which they are forgotten: all are kept equally long, and
    /// state time does not go back.
    forgetting: Vector<(u64, Name, Name)>,
}

impl Requests {
    pub(super) fn len(&self) -> usize {
        self.by_owner_and_id.len()
    }

    pub(super) fn weight(&self) -> Weight {
        self.by_owner_and_id.weight()
    }

    pub(super) fn weight_of_tenant(&self, tenant: &Tenant) -> Weight {
        self.by_owner_and_id.weight_of_tenant(tenant)
    }

    /// When the oldest ended id is forgotten.
    pub(super) fn next_forgetting_ms(&self) -> Option<u64> {
        self.forgetting.front().map(|&(until_ms, ..)| until_ms)
    }

    pub(super) fn find(&self, owner: &Name, id: &Name) -> Option<&Remembered> {
        self.by_owner_and_id.get(&(owner.clone(), id.clone()))
    }

    /// Notes what became of a request; true if its id was not known before.
    pub(super) fn remember(&mut self, owner: &Name, id: &Name, what: Remembered) -> bool {
        self.by_owner_and_id
            .insert((owner.clone(), id.clone()), what)
            .is_none()
    }

    /// The grant of this request has another token now.
    pub(super) fn regranted(&mut self, owner: &Name, id: &Name, token: Token) {
        self.by_owner_and_id
            .get_mut(&(owner.clone(), id.clone()))
            .expect("the id of a hold is remembered")
            .became = Became::Held(token);
    }

    /// The grant of this request is over.
    pub(super) fn end(&mut self, owner: &Name, id: &Name, now_ms: u64) {
        let until_ms = now_ms.saturating_add(REMEMBERED_MS);
        self.by_owner_and_id
            .get_mut(&(owner.clone(), id.clone()))
            .expect("the id of a hold is remembered")
            .became = Became::Ended { until_ms };
        self.forgetting
            .push_back((until_ms, owner.clone(), id.clone()));
    }

    pub(super) fn forget(&mut self, owner: &Name, id: &Name) -> Remembered {
        let known = self.by_owner_and_id.remove(&(owner.clone(), id.clone()));
        known.unwrap_or_else(|| panic!("request {id} of {owner} is not remembered"))
    }

    /// Forgets the oldest ended id, if its time is over at `now_ms`; tells whose it was.
    pub(super) fn forget_next(&mut self, now_ms: u64) -> Option<(Name, Remembered)> {
        if self.next_forgetting_ms()? > now_ms {
            return None;
        }
        let (_, owner, id) = self.forgetting.pop_front()?;
        let known = self.forget(&owner, &id);
        Some((owner, known))
    }
}

#[cfg(test)]
impl Requests {
    /// Panics unless exactly `live` and the ended ones are remembered.
    pub(super) fn assert_consistent(
        &self,
        live: &std::collections::BTreeMap<(Name, Name), Became>,
    ) {
        for (key, remembered) in self.by_owner_and_id.iter() {
            match remembered.became {
                Became::Ended { until_ms } => {
                    let (owner, id) = key.clone();
                    assert!(self.forgetting.contains(&(until_ms, owner, id)));
                }
                became => assert_eq!(live.get(key), Some(&became), "{key:?}"),
            }
        }
        assert_eq!(live.len() + self.forgetting.len(), self.len());
    }

    pub(super) fn tenants(&self) -> impl Iterator<Item = Option<&Tenant>> {
        self.by_owner_and_id
            .values()
            .map(|known| known.tenant.as_ref())
    }

    pub(super) fn count_of(&self, owner: &Name) -> u64 {
        let all = self.by_owner_and_id.keys();
        all.filter(|(of, _)| of == owner).count() as u64
    }
}
