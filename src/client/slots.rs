//! Who waits for which answer: the table behind a [`Requester`](super::Requester).

use std::task::{Context, Poll, Waker};

use async_nats::Subject;

use crate::client::requester::{Message, PENDING_MAX, RequestError};
use crate::ids::NodeId;

/// However long a node owes answers, it is asked whether it lives once in so many looks.
const PROBE_LOOKS_MAX: u32 = 32;

/// Silent looks after which a node that is gone has nobody else answer for it either: 1.6 s, since
/// on a loaded machine it takes that long until the next leader has answered what a node left to it.
const GONE_LOOKS: u32 = 32;

/// Place in the table (low 32 bits) and generation (high 32 bits), so that a late answer to an
/// earlier user of the place is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) u64);

impl Key {
    fn new(place: usize, generation: u32) -> Self {
        Key(u64::from(generation) << 32 | place as u64)
    }

    fn place(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// One node, and a subject that it answers at once and without effect.
#[derive(Clone, Debug)]
pub(super) struct Probed {
    pub(super) node: NodeId,
    pub(super) subject: Subject,
}

/// That only one node can answer a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direct<'a> {
    pub(super) node: &'a Probed,
    /// Whether the request may be asked of another node as soon as this one is gone. A node that stops
    /// in good order leaves its subjects first, and has others answer what it still had.
    pub(super) repeatable: bool,
}

/// What one node owes.
#[derive(Debug)]
struct Owed {
    by: Probed,
    /// Requests without an answer.
    open: usize,
    answers: u64,
    /// As of the last look.
    answers_before: u64,
    /// Looks in a row at which something was owed and nothing had come.
    silent_looks: u32,
}

/// Who waits for answers. Grows to the most that were ever in flight at a time.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// By node, for requests that only one node can answer. As few as nodes of a cluster.
    owed: Vec<Owed>,
    /// Requests that there were.
    count: u64,
    /// Of which connection the broker lets no answers come, and what that is to whoever asks.
    unheard: Option<(u64, RequestError)>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// Its place among all requests, and where it went.
    number: u64,
    subject: Subject,
    /// How often the connection had been made when the request was sent.
    connects: u64,
    /// The one node that can answer, and whether others may be asked instead.
    direct: Option<(NodeId, bool)>,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    Free,
    Waiting(Option<Waker>),
    Done(Box<Result<Message, RequestError>>),
}

impl Slots {
    /// # Errors
    /// `TooMany`; what [`Slots::deafen`] was told of this connection.
    pub(super) fn reserve(
        &mut self,
        connects: u64,
        subject: Subject,
        direct: Option<Direct<'_>>,
    ) -> Result<Key, RequestError> {
        if let Some((told_of, error)) = &self.unheard
            && *told_of == connects
        {
            return Err(error.clone());
        }
        let place = match self.free.pop() {
            Some(place) => place as usize,
            None if self.slots.len() < PENDING_MAX => {
                self.slots.push(Slot {
                    generation: 0,
                    number: 0,
                    subject: subject.clone(),
                    connects,
                    direct: None,
                    state: SlotState::Free,
                });
                self.slots.len() - 1
            }
            None => return Err(RequestError::TooMany),
        };
        let slot = &mut self.slots[place];
        slot.generation = slot.generation.wrapping_add(1);
        self.count += 1;
        slot.number = self.count;
        slot.subject = subject;
        slot.connects = connects;
        slot.direct = direct.map(|direct| (direct.node.node, direct.repeatable));
        slot.state = SlotState::Waiting(None);
        let key = Key::new(place, slot.generation);
        if let Some(Direct { node, .. }) = direct {
            match self.owed_by(node.node) {
                Some(owed) => owed.open += 1,
                None => self.owed.push(Owed {
                    by: node.clone(),
                    open: 1,
                    answers: 0,
                    answers_before: 0,
                    silent_looks: 0,
                }),
            }
        }
        Ok(key)
    }

    fn owed_by(&mut self, node: NodeId) -> Option<&mut Owed> {
        self.owed.iter_mut().find(|owed| owed.by.node == node)
    }

    /// Looks for nodes that owe answers and have given none since the look before. They are named at
    /// the second such look in a row, at the fourth, the eighth and so on: some requests wait long.
    pub(super) fn silent(&mut self) -> Vec<Probed> {
        let mut silent = Vec::new();
        for owed in &mut self.owed {
            if owed.open == 0 || owed.answers != owed.answers_before {
                owed.silent_looks = 0;
            } else {
                owed.silent_looks += 1;
                let looks = owed.silent_looks;
                if looks > 1 && (looks.is_power_of_two() || looks.is_multiple_of(PROBE_LOOKS_MAX)) {
                    silent.push(owed.by.clone());
                }
            }
            owed.answers_before = owed.answers;
        }
        silent
    }

    /// Fails what waits for a node that is gone: at once what may be repeated, the rest when it has
    /// been silent for [`GONE_LOOKS`].
    pub(super) fn fail_of(&mut self, node: NodeId) {
        let looks = self.owed_by(node).map_or(0, |owed| owed.silent_looks);
        let is_over = |repeatable| repeatable || looks >= GONE_LOOKS;
        self.fail_where(RequestError::NodeGone, |slot| {
            slot.direct
                .is_some_and(|(by, repeatable)| by == node && is_over(repeatable))
        });
    }

    /// Fails what the broker did not let pass to this subject. It says so once for each message, and the
    /// newest fails: older ones may have passed before it was told not to let them.
    pub(super) fn refuse(&mut self, subject: &str) {
        let waits = |slot: &&Slot| matches!(slot.state, SlotState::Waiting(_));
        let to_there = |slot: &&Slot| slot.subject.as_str() == subject;
        let refused = self.slots.iter().filter(waits).filter(to_there);
        let Some(newest) = refused.max_by_key(|slot| slot.number) else {
            return;
        };
        let number = newest.number;
        let error = match newest.direct {
            // Others can be asked instead, on a subject that may be allowed.
            Some(_) => RequestError::NoResponders,
            None => RequestError::Forbidden(format!("publish to {subject}")),
        };
        self.fail_where(error, |slot| slot.number == number);
    }

    /// Hands an answer to whoever waits for it, if it still does; the first answer counts.
    pub(super) fn finish(&mut self, key: Key, result: Result<Message, RequestError>) {
        let Some(slot) = self.slots.get_mut(key.place()) else {
            return;
        };
        if slot.generation != key.generation() {
            return;
        }
        if let SlotState::Waiting(waker) = &mut slot.state {
            let waker = waker.take();
            slot.state = SlotState::Done(Box::new(result));
            if let Some(waker) = waker {
                waker.wake();
            }
            let direct = slot.direct;
            if let Some(owed) = direct.and_then(|(node, _)| self.owed_by(node)) {
                owed.answers += 1;
            }
        }
    }

    /// Fails what was sent before the connection was last made.
    pub(super) fn fail_stale(&mut self, connects: u64) {
        self.fail_where(RequestError::ConnectionLost, |slot| {
            slot.connects < connects
        });
    }

    /// Fails whatever waits, and what will be asked on this connection: no answers come. The broker says so once.
    pub(super) fn deafen(&mut self, connects: u64, error: RequestError) {
        self.fail_all(&error);
        self.unheard = Some((connects, error));
    }

    /// Fails whatever waits.
    pub(super) fn fail_all(&mut self, error: &RequestError) {
        self.fail_where(error.clone(), |_| true);
    }

    fn fail_where(&mut self, error: RequestError, fails: impl Fn(&Slot) -> bool) {
        for place in 0..self.slots.len() {
            let slot = &self.slots[place];
            if matches!(slot.state, SlotState::Waiting(_)) && fails(slot) {
                let key = Key::new(place, slot.generation);
                self.finish(key, Err(error.clone()));
            }
        }
    }

    pub(super) fn poll(
        &mut self,
        key: Key,
        cx: &Context<'_>,
    ) -> Poll<Result<Message, RequestError>> {
        let slot = &mut self.slots[key.place()];
        match std::mem::replace(&mut slot.state, SlotState::Waiting(None)) {
            SlotState::Done(result) => Poll::Ready(*result),
            SlotState::Waiting(_) => {
                slot.state = SlotState::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
            SlotState::Free => unreachable!("a slot is freed only by its own answer's drop"),
        }
    }

    pub(super) fn release(&mut self, key: Key) {
        let slot = &mut self.slots[key.place()];
        debug_assert_eq!(slot.generation, key.generation());
        slot.state = SlotState::Free;
        self.free.push(key.place() as u32);
        let direct = slot.direct.take();
        if let Some(owed) = direct.and_then(|(node, _)| self.owed_by(node)) {
            owed.open -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;

    use super::*;

    fn message() -> Message {
        Message {
            subject: "inbox.1".into(),
            reply: None,
            payload: Bytes::new(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    fn is_done(slots: &mut Slots, key: Key) -> bool {
        let cx = Context::from_waker(Waker::noop());
        slots.poll(key, &cx).is_ready()
    }

    #[test]
    fn a_late_answer_does_not_reach_the_next_user_of_its_slot() {
        let mut slots = Slots::default();
        let first = slots.reserve(1, "a".into(), None).unwrap();
        slots.release(first);
        let second = slots.reserve(1, "a".into(), None).unwrap();
        assert_eq!(first.place(), second.place());
        slots.finish(first, Ok(message()));
        assert!(!is_done(&mut slots, second));
        slots.finish(second, Ok(message()));
        assert!(is_done(&mut slots, second));
    }

    #[test]
    fn requests_beyond_the_bound_are_refused_until_one_ends() {
        let mut slots = Slots::default();
        let keys: Vec<_> = (0..PENDING_MAX)
            .map(|_| slots.reserve(1, "a".into(), None).unwrap())
            .collect();
        let one_more = slots.reserve(1, "a".into(), None);
        assert_eq!(one_more, Err(RequestError::TooMany));
        slots.release(keys[5]);
        assert!(slots.reserve(1, "a".into(), None).is_ok());
    }

    #[test]
    fn where_no_answers_come_nothing_is_waited_for_until_the_connection_is_another() {
        let mut slots = Slots::default();
        let waits = slots.reserve(1, "a".into(), None).unwrap();
        let error = RequestError::Unheard("hear".to_owned());
        slots.deafen(1, error.clone());
        assert!(is_done(&mut slots, waits));
        assert_eq!(slots.reserve(1, "a".into(), None), Err(error));
        assert!(slots.reserve(2, "a".into(), None).is_ok());
    }

    #[test]
    fn a_node_that_may_not_be_asked_by_itself_is_as_good_as_gone() {
        let mut slots = Slots::default();
        let node = &Probed {
            node: NodeId(1),
            subject: "probe".into(),
        };
        let direct = Some(Direct {
            node,
            repeatable: true,
        });
        let key = slots.reserve(1, "n".into(), direct).unwrap();
        slots.refuse("n");
        let found = slots.poll(key, &Context::from_waker(Waker::noop()));
        assert!(
            matches!(
                &found,
                std::task::Poll::Ready(Err(RequestError::NoResponders))
            ),
            "{found:?}"
        );
    }

    #[test]
    fn only_what_was_sent_before_the_connection_was_made_fails_with_it() {
        let mut slots = Slots::default();
        let (old, new) = (
            slots.reserve(1, "a".into(), None).unwrap(),
            slots.reserve(2, "a".into(), None).unwrap(),
        );
        slots.fail_stale(2);
        assert!(is_done(&mut slots, old));
        assert!(!is_done(&mut slots, new));
    }

    #[test]
    fn of_what_went_to_a_subject_that_is_refused_one_fails_at_a_time_the_newest_first() {
        let mut slots = Slots::default();
        let mut reserve = |subject: &str| slots.reserve(1, subject.into(), None).unwrap();
        let (gone, other) = (reserve("a"), reserve("b"));
        let (older, newer) = (reserve("a"), reserve("a"));
        slots.release(gone);
        for (refused, done) in [("A", [false; 3]), ("a", [false, false, true])] {
            slots.refuse(refused);
            let found = [other, older, newer].map(|key| is_done(&mut slots, key));
            assert_eq!(found, done, "{refused}");
        }
        slots.release(newer);
        slots.refuse("a");
        assert!(is_done(&mut slots, older) && !is_done(&mut slots, other));
        slots.refuse("c");
    }

    #[test]
    fn a_node_that_owes_answers_and_gives_none_is_named_ever_more_rarely() {
        let mut slots = Slots::default();
        let node = &Probed {
            node: NodeId(1),
            subject: "probe".into(),
        };
        let mut reserve = |repeatable| {
            let direct = Direct { node, repeatable };
            slots.reserve(1, "a".into(), Some(direct)).unwrap()
        };
        let (first, second, third) = (reserve(true), reserve(true), reserve(false));
        let named = |slots: &mut Slots, looks: std::ops::RangeInclusive<u32>| -> Vec<u32> {
            looks.filter(|_| !slots.silent().is_empty()).collect()
        };
        assert_eq!(named(&mut slots, 1..=70), [2, 4, 8, 16, 32, 64]);
        slots.finish(first, Ok(message()));
        assert_eq!(
            named(&mut slots, 1..=3),
            [3],
            "one answer came, two are owed"
        );
        slots.fail_of(NodeId(2));
        assert!(!is_done(&mut slots, second));
        slots.fail_of(NodeId(1));
        assert!(is_done(&mut slots, second));
        assert!(!is_done(&mut slots, third), "another may answer it still");
        named(&mut slots, 1..=GONE_LOOKS + 1);
        slots.fail_of(NodeId(1));
        assert!(is_done(&mut slots, third));
        for key in [first, second, third] {
            slots.release(key);
        }
        assert_eq!(named(&mut slots, 1..=70), [0; 0], "nothing is owed");
    }

    #[test]
    fn keys_that_nobody_gave_out_are_passed_over() {
        let mut slots = Slots::default();
        slots.finish(Key(u64::MAX), Ok(message()));
        slots.finish(Key(0), Ok(message()));
    }
}
