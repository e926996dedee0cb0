use super::super::cache::{CacheCheck, value};
use super::*;

fn read(check: &mut CacheCheck, clock: &mut Clock, number: u64) {
    let reading = check.reads(clock.tick(), "k");
    check.read(
        clock.tick(),
        "k",
        &reading,
        Some(value(number, 9).as_bytes()),
    );
}

#[test]
fn old_and_invented_values_are_found() {
    let (mut check, mut clock) = (CacheCheck::default(), Clock::new());
    let first = check.writes(clock.tick(), "k", 9);
    let second_on_its_way = check.writes(clock.tick(), "k", 9);
    check.written(clock.tick(), "k", first);
    // Of two writes on their way at once either may be the last.
    check.written(clock.tick(), "k", second_on_its_way);
    read(&mut check, &mut clock, first);
    let early = check.reads(clock.tick(), "k");
    let third = check.writes(clock.tick(), "k", 9);
    read(&mut check, &mut clock, second_on_its_way);
    // A write that was read has taken effect, acknowledged or not.
    read(&mut check, &mut clock, third);
    check.read(clock.tick(), "k", &early, Some(value(first, 9).as_bytes()));
    let reading = check.reads(clock.tick(), "k");
    check.read(clock.tick(), "k", &reading, None);
    finds_nothing(&check.history);
    read(&mut check, &mut clock, first);
    assert!(found(&check.history).contains("a later write had replaced"));
    read(&mut check, &mut clock, 99);
    assert!(check.history.text().contains("nobody wrote"));
}

#[test]
fn a_refused_write_and_a_forgotten_one_are_found() {
    let (mut check, mut clock) = (CacheCheck::default(), Clock::new());
    let refused = check.writes(clock.tick(), "k", 9);
    check.not_written(clock.tick(), "k", refused, "no_lease", false);
    let unknown = check.writes(clock.tick(), "k", 9);
    check.not_written(clock.tick(), "k", unknown, "timeout", true);
    read(&mut check, &mut clock, unknown);
    finds_nothing(&check.history);
    read(&mut check, &mut clock, refused);
    assert!(found(&check.history).contains("which was refused"));

    let mut check = CacheCheck::default();
    for _ in 0..1000 {
        let number = check.writes(clock.tick(), "k", 9);
        check.written(clock.tick(), "k", number);
    }
    read(&mut check, &mut clock, 1);
    assert!(found(&check.history).contains("replaced long before"));
}

#[test]
fn a_write_that_was_read_and_replaced_stays_replaced() {
    let (mut check, mut clock) = (CacheCheck::default(), Clock::new());
    let unknown = check.writes(clock.tick(), "k", 9);
    check.not_written(clock.tick(), "k", unknown, "timeout", true);
    // It took effect.
    read(&mut check, &mut clock, unknown);
    let next = check.writes(clock.tick(), "k", 9);
    check.written(clock.tick(), "k", next);
    finds_nothing(&check.history);
    read(&mut check, &mut clock, unknown);
    assert!(found(&check.history).contains("a later write had replaced"));
}

#[test]
fn a_write_without_an_answer_may_take_effect_at_any_time_later() {
    let (mut check, mut clock) = (CacheCheck::default(), Clock::new());
    let unknown = check.writes(clock.tick(), "k", 9);
    check.not_written(clock.tick(), "k", unknown, "timeout", true);
    let next = check.writes(clock.tick(), "k", 9);
    check.written(clock.tick(), "k", next);
    read(&mut check, &mut clock, next);
    read(&mut check, &mut clock, unknown);
    finds_nothing(&check.history);
}

#[test]
fn a_value_that_was_cut_is_found() {
    let (mut check, mut clock) = (CacheCheck::default(), Clock::new());
    let number = check.writes(clock.tick(), "k", 9);
    check.written(clock.tick(), "k", number);
    let reading = check.reads(clock.tick(), "k");
    check.read(clock.tick(), "k", &reading, Some(b"1"));
    assert!(found(&check.history).contains("another value"));
}
