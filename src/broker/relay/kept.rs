//! Requests that wait at other nodes, kept by the node that handed them on: if their executor leaves
//! the view before it says that they ended, they are handed on again. Plain code.
//!
//! ```text
//!   handed on ──► kept ──► ended: the executor answered the client
//!                  │ ▲
//!                  ▼ │     the executor's stay is no part of the view any more
//!              handed on again, to whom the new view names
//! ```
//!
//! An executor says of each such request that it ended, right behind its answer. If that word is lost
//! and the executor goes too, the request is executed a second time, for a client that may not wait any
//! more; for a pop that is a lease that nobody asked for, which ends as any other.

use std::collections::BTreeMap;

use crate::broker::relay::Letter;
use crate::protocol::ReplyTo;
use crate::time::Instant;
use crate::view::tenure::Stay;

/// Requests kept by one node; further ones are handed on and not kept: should their executor die,
/// their clients have to ask again.
pub const KEPT_MAX: usize = 65_536;

/// A request, with all that it takes to hand it on again.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Where it waits.
    pub executor: Stay,
    pub letter: Letter,
    pub reply: ReplyTo,
    /// When its wait is over.
    pub wait_until: Instant,
    /// When nobody waits for its answer any more.
    pub deadline: Instant,
}

/// By the number under which each was handed on.
#[derive(Debug, Default)]
pub struct Waiting {
    kept: BTreeMap<u64, Kept>,
}

impl Waiting {
    /// Whether there is room for one more, once those are forgotten whose time is over.
    pub fn has_room(&mut self, now: Instant) -> bool {
        if self.kept.len() >= KEPT_MAX {
            self.kept.retain(|_, kept| kept.deadline > now);
        }
        self.kept.len() < KEPT_MAX
    }

    pub fn keep(&mut self, number: u64, kept: Kept) {
        self.kept.insert(number, kept);
    }

    pub fn end(&mut self, number: u64) {
        self.kept.remove(&number);
    }

    pub fn len(&self) -> usize {
        self.kept.len()
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Takes out those whose executor is gone, oldest first. What nobody waits for is forgotten.
    pub fn take_orphans(&mut self, now: Instant, stays: impl Fn(Stay) -> bool) -> Vec<Kept> {
        self.kept.retain(|_, kept| kept.deadline > now);
        let orphans = self
            .kept
            .extract_if(.., |_, kept| !stays(kept.executor))
            .map(|(_, kept)| kept);
        orphans.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::broker::relay::Incoming;
    use crate::ids::{Incarnation, NodeId};
    use crate::protocol::Encoding;
    use crate::time;

    fn stay(node: u64, incarnation: u64) -> Stay {
        Stay {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
        }
    }

    fn kept(executor: Stay, deadline: Instant) -> Kept {
        Kept {
            executor,
            letter: Letter::of(&Incoming {
                subject: "mufakat.queue.pop",
                reply: None,
                content_type: None,
                message_id: None,
                traceparent: None,
                payload: &Bytes::new(),
            }),
            reply: ReplyTo::new("inbox", Encoding::Json),
            wait_until: deadline,
            deadline,
        }
    }

    #[test]
    fn only_what_has_not_ended_and_waits_at_a_stay_that_is_over_is_taken_out_once() {
        let now = time::now();
        let later = now + Duration::from_secs(1);
        let mut waiting = Waiting::default();
        for number in 1..=2 {
            waiting.keep(number, kept(stay(1, 1), later));
        }
        waiting.keep(3, kept(stay(2, 2), later));
        waiting.keep(4, kept(stay(1, 1), now));
        waiting.end(1);
        let stays = |stay: Stay| stay.incarnation != Incarnation(1);
        assert_eq!(waiting.take_orphans(now, stays).len(), 1);
        assert_eq!(waiting.take_orphans(now, stays).len(), 0);
        assert_eq!(waiting.len(), 1);
        // The same node again is another stay.
        let rejoined = |of: Stay| of == stay(2, 3);
        assert_eq!(waiting.take_orphans(now, rejoined).len(), 1);
    }
}
