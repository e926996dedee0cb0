//! Who waits for which answer: the table behind a [`Requester`](super::Requester).

use std::task::{Context, Poll, Waker};

use crate::client::requester::{Message, PENDING_MAX, RequestError};

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

/// Who waits for answers. Grows to the most that were ever in flight at a time.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// How often the connection had been made when the request was sent.
    connects: u64,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    Free,
    Waiting(Option<Waker>),
    Done(Box<Result<Message, RequestError>>),
}

impl Slots {
    pub(super) fn reserve(&mut self, connects: u64) -> Option<Key> {
        let place = match self.free.pop() {
            Some(place) => place as usize,
            None if self.slots.len() < PENDING_MAX => {
                self.slots.push(Slot {
                    generation: 0,
                    connects,
                    state: SlotState::Free,
                });
                self.slots.len() - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[place];
        slot.generation = slot.generation.wrapping_add(1);
        slot.connects = connects;
        slot.state = SlotState::Waiting(None);
        Some(Key::new(place, slot.generation))
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
        }
    }

    /// Fails what was sent before the connection was last made.
    pub(super) fn fail_stale(&mut self, connects: u64) {
        for place in 0..self.slots.len() {
            let slot = &self.slots[place];
            if slot.connects < connects && matches!(slot.state, SlotState::Waiting(_)) {
                let key = Key::new(place, slot.generation);
                self.finish(key, Err(RequestError::ConnectionLost));
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
        let first = slots.reserve(1).unwrap();
        slots.release(first);
        let second = slots.reserve(1).unwrap();
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
            .map(|_| slots.reserve(1).unwrap())
            .collect();
        assert_eq!(slots.reserve(1), None);
        slots.release(keys[5]);
        assert!(slots.reserve(1).is_some());
    }

    #[test]
    fn only_what_was_sent_before_the_connection_was_made_fails_with_it() {
        let mut slots = Slots::default();
        let (old, new) = (slots.reserve(1).unwrap(), slots.reserve(2).unwrap());
        slots.fail_stale(2);
        assert!(is_done(&mut slots, old));
        assert!(!is_done(&mut slots, new));
    }

    #[test]
    fn keys_that_nobody_gave_out_are_passed_over() {
        let mut slots = Slots::default();
        slots.finish(Key(u64::MAX), Ok(message()));
        slots.finish(Key(0), Ok(message()));
    }
}
