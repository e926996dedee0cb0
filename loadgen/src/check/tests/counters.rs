use super::super::counters::CounterCheck;
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
