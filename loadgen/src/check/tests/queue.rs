use super::super::queue::{Got, QueueCheck, Settled, payload};
use super::*;

/// A queue in which messages 1 to 3 are acknowledged under the same sequences.
fn three_pushed(clock: &mut Clock) -> QueueCheck {
    let mut check = QueueCheck::default();
    for seq in 1..=3 {
        let pushing = check.pushes(clock.tick(), "t", 20);
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

/// Hears what came of the acknowledgement of a message.
fn settle(check: &mut QueueCheck, clock: &mut Clock, number: u64, settled: Settled) {
    let payload = payload(number, 20);
    check.settled(clock.tick(), "t", payload.as_bytes(), "", settled);
}

#[test]
fn a_queue_that_keeps_its_promises_is_not_accused() {
    let mut clock = Clock::new();
    let mut check = three_pushed(&mut clock);
    pop(&mut check, &mut clock, &[(1, 1)]);
    settle(&mut check, &mut clock, 1, Settled::Done);
    pop(&mut check, &mut clock, &[(2, 1), (3, 1)]);
    clock.0 += TTL;
    pop(&mut check, &mut clock, &[(2, 2)]);
    for number in [2, 3] {
        settle(&mut check, &mut clock, number, Settled::Done);
    }
    check.emptied(clock.tick(), "t");
    finds_nothing(&check.history);
}

#[test]
fn each_fault_of_a_queue_is_found() {
    type Fault = fn(&mut QueueCheck, &mut Clock);
    let faults: [(&str, Fault); 8] = [
        ("is lost", |check, clock| {
            pop(check, clock, &[(1, 1), (3, 1)]);
            settle(check, clock, 1, Settled::Done);
            settle(check, clock, 3, Settled::Done);
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
            settle(check, clock, 1, Settled::Done);
            pop(check, clock, &[(1, 2)]);
        }),
        ("sequence 3 is not above 3", |check, clock| {
            let pushing = check.pushes(clock.tick(), "t", 20);
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

#[test]
fn a_message_that_was_handed_out_and_not_acknowledged_has_to_come_again() {
    let mut clock = Clock::new();
    let mut check = three_pushed(&mut clock);
    pop(&mut check, &mut clock, &[(1, 1), (2, 1), (3, 1)]);
    settle(&mut check, &mut clock, 1, Settled::Done);
    // It may be done.
    settle(&mut check, &mut clock, 2, Settled::Unknown);
    settle(&mut check, &mut clock, 3, Settled::NotDone);
    assert!(!check.has_all("t"));
    check.emptied(clock.tick(), "t");
    assert!(found(&check.history).contains("message 3, acknowledged as 3, is lost"));
}

#[test]
fn a_dead_message_is_not_lost() {
    let mut clock = Clock::new();
    let mut check = three_pushed(&mut clock);
    pop(&mut check, &mut clock, &[(1, 1), (2, 1), (3, 1)]);
    settle(&mut check, &mut clock, 1, Settled::Done);
    settle(&mut check, &mut clock, 2, Settled::Done);
    settle(&mut check, &mut clock, 3, Settled::NotDone);
    check.died(clock.tick(), "t", payload(3, 20).as_bytes());
    assert!(check.has_all("t"));
    check.emptied(clock.tick(), "t");
    finds_nothing(&check.history);
}

#[test]
fn a_payload_that_was_cut_is_found() {
    let mut clock = Clock::new();
    let mut check = three_pushed(&mut clock);
    let popping = check.pops(clock.tick(), "t");
    let got = [Got {
        payload: b"1",
        seq: 1,
        deliveries: 1,
    }];
    check.popped(clock.tick(), "t", &popping, &got, TTL);
    assert!(found(&check.history).contains("another payload"));
}
