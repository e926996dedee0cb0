use super::*;
use crate::protocol::error::Code;
use crate::protocol::queue::Message;
use crate::protocol::value::Value;

fn push(count: usize) -> Ask {
    let message = NewMessage::new(&Message::new(Value::text("x")));
    Ask::Push(vec![message; count])
}

fn pop(until_ms: u64) -> Ask {
    Ask::Pop(Wanted {
        max: 1,
        visibility_ms: 0,
        consumer: "c".to_owned(),
        token: Receipt::token("a", 1),
        bytes_max: 1_000,
        until_ms,
    })
}

fn popped(pop: usize, seq: u64) -> PoppedMessage {
    PoppedMessage {
        pop,
        seq,
        deliveries: 1,
        visible_until_ms: 1,
        kept: bytes::Bytes::new(),
        last_error: String::new(),
    }
}

fn ask(owner: &mut Owner<&'static str>, client: &'static str, what: Ask) {
    assert_eq!(owner.ask(Some(client), what), Ok(()));
}

fn refusal() -> Arc<ErrorReply> {
    Arc::new(ErrorReply::new(Code::StoreUnavailable, "no Redis"))
}

fn fail(
    owner: &mut Owner<&'static str>,
    call: Call<&'static str>,
    now_ms: u64,
) -> Vec<(&'static str, Told)> {
    owner.failed(call, (&refusal(), false), now_ms)
}

fn clients(told: &[(&'static str, Told)]) -> Vec<&'static str> {
    told.iter().map(|(client, _)| *client).collect()
}

#[test]
fn all_that_waits_goes_into_one_call_and_two_are_under_way() {
    let mut owner = Owner::default();
    ask(&mut owner, "a", push(1));
    let first = owner.call(0).expect("a call");
    for client in ["b", "c", "d"] {
        ask(&mut owner, client, push(1));
    }
    let second = owner.call(0).expect("a second call");
    assert_eq!((first.items.len(), second.items.len()), (1, 3));
    ask(&mut owner, "e", push(1));
    assert!(owner.call(0).is_none(), "two are under way");
    let reply = BatchReply {
        pushes: vec![Some((2, false)), None, Some((4, true))],
        ..BatchReply::default()
    };
    let told = owner.done(second, reply, 0);
    assert_eq!(
        told,
        [
            ("b", Told::Pushed(Some(vec![(2, false)]))),
            ("c", Told::Pushed(None)),
            ("d", Told::Pushed(Some(vec![(4, true)]))),
        ]
    );
    assert_eq!(owner.call(0).expect("a third call").items.len(), 1);
    assert_eq!(clients(&fail(&mut owner, first, 0)), ["a"]);
}

#[test]
fn beside_a_call_only_as_many_requests_go() {
    let mut owner = Owner::default();
    for client in ["a", "b", "c"] {
        ask(&mut owner, client, push(1));
    }
    let first = owner.call(0).expect("a call");
    ask(&mut owner, "d", push(20));
    ask(&mut owner, "e", pop(0));
    assert!(owner.call(0).is_none(), "the first carries three");
    ask(&mut owner, "f", pop(0));
    let second = owner.call(0).expect("a second call");
    assert_eq!((second.items.len(), second.pops.len()), (1, 2));
    ask(&mut owner, "g", push(1));
    owner.done(second, BatchReply::default(), 0);
    assert!(owner.call(0).is_none(), "the first still carries three");
    fail(&mut owner, first, 0);
    assert_eq!(owner.call(0).expect("none is under way").items.len(), 1);
}

#[test]
fn calls_have_a_greatest_size() {
    let mut owner = Owner::default();
    for client in ["a", "b"] {
        ask(&mut owner, client, push(ITEMS_MAX - 1));
    }
    assert_eq!(owner.call(0).expect("a call").items.len(), 1);
    assert_eq!(owner.call(0).expect("a call").items.len(), 1);
}

#[test]
fn a_pop_that_found_nothing_keeps_its_place_before_later_ones() {
    let mut owner = Owner::default();
    ask(&mut owner, "first", pop(1_000));
    let call = owner.call(0).expect("it looks once");
    assert!(owner.done(call, BatchReply::default(), 0).is_empty());
    assert!(owner.call(0).is_none(), "nothing may have become ready");
    ask(&mut owner, "second", pop(1_000));
    let call = owner.call(0).expect("a new pop looks");
    assert_eq!(call.pops.len(), 2);
    ask(&mut owner, "third", pop(1_000));
    let other = owner.call(0);
    let reply = BatchReply {
        popped: vec![popped(0, 7)],
        ..BatchReply::default()
    };
    let told = owner.done(call, reply, 0);
    assert_eq!(clients(&told), ["first"]);
    if let Some(other) = other {
        owner.done(other, BatchReply::default(), 0);
    }
    ask(&mut owner, "p", push(1));
    let call = owner.call(0).expect("a push wakes those that wait");
    let waiting: Vec<_> = call.pops.iter().filter_map(|pop| pop.client).collect();
    assert_eq!(waiting, ["second", "third"]);
}

#[test]
fn waits_end_and_time_wakes_them() {
    let mut owner = Owner::default();
    ask(&mut owner, "a", pop(500));
    assert!(owner.expire(600).is_empty(), "it is looked for first");
    let call = owner.call(600).expect("a call");
    let told = owner.done(call, BatchReply::default(), 600);
    assert_eq!(clients(&told), ["a"]);

    ask(&mut owner, "b", pop(5_000));
    let call = owner.call(1_000).expect("a call");
    let reply = BatchReply {
        due_in_ms: Some(300),
        ..BatchReply::default()
    };
    owner.done(call, reply, 1_000);
    assert_eq!(owner.next_ms(), Some(1_300));
    assert!(owner.call(1_299).is_none());
    let call = owner.call(1_300).expect("something is due");
    owner.done(call, BatchReply::default(), 1_300);
    assert_eq!(
        owner.next_ms(),
        Some(1_300 + SWEEP_MS),
        "it looks now and then"
    );
    assert_eq!(clients(&owner.expire(5_000)), ["b"]);
    assert_eq!(owner.next_ms(), None);
    assert!(owner.is_idle());
}

#[test]
fn an_ack_with_a_pop_is_one_answer() {
    let mut owner = Owner::default();
    let receipt: Receipt = "1.1.00000000000000ff".parse().unwrap();
    let Ask::Pop(wanted) = pop(0) else {
        unreachable!("it is a pop");
    };
    ask(&mut owner, "waits", pop(1_000));
    ask(
        &mut owner,
        "a",
        Ask::Ack(vec![receipt.clone()], Some(wanted)),
    );
    let call = owner.call(0).expect("a call");
    let reply = BatchReply {
        acks: vec![1],
        popped: vec![popped(0, 2), popped(1, 3)],
        ..BatchReply::default()
    };
    let mut told = owner.done(call, reply, 0);
    let ack = told.pop().expect("two answers");
    let token = Receipt::token("a", 1);
    assert_eq!(clients(&told), ["waits"], "who waited longer comes first");
    let messages = Some((token, vec![popped(1, 3)]));
    assert_eq!(ack, ("a", Told::Acked(vec![(receipt, 1)], messages)));
}

#[test]
fn a_call_without_pops_does_not_put_off_their_look() {
    let mut owner = Owner::default();
    ask(&mut owner, "a", pop(5_000));
    let call = owner.call(1_000).expect("a call");
    let due = BatchReply {
        due_in_ms: Some(300),
        ..BatchReply::default()
    };
    owner.done(call, due, 1_000);
    ask(&mut owner, "b", Ask::Extend(Vec::new(), 1_000));
    let call = owner.call(1_100).expect("a call");
    owner.done(call, BatchReply::default(), 1_200);
    assert_eq!(owner.next_ms(), Some(1_300));
}

#[test]
fn pops_look_again_after_a_push_that_went_beside_their_look() {
    let mut owner = Owner::default();
    ask(&mut owner, "a", pop(5_000));
    let look = owner.call(0).expect("a call");
    ask(&mut owner, "b", push(1));
    let beside = owner.call(0).expect("a call");
    owner.done(look, BatchReply::default(), 0);
    owner.done(beside, BatchReply::default(), 0);
    assert_eq!(owner.call(0).expect("a look").pops.len(), 1);
}

#[test]
fn pops_that_wait_survive_a_failed_call() {
    let mut owner = Owner::default();
    ask(&mut owner, "waits", pop(1_000));
    ask(&mut owner, "tries", pop(0));
    ask(&mut owner, "pushes", push(1));
    let call = owner.call(0).expect("a call");
    let told = fail(&mut owner, call, 10);
    assert_eq!(clients(&told), ["pushes", "tries"]);
    assert_eq!(owner.waiters(), 1);
    assert!(owner.call(20).is_none(), "not again at once");
    assert!(owner.call(10 + SWEEP_MS).is_some());
}

#[test]
fn a_wait_that_ends_after_a_failed_look_is_refused_and_after_a_later_one_is_not() {
    let mut owner = Owner::default();
    for (client, until_ms) in [("ends first", 500), ("ends later", 3_000)] {
        ask(&mut owner, client, pop(until_ms));
    }
    let call = owner.call(0).expect("a call");
    assert!(fail(&mut owner, call, 10).is_empty());
    let told = owner.expire(500);
    assert_eq!(told, [("ends first", Told::Refused(refusal()))]);
    let call = owner.call(10 + SWEEP_MS).expect("another look");
    assert!(owner.done(call, BatchReply::default(), 1_100).is_empty());
    let nothing = Told::Popped(Receipt::token("a", 1), Vec::new());
    assert_eq!(owner.expire(3_000), [("ends later", nothing)]);
}

#[test]
fn what_was_acknowledged_is_told_although_later_looks_of_its_pop_failed() {
    let mut owner = Owner::default();
    let receipt: Receipt = "1.1.00000000000000ff".parse().unwrap();
    let Ask::Pop(wanted) = pop(500) else {
        unreachable!("it is a pop");
    };
    let both = Ask::Ack(vec![receipt.clone()], Some(wanted));
    ask(&mut owner, "a", both);
    let call = owner.call(0).expect("a call");
    let reply = BatchReply {
        acks: vec![1],
        ..BatchReply::default()
    };
    assert!(owner.done(call, reply, 0).is_empty());
    owner.wake();
    let call = owner.call(100).expect("another look");
    assert!(fail(&mut owner, call, 110).is_empty());
    let told = owner.expire(500);
    assert_eq!(told, [("a", Told::Acked(vec![(receipt, 1)], None))]);
}

#[test]
fn what_was_acknowledged_is_told_alone_where_its_pop_was_not_looked_for() {
    let mut owner = Owner::default();
    let receipt: Receipt = "1.1.00000000000000ff".parse().unwrap();
    let Ask::Pop(wanted) = pop(500) else {
        unreachable!("it is a pop");
    };
    let both = Ask::Ack(vec![receipt.clone()], Some(wanted));
    ask(&mut owner, "a", both);
    let call = owner.call(0).expect("a call");
    let reply = BatchReply {
        acks: vec![1],
        pops_left: 1,
        ..BatchReply::default()
    };
    assert!(owner.done(call, reply, 0).is_empty());
    assert!(owner.some_missed());
    let (_, waited) = owner.abandon();
    let told = Told::Acked(vec![(receipt, 1)], None);
    assert_eq!(waited, [Dismissed::Done("a", told)]);
}

#[test]
fn no_pop_ends_before_a_call_has_looked_for_it() {
    let mut owner = Owner::default();
    for client in ["a", "b", "c"] {
        let Ask::Pop(wanted) = pop(0) else {
            unreachable!("it is a pop");
        };
        let max = ITEMS_MAX as u64;
        ask(&mut owner, client, Ask::Pop(Wanted { max, ..wanted }));
    }
    let first = owner.call(0).expect("a call");
    assert_eq!(first.pops.len(), 1, "the others stay behind");
    assert!(owner.expire(1_000).is_empty(), "none was looked for");
    let second = owner.call(0).expect("beside it");
    let reply = || BatchReply {
        popped: vec![popped(0, 1)],
        ready_left: 2,
        ..BatchReply::default()
    };
    assert_eq!(clients(&owner.done(first, reply(), 0)), ["a"]);
    assert_eq!(clients(&owner.done(second, reply(), 0)), ["b"]);
    let third = owner.call(0).expect("one is left");
    assert_eq!(clients(&owner.done(third, reply(), 0)), ["c"]);
    assert!(owner.is_idle());
}

#[test]
fn each_of_many_pops_is_looked_for_while_nothing_comes_and_then_no_more() {
    let mut owner = Owner::default();
    for _ in 0..2 * POPS_MAX + 1 {
        ask(&mut owner, "waits", pop(60_000));
    }
    for _ in 0..3 {
        let call = owner.call(0).expect("some are new");
        assert_eq!(call.pops.len(), POPS_MAX);
        assert!(owner.done(call, BatchReply::default(), 0).is_empty());
    }
    assert!(owner.call(0).is_none(), "all were looked for");
    ask(&mut owner, "pushes", push(1));
    let call = owner.call(0).expect("something comes");
    assert_eq!(call.pops[0].place, 1, "who waits longest is first");
}

#[test]
fn pops_that_a_call_did_not_get_to_go_with_the_next_in_their_order() {
    let mut owner = Owner::default();
    for (client, until_ms) in [("a", 0), ("b", 0), ("c", 1_000)] {
        ask(&mut owner, client, pop(until_ms));
    }
    let call = owner.call(0).expect("a call");
    let reply = BatchReply {
        popped: vec![popped(0, 1)],
        pops_left: 2,
        ..BatchReply::default()
    };
    assert_eq!(clients(&owner.done(call, reply, 0)), ["a"]);
    ask(&mut owner, "d", pop(0));
    assert!(owner.expire(2_000).is_empty(), "they are looked for first");
    let call = owner.call(0).expect("another call");
    let carried: Vec<_> = call.pops.iter().filter_map(|pop| pop.client).collect();
    assert_eq!(carried, ["b", "c", "d"]);
}

#[test]
fn pops_behind_acknowledgements_count_as_items() {
    let mut owner = Owner::default();
    let receipt: Receipt = "1.1.00000000000000ff".parse().unwrap();
    for _ in 0..ITEMS_MAX {
        let Ask::Pop(wanted) = pop(0) else {
            unreachable!("it is a pop");
        };
        let both = Ask::Ack(vec![receipt.clone()], Some(wanted));
        ask(&mut owner, "a", both);
    }
    let call = owner.call(0).expect("a call");
    assert_eq!(call.pops.len(), ITEMS_MAX / 2);
}

#[test]
fn without_memory_only_acknowledgements_are_left() {
    let mut owner = Owner::default();
    let receipt: Receipt = "1.1.00000000000000ff".parse().unwrap();
    ask(&mut owner, "pushes", push(1));
    ask(&mut owner, "acks", Ask::Ack(vec![receipt], None));
    let mut call = owner.call(0).expect("a call");
    assert_eq!(call.spare(&refusal()), (vec!["pushes"], true));
    let reply = BatchReply {
        acks: vec![1],
        ..BatchReply::default()
    };
    assert_eq!(clients(&owner.done(call, reply, 0)), ["acks"]);
}

#[test]
fn without_memory_no_pop_is_told_that_nothing_is_there() {
    let mut owner = Owner::default();
    let receipt: Receipt = "1.1.00000000000000ff".parse().unwrap();
    let Ask::Pop(wanted) = pop(1_000) else {
        unreachable!("it is a pop");
    };
    ask(&mut owner, "tries", pop(0));
    ask(&mut owner, "waits", pop(1_000));
    let ack = Ask::Ack(vec![receipt.clone()], Some(wanted));
    ask(&mut owner, "acks", ack);
    let mut call = owner.call(0).expect("a call");
    assert_eq!(call.spare(&refusal()), (vec![], true));
    let reply = BatchReply {
        acks: vec![1],
        ..BatchReply::default()
    };
    let told = owner.done(call, reply, 0);
    assert_eq!(told, [("tries", Told::Refused(refusal()))]);
    // The next call does nothing at all, by when the waits are over.
    let call = owner.call(SWEEP_MS).expect("it looks again");
    assert!(fail(&mut owner, call, 999).is_empty(), "they go on");
    let told = owner.expire(1_000);
    let acks = ("acks", Told::Acked(vec![(receipt, 1)], None));
    assert_eq!(told, [("waits", Told::Refused(refusal())), acks]);
    assert!(owner.is_idle());
}

#[test]
fn what_nobody_waits_for_is_done_and_told_to_nobody() {
    let mut owner: Owner<&str> = Owner::default();
    let receipt: Receipt = "1.1.00000000000000ff".parse().unwrap();
    let back = Return {
        mode: 'u',
        delay_ms: None,
        reason: String::new(),
    };
    assert_eq!(owner.ask(None, Ask::Nack(vec![receipt], back)), Ok(()));
    let call = owner.call(0).expect("a call");
    let reply = BatchReply {
        nacks: vec![1],
        ..BatchReply::default()
    };
    assert!(owner.done(call, reply, 0).is_empty() && owner.is_idle());
}

#[test]
fn who_is_late_is_told_and_what_a_late_pop_gets_goes_back() {
    let mut owner = Owner::default();
    ask(&mut owner, "a", push(1));
    ask(&mut owner, "b", pop(0));
    let mut call = owner.call(0).expect("a call");
    ask(&mut owner, "c", push(1));
    ask(&mut owner, "d", pop(1_000));
    assert_eq!(call.give_up(|client| *client == "b"), ["b"]);
    assert_eq!(owner.give_up(|client| "cd".contains(client)), ["c", "d"]);
    let reply = BatchReply {
        pushes: vec![Some((1, false))],
        popped: vec![popped(0, 1)],
        ..BatchReply::default()
    };
    assert_eq!(clients(&owner.done(call, reply, 0)), ["a"]);
    let back = owner.call(0).expect("a message is to go back");
    let Item {
        client: None,
        ask: Ask::Nack(receipts, Return { mode: 'u', .. }),
    } = &back.items[0]
    else {
        panic!("{:?}", back.items);
    };
    assert_eq!(receipts[0].seq, 1);
    assert_eq!((back.items.len(), back.pops.len()), (1, 0));
}

#[test]
fn without_memory_acknowledgements_stay_with_their_pops() {
    let mut owner = Owner::default();
    let Ask::Pop(wanted) = pop(0) else {
        unreachable!()
    };
    ask(&mut owner, "a", push(1));
    ask(&mut owner, "b", Ask::Ack(vec![], Some(wanted)));
    ask(&mut owner, "c", Ask::Ack(vec![], None));
    let mut call = owner.call(0).expect("a call");
    assert_eq!(call.spare(&refusal()), (vec!["a"], true));
    let told = owner.done(call, BatchReply::default(), 0);
    assert_eq!(
        told,
        [
            ("c", Told::Acked(vec![], None)),
            ("b", Told::Acked(vec![], None))
        ],
        "whether there are messages is not known"
    );
    ask(&mut owner, "a", push(1));
    let mut call = owner.call(0).expect("a call");
    assert_eq!(
        call.spare(&refusal()),
        (vec!["a"], false),
        "nothing makes room"
    );
}
