//! Since when this node has been awake. Plain code.
//!
//! A process that was stopped, or got no processor, heard nobody meanwhile, and the clock went on: all others
//! seem to have been silent. So a node looks at the clock in short steps; where a step is missing, it was not
//! there, and what it takes for silence begins anew.

use std::time::Duration;

use crate::time::Instant;

/// A node that did not look at the clock for this part of the suspicion time was not awake: the rest is more
/// than a member that is well is ever silent.
const STALL_PART: u32 = 2;
/// Looks within that time, so that one that is late does not count as missing.
const LOOKS: u32 = 4;

/// What the looks of one node at the clock say.
#[derive(Clone, Copy, Debug)]
pub struct Awake {
    since: Instant,
    looked_at: Instant,
    /// From one look to the next while it is awake, at most.
    step_max: Duration,
}

/// How often to look at the clock, at least, to tell silence of such a length from one's own.
pub fn look_every(suspicion: Duration) -> Duration {
    suspicion / STALL_PART / LOOKS
}

impl Awake {
    /// `suspicion` is the silence that is looked for.
    pub fn new(now: Instant, suspicion: Duration) -> Self {
        Awake {
            since: now,
            looked_at: now,
            step_max: suspicion / STALL_PART,
        }
    }

    /// Since when it has been awake without a break.
    pub fn look(&mut self, now: Instant) -> Instant {
        if now.saturating_duration_since(self.looked_at) > self.step_max {
            self.since = now;
        }
        self.looked_at = self.looked_at.max(now);
        self.since
    }

    /// How much of somebody's silence it has heard.
    pub fn heard(&mut self, silent: Duration, now: Instant) -> Duration {
        silent.min(now.saturating_duration_since(self.look(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUSPICION: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn silence_counts_from_when_the_one_who_listens_was_there() {
        let began = crate::time::now();
        let mut awake = Awake::new(began, SUSPICION);
        assert_eq!(awake.heard(ms(300), began + ms(100)), ms(100));
        for step in 2..=10 {
            awake.look(began + ms(step * 100));
        }
        assert_eq!(awake.heard(ms(300), began + ms(1_000)), ms(300));
        // Not there for two seconds, as long as the others seem to be silent.
        let back = began + ms(3_000);
        assert_eq!(awake.heard(ms(2_100), back), ms(0));
        assert_eq!(awake.look(back + ms(100)), back);
        assert_eq!(awake.heard(ms(2_300), back + ms(200)), ms(200));
        // A step that is late, but not missing.
        assert_eq!(awake.heard(ms(2_800), back + ms(700)), ms(700));
    }
}
