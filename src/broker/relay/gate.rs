//! Which requests that other nodes hand on are still to be executed. Plain code.
//!
//! A broker's client sends what it had queued after it reconnects, so that a request may arrive long
//! after its client gave up. Clocks of two nodes are not compared: of each sender the smallest
//! difference between arrival here and sending there is kept, and what a later request has beyond it
//! is time that it spent on its way. Clocks that run apart move that difference slowly, so it is
//! taken over the last one to two windows. A request may appear younger than it is by as much as the
//! fastest one in those windows was late; never older.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{BootId, NodeId};

/// Senders remembered: a cluster has fewer nodes. Requests of further ones are refused.
const SENDERS_MAX: usize = 64;
/// Runs of one sender that are over; a late message of one of them is refused.
const FORMER_BOOTS_MAX: usize = 8;
/// Clocks that run apart by a thousandth differ by 60 ms after two of these.
const WINDOW_MS: u64 = 30_000;
/// How far behind the newest number a request may arrive and still be told from a repeat.
const NUMBERS: u64 = 1024;
const WORDS: usize = NUMBERS as usize / 64;

/// What is known about the senders.
#[derive(Debug, Default)]
pub struct Gate {
    senders: BTreeMap<NodeId, Sender>,
}

/// A request's mark: who sent it, which one it is, when, and for how long it is good.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub from: NodeId,
    pub boot: BootId,
    pub number: u64,
    /// By the sender's clock.
    pub sent_ms: u64,
    pub left_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// To be executed; so much of its time is left.
    Taken { left_ms: u64 },
    /// Came before, or is of a run that is over.
    Repeated,
    /// Its client has given up.
    Late,
}

#[derive(Debug)]
struct Sender {
    boot: BootId,
    former: VecDeque<BootId>,
    highest: u64,
    /// Numbers up to [`NUMBERS`] below `highest` that were seen, by number modulo [`NUMBERS`].
    seen: [u64; WORDS],
    window_began_ms: u64,
    smallest: i64,
    smallest_before: i64,
}

impl Gate {
    /// `now_ms` is this node's clock; only its differences count.
    pub fn admit(&mut self, mark: Mark, now_ms: u64) -> Admission {
        let difference = now_ms as i64 - mark.sent_ms as i64;
        if !self.senders.contains_key(&mark.from) {
            if self.senders.len() >= SENDERS_MAX {
                return Admission::Repeated;
            }
            let sender = Sender::new(mark.boot, VecDeque::new(), difference, now_ms);
            self.senders.insert(mark.from, sender);
        }
        let sender = self.senders.get_mut(&mark.from).expect("it is there");
        if sender.boot != mark.boot && !sender.restart(mark.boot, difference, now_ms) {
            return Admission::Repeated;
        }
        if !sender.note(mark.number) {
            return Admission::Repeated;
        }
        let late_ms = sender.lateness(difference, now_ms);
        match mark.left_ms.checked_sub(late_ms) {
            None | Some(0) => Admission::Late,
            Some(left_ms) => Admission::Taken { left_ms },
        }
    }
}

impl Sender {
    fn new(boot: BootId, former: VecDeque<BootId>, difference: i64, now_ms: u64) -> Self {
        Sender {
            boot,
            former,
            highest: 0,
            seen: [0; WORDS],
            window_began_ms: now_ms,
            smallest: difference,
            smallest_before: difference,
        }
    }

    /// Whether `boot` is a run that was not over already; it is the current one from now on.
    fn restart(&mut self, boot: BootId, difference: i64, now_ms: u64) -> bool {
        if self.former.contains(&boot) {
            return false;
        }
        let mut former = std::mem::take(&mut self.former);
        former.push_back(self.boot);
        if former.len() > FORMER_BOOTS_MAX {
            former.pop_front();
        }
        *self = Sender::new(boot, former, difference, now_ms);
        true
    }

    /// Whether this number is seen for the first time.
    fn note(&mut self, number: u64) -> bool {
        if number > self.highest {
            let from = self.highest.max(number.saturating_sub(NUMBERS));
            for passed in from + 1..number {
                self.seen[word(passed)] &= !bit(passed);
            }
            self.highest = number;
        } else if self.highest - number >= NUMBERS || self.seen[word(number)] & bit(number) != 0 {
            return false;
        }
        self.seen[word(number)] |= bit(number);
        true
    }

    /// How much longer than the fastest lately this one was on its way.
    fn lateness(&mut self, difference: i64, now_ms: u64) -> u64 {
        let windows = now_ms.saturating_sub(self.window_began_ms) / WINDOW_MS;
        if windows > 0 {
            // After a silence the last known difference still stands: a first request may be late.
            self.smallest_before = self.smallest;
            self.smallest = i64::MAX;
            self.window_began_ms = now_ms;
        }
        let late = difference - self.smallest_before.min(self.smallest);
        self.smallest = self.smallest.min(difference);
        late.max(0) as u64
    }
}

fn word(number: u64) -> usize {
    (number % NUMBERS / 64) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u64, sent_ms: u64) -> Mark {
        Mark {
            from: NodeId(1),
            boot: BootId(7),
            number,
            sent_ms,
            left_ms: 1_000,
        }
    }

    const fn taken(left_ms: u64) -> Admission {
        Admission::Taken { left_ms }
    }

    #[test]
    fn time_on_the_way_is_taken_from_what_is_left_whatever_the_clocks_say() {
        for apart in [0, 1 << 40] {
            let mut gate = Gate::default();
            assert_eq!(gate.admit(mark(1, 50), 1_000_000 + apart), taken(1_000));
            assert_eq!(gate.admit(mark(2, 60), 1_000_310 + apart), taken(700));
            assert_eq!(gate.admit(mark(3, 70), 1_001_020 + apart), Admission::Late);
        }
    }

    #[test]
    fn a_request_that_a_broker_kept_for_twenty_seconds_is_late() {
        let mut gate = Gate::default();
        gate.admit(mark(1, 0), 500);
        assert_eq!(gate.admit(mark(2, 40_000), 60_500), Admission::Late);
        assert_eq!(gate.admit(mark(3, 60_000), 60_501), taken(999));
    }

    #[test]
    fn clocks_that_run_apart_make_nothing_late() {
        let mut gate = Gate::default();
        for (number, second) in (0..100_000u64).enumerate() {
            let sent_ms = second * 1_000;
            let here_ms = sent_ms + sent_ms / 1_000;
            let Admission::Taken { left_ms } =
                gate.admit(mark(number as u64 + 1, sent_ms), here_ms)
            else {
                panic!("late after {second} s");
            };
            assert!(left_ms >= 930, "{left_ms} left after {second} s");
        }
    }

    #[test]
    fn each_number_is_taken_once_in_any_order() {
        let mut gate = Gate::default();
        for number in [1, 3, 2, 2_000, 1_999, 1_500] {
            assert_eq!(gate.admit(mark(number, 0), 0), taken(1_000), "{number}");
            assert_eq!(gate.admit(mark(number, 0), 0), Admission::Repeated);
        }
        assert_eq!(gate.admit(mark(900, 0), 0), Admission::Repeated);
        assert_eq!(gate.admit(mark(2_001 + 1_024, 0), 0), taken(1_000));
        assert_eq!(gate.admit(mark(2_002, 0), 0), taken(1_000));
    }

    #[test]
    fn a_run_that_is_over_is_not_heard_again() {
        let mut gate = Gate::default();
        let of = |boot, number| Mark {
            boot: BootId(boot),
            ..mark(number, 0)
        };
        assert_eq!(gate.admit(of(1, 9), 0), taken(1_000));
        assert_eq!(gate.admit(of(2, 1), 0), taken(1_000));
        assert_eq!(gate.admit(of(1, 10), 0), Admission::Repeated);
        assert_eq!(gate.admit(of(2, 2), 0), taken(1_000));
    }
}
