//! Requests that come to their executor before the view by which it executes them.
//!
//! Who hands a request on may have applied a newer view than this node, which may just have been started
//! and wait for the log. A request that may wait does so here, within its wait, until this node has seen that
//! view too; any other is refused at once, and its client asks again.

use std::sync::Arc;
use std::time::Duration;

use super::{Came, Dispatch};
use crate::broker::relay::{Incoming, Letter, Way};
use crate::protocol::{ReplyTo, Request};
use crate::time::{self, Instant};

/// How far behind a node may be: longer than it takes until the leader sends the log to one that was started.
const BEHIND_MAX: Duration = Duration::from_secs(2);

impl Dispatch {
    /// Until when a request that was handed to this node, and not by the view that it knows, is kept; none if
    /// it is refused now.
    pub(super) fn early_until(request: &Request, way: &Way) -> Option<Instant> {
        let Request::Queue(queue) = request else {
            return None;
        };
        let wait = Duration::from_millis(queue.wait_ms()).min(BEHIND_MAX);
        let until = way.until.min(way.taken_at + wait);
        (way.keeper.is_some() && time::now() < until).then_some(until)
    }

    /// Looks at it again when the view has changed, and once more at the end of its time.
    pub(super) fn look_again(
        self: &Arc<Self>,
        incoming: &Incoming<'_>,
        to: ReplyTo,
        (way, until): (Way, Instant),
    ) {
        let letter = Letter::of(incoming);
        let mut changed = self.handle.view_changes();
        let dispatch = self.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout_at(until, changed.changed()).await;
            let traceparent = to.trace.onward();
            let incoming = letter.incoming(&to.subject, traceparent.as_deref());
            dispatch.decode(&incoming, Came::Handed(way));
        });
    }
}
