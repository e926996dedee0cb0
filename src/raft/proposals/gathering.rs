//! Waiting for commands that are about to come, so that one entry carries them all. Plain code.
//!
//! Clients that wait for an answer before they ask again come back together once an entry is
//! applied. An entry made at once would carry only those that had asked meanwhile, and the two groups
//! would take turns for ever, each with an entry and an fsync on every node of its own. So after an
//! entry with many commands the next one waits until most of its clients are back, at most
//! [`GATHER`]. Few clients are never waited for: at low load a command goes at once.

use std::time::Duration;

use crate::time::Instant;

/// Entries with fewer commands are followed at once.
const MANY: usize = 16;
/// How long commands are waited for: longer than a busy client takes to come back, shorter than
/// the commit that they would otherwise wait for.
pub(super) const GATHER: Duration = Duration::from_millis(1);

/// What is waited for since the last entry was applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathering {
    until: Instant,
    /// How many commands in the queue are enough.
    enough: usize,
}

impl Gathering {
    /// After an entry with `answered` commands, while `queued` wait already.
    pub fn after(answered: usize, queued: usize, now: Instant) -> Option<Self> {
        let most = answered - answered / 8;
        (answered >= MANY).then(|| Gathering {
            until: now + GATHER,
            enough: queued + most,
        })
    }

    /// Until when `queued` commands wait for more; none when they are enough, or there are none.
    pub fn until(&self, queued: usize) -> Option<Instant> {
        (queued > 0 && queued < self.enough).then_some(self.until)
    }
}
