//! What tenants may do to one another in the table: nothing.

use super::claim::{Grip, Wants};
use super::command::{Acquire, Command, Convert, DeadlockPolicy, OpenSession, Wait};
use super::limits::Limits;
use super::outcome::Outcome;
use super::requests::REMEMBERED_MS;
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
        tenant: Some(tenant.clone()),
    })
}

fn open(tenant: &Tenant, session: &str) -> Command {
    Command::OpenSession(Box::new(OpenSession {
        session: tenant.inside(session).into(),
        name: None,
        ttl_ms: 100,
        lock_delay_ms: 0,
        meta: None,
        tenant: Some(tenant.clone()),
    }))
}

fn with_id(id: &str, command: Command) -> Command {
    let Command::Acquire(acquire) = command else {
        panic!("{command:?} has no id");
    };
    Command::Acquire(Acquire {
        request_id: Some(id.into()),
        ..acquire
    })
}

/// That the command is refused for this bound, and changes nothing by that.
fn assert_refused(table: &mut Table, now_ms: u64, command: &Command, bound: &str) {
    table.expire(now_ms, &mut Vec::new());
    let before = table.clone();
    let refused = apply(table, now_ms, command);
    assert!(
        matches!(&refused, Outcome::Overloaded { what, limit: 2 } if what == bound),
        "{refused:?}"
    );
    assert_eq!(*table, before);
}

fn assert_acquired(table: &mut Table, now_ms: u64, command: &Command) -> Token {
    match apply(table, now_ms, command) {
        Outcome::Acquired(acquired) => acquired.token,
        other => panic!("{command:?}: {other:?}"),
    }
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
    assert_refused(&mut table, 0, &third, "waiters_per_tenant");
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

#[test]
fn what_one_tenant_holds_and_waits_for_leaves_room_for_another() {
    let mut table = Table::new(Limits {
        claims_per_tenant: 2,
        ..Limits::default()
    });
    let (a, b) = (tenant("A"), tenant("B"));
    let held = assert_acquired(&mut table, 0, &acquire(&a, "1", "r", 0));
    let waits = acquire(&a, "2", "r", 100);
    assert_eq!(apply(&mut table, 0, &waits), Outcome::Waiting);

    let third = acquire(&a, "3", "free", 0);
    assert_refused(&mut table, 0, &third, "claims_per_tenant");
    let waiting = acquire(&a, "3", "r", 100);
    assert_refused(&mut table, 0, &waiting, "claims_per_tenant");
    assert_acquired(&mut table, 0, &acquire(&b, "1", "r", 0));
    // What it has it may ask for again, and change.
    assert_eq!(
        assert_acquired(&mut table, 0, &acquire(&a, "1", "r", 0)),
        held
    );
    let convert = Command::Convert(Box::new(Convert {
        resource: a.inside("r").into(),
        token: held,
        to: Grip::Shared,
        wait: None,
    }));
    let converted = assert_acquired(&mut table, 0, &convert);

    // A wait that became a hold counts once, and no more when it has ended.
    let release = |token| Command::Release {
        resource: None,
        token,
        tenant: Some(a.clone()),
    };
    assert_eq!(apply(&mut table, 0, &release(converted)), Outcome::Released);
    assert_acquired(&mut table, 0, &third);
    let fourth = acquire(&a, "4", "another", 0);
    assert_refused(&mut table, 0, &fourth, "claims_per_tenant");
    assert_acquired(&mut table, 30_000, &fourth);
}

#[test]
fn the_sessions_of_one_tenant_leave_room_for_those_of_another() {
    let mut table = Table::new(Limits {
        sessions_per_tenant: 2,
        ..Limits::default()
    });
    let (a, b) = (tenant("A"), tenant("B"));
    let is_opened = |outcome| matches!(outcome, Outcome::SessionOpened { .. });
    for session in ["1", "2"] {
        assert!(is_opened(apply(&mut table, 0, &open(&a, session))));
    }
    assert_refused(&mut table, 0, &open(&a, "3"), "sessions_per_tenant");
    assert!(is_opened(apply(&mut table, 0, &open(&b, "1"))));
    let close = Command::CloseSession {
        session: a.inside("1").into(),
        reason: None,
    };
    apply(&mut table, 0, &close);
    assert!(is_opened(apply(&mut table, 0, &open(&a, "3"))));
    assert_refused(&mut table, 0, &open(&a, "4"), "sessions_per_tenant");
    assert!(is_opened(apply(&mut table, 100, &open(&a, "4"))));
}

#[test]
fn the_request_ids_of_one_tenant_leave_room_for_those_of_another() {
    let mut table = Table::new(Limits {
        request_ids_per_tenant: 2,
        ..Limits::default()
    });
    let (a, b) = (tenant("A"), tenant("B"));
    let first = with_id("1", acquire(&a, "1", "r", 0));
    let token = assert_acquired(&mut table, 0, &first);
    let waits = with_id("2", acquire(&a, "2", "r", 100));
    assert_eq!(apply(&mut table, 0, &waits), Outcome::Waiting);

    let third = with_id("3", acquire(&a, "3", "free", 0));
    assert_refused(&mut table, 0, &third, "request_ids_per_tenant");
    assert_acquired(&mut table, 0, &with_id("3", acquire(&b, "3", "free", 0)));
    // Repeats of what is known are answered, and so is what has no id.
    assert_eq!(assert_acquired(&mut table, 0, &first), token);
    assert_acquired(&mut table, 0, &acquire(&a, "3", "without", 0));
    // The wait leaves no trace; what was granted is known for a while after its end.
    assert_acquired(&mut table, 100, &third);
    let fourth = with_id("4", acquire(&a, "4", "another", 0));
    assert_refused(&mut table, 30_100, &fourth, "request_ids_per_tenant");
    assert_acquired(&mut table, 30_100 + REMEMBERED_MS, &fourth);
}
