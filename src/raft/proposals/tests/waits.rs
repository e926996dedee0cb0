//! What lets the state wait for its client, on the way there.

use super::*;
use crate::lock::claim::{Grip, Wants};
use crate::lock::command::{Acquire, DeadlockPolicy, Wait};

/// A node that is asked for a lock at `now`, by who waits 6 s in the queue and 7 s for the answer.
fn asked(role: Role, now: Instant) -> Proposals {
    let acquire = Acquire {
        wants: Wants::one("r", Grip::Exclusive),
        owner: "o".into(),
        request_id: None,
        session: None,
        ttl_ms: Some(30_000),
        wait: Some(Wait {
            wait_ms: 6_000,
            reply: reply(1),
        }),
        on_deadlock: DeadlockPolicy::Requester,
        meta: None,
        tenant: None,
    };
    let mut node = proposals(ME, role);
    node.submit(Submission {
        command: Command::Lock(lock::Command::Acquire(acquire)),
        ticket: Ticket::Client {
            to: reply(1),
            received: now,
            seat: Seat::default(),
        },
        deadline: now + ms(7_000),
    })
    .expect("room for a command");
    node
}

fn wait_ms(command: &Command) -> u64 {
    match command {
        Command::Lock(lock::Command::Acquire(acquire)) => {
            acquire.wait.as_ref().expect("it says how long").wait_ms
        }
        _ => panic!("not what was asked: {command:?}"),
    }
}

fn proposed(batch: &Batch) -> u64 {
    let commands = batch.commands().unwrap();
    wait_ms(&commands[0].command)
}

fn sent(forward: &Forward) -> u64 {
    wait_ms(&forward.commands[0].1)
}

#[test]
fn a_wait_that_was_held_back_ends_before_its_client_gives_up() {
    let now = now();
    let mut node = asked(leader(1), now);
    assert_eq!(proposed(&propose(&mut node, now).unwrap().1), 6_000);

    let mut node = asked(Role::Leaderless, now);
    node.set_role(leader(1));
    let (_, batch) = propose(&mut node, now + ms(4_000)).unwrap();
    assert_eq!(proposed(&batch), 2_750);

    let mut node = asked(Role::Leaderless, now);
    node.set_role(leader(1));
    let (_, batch) = propose(&mut node, now + ms(6_800)).unwrap();
    assert_eq!(proposed(&batch), 0, "a try");
}

#[test]
fn a_wait_that_goes_again_is_cut_again() {
    let now = now();
    let mut node = asked(leader(1), now);
    let (_, batch) = propose(&mut node, now).unwrap();
    node.refused(batch.number);
    node.propose_again();
    let (_, batch) = propose(&mut node, now + ms(2_000)).unwrap();
    assert_eq!(proposed(&batch), 4_750);

    node.set_role(follower(2));
    node.term_applied(2);
    let first = forward(&mut node, now + ms(3_000)).unwrap();
    assert_eq!(sent(&first), 3_750);
    let second = again(&mut node, now + ms(4_000)).unwrap();
    assert_eq!(sent(&second), 2_750);
    node.set_role(follower(3));
    node.term_applied(3);
    let third = forward(&mut node, now + ms(5_000)).unwrap();
    assert_eq!(sent(&third), 1_750);

    // Its leader counts what is left from when it puts the wait into the log.
    let mut to = proposals(OTHER, leader(3));
    take(&mut to, &third, now + ms(5_000));
    let (_, batch) = propose(&mut to, now + ms(5_000)).unwrap();
    assert_eq!(proposed(&batch), 1_750);
}
