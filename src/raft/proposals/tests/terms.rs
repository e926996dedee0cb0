//! What belongs to one term.

use super::*;

/// What a leader says of others is said in its own term, or by nobody.
#[test]
fn what_only_the_leader_of_a_term_may_say_ends_with_the_term() {
    let now = now();
    let of_term = |node: &mut Proposals, number, term| {
        let (sender, _) = oneshot::channel();
        node.submit(Submission {
            command: command(number),
            ticket: Ticket::Leader(sender, term),
            deadline: now + ms(60_000),
        })
    };
    let mut node = proposals(ME, leader(1));
    let refused = of_term(&mut node, 1, 2).unwrap_err();
    assert_eq!(refused.result, Err(Refusal::NoLeader));

    // Waiting, it is not forwarded to the next leader.
    of_term(&mut node, 2, 1).unwrap();
    submit(&mut node, 3, now);
    node.set_role(follower(2));
    let forwarded = forward(&mut node, now).unwrap();
    assert_eq!(forwarded.commands.len(), 1);
    assert_eq!(number(&forwarded.commands[0].1), 3);

    // Refused within the term, it goes again; proposed and lost with the term, it does not.
    let mut node = proposals(ME, leader(1));
    of_term(&mut node, 4, 1).unwrap();
    let (_, batch) = propose(&mut node, now).unwrap();
    node.refused(batch.number);
    node.propose_again();
    let (_, batch) = propose(&mut node, now).unwrap();
    assert_eq!(numbers(&batch), [4]);
    node.set_role(follower(2));
    node.term_applied(2);
    assert!(!node.has_work());
}

#[test]
fn nothing_is_gathered_while_a_batch_is_refused() {
    let now = now();
    let mut node = proposals(ME, leader(1));
    (1..=20).for_each(|number| submit(&mut node, number, now));
    let (term, batch) = propose(&mut node, now).unwrap();
    apply(&mut node, term, &batch, &released());
    submit(&mut node, 21, now);
    let until = node.gather_until().expect("more are about to come");
    let (_, batch) = propose(&mut node, until).unwrap();
    node.refused(batch.number);
    assert_eq!(node.gather_until(), None, "the driver would not sleep");
    assert!(propose(&mut node, until).is_none());
    node.propose_again();
    assert_eq!(numbers(&propose(&mut node, until).unwrap().1), [21]);
}
