//! What the next holder of a lock costs while many wait for it.

use super::claim::{Grip, Wants};
use super::command::*;
use super::limits::Limits;
use super::outcome::Outcome;
use super::table::Table;
use crate::ids::Token;
use crate::protocol::{Encoding, ReplyTo};

const WAITERS: u64 = 500;

fn wait(number: u64) -> Command {
    Command::Acquire(Acquire {
        wants: Wants::one("hot", Grip::Exclusive),
        owner: format!("o{number:03}").into(),
        request_id: None,
        session: None,
        ttl_ms: Some(60_000),
        wait: Some(Wait {
            wait_ms: 60_000,
            reply: ReplyTo::new("inbox", Encoding::Json),
        }),
        on_deadlock: DeadlockPolicy::Requester,
        meta: None,
        tenant: None,
    })
}

fn size(table: &Table) -> usize {
    rmp_serde::to_vec(table).expect("a table encodes").len()
}

/// tikv#19846: each change of the holder of a hot key took the edges of all its waiters away and made
/// new ones, until their number took the memory.
#[test]
fn a_hand_over_tells_the_next_one_alone_and_leaves_nothing_behind() {
    let mut table = Table::new(Limits {
        recent_endings: 0,
        ..Limits::default()
    });
    let mut effects = Vec::new();
    for number in 0..=WAITERS {
        table.apply(0, &wait(number), &mut effects);
    }
    let mut before = size(&table);
    for token in 1..=WAITERS {
        effects.clear();
        let release = Command::Release {
            tenant: None,
            resource: None,
            token: Token(token),
        };
        assert_eq!(table.apply(0, &release, &mut effects), Outcome::Released);
        assert_eq!(effects.len(), 3, "released, granted, told: {effects:?}");
        let after = size(&table);
        assert!(after < before, "{after} bytes after {before}");
        before = after;
    }
}
