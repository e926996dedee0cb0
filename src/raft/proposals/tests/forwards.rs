//! From a follower to the leader: once, in order, and in one term.

use std::collections::BTreeSet;

use super::*;
use crate::trace::Traced;

#[test]
fn forwards_are_taken_once_and_in_order() {
    let now = now();
    let mut from = proposals(ME, follower(4));
    let mut to = proposals(OTHER, leader(4));
    let mut sent = Vec::new();
    for number in 1..=3 {
        submit(&mut from, number, now);
        sent.push(forward(&mut from, now).unwrap());
    }
    take(&mut to, &sent[1], now); // a gap
    assert!(!to.has_work());
    for index in [0, 0, 2, 1, 2, 0, 1] {
        take(&mut to, &sent[index], now);
    }
    let (_, batch) = propose(&mut to, now).unwrap();
    assert_eq!(numbers(&batch), vec![1, 2, 3]);
    let commands = batch.commands().unwrap();
    let origins: BTreeSet<u64> = commands
        .iter()
        .map(|p| p.origin.unwrap().sequence)
        .collect();
    assert_eq!(origins.len(), 3);

    // The leader answers the clients, the sender learns that it need not.
    assert_eq!(apply(&mut to, 4, &batch, &released()).len(), 3);
    assert!(apply(&mut from, 4, &batch, &released()).is_empty());
    assert!(from.is_idle());
}

#[test]
fn forwards_of_another_term_are_not_taken() {
    let now = now();
    let mut from = proposals(ME, follower(4));
    submit(&mut from, 1, now);
    let sent = forward(&mut from, now).unwrap();
    for role in [leader(3), leader(5), follower(4), Role::Leaderless] {
        let mut to = proposals(OTHER, role);
        take(&mut to, &sent, now);
        assert!(!to.has_work(), "taken as {role:?}");
    }
    let mut to = proposals(OTHER, Role::Elected { term: 4 });
    take(&mut to, &sent, now);
    to.set_role(leader(4));
    take(&mut to, &sent, now);
    assert_eq!(
        propose(&mut to, now).unwrap().1.count,
        1,
        "once, over both roles of a term"
    );
}

#[test]
fn a_lost_forward_is_sent_again_after_half_a_second() {
    let begun = now();
    let mut from = proposals(ME, follower(4));
    (1..=2).for_each(|number| submit(&mut from, number, begun));
    let sent = forward(&mut from, begun).unwrap();
    let late = begun + FORWARD_AGAIN;
    assert!(again(&mut from, late - ms(1)).is_none());
    assert_eq!(again(&mut from, late).unwrap(), sent);
    assert!(again(&mut from, late).is_none(), "its time begins anew");
}

#[test]
fn one_round_of_repeats_closes_the_gap_of_a_lost_forward() {
    let begun = now();
    let mut from = proposals(ME, follower(4));
    let mut to = proposals(OTHER, leader(4));
    let count = 3 * BATCH_MAX as u64;
    (1..=count).for_each(|number| submit(&mut from, number, begun));
    let _lost = forward(&mut from, begun).unwrap();
    while let Some(sent) = forward(&mut from, begun) {
        take(&mut to, &sent, begun);
    }
    // Not late yet when the others are.
    submit(&mut from, count + 1, begun);
    take(&mut to, &forward(&mut from, begun + ms(1)).unwrap(), begun);
    assert!(!to.has_work(), "all come after a gap");
    for work in from.forward_again(begun + FORWARD_AGAIN) {
        let Work::Forward { forward, .. } = work else {
            panic!("a follower forwards");
        };
        take(&mut to, &forward, begun + FORWARD_AGAIN);
    }
    assert_eq!(to.pending() as u64, count + 1);
}

#[test]
fn what_a_sender_gave_up_leaves_no_gap_and_never_takes_effect() {
    let begun = now();
    let mut from = proposals(ME, follower(4));
    let mut to = proposals(OTHER, leader(4));
    let early = Submission {
        command: command(1),
        ticket: Ticket::Nobody,
        deadline: begun + ms(100),
    };
    from.submit(early).unwrap();
    let lost = forward(&mut from, begun).unwrap();
    let mut due = Vec::new();
    from.sweep(begun + ms(100), true, &mut due);
    assert_eq!(due[0].result, Err(Refusal::Indeterminate));

    submit(&mut from, 2, begun);
    take(&mut to, &forward(&mut from, begun).unwrap(), begun);
    take(&mut to, &lost, begun); // it was only late
    assert_eq!(numbers(&propose(&mut to, begun).unwrap().1), vec![2]);
}

#[test]
fn forwards_of_an_earlier_term_go_again_with_new_sequences() {
    let now = now();
    let mut from = proposals(ME, follower(4));
    (1..=2).for_each(|number| submit(&mut from, number, now));
    let lost = forward(&mut from, now).unwrap();
    from.set_role(follower(5));
    assert!(
        again(&mut from, now + FORWARD_AGAIN).is_none(),
        "not to the leader of term 5 yet"
    );
    from.term_applied(5);
    let sent = forward(&mut from, now).unwrap();
    assert_eq!((sent.term, &sent.commands), (5, &lost.commands));
    assert_eq!((sent.oldest, sent.first), (3, 3));
    let mut to = proposals(OTHER, leader(5));
    take(&mut to, &lost, now);
    take(&mut to, &sent, now);
    assert_eq!(propose(&mut to, now).unwrap().1.count, 2);
}

#[test]
fn a_forward_says_which_commands_belong_to_a_trace_and_others_are_sent_as_ever() {
    let now = now();
    let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut from = proposals(ME, follower(4));
    submit(&mut from, 1, now);
    let mut to = reply(2);
    to.trace = Traced::begin("lock.acquire", ME, Some(header));
    let submission = Submission {
        command: command(2),
        ticket: Ticket::Client {
            to,
            received: now,
            seat: Seat::default(),
        },
        deadline: now + ms(60_000),
    };
    from.submit(submission).expect("room for a command");
    let mut sent = forward(&mut from, now).unwrap();
    assert_eq!(sent.traces, [(1, header.to_owned())]);
    sent.traces.clear();
    let bytes = rmp_serde::to_vec(&sent).expect("a forward encodes");
    assert_eq!(bytes[0], 0x96, "six fields, as without traces");
    let again = again(&mut from, now + FORWARD_AGAIN).expect("it is late");
    assert_eq!(again.traces.len(), 1, "a repeat belongs to it, too");
}
