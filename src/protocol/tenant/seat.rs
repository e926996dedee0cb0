//! How many requests of each tenant a node has in hand, so that one leaves room for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The requests of one tenant that a node has taken and not yet answered or handed on.
#[derive(Debug, Default)]
pub struct Seats(Arc<AtomicUsize>);

/// A request that is in hand until the last copy of this is dropped. The default stands for one that
/// nobody counts.
#[derive(Clone, Debug, Default)]
pub struct Seat {
    _taken: Option<Arc<Taken>>,
}

#[derive(Debug)]
struct Taken(Arc<AtomicUsize>);

impl Seats {
    /// One more request in hand; none if there are `max` already.
    pub fn take(&self, max: usize) -> Option<Seat> {
        let add = |taken| (taken < max).then_some(taken + 1);
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        before.ok().map(|_| Seat {
            _taken: Some(Arc::new(Taken(self.0.clone()))),
        })
    }

    /// Whether none is in hand.
    pub fn are_free(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
