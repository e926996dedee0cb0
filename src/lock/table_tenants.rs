//! What tenants may do to one another in the table: nothing.

use super::claim::{Grip, Wants};
use super::command::{Acquire, Command, DeadlockPolicy, Wait};
use super::limits::Limits;
use super::outcome::Outcome;
use super::table::Table;
use crate::ids::Token;
use crate::protocol::{Encoding, ReplyTo, Tenant};

fn tenant(account: &str) -> Tenant {
    Tenant::of_account(account).expect("a valid account")
}

/// A request of an owner for a lock, as the service makes it for a tenant.
fn acquire(tenant: &Tenant, owner: &str, resource: &str, wait_ms: u64) -> Command {
    let reply = ReplyTo {
        tenant: Some(tenant.clone()),
        ..ReplyTo::new(owner, Encoding::Json)
    };
    Command::Acquire(Acquire {
        wants: Wants::one(tenant.inside(resource), Grip::Exclusive),
        owner: tenant.inside(owner).into(),
        request_id: None,
        session: None,
        ttl_ms: Some(30_000),
        wait: Some(Wait { wait_ms, reply }),
        on_deadlock: DeadlockPolicy::Requester,
        meta: None,
    })
}

fn apply(table: &mut Table, now_ms: u64, command: &Command) -> Outcome {
    let mut effects = Vec::new();
    table.expire(now_ms, &mut effects);
    let outcome = table.apply(now_ms, command, &mut effects);
    table.assert_consistent(now_ms);
    outcome
}

#[test]
fn the_waits_of_one_tenant_leave_room_for_those_of_another() {
    let mut table = Table::new(Limits {
        waiters_per_tenant: 2,
        ..Limits::default()
    });
    let (a, b) = (tenant("A"), tenant("B"));
    for tenant in [&a, &b] {
        apply(&mut table, 0, &acquire(tenant, "holder", "r", 100));
    }
    for owner in ["1", "2"] {
        let waits = apply(&mut table, 0, &acquire(&a, owner, "r", 100));
        assert_eq!(waits, Outcome::Waiting);
    }
    let third = acquire(&a, "3", "r", 100);
    let refused = apply(&mut table, 0, &third);
    assert!(
        matches!(&refused, Outcome::Overloaded { what, limit: 2 } if what == "waiters_per_tenant"),
        "{refused:?}"
    );
    let waits = apply(&mut table, 0, &acquire(&b, "1", "r", 100));
    assert_eq!(waits, Outcome::Waiting);
    // Waits that are over count no more.
    assert_eq!(apply(&mut table, 100, &third), Outcome::Waiting);
}

#[test]
fn a_guessed_token_reaches_nothing_of_another_tenant() {
    let mut table = Table::default();
    let (a, b) = (tenant("A"), tenant("B"));
    apply(&mut table, 0, &acquire(&a, "holder", "r", 0));
    let release = |tenant: &Tenant| Command::Release {
        resource: None,
        token: Token(1),
        tenant: Some(tenant.clone()),
    };
    let renew = Command::Renew {
        resource: None,
        token: Token(1),
        tenant: Some(b.clone()),
        ttl_ms: None,
    };
    assert_eq!(apply(&mut table, 0, &release(&b)), Outcome::NotHolder);
    assert_eq!(apply(&mut table, 0, &renew), Outcome::NotHolder);
    assert_eq!(apply(&mut table, 0, &release(&a)), Outcome::Released);
}
