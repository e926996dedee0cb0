//! The deadlocks found lately, for people who ask what happened.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::outcome::Deadlock;

/// Kept at most, the newest ones.
pub const KEPT_MAX: usize = 128;
/// Owners that they name, all together: a cycle can be long.
const OWNERS_MAX: u64 = 20_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecentDeadlocks {
    recent: VecDeque<(u64, Arc<Deadlock>)>,
    owners: u64,
}

impl RecentDeadlocks {
    pub(super) fn push(&mut self, now_ms: u64, deadlock: Arc<Deadlock>) {
        self.owners += deadlock.cycle.len() as u64;
        self.recent.push_back((now_ms, deadlock));
        while self.recent.len() > KEPT_MAX || self.owners > OWNERS_MAX {
            let Some((_, oldest)) = self.recent.pop_front() else {
                break;
            };
            self.owners -= oldest.cycle.len() as u64;
        }
    }

    /// Newest first, each with the state time at which it was found.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (u64, &Deadlock)> {
        let newest = self.recent.iter().rev();
        newest.map(|(at_ms, deadlock)| (*at_ms, &**deadlock))
    }
}
