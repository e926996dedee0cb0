//! The pops that wait at a topic, first come, first. Plain code.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Told, Wanted};
use crate::protocol::error::ErrorReply;
use crate::protocol::queue::Receipt;
use crate::queue::script::PoppedMessage;

/// What became of the newest look for a pop.
#[derive(Debug)]
pub(super) enum Look {
    /// No call has looked for it, or the newest that carried it did not get to it. It does not end before one has.
    Missing,
    InVain,
    /// The topic is paused.
    Paused,
    /// The call failed, and nobody knows whether there is something.
    Refused(Arc<ErrorReply>),
}

/// What its client has to hear beside the messages.
#[derive(Debug)]
pub(super) enum Behind {
    Nothing,
    /// Behind an acknowledgement of the call that carries it.
    Ack,
    /// An acknowledgement that is done.
    Acked(Vec<(Receipt, u64)>),
}

#[derive(Debug)]
pub(super) struct Waiter<T> {
    /// None only in a call: the client was told that it took too long.
    pub client: Option<T>,
    pub wanted: Wanted,
    /// Lower for those that came earlier.
    pub place: u64,
    pub behind: Behind,
    pub look: Look,
}

impl<T> Waiter<T> {
    pub fn is_new(&self) -> bool {
        matches!(self.look, Look::Missing)
    }

    /// What its client is told, if there is one.
    pub fn end(self, messages: Vec<PoppedMessage>) -> Option<(T, Told)> {
        let token = self.wanted.token;
        let told = match (self.behind, self.look) {
            // What was acknowledged is told, or its client would take it for undone.
            (Behind::Acked(results), Look::Missing | Look::Refused(_)) if messages.is_empty() => {
                Told::Acked(results, None)
            }
            (Behind::Acked(results), _) => Told::Acked(results, Some((token, messages))),
            (_, Look::Refused(refusal)) if messages.is_empty() => Told::Refused(refusal),
            (_, Look::Paused) if messages.is_empty() => Told::Paused,
            _ => Told::Popped(token, messages),
        };
        Some((self.client?, told))
    }
}

#[derive(Debug)]
pub(super) struct Line<T> {
    /// By place.
    waiters: VecDeque<Waiter<T>>,
    /// How many of them are new.
    new: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Line {
            waiters: VecDeque::new(),
            new: 0,
        }
    }
}

impl<T> Line<T> {
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// How many no call has looked for.
    pub fn new_ones(&self) -> usize {
        self.new
    }

    /// Whether a call has looked for some, and they wait on.
    pub fn has_old_ones(&self) -> bool {
        self.waiters.len() > self.new
    }

    /// Puts a pop in its place.
    pub fn enter(&mut self, waiter: Waiter<T>) {
        self.new += usize::from(waiter.is_new());
        let at = self
            .waiters
            .partition_point(|each| each.place < waiter.place);
        self.waiters.insert(at, waiter);
    }

    /// Takes out the first ones, or of the new ones the first, while there is room for one more.
    pub fn take_next(
        &mut self,
        only_new: bool,
        mut has_room: impl FnMut(&Waiter<T>) -> bool,
    ) -> Vec<Waiter<T>> {
        let (mut taken, mut at) = (Vec::new(), 0);
        while let Some(waiter) = self.waiters.get(at) {
            if only_new && !waiter.is_new() {
                at += 1;
            } else if has_room(waiter) {
                taken.extend(self.waiters.remove(at));
            } else {
                break;
            }
        }
        self.new -= taken.iter().filter(|each| each.is_new()).count();
        taken
    }

    pub fn take(&mut self, which: impl Fn(&Waiter<T>) -> bool) -> VecDeque<Waiter<T>> {
        if !self.waiters.iter().any(&which) {
            return VecDeque::new();
        }
        let (out, stay) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(which);
        self.waiters = stay;
        self.new = self.waiters.iter().filter(|each| each.is_new()).count();
        out
    }

    /// When the first wait ends, of those that may end.
    pub fn first_end_ms(&self) -> Option<u64> {
        let old = self.waiters.iter().filter(|each| !each.is_new());
        old.map(|each| each.wanted.until_ms).min()
    }
}
