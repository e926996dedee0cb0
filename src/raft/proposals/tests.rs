//! The road of commands, step by step.

mod forwards;
mod terms;
mod waits;

use super::*;
use crate::lock::command as lock;
use crate::protocol::Encoding;

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

fn follower(term: u64) -> Role {
    Role::Follower {
        leader: OTHER,
        term,
    }
}

fn leader(term: u64) -> Role {
    Role::Leader { term }
}

fn proposals(node: NodeId, role: Role) -> Proposals {
    let mut proposals = Proposals::new(node, BootId(node.0 * 10));
    proposals.set_role(role);
    proposals
}

/// A command that is told from others by its number.
fn command(number: u64) -> Command {
    Command::Lock(lock::Command::Release {
        resource: Some(number.to_string().into()),
        token: crate::ids::Token(number),
        tenant: None,
    })
}

fn number(command: &Command) -> u64 {
    match command {
        Command::Lock(lock::Command::Release { token, .. }) => token.0,
        _ => panic!("no command of these tests: {command:?}"),
    }
}

fn reply(number: u64) -> ReplyTo {
    ReplyTo::new(format!("inbox.{number}"), Encoding::Json)
}

fn now() -> Instant {
    crate::time::now()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Submits a client's command, due a minute later.
fn submit(proposals: &mut Proposals, number: u64, now: Instant) {
    let to = reply(number);
    let ticket = Ticket::Client {
        to,
        received: now,
        seat: Seat::default(),
    };
    let submission = Submission {
        command: command(number),
        ticket,
        deadline: now + ms(60_000),
    };
    proposals.submit(submission).expect("room for a command");
}

fn propose(proposals: &mut Proposals, now: Instant) -> Option<(u64, Batch)> {
    match proposals.next_work(now, || 7)? {
        Work::Propose { term, batch } => Some((term, batch)),
        Work::Forward { .. } => panic!("a leader proposes"),
    }
}

fn term_started() -> Command {
    let (grace_ms, keeps_over) = (5, true);
    Command::TermStarted {
        grace_ms,
        keeps_over,
    }
}

fn forward(proposals: &mut Proposals, now: Instant) -> Option<Forward> {
    match proposals.next_work(now, || panic!("a follower has no lease time"))? {
        Work::Forward { forward, .. } => Some(forward),
        Work::Propose { .. } => panic!("a follower forwards"),
    }
}

fn again(proposals: &mut Proposals, now: Instant) -> Option<Forward> {
    match proposals.forward_again(now).pop()? {
        Work::Forward { forward, .. } => Some(forward),
        Work::Propose { .. } => panic!("a follower forwards"),
    }
}

fn numbers(batch: &Batch) -> Vec<u64> {
    let commands = batch.commands().unwrap();
    commands.iter().map(|p| number(&p.command)).collect()
}

fn released() -> Outcome {
    Outcome::Lock(crate::lock::outcome::Outcome::Released)
}

/// Applies a batch on one node; who is answered there.
fn apply(proposals: &mut Proposals, term: u64, batch: &Batch, outcome: &Outcome) -> Vec<Due> {
    let commands = batch.commands().unwrap();
    let outcomes = vec![outcome.clone(); commands.len()];
    let mut due = Vec::new();
    proposals.applied(now(), term, batch, &commands, outcomes, &mut due);
    due
}

fn told(due: &[Due]) -> Vec<(String, Result<Outcome, Refusal>)> {
    let subject = |due: &Due| match &due.ticket {
        Ticket::Client { to, .. } => to.subject.clone(),
        _ => "nobody".to_owned(),
    };
    due.iter()
        .map(|due| (subject(due), due.result.clone()))
        .collect()
}

fn take(leader: &mut Proposals, forward: &Forward, now: Instant) {
    leader.accept_forward(forward.clone(), now, now + ms(60_000));
}

#[test]
fn a_leader_proposes_and_answers_in_order() {
    let now = now();
    let mut node = proposals(ME, leader(3));
    (1..=3).for_each(|number| submit(&mut node, number, now));
    let (term, batch) = propose(&mut node, now).unwrap();
    assert_eq!((term, batch.now_ms, numbers(&batch)), (3, 7, vec![1, 2, 3]));
    assert!(propose(&mut node, now).is_none() && !node.is_idle() && node.is_proposing());
    let answers = told(&apply(&mut node, 3, &batch, &released()));
    let expected: Vec<_> = (1..=3)
        .map(|n| (format!("inbox.{n}"), Ok(released())))
        .collect();
    assert_eq!(answers, expected);
    assert!(node.is_idle());
}

#[test]
fn only_a_leader_with_an_applied_entry_of_its_term_proposes() {
    let now = now();
    let mut node = proposals(ME, Role::Leaderless);
    submit(&mut node, 1, now);
    assert!(node.next_work(now, || 0).is_none());
    node.set_role(Role::Elected { term: 3 });
    assert!(node.next_work(now, || 0).is_none());
    node.set_role(leader(3));
    assert!(propose(&mut node, now).is_some());
}

#[test]
fn two_entries_are_in_flight_and_a_third_waits() {
    let now = now();
    let mut node = proposals(ME, leader(1));
    let mut batches = Vec::new();
    for number in 1..=3 {
        submit(&mut node, number, now);
        batches.extend(propose(&mut node, now));
    }
    assert_eq!(batches.len(), IN_FLIGHT_MAX);
    apply(&mut node, 1, &batches[0].1, &released());
    assert_eq!(numbers(&propose(&mut node, now).unwrap().1), vec![3]);
}

#[test]
fn beside_an_entry_in_flight_goes_one_with_as_many_commands() {
    let now = now();
    let mut node = proposals(ME, leader(1));
    (1..=10).for_each(|number| submit(&mut node, number, now));
    propose(&mut node, now).unwrap();
    (11..=19).for_each(|number| submit(&mut node, number, now));
    assert!(propose(&mut node, now).is_none());
    submit(&mut node, 20, now);
    assert_eq!(propose(&mut node, now).unwrap().1.count, 10);
}

#[test]
fn after_a_full_entry_the_next_waits_for_its_clients_to_come_back() {
    let mut node = proposals(ME, leader(1));
    (1..=100).for_each(|number| submit(&mut node, number, now()));
    let (_, batch) = propose(&mut node, now()).unwrap();
    submit(&mut node, 101, now());
    apply(&mut node, 1, &batch, &released());
    let until = node.gather_until().expect("one command waits for others");
    assert!(propose(&mut node, until - ms(1)).is_none());
    (102..=189).for_each(|number| submit(&mut node, number, now()));
    assert!(node.gather_until().is_none(), "most are back");
    assert_eq!(propose(&mut node, until - ms(1)).unwrap().1.count, 89);
}

#[test]
fn clients_that_do_not_come_back_are_not_waited_for_long() {
    let mut node = proposals(ME, leader(1));
    (1..=100).for_each(|number| submit(&mut node, number, now()));
    let (_, batch) = propose(&mut node, now()).unwrap();
    submit(&mut node, 101, now());
    apply(&mut node, 1, &batch, &released());
    let until = node.gather_until().unwrap();
    assert_eq!(propose(&mut node, until).unwrap().1.count, 1);
}

#[test]
fn few_clients_are_not_waited_for_and_nobody_but_a_leader_waits() {
    let mut node = proposals(ME, leader(1));
    (1..=15).for_each(|number| submit(&mut node, number, now()));
    let (_, few) = propose(&mut node, now()).unwrap();
    submit(&mut node, 16, now());
    apply(&mut node, 1, &few, &released());
    assert!(node.gather_until().is_none());

    let mut node = proposals(ME, leader(1));
    (1..=100).for_each(|number| submit(&mut node, number, now()));
    let (_, many) = propose(&mut node, now()).unwrap();
    submit(&mut node, 101, now());
    apply(&mut node, 1, &many, &released());
    node.set_role(Role::Leaderless);
    assert!(node.gather_until().is_none());
}

#[test]
fn batches_are_bounded_by_count_and_by_bytes() {
    let now = now();
    let mut node = proposals(ME, leader(1));
    (0..BATCH_MAX as u64 + 1).for_each(|number| submit(&mut node, number, now));
    assert_eq!(propose(&mut node, now).unwrap().1.count as usize, BATCH_MAX);

    let mut node = proposals(ME, follower(1));
    let large = "x".repeat(BATCH_BYTES_MAX / 2);
    for _ in 0..3 {
        let release = lock::Command::Release {
            resource: Some(large.as_str().into()),
            token: crate::ids::Token(1),
            tenant: None,
        };
        let submission = Submission {
            command: Command::Lock(release),
            ticket: Ticket::Nobody,
            deadline: now + ms(1),
        };
        node.submit(submission).unwrap();
    }
    assert_eq!(forward(&mut node, now).unwrap().commands.len(), 2);
    assert_eq!(forward(&mut node, now).unwrap().commands.len(), 1);
}

#[test]
fn a_full_queue_refuses_and_keeps_what_it_has() {
    let now = now();
    let mut node = proposals(ME, Role::Leaderless);
    (0..QUEUE_MAX as u64).for_each(|number| submit(&mut node, number, now));
    let submission = Submission {
        command: command(9),
        ticket: Ticket::Nobody,
        deadline: now,
    };
    let refused = node.submit(submission).unwrap_err();
    assert_eq!(refused.result, Err(Refusal::Overloaded));
    node.set_role(leader(1));
    assert!(propose(&mut node, now).is_some());

    let mut from = proposals(OTHER, follower(1));
    submit(&mut from, 1, now);
    let forwarded = forward(&mut from, now).unwrap();
    (0..BATCH_MAX as u64).for_each(|number| submit(&mut node, number, now));
    take(&mut node, &forwarded, now);
    assert!(
        !node.queue.iter().any(|q| q.origin.is_some()),
        "taken beyond the bound"
    );
}

#[test]
fn what_an_earlier_term_lost_goes_again_in_its_order_with_the_first_entry_of_a_later_one() {
    let now = now();
    let mut node = proposals(ME, leader(1));
    submit(&mut node, 1, now);
    propose(&mut node, now).unwrap();
    submit(&mut node, 2, now);
    propose(&mut node, now).unwrap();
    submit(&mut node, 3, now);

    node.set_role(follower(2));
    assert_eq!(
        forward(&mut node, now).unwrap().commands.len(),
        1,
        "only what was never sent"
    );
    node.term_applied(1);
    assert!(
        forward(&mut node, now).is_none(),
        "an entry of the same term proves nothing"
    );
    node.term_applied(2);
    let again = forward(&mut node, now).unwrap();
    let again: Vec<u64> = again.commands.iter().map(|(_, c)| number(c)).collect();
    assert_eq!(again, vec![1, 2]);
}

#[test]
fn what_was_committed_by_a_later_leader_is_answered_and_not_sent_again() {
    let now = now();
    let mut node = proposals(ME, leader(1));
    submit(&mut node, 1, now);
    let (_, batch) = propose(&mut node, now).unwrap();
    node.set_role(follower(2));
    assert_eq!(told(&apply(&mut node, 1, &batch, &released())).len(), 1);
    node.term_applied(2);
    assert!(node.is_idle());
}

#[test]
fn a_refused_batch_goes_again_within_its_term() {
    let now = now();
    let mut node = proposals(ME, leader(1));
    let mut from = proposals(OTHER, follower(1));
    submit(&mut from, 1, now);
    take(&mut node, &forward(&mut from, now).unwrap(), now);
    submit(&mut node, 2, now);
    node.start_term(term_started(), now);
    let (_, batch) = propose(&mut node, now).unwrap();
    node.refused(batch.number);
    node.refused(batch.number);
    assert!(
        propose(&mut node, now).is_none(),
        "not before the next tick"
    );
    node.propose_again();
    let (_, second) = propose(&mut node, now).unwrap();
    assert_eq!(
        second.count, 3,
        "the start of the term, the forward and the command"
    );
    assert_eq!(second.commands().unwrap(), batch.commands().unwrap());
    assert!(propose(&mut node, now).is_none());
}

#[test]
fn a_batch_refused_after_the_term_leaves_forwards_to_their_sender() {
    let now = now();
    let mut node = proposals(ME, leader(1));
    let mut from = proposals(OTHER, follower(1));
    submit(&mut from, 1, now);
    take(&mut node, &forward(&mut from, now).unwrap(), now);
    submit(&mut node, 2, now);
    let (_, batch) = propose(&mut node, now).unwrap();
    node.set_role(follower(2));
    node.refused(batch.number);
    let sent = forward(&mut node, now).unwrap();
    assert_eq!(sent.commands, vec![(Some(reply(2)), command(2))]);
}

#[test]
fn the_start_of_a_lost_term_goes_to_no_other_leader() {
    let now = now();
    let mut node = proposals(ME, leader(1));
    node.start_term(term_started(), now);
    node.set_role(follower(2));
    assert!(forward(&mut node, now).is_none());
}

#[test]
fn a_deadline_says_what_is_known() {
    let begun = now();
    let end = begun + ms(60_000);
    let result = |node: &mut Proposals| {
        let mut due = Vec::new();
        node.sweep(end - ms(1), true, &mut due);
        assert!(due.is_empty(), "before its time");
        assert_eq!(node.next_deadline(), Some(end), "looked at in time");
        node.sweep(end, true, &mut due);
        let results: Vec<_> = told(&due).into_iter().map(|(_, result)| result).collect();
        node.sweep(end, true, &mut due);
        assert_eq!(due.len(), 1, "answered once");
        results
    };
    let mut node = proposals(ME, Role::Leaderless);
    submit(&mut node, 1, begun);
    assert_eq!(result(&mut node), vec![Err(Refusal::NoLeader)]);

    let mut node = proposals(ME, Role::Elected { term: 1 });
    submit(&mut node, 1, begun);
    assert_eq!(result(&mut node), vec![Err(Refusal::Timeout)]);

    let mut due = Vec::new();
    let mut node = proposals(ME, leader(1));
    submit(&mut node, 1, begun);
    node.sweep(end, false, &mut due);
    let results: Vec<_> = told(&due).into_iter().map(|(_, result)| result).collect();
    assert_eq!(results, vec![Err(Refusal::NoLeader)], "without a quorum");

    let mut node = proposals(ME, follower(1));
    submit(&mut node, 1, begun);
    forward(&mut node, begun).unwrap();
    assert_eq!(result(&mut node), vec![Err(Refusal::Indeterminate)]);
    node.term_applied(2);
    assert!(node.is_idle(), "what was given up goes again");

    let mut node = proposals(ME, leader(1));
    submit(&mut node, 1, begun);
    let (_, batch) = propose(&mut node, begun).unwrap();
    assert_eq!(result(&mut node), vec![Err(Refusal::Indeterminate)]);
    assert!(
        apply(&mut node, 1, &batch, &released()).is_empty(),
        "answered twice"
    );
}

#[test]
fn a_snapshot_leaves_open_what_was_under_way() {
    let now = now();
    let mut node = proposals(ME, leader(1));
    submit(&mut node, 1, now);
    propose(&mut node, now).unwrap();
    node.set_role(follower(2));
    submit(&mut node, 2, now);
    forward(&mut node, now).unwrap();
    node.set_role(Role::Leaderless);
    submit(&mut node, 3, now);
    let mut due = Vec::new();
    node.give_up_sent(&mut due);
    let open = Err(Refusal::Indeterminate);
    assert_eq!(
        told(&due),
        vec![
            ("inbox.1".to_owned(), open.clone()),
            ("inbox.2".to_owned(), open)
        ]
    );
    node.set_role(follower(3));
    let sent = forward(&mut node, now).unwrap();
    assert_eq!(sent.commands.len(), 1, "what was never sent goes on");
    assert_eq!(sent.oldest, sent.first, "and waits for nothing before it");
}

#[test]
fn a_wait_is_watched_by_the_node_that_its_client_asked() {
    let now = now();
    let waiting = Outcome::Lock(crate::lock::outcome::Outcome::Waiting);
    let mut from = proposals(ME, follower(4));
    let mut to = proposals(OTHER, leader(4));
    (1..=2).for_each(|number| submit(&mut from, number, now));
    take(&mut to, &forward(&mut from, now).unwrap(), now);
    let (_, batch) = propose(&mut to, now).unwrap();
    apply(&mut from, 4, &batch, &waiting);
    apply(&mut to, 4, &batch, &waiting);

    from.wait_ended(&reply(1));
    let end = now + ms(60_000);
    let overdue = |node: &mut Proposals, now| node.sweep(now, true, &mut Vec::new());
    assert!(overdue(&mut from, end - ms(1)).is_empty());
    assert_eq!(from.next_deadline(), Some(end));
    assert_eq!(overdue(&mut from, end), vec![reply(2)]);
    assert!(overdue(&mut from, end).is_empty() && overdue(&mut to, end).is_empty());
    assert_eq!(from.next_deadline(), None, "nobody is owed an answer");
}

#[test]
fn a_stop_refuses_what_was_never_sent_and_gives_up_what_was() {
    let now = now();
    for role in [follower(1), leader(1)] {
        let mut node = proposals(ME, role);
        submit(&mut node, 1, now);
        node.next_work(now, || 7).expect("there is a command");
        submit(&mut node, 2, now);
        let mut due = Vec::new();
        node.shut_down(&mut due);
        let unsent = ("inbox.2".to_owned(), Err(Refusal::ShuttingDown));
        let sent = ("inbox.1".to_owned(), Err(Refusal::Indeterminate));
        assert_eq!(told(&due), vec![unsent, sent]);
    }
}

#[test]
fn a_tick_carries_time_only_when_nothing_else_does() {
    let now = now();
    let mut node = proposals(ME, leader(2));
    submit(&mut node, 1, now);
    assert!(node.tick(now, 5).is_none(), "a command will carry it");
    let (_, batch) = propose(&mut node, now).unwrap();
    assert!(node.tick(now, 5).is_none(), "an entry carries it");
    apply(&mut node, 2, &batch, &released());
    let (term, tick) = node.tick(now, 5).unwrap();
    assert_eq!((term, tick.count, tick.now_ms), (2, 0, 5));
    assert!(node.tick(now, 6).is_none(), "one at a time");
    node.set_role(follower(3));
    assert!(node.tick(now, 6).is_none());
}
