//! What operators may do against a holder's will.

use super::Name;
use super::event::Effect;
use super::holding::End;
use super::outcome::Outcome;
use super::reads::HOLDERS_NAMED_MAX;
use super::table::Table;
use crate::ids::Token;

impl Table {
    /// `admin.lock.release`: ends the hold of a token on the resource, or every hold of it. A set
    /// ends as a whole. The answer names the first [`HOLDERS_NAMED_MAX`] holders.
    pub(super) fn force_release(
        &mut self,
        now_ms: u64,
        (resource, token): (&Name, Option<Token>),
        reason: &Name,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        self.settle(now_ms, resource, effects);
        let lock = self.locks.get(resource);
        let tokens: Vec<Token> = lock.map_or(Vec::new(), |lock| match token {
            Some(token) => lock.holders.get(&token).copied().into_iter().collect(),
            None => lock.holders.iter().copied().collect(),
        });
        if tokens.is_empty() {
            return match token {
                Some(_) => Outcome::NotHolder,
                None => Outcome::NotHeld {
                    resource: resource.clone(),
                },
            };
        }
        let named = tokens.iter().take(HOLDERS_NAMED_MAX);
        let views = named.map(|token| self.view_of_holder(*token, resource, now_ms));
        let views = views.collect();
        let how = End::Forced(reason.clone());
        for token in tokens {
            // What ends on the way lets others in, who keep what they got.
            if self.holds.contains_key(&token) {
                self.end(now_ms, token, &how, effects);
            }
        }
        Outcome::ForceReleased(views)
    }
}
