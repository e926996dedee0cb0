//! Copies of a table: each stays what it was, whatever the table does afterwards. Snapshots are made of
//! copies while entries go on being applied.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::claim::{Grip, Wants};
use super::command::{Acquire, Command, DeadlockPolicy, OpenSession, Wait};
use super::requests::REMEMBERED_MS;
use super::table::Table;
use crate::ids::Token;
use crate::protocol::{Encoding, ReplyTo};

/// Enough for trees of several levels.
const RESOURCES: u32 = 400;
const OWNERS: u32 = 300;
const SESSIONS: u32 = 50;
const STEPS: u32 = 20_000;
const STEPS_PER_COPY: u32 = 500;

fn some_command(rng: &mut StdRng, step: u32, newest: Token) -> Command {
    let resource = format!("resource.{}", rng.random_range(0..RESOURCES));
    let owner = format!("owner.{}", rng.random_range(0..OWNERS));
    let session = format!("session.{}", rng.random_range(0..SESSIONS));
    match rng.random_range(0..10) {
        0 => Command::OpenSession(Box::new(OpenSession {
            session: format!("{session}.{step}").into(),
            name: None,
            ttl_ms: 5_000,
            lock_delay_ms: 50,
            meta: None,
            tenant: None,
        })),
        1..=5 => Command::Acquire(Acquire {
            wants: Wants::one(resource, Grip::Exclusive),
            owner: owner.as_str().into(),
            request_id: rng.random_bool(0.5).then(|| format!("{step}").into()),
            session: None,
            ttl_ms: Some(10_000),
            wait: rng.random_bool(0.3).then(|| Wait {
                wait_ms: 2_000,
                reply: ReplyTo::new(&owner, Encoding::Json),
            }),
            on_deadlock: DeadlockPolicy::Requester,
            meta: None,
            tenant: None,
        }),
        _ => Command::Release {
            resource: None,
            token: Token(rng.random_range(newest.0.saturating_sub(400)..=newest.0)),
            tenant: None,
        },
    }
}

fn bytes_of(table: &Table) -> Vec<u8> {
    rmp_serde::to_vec(table).expect("a table encodes")
}

#[test]
fn a_copy_stays_what_it_was() {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut copied, mut alone) = (Table::default(), Table::default());
    let mut copies = Vec::new();
    let mut now_ms = 0;
    for step in 0..STEPS {
        if step % STEPS_PER_COPY == 0 {
            copies.push((copied.clone(), bytes_of(&copied)));
        }
        now_ms += rng.random_range(0..40);
        let command = some_command(&mut rng, step, copied.last_token());
        let (mut effects, mut expected) = (Vec::new(), Vec::new());
        copied.expire(now_ms, &mut effects);
        alone.expire(now_ms, &mut expected);
        let outcome = copied.apply(now_ms, &command, &mut effects);
        assert_eq!(outcome, alone.apply(now_ms, &command, &mut expected));
        assert_eq!(effects, expected);
    }
    let counts = copied.counts();
    assert!(counts.held > 50 && counts.waiting > 0 && counts.request_ids > 1_000);
    assert!(now_ms > REMEMBERED_MS, "ids were forgotten again");
    copied.assert_consistent(now_ms);
    assert_eq!(bytes_of(&copied), bytes_of(&alone));
    for (copy, bytes) in &copies {
        assert!(bytes_of(copy) == *bytes, "a copy has changed");
    }
}
