use super::super::counters::{CounterCheck, Counting};
use super::*;

#[test]
fn a_counter_that_loses_or_invents_is_found() {
    for (values, expected) in [
        (&[1, 2, 2][..], "two increments give 2"),
        (&[1, 3], "3 is more than the 2 increments"),
    ] {
        let (mut check, mut clock) = (CounterCheck::default(), Clock::new());
        for value in values {
            let counting = check.counts(clock.tick(), "c");
            check.counted(clock.tick(), "c", &counting, *value);
        }
        let text = found(&check.history);
        assert!(text.contains(expected), "{text}");
    }
    // A cache may forget.
    let (mut check, mut clock) = (CounterCheck::default(), Clock::new());
    for value in [1, 2, 1, 2] {
        let counting = check.counts(clock.tick(), "c");
        check.counted(clock.tick(), "c", &counting, value);
    }
    finds_nothing(&check.history);
}

/// Sends so many increments.
fn send(check: &mut CounterCheck, clock: &mut Clock, number: usize) -> Vec<Counting> {
    let sent = (0..number).map(|_| check.counts(clock.tick(), "c"));
    sent.collect()
}

/// A counter at 2, and one increment more that is on its way.
fn at_two(clock: &mut Clock) -> (CounterCheck, Counting) {
    let mut check = CounterCheck::default();
    for value in [1, 2] {
        let counting = check.counts(clock.tick(), "c");
        check.counted(clock.tick(), "c", &counting, value);
    }
    let counting = check.counts(clock.tick(), "c");
    (check, counting)
}

#[test]
fn the_new_beginning_of_a_counter_may_be_heard_of_late() {
    let mut clock = Clock::new();
    let (mut check, first) = at_two(&mut clock);
    let second = check.counts(clock.tick(), "c");
    check.counted(clock.tick(), "c", &second, 2);
    finds_nothing(&check.history);
    check.counted(clock.tick(), "c", &first, 1);
    finds_nothing(&check.history);
}

#[test]
fn the_new_beginning_of_a_counter_may_never_be_heard_of() {
    let mut clock = Clock::new();
    for fails_first in [true, false] {
        let (mut check, first) = at_two(&mut clock);
        let second = check.counts(clock.tick(), "c");
        if fails_first {
            check.not_counted(clock.tick(), "c", &first, "no_answer", true);
        }
        check.counted(clock.tick(), "c", &second, 2);
        if !fails_first {
            check.not_counted(clock.tick(), "c", &first, "no_answer", true);
        }
        finds_nothing(&check.history);
    }
}

#[test]
fn two_increments_on_their_way_may_both_be_beginnings() {
    let (mut check, mut clock) = (CounterCheck::default(), Clock::new());
    for counting in send(&mut check, &mut clock, 2) {
        check.counted(clock.tick(), "c", &counting, 1);
    }
    finds_nothing(&check.history);
}

#[test]
fn a_counter_that_goes_back_without_a_new_beginning_is_found() {
    let mut clock = Clock::new();
    let (mut check, first) = at_two(&mut clock);
    let others = send(&mut check, &mut clock, 2);
    check.counted(clock.tick(), "c", &others[0], 2);
    check.counted(clock.tick(), "c", &others[1], 4);
    finds_nothing(&check.history);
    check.counted(clock.tick(), "c", &first, 3);
    assert!(found(&check.history).contains("two increments give 2"));

    // A refused increment is no beginning either.
    let (mut check, first) = at_two(&mut clock);
    let second = check.counts(clock.tick(), "c");
    check.counted(clock.tick(), "c", &second, 2);
    check.not_counted(clock.tick(), "c", &first, "no_lease", false);
    assert!(found(&check.history).contains("two increments give 2"));
}
