//! The waits that ended lately: a new leader publishes their answers again, since the one before
//! it may have died between the commit and the publishing.

use imbl::Vector;
use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use crate::protocol::ReplyTo;

/// How long an ending is kept, in state time: longer than an election.
pub const RECENT_MS: u64 = 5_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ending {
    at_ms: u64,
    reply: ReplyTo,
    outcome: Outcome,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Endings {
    recent: Vector<Ending>,
    /// The sum of the endings' weights: an answer can name many holders.
    weight: u64,
}

impl Endings {
    /// Keeps an ending; the oldest ones go when the weights exceed `weight_max`.
    pub(super) fn push(
        &mut self,
        now_ms: u64,
        (reply, outcome): (ReplyTo, Outcome),
        weight_max: u64,
    ) {
        self.weight += weight(&outcome);
        self.recent.push_back(Ending {
            at_ms: now_ms,
            reply,
            outcome,
        });
        while self.weight > weight_max {
            self.drop_oldest();
        }
        self.trim(now_ms);
    }

    /// Drops what is no longer recent.
    pub(super) fn trim(&mut self, now_ms: u64) {
        while self
            .recent
            .front()
            .is_some_and(|ending| !ending.is_recent(now_ms))
        {
            self.drop_oldest();
        }
    }

    /// Oldest first.
    pub(super) fn iter(&self, now_ms: u64) -> impl Iterator<Item = (&ReplyTo, &Outcome)> {
        self.recent
            .iter()
            .filter(move |ending| ending.is_recent(now_ms))
            .map(|ending| (&ending.reply, &ending.outcome))
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.recent.pop_front() {
            self.weight -= weight(&oldest.outcome);
        }
    }
}

impl Ending {
    fn is_recent(&self, now_ms: u64) -> bool {
        now_ms < self.at_ms.saturating_add(RECENT_MS)
    }
}

fn weight(outcome: &Outcome) -> u64 {
    let named = match outcome {
        Outcome::WaitTimeout(contention) => contention.holders.len(),
        Outcome::Deadlock(deadlock) => deadlock.cycle.len(),
        _ => 0,
    };
    1 + named as u64
}
