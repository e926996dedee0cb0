//! When a connection to the broker was made anew. What a broker says then of other connections is no news of
//! those at their ends: after a restart of the broker they come back one after the other.

use crate::time::{Instant, now};

/// Follows how often one connection was made.
pub struct Reconnects {
    connects: u64,
    /// When it was seen that it was made anew, if it ever was.
    since: Option<Instant>,
}

impl Reconnects {
    /// `connects`: as [`Broker::connects`](super::Broker::connects) says, here and in what follows.
    pub fn new(connects: u64) -> Self {
        Reconnects {
            connects,
            since: None,
        }
    }

    /// When it was made anew for the last time. A first connection, later than the process, says nothing
    /// about others, and does not count.
    pub fn last(&mut self, connects: u64) -> Option<Instant> {
        if self.connects != connects {
            let anew = self.connects > 0;
            self.connects = connects;
            self.since = anew.then(now);
        }
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connection_is_not_made_anew() {
        let mut late = Reconnects::new(0);
        assert_eq!(late.last(0), None);
        assert_eq!(late.last(1), None);
        let since = late.last(2);
        assert!(since.is_some());
        assert_eq!(late.last(2), since);
    }
}
