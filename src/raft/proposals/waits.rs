//! Waits in the log whose client came to this node, with the time by which each must hear.

use std::collections::BTreeMap;

use crate::protocol::ReplyTo;
use crate::time::Instant;

/// Each wait once, in the order of their deadlines: there may be a hundred thousand, and the next one is
/// asked for with each command.
#[derive(Debug, Default)]
pub(super) struct Waits {
    by_deadline: BTreeMap<(Instant, u64), ReplyTo>,
    by_subject: BTreeMap<String, (Instant, u64)>,
    /// Tells those apart that have the same deadline.
    next: u64,
}

impl Waits {
    /// Notes a wait, in place of an earlier one with the same reply subject.
    pub(super) fn insert(&mut self, to: ReplyTo, deadline: Instant) {
        self.remove(&to.subject);
        let place = (deadline, self.next);
        self.next += 1;
        self.by_subject.insert(to.subject.clone(), place);
        self.by_deadline.insert(place, to);
    }

    pub(super) fn remove(&mut self, subject: &str) {
        if let Some(place) = self.by_subject.remove(subject) {
            self.by_deadline.remove(&place);
        }
    }

    /// When the first one must hear.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let ((deadline, _), _) = self.by_deadline.first_key_value()?;
        Some(*deadline)
    }

    /// Takes out the next one that should have heard by now.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<ReplyTo> {
        if self.next_deadline()? > now {
            return None;
        }
        let (_, to) = self.by_deadline.pop_first()?;
        self.by_subject.remove(&to.subject);
        Some(to)
    }
}
