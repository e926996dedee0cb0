//! What the naive model refuses since a limit is reached: everything counted anew for each question.

use super::Name;
use super::claim::Wants;
use super::command::Acquire;
use super::outcome::Outcome;
use super::table_model::Model;

impl Model {
    pub(super) fn claims_over_limit(&self, request: &Acquire) -> Option<Outcome> {
        let limits = self.limits;
        let more = request.wants.as_slice().len();
        let all = self.count(|_, wants| wants.as_slice().len());
        let mut refusal = over_limit("claims", all + more, limits.claims);
        if request.tenant.is_some() {
            let own = self.count(|of, wants| match of.tenant == request.tenant {
                true => wants.as_slice().len(),
                false => 0,
            });
            let limit = limits.claims_per_tenant;
            refusal = refusal.or_else(|| over_limit("claims_per_tenant", own + more, limit));
        }
        for want in request.wants.iter() {
            let here = self.count(|_, wants| usize::from(wants.grip_of(&want.resource).is_some()));
            let limit = limits.claims_per_resource;
            refusal = refusal.or_else(|| over_limit("claims_per_resource", here + 1, limit));
        }
        refusal.or_else(|| self.session_over_limit(request.session.as_ref()?, more))
    }

    pub(super) fn session_over_limit(&self, session: &Name, more: usize) -> Option<Outcome> {
        let own = self.count(|of, wants| match of.session.as_ref() == Some(session) {
            true => wants.as_slice().len(),
            false => 0,
        });
        let limit = self.limits.claims_per_session;
        over_limit("claims_per_session", own + more, limit)
    }

    fn count(&self, of: impl Fn(&Acquire, &Wants) -> usize) -> usize {
        let holds = self.holds.iter().map(|hold| of(&hold.request, &hold.wants));
        let waits = self.waits.iter().map(|w| of(&w.request, &w.request.wants));
        holds.chain(waits).sum()
    }
}

fn over_limit(what: &str, count: usize, limit: u64) -> Option<Outcome> {
    (count as u64 > limit).then(|| Outcome::Overloaded {
        what: what.to_owned(),
        limit,
    })
}
