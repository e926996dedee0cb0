//! Whether there is room for one more: what each limit counts, and the refusal where it is reached.

use super::claim::Claim;
use super::command::Acquire;
use super::outcome::Outcome;
use super::table::Table;
use super::weight::{CLOSED_BYTES, Weight, bytes_of_request};
use crate::protocol::Tenant;

impl Table {
    pub(super) fn claims_over_limit(&self, claim: &Claim) -> Option<Outcome> {
        let limits = &self.limits;
        let more = self.claims_of(claim);
        let mut refusal = over_limit("claims", self.claims(), more, limits.claims);
        if let Some(tenant) = &claim.tenant {
            let own = self.claims_of_tenant(tenant);
            let limit = limits.claims_per_tenant;
            refusal = refusal.or_else(|| over_limit("claims_per_tenant", own, more, limit));
        }
        for want in claim.wants.iter() {
            let lock = self.locks.get(&want.resource);
            let here = lock.map_or(0, |lock| lock.holders.len() + lock.queue_len());
            let limit = limits.claims_per_resource;
            refusal = refusal.or_else(|| over_limit("claims_per_resource", here as u64, 1, limit));
        }
        let tenant = claim.tenant.as_ref();
        let id = claim.request_id.as_ref();
        let remembered = id.map_or(0, |id| {
            bytes_of_request(&claim.owner, id, &claim.wants, tenant)
        });
        refusal
            .or_else(|| self.session_over_limit(claim))
            .or_else(|| self.bytes_over_limit(tenant, claim.weight().bytes + remembered))
    }

    fn claims_of(&self, claim: &Claim) -> u64 {
        match self.limits.by_weight {
            true => claim.weight().claims,
            false => 1,
        }
    }

    fn claims(&self) -> u64 {
        match self.limits.by_weight {
            true => self.weight().claims,
            false => (self.holds.len() + self.waits.len()) as u64,
        }
    }

    fn claims_of_tenant(&self, tenant: &Tenant) -> u64 {
        match self.limits.by_weight {
            true => self.weight_of_tenant(tenant).claims,
            false => {
                let waits = self.tenants_waits.get(tenant).copied().unwrap_or(0);
                self.tenants.owned_by(tenant).holds + waits
            }
        }
    }

    /// For a request whose id is not known.
    pub(super) fn request_ids_over_limit(&self, request: &Acquire) -> Option<Outcome> {
        let id = request.request_id.as_ref()?;
        let tenant = request.tenant.as_ref();
        let limits = &self.limits;
        let known = self.requests.len() as u64;
        let mut refusal = over_limit("request_ids", known, 1, limits.request_ids);
        if let Some(tenant) = tenant {
            let own = self.tenants.owned_by(tenant).request_ids;
            let limit = limits.request_ids_per_tenant;
            refusal = refusal.or_else(|| over_limit("request_ids_per_tenant", own, 1, limit));
        }
        let bytes = bytes_of_request(&request.owner, id, &request.wants, tenant);
        refusal.or_else(|| self.bytes_over_limit(tenant, bytes))
    }

    pub(super) fn session_over_limit(&self, claim: &Claim) -> Option<Outcome> {
        let session = claim.session.as_ref()?;
        let count = match self.limits.by_weight {
            true => {
                let held = self.holds.weight_of_session(session);
                (held + self.waits.weight_of_session(session)).claims
            }
            false => {
                let session = self.sessions.get(session)?;
                (session.holds.len() + session.waits.len()) as u64
            }
        };
        let limit = self.limits.claims_per_session;
        over_limit("claims_per_session", count, self.claims_of(claim), limit)
    }

    pub(super) fn bytes_over_limit(&self, tenant: Option<&Tenant>, more: u64) -> Option<Outcome> {
        let limits = &self.limits;
        if !limits.by_weight {
            return None;
        }
        let refusal = over_limit("bytes", self.weight().bytes, more, limits.bytes);
        refusal.or_else(|| {
            let own = self.weight_of_tenant(tenant?).bytes;
            over_limit("bytes_per_tenant", own, more, limits.bytes_per_tenant)
        })
    }

    /// Of all that limits bound; what is kept for a short time only has bounds of its own.
    pub(super) fn weight(&self) -> Weight {
        let closed = Weight {
            claims: 0,
            bytes: self.deadlines.closed() as u64 * CLOSED_BYTES,
        };
        let claims = self.holds.weight() + self.waits.weight();
        claims + self.requests.weight() + self.sessions.weight() + closed
    }

    pub(super) fn weight_of_tenant(&self, tenant: &Tenant) -> Weight {
        self.holds.weight_of_tenant(tenant)
            + self.waits.weight_of_tenant(tenant)
            + self.requests.weight_of_tenant(tenant)
            + self.sessions.weight_of_tenant(tenant)
    }
}

/// The refusal, if so much more would be too much.
pub(super) fn over_limit(what: &str, count: u64, more: u64, limit: u64) -> Option<Outcome> {
    (more > 0 && count + more > limit).then(|| Outcome::Overloaded {
        what: what.to_owned(),
        limit,
    })
}
