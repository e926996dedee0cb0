use mufakat::protocol::lock::Mode;

use super::cache::{CacheCheck, value};
use super::counters::CounterCheck;
use super::locks::{Asked, LockCheck};
use super::queue::{Got, QueueCheck, payload};
use super::*;

const TTL: Duration = Duration::from_secs(30);

/// Instants that rise by a millisecond with each call.
struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn tick(&mut self) -> Instant {
        self.0 += Duration::from_millis(1);
        self.0
    }
}

fn found(history: &History) -> String {
    assert_eq!(history.violation_count(), 1, "{}", history.text());
    let text = history.text();
    text.lines().next().unwrap_or_default().to_owned()
}

fn asks(check: &mut LockCheck, clock: &mut Clock, owner: &str, mode: Mode) -> Asked {
    check.asks(clock.tick(), owner, vec!["lock".to_owned()], mode, TTL)
}

#[test]
fn two_holders_are_found_unless_both_share_or_one_has_given_back() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    let ann = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    let bob = asks(&mut check, &mut clock, "bob", Mode::Shared);
    let cid = asks(&mut check, &mut clock, "cid", Mode::Shared);
    check.granted(clock.tick(), &ann, 1);
    // From the sending of the release on, the lock may be somebody else's.
    check.releases(clock.tick(), &ann, 1);
    check.granted(clock.tick(), &bob, 2);
    check.granted(clock.tick(), &cid, 3);
    assert_eq!(check.history.violation_count(), 0);
    let ann = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    check.granted(clock.tick(), &ann, 4);
    let text = found(&check.history);
    assert!(
        text.contains("bob (shared, token 2) and ann (exclusive, token 4)"),
        "{text}"
    );
    let history = check.history.text();
    assert!(history.contains("ann gives token 1 back"), "{history}");
}

#[test]
fn a_lease_that_may_be_over_is_no_hold() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    let ann = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    check.granted(clock.tick(), &ann, 1);
    clock.0 += TTL;
    let bob = asks(&mut check, &mut clock, "bob", Mode::Exclusive);
    check.granted(clock.tick(), &bob, 2);
    // A grant that comes so late that its lease is over says nothing either.
    let cid = asks(&mut check, &mut clock, "cid", Mode::Exclusive);
    clock.0 += TTL - Duration::from_millis(100);
    check.granted(clock.tick(), &cid, 3);
    assert_eq!(
        check.history.violation_count(),
        0,
        "{}",
        check.history.text()
    );
}

#[test]
fn tokens_rise_over_all_locks_and_are_granted_once() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    let other = |check: &mut LockCheck, now, owner: &str| {
        check.asks(
            now,
            owner,
            vec![format!("lock of {owner}")],
            Mode::Exclusive,
            TTL,
        )
    };
    let ann = other(&mut check, clock.tick(), "ann");
    let bob = other(&mut check, clock.tick(), "bob");
    check.granted(clock.tick(), &ann, 8);
    // Both were on their way at once: either may have been first.
    check.granted(clock.tick(), &bob, 7);
    assert_eq!(check.history.violation_count(), 0);
    let cid = other(&mut check, clock.tick(), "cid");
    check.granted(clock.tick(), &cid, 6);
    assert!(found(&check.history).contains("token 6 is not above 8"));
    let dan = other(&mut check, clock.tick(), "dan");
    check.granted(clock.tick(), &dan, 8);
    assert!(check.history.text().contains("token 8 was granted twice"));
}

#[test]
fn what_was_not_answered_may_have_been_granted_before() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    let lost = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    check.not_granted(clock.tick(), &lost, "no_answer", true);
    let bob = check.asks(
        clock.tick(),
        "bob",
        vec!["other".to_owned()],
        Mode::Exclusive,
        TTL,
    );
    check.granted(clock.tick(), &bob, 9);
    let again = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    check.granted(clock.tick(), &again, 5);
    // Nor is it known whether a release without an answer took effect.
    check.releases(clock.tick(), &again, 5);
    check.released(clock.tick(), &again, 5, Some("no_answer"));
    let again = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    check.granted(clock.tick(), &again, 5);
    assert_eq!(
        check.history.violation_count(),
        0,
        "{}",
        check.history.text()
    );
    check.releases(clock.tick(), &again, 5);
    check.released(clock.tick(), &again, 5, None);
    let again = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    check.granted(clock.tick(), &again, 5);
    assert!(found(&check.history).contains("token 5 was granted twice"));
}

/// A queue in which messages 1 to 3 are acknowledged under the same sequences.
fn three_pushed(clock: &mut Clock) -> QueueCheck {
    let mut check = QueueCheck::default();
    for seq in 1..=3 {
        let pushing = check.pushes(clock.tick(), "t");
        check.pushed(clock.tick(), "t", &pushing, seq);
    }
    check
}

/// Pops these messages, each under its number as sequence.
fn pop(check: &mut QueueCheck, clock: &mut Clock, messages: &[(u64, u64)]) {
    let popping = check.pops(clock.tick(), "t");
    let payloads: Vec<_> = messages
        .iter()
        .map(|(number, _)| payload(*number, 20))
        .collect();
    let got: Vec<_> = messages
        .iter()
        .zip(&payloads)
        .map(|((seq, deliveries), payload)| Got {
            payload: payload.as_bytes(),
            seq: *seq,
            deliveries: *deliveries,
        })
        .collect();
    check.popped(clock.tick(), "t", &popping, &got, TTL);
}

#[test]
fn a_queue_that_keeps_its_promises_is_not_accused() {
    let mut clock = Clock::new();
    let mut check = three_pushed(&mut clock);
    pop(&mut check, &mut clock, &[(1, 1)]);
    check.settled(clock.tick(), "t", payload(1, 20).as_bytes(), "acked", true);
    pop(&mut check, &mut clock, &[(2, 1), (3, 1)]);
    clock.0 += TTL;
    pop(&mut check, &mut clock, &[(2, 2)]);
    check.emptied(clock.tick(), "t");
    assert_eq!(
        check.history.violation_count(),
        0,
        "{}",
        check.history.text()
    );
}

#[test]
fn each_fault_of_a_queue_is_found() {
    type Fault = fn(&mut QueueCheck, &mut Clock);
    let faults: [(&str, Fault); 8] = [
        ("is lost", |check, clock| {
            pop(check, clock, &[(1, 1), (3, 1)]);
            check.emptied(clock.tick(), "t");
        }),
        ("never pushed", |check, clock| pop(check, clock, &[(4, 1)])),
        ("none that was pushed", |check, clock| {
            let popping = check.pops(clock.tick(), "t");
            let got = [Got {
                payload: b"garbage",
                seq: 1,
                deliveries: 1,
            }];
            check.popped(clock.tick(), "t", &popping, &got, TTL);
        }),
        ("for the first time as 1 after 2", |check, clock| {
            pop(check, clock, &[(2, 1)]);
            pop(check, clock, &[(1, 1)]);
        }),
        ("for the first time as 1 after 2", |check, clock| {
            pop(check, clock, &[(2, 1), (1, 1)])
        }),
        ("while it was in flight", |check, clock| {
            pop(check, clock, &[(1, 1)]);
            pop(check, clock, &[(1, 2)]);
        }),
        ("after its acknowledgement", |check, clock| {
            pop(check, clock, &[(1, 1)]);
            check.settled(clock.tick(), "t", payload(1, 20).as_bytes(), "acked", true);
            pop(check, clock, &[(1, 2)]);
        }),
        ("sequence 3 is not above 3", |check, clock| {
            let pushing = check.pushes(clock.tick(), "t");
            check.pushed(clock.tick(), "t", &pushing, 3);
        }),
    ];
    for (expected, fault) in faults {
        let mut clock = Clock::new();
        let mut check = three_pushed(&mut clock);
        fault(&mut check, &mut clock);
        let text = found(&check.history);
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

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
    let first = check.writes(clock.tick(), "k");
    let second_on_its_way = check.writes(clock.tick(), "k");
    check.written(clock.tick(), "k", first);
    // Of two writes on their way at once either may be the last.
    check.written(clock.tick(), "k", second_on_its_way);
    read(&mut check, &mut clock, first);
    let early = check.reads(clock.tick(), "k");
    let third = check.writes(clock.tick(), "k");
    read(&mut check, &mut clock, second_on_its_way);
    // A write that was read has taken effect, acknowledged or not.
    read(&mut check, &mut clock, third);
    check.read(clock.tick(), "k", &early, Some(value(first, 9).as_bytes()));
    let reading = check.reads(clock.tick(), "k");
    check.read(clock.tick(), "k", &reading, None);
    assert_eq!(
        check.history.violation_count(),
        0,
        "{}",
        check.history.text()
    );
    read(&mut check, &mut clock, first);
    assert!(found(&check.history).contains("a later write had replaced"));
    read(&mut check, &mut clock, 99);
    assert!(check.history.text().contains("nobody wrote"));
}

#[test]
fn a_refused_write_and_a_forgotten_one_are_found() {
    let (mut check, mut clock) = (CacheCheck::default(), Clock::new());
    let refused = check.writes(clock.tick(), "k");
    check.not_written(clock.tick(), "k", refused, "no_lease", false);
    let unknown = check.writes(clock.tick(), "k");
    check.not_written(clock.tick(), "k", unknown, "timeout", true);
    read(&mut check, &mut clock, unknown);
    assert_eq!(check.history.violation_count(), 0);
    read(&mut check, &mut clock, refused);
    assert!(found(&check.history).contains("which was refused"));

    let mut check = CacheCheck::default();
    for _ in 0..1000 {
        let number = check.writes(clock.tick(), "k");
        check.written(clock.tick(), "k", number);
    }
    read(&mut check, &mut clock, 1);
    assert!(found(&check.history).contains("replaced long before"));
}

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
    assert_eq!(check.history.violation_count(), 0);
}
