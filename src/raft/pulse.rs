//! Which nodes have answered a heartbeat, and when.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::ids::NodeId;
use crate::time::{Instant, now};

#[derive(Default)]
pub(super) struct Pulse {
    beats: Mutex<BTreeMap<NodeId, Instant>>,
    next: Notify,
}

impl Pulse {
    /// A node has answered one now.
    pub(super) fn note(&self, node: NodeId) {
        let mut beats = self.beats.lock().expect("no holder panics");
        beats.insert(node, now());
        self.next.notify_waiters();
    }

    /// Returns once a node has answered one after `since`.
    pub(super) async fn after(&self, node: NodeId, since: Instant) {
        loop {
            let next = self.next.notified();
            if self.last(node).is_some_and(|at| at > since) {
                return;
            }
            next.await;
        }
    }

    fn last(&self, node: NodeId) -> Option<Instant> {
        let beats = self.beats.lock().expect("no holder panics");
        beats.get(&node).copied()
    }
}
