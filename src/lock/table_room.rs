//! When a table is full: what counts how much, who is refused, and who is not.

use super::Name;
use super::claim::{Grip, Want, Wants};
use super::command::{Acquire, Command, DeadlockPolicy, Grace, OpenSession, Wait};
use super::limits::Limits;
use super::outcome::Outcome;
use super::requests::REMEMBERED_MS;
use super::table::Table;
use crate::ids::Token;
use crate::protocol::{Encoding, NAME_BYTES_MAX, ReplyTo, Tenant, lock};

/// A set of resources with names as long as they may be.
fn set(name: &str, count: usize) -> Wants {
    let want = |number| Want {
        resource: long(&format!("{name}-{number:02}-")),
        grip: Grip::Exclusive,
    };
    Wants::Set((0..count).map(want).collect())
}

fn long(name: &str) -> Name {
    format!("{name:x<NAME_BYTES_MAX$}").into()
}

fn acquire(owner: &str, wants: Wants) -> Acquire {
    Acquire {
        wants,
        owner: owner.into(),
        request_id: None,
        session: None,
        ttl_ms: Some(1_000),
        wait: None,
        on_deadlock: DeadlockPolicy::Requester,
        meta: None,
        tenant: None,
    }
}

/// With all that a request can have, and as long.
fn large(owner: &str, wants: Wants) -> Acquire {
    Acquire {
        request_id: Some(long("id")),
        meta: Some("m".repeat(lock::META_BYTES_MAX)),
        wait: Some(Wait {
            wait_ms: 60_000,
            reply: ReplyTo::new(&*long("_INBOX."), Encoding::Json),
        }),
        ..acquire(&long(owner), wants)
    }
}

fn apply(table: &mut Table, now_ms: u64, command: Command) -> Outcome {
    let mut effects = Vec::new();
    table.expire(now_ms, &mut effects);
    let outcome = table.apply(now_ms, &command, &mut effects);
    table.assert_consistent(now_ms);
    outcome
}

fn assert_refused(table: &mut Table, now_ms: u64, request: &Acquire, bound: &str) {
    table.expire(now_ms, &mut Vec::new());
    let before = table.clone();
    let refused = apply(table, now_ms, Command::Acquire(request.clone()));
    assert!(
        matches!(&refused, Outcome::Overloaded { what, .. } if what == bound),
        "{refused:?}"
    );
    assert_eq!(*table, before);
}

fn assert_acquired(table: &mut Table, now_ms: u64, request: &Acquire) -> Token {
    match apply(table, now_ms, Command::Acquire(request.clone())) {
        Outcome::Acquired(acquired) => acquired.token,
        other => panic!("{request:?}: {other:?}"),
    }
}

fn release(table: &mut Table, now_ms: u64, token: Token) {
    let release = Command::Release {
        resource: None,
        token,
        tenant: None,
    };
    assert_eq!(apply(table, now_ms, release), Outcome::Released);
}

#[test]
fn a_set_counts_as_many_claims_as_it_has_resources() {
    let tenant = Tenant::of_account("A");
    let open = Command::OpenSession(Box::new(OpenSession {
        session: "s".into(),
        name: None,
        ttl_ms: 10_000,
        lock_delay_ms: 0,
        meta: None,
        tenant: None,
    }));
    let defaults = Limits::default();
    for (bound, limits) in [
        (
            "claims",
            Limits {
                claims: 4,
                ..defaults
            },
        ),
        (
            "claims_per_tenant",
            Limits {
                claims_per_tenant: 4,
                ..defaults
            },
        ),
        (
            "claims_per_session",
            Limits {
                claims_per_session: 4,
                ..defaults
            },
        ),
    ] {
        let mut table = Table::new(limits);
        apply(&mut table, 0, open.clone());
        let asked = |owner: &str, wants| Acquire {
            session: Some("s".into()),
            tenant: tenant.clone(),
            ..acquire(owner, wants)
        };
        let three = assert_acquired(&mut table, 0, &asked("one", set("a", 3)));
        let two = asked("two", set("b", 2));
        assert_refused(&mut table, 0, &two, bound);
        assert_acquired(&mut table, 0, &asked("two", set("c", 1)));
        // A snapshot has the same counts.
        let bytes = rmp_serde::to_vec(&table).expect("it encodes");
        let mut read: Table = rmp_serde::from_slice(&bytes).expect("it decodes");
        assert_eq!(read, table);
        assert_refused(&mut read, 0, &asked("three", set("d", 1)), bound);
        release(&mut table, 0, three);
        assert_acquired(&mut table, 0, &two);
    }
}

#[test]
fn large_claims_are_refused_before_a_snapshot_becomes_too_large() {
    let limits = Limits {
        bytes: 2_000_000,
        recent_endings: 0,
        ..Limits::default()
    };
    let mut table = Table::new(limits);
    let mut held = 0;
    let refused = loop {
        let request = large(&format!("o{held}"), set(&format!("r{held}"), 32));
        let command = Command::Acquire(request.clone());
        match table.apply(0, &command, &mut Vec::new()) {
            Outcome::Acquired(_) => held += 1,
            _ => break request,
        }
    };
    table.assert_consistent(0);
    let bytes = rmp_serde::to_vec(&table).expect("it encodes").len() as u64;
    assert!((1_000_000..2_000_000).contains(&bytes), "{bytes} of {held}");
    assert_refused(&mut table, 0, &refused, "bytes");
    // Who holds is answered, and can make room.
    let first = large("o0", set("r0", 32));
    let token = assert_acquired(&mut table, 0, &first);
    release(&mut table, 0, token);
    assert_acquired(
        &mut table,
        0,
        &acquire("small", Wants::one("small", Grip::Shared)),
    );
    // What is remembered counts until it is forgotten, and so does a wait.
    let mut waits = large("waits", set("r1", 32));
    waits.ttl_ms = Some(1_000_000);
    assert_refused(&mut table, 0, &waits, "bytes");
    assert_acquired(&mut table, 1_000, &refused);
    assert_acquired(&mut table, 1_000 + REMEMBERED_MS, &waits);
}

#[test]
fn the_bytes_of_one_tenant_leave_room_for_those_of_another() {
    let mut table = Table::new(Limits {
        bytes_per_tenant: 50_000,
        ..Limits::default()
    });
    let of = |account: &str, request: Acquire| Acquire {
        tenant: Tenant::of_account(account),
        ..request
    };
    assert_acquired(&mut table, 0, &of("A", large("one", set("a", 32))));
    let second = large("two", set("b", 32));
    assert_refused(&mut table, 0, &of("A", second.clone()), "bytes_per_tenant");
    assert_acquired(&mut table, 0, &of("B", second));
    let session = Command::OpenSession(Box::new(OpenSession {
        session: "s".into(),
        name: None,
        ttl_ms: 1_000,
        lock_delay_ms: 0,
        meta: Some("m".repeat(60_000)),
        tenant: Tenant::of_account("A"),
    }));
    let refused = apply(&mut table, 0, session);
    assert!(matches!(refused, Outcome::Overloaded { .. }), "{refused:?}");
}

#[test]
fn a_repeat_may_not_bring_a_reply_subject_that_is_too_long() {
    let mut table = Table::new(Limits {
        bytes: 5_000,
        ..Limits::default()
    });
    let wants = Wants::one("r", Grip::Exclusive);
    assert_acquired(&mut table, 0, &acquire("one", wants.clone()));
    let waits = |subject: String| Acquire {
        request_id: Some("id".into()),
        wait: Some(Wait {
            wait_ms: 60_000,
            reply: ReplyTo::new(subject, Encoding::Json),
        }),
        ..acquire("two", wants.clone())
    };
    let waiting = Command::Acquire(waits("inbox".to_owned()));
    assert_eq!(apply(&mut table, 0, waiting.clone()), Outcome::Waiting);
    assert_refused(&mut table, 0, &waits("i".repeat(5_000)), "bytes");
    assert_eq!(apply(&mut table, 0, waiting), Outcome::Waiting);
}

/// What is in the log of an earlier version is applied as it was there.
#[test]
fn weights_count_from_the_first_term_of_a_leader_that_knows_of_them() {
    let limits = Limits {
        claims: 4,
        ..Limits::default()
    };
    let mut table = Table {
        limits,
        ..Table::default()
    };
    assert_acquired(&mut table, 0, &acquire("one", set("a", 3)));
    assert_acquired(&mut table, 0, &acquire("two", set("b", 2)));
    let term = |keeps_over| Grace { ms: 0, keeps_over };
    table.start_term(0, term(false));
    assert_acquired(&mut table, 0, &acquire("three", set("c", 2)));
    table.start_term(0, term(true));
    assert_refused(&mut table, 0, &acquire("four", set("d", 1)), "claims");
}
