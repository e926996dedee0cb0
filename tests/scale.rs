//! What a large lock table costs: `make scale` prints it, optimised and at full size. Here a smaller one
//! shows that the measurement itself works; nothing about time is asserted.

use std::time::{Duration, Instant};

use mufakat::lock::claim::{Grip, Wants};
use mufakat::lock::command::{Acquire, Command, DeadlockPolicy, Wait};
use mufakat::lock::outcome::Outcome;
use mufakat::lock::table::Table;
use mufakat::protocol::{Encoding, ReplyTo};

/// As the node's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set to anything: the full sizes, as documented in README.md ("Limits").
const FULL: &str = "MUFAKAT_SCALE";
/// Repetitions of each operation that is timed.
const TIMES: usize = 2_001;
/// Requests that would close the chain, each of which changes nothing but what is remembered of it.
const CLOSINGS: usize = 21;

struct Sizes {
    held: usize,
    waiting: usize,
    chain: usize,
}

fn sizes() -> Sizes {
    match std::env::var_os(FULL) {
        Some(_) => Sizes {
            held: 100_000,
            waiting: 10_000,
            chain: 10_000,
        },
        None => Sizes {
            held: 2_000,
            waiting: 200,
            chain: 200,
        },
    }
}

fn acquire(owner: &str, resource: &str, waits: bool) -> Command {
    Command::Acquire(Acquire {
        wants: Wants::one(resource, Grip::Exclusive),
        owner: owner.into(),
        request_id: None,
        session: None,
        ttl_ms: Some(600_000),
        wait: waits.then(|| Wait {
            wait_ms: 60_000,
            reply: ReplyTo::new(format!("_INBOX.{owner}"), Encoding::Json),
        }),
        on_deadlock: DeadlockPolicy::Requester,
        meta: None,
        tenant: None,
    })
}

/// Half of the times of an operation are below this; each begins in the table as it was given.
fn median(mut operation: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..TIMES).map(|_| operation()).collect();
    times.sort_unstable();
    times[TIMES / 2]
}

fn timed(table: &mut Table, command: &Command) -> (Duration, Outcome) {
    let mut effects = Vec::with_capacity(8);
    let begun = Instant::now();
    table.expire(1, &mut effects);
    let outcome = table.apply(1, command, &mut effects);
    (begun.elapsed(), outcome)
}

/// Medians of: granting a free lock, releasing it, being refused, waiting and giving up the wait.
fn operations(table: &mut Table) -> [(&'static str, Duration); 4] {
    let mut granted = Vec::new();
    let mut number = 0;
    let grant = median(|| {
        number += 1;
        let (took, outcome) = timed(table, &acquire("x", &format!("free.{number}"), false));
        let Outcome::Acquired(acquired) = outcome else {
            panic!("{outcome:?}");
        };
        granted.push(acquired.token);
        took
    });
    let release = median(|| {
        let token = granted.pop().expect("as many as were granted");
        let release = Command::Release {
            resource: None,
            token,
            tenant: None,
        };
        timed(table, &release).0
    });
    timed(table, &acquire("y", "taken", false));
    let refuse = median(|| timed(table, &acquire("z", "taken", false)).0);
    let wait = median(|| {
        let cancel = Command::Cancel {
            resource: "taken".into(),
            owner: "z".into(),
            request_id: None,
            session: None,
        };
        let waiting = timed(table, &acquire("z", "taken", true)).0;
        waiting + timed(table, &cancel).0
    });
    [
        ("grant", grant),
        ("release", release),
        ("refuse", refuse),
        ("wait and cancel", wait),
    ]
}

/// Resident memory of this process, in megabytes.
fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kb.unwrap_or(0) / 1024
}

#[test]
fn a_large_table_is_as_quick_as_an_empty_one() {
    let Sizes { held, waiting, .. } = sizes();
    let empty = operations(&mut Table::default());
    let (mut table, mut effects) = (Table::default(), Vec::new());
    let before_mb = resident_mb();
    for n in 0..held {
        let command = acquire(&format!("owner.{n}"), &format!("resource.{n}"), false);
        table.apply(0, &command, &mut effects);
        effects.clear();
    }
    for n in 0..waiting {
        let resource = format!("resource.{}", n * 7 % held);
        table.apply(
            0,
            &acquire(&format!("waiter.{n}"), &resource, true),
            &mut effects,
        );
        effects.clear();
    }
    let counts = table.counts();
    assert_eq!((counts.held, counts.waiting), (held as u64, waiting as u64));
    let grown_mb = resident_mb().saturating_sub(before_mb);
    println!("{held} locks held, {waiting} waiters: {grown_mb} MB");
    for ((name, empty), (_, full)) in empty.into_iter().zip(operations(&mut table)) {
        println!("  {name}: {empty:?} in an empty table, {full:?} in this one");
    }
    let begun = Instant::now();
    let bytes = rmp_serde::to_vec(&table).expect("a table encodes");
    let encoded = begun.elapsed();
    let begun = Instant::now();
    let restored: Table = rmp_serde::from_slice(&bytes).expect("a table decodes");
    println!(
        "  snapshot: {} KB, written in {encoded:?}, read in {:?}",
        bytes.len() / 1024,
        begun.elapsed()
    );
    assert!(restored == table);
}

#[test]
fn a_chain_of_waiters_is_searched() {
    let owners = sizes().chain;
    let (mut table, mut effects) = (Table::default(), Vec::new());
    let name = |n: usize| format!("o{n}");
    for n in 0..owners {
        table.apply(0, &acquire(&name(n), &name(n), false), &mut effects);
    }
    for n in (1..owners).rev() {
        let outcome = table.apply(0, &acquire(&name(n), &name(n - 1), true), &mut effects);
        assert_eq!(outcome, Outcome::Waiting);
    }
    let closing = acquire(&name(0), &name(owners - 1), true);
    let mut times: Vec<Duration> = (0..CLOSINGS)
        .map(|_| {
            let (took, outcome) = timed(&mut table, &closing);
            let Outcome::Deadlock(deadlock) = outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(deadlock.cycle.len(), owners);
            took
        })
        .collect();
    let first = times[0];
    times.sort_unstable();
    println!(
        "{owners} owners in one chain: the request that would close it is refused in {first:?} the first \
         time, in {:?} by the median of {CLOSINGS}",
        times[CLOSINGS / 2]
    );
}
