//! Random commands, run by the table and by the naive model, must give the same answers and
//! effects; and what the table promises is checked on its own.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::command::*;
use super::limits::Limits;
use super::table::Table;
use super::table_model::Model;
use crate::ids::Token;
use crate::protocol::{Encoding, ReplyTo};

const RESOURCES: usize = 4;
const OWNERS: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    Acquire {
        resource: usize,
        owner: usize,
        exclusive: bool,
        wait_ms: Option<u64>,
        youngest: bool,
        id: Option<u8>,
        ttl_ms: u64,
    },
    /// Of the `nth` live token, modulo; or of a token that was never given.
    Release {
        nth: usize,
        wrong: bool,
    },
    Renew {
        nth: usize,
        ttl_ms: Option<u64>,
    },
    Pass {
        ms: u64,
    },
    Term {
        grace_ms: u64,
    },
    Restore,
}

fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let ttl = || prop_oneof![4 => 200u64..2000, 1 => 10u64..50];
    let wait = prop_oneof![1 => Just(None), 4 => (10u64..800).prop_map(Some)];
    let acquire = (
        0..RESOURCES,
        0..OWNERS,
        prop::bool::weighted(0.6),
        wait,
        any::<bool>(),
        prop::option::weighted(0.3, 0u8..4),
        ttl(),
    )
        .prop_map(
            |(resource, owner, exclusive, wait_ms, youngest, id, ttl_ms)| Step::Acquire {
                resource,
                owner,
                exclusive,
                wait_ms,
                youngest,
                id,
                ttl_ms,
            },
        );
    let release = (any::<usize>(), prop::bool::weighted(0.1));
    let renew = (any::<usize>(), prop::option::of(ttl()));
    let step = prop_oneof![
        24 => acquire,
        5 => release.prop_map(|(nth, wrong)| Step::Release { nth, wrong }),
        2 => renew.prop_map(|(nth, ttl_ms)| Step::Renew { nth, ttl_ms }),
        6 => (0u64..120).prop_map(|ms| Step::Pass { ms }),
        1 => (200_000u64..400_000).prop_map(|ms| Step::Pass { ms }),
        1 => (0u64..500).prop_map(|grace_ms| Step::Term { grace_ms }),
        1 => Just(Step::Restore),
    ];
    prop::collection::vec(step, 1..count)
}

/// The table command of a step, if it is one. `number` makes reply subjects distinct.
fn command_of(step: &Step, live: &[(String, Token)], number: usize) -> Option<Command> {
    let pick = |nth: usize| live.get(nth % live.len().max(1)).cloned();
    match *step {
        Step::Acquire {
            resource,
            owner,
            exclusive,
            wait_ms,
            youngest,
            id,
            ttl_ms,
        } => {
            let reply = ReplyTo {
                subject: format!("inbox.{number}"),
                encoding: Encoding::Json,
            };
            Some(Command::Acquire(Acquire {
                resource: format!("r{resource}"),
                mode: if exclusive {
                    Mode::Exclusive
                } else {
                    Mode::Shared
                },
                owner: format!("o{owner}"),
                request_id: id.map(|id| id.to_string()),
                ttl_ms,
                wait: wait_ms.map(|wait_ms| Wait { wait_ms, reply }),
                on_deadlock: match youngest {
                    true => DeadlockPolicy::Youngest,
                    false => DeadlockPolicy::Requester,
                },
                meta: None,
            }))
        }
        Step::Release { nth, wrong } => {
            let (resource, token) = pick(nth)?;
            let token = if wrong { Token(token.0 + 1000) } else { token };
            Some(Command::Release { resource, token })
        }
        Step::Renew { nth, ttl_ms } => {
            let (resource, token) = pick(nth)?;
            Some(Command::Renew {
                resource,
                token,
                ttl_ms,
            })
        }
        Step::Pass { .. } | Step::Term { .. } | Step::Restore => None,
    }
}

fn deadlocks_in(effects: &[Effect]) -> Vec<Deadlock> {
    let found = effects.iter().filter_map(|effect| match effect {
        Effect::Event(Event::Deadlock(deadlock)) => Some(deadlock.clone()),
        _ => None,
    });
    found.collect()
}

fn bytes_of(table: &Table) -> Vec<u8> {
    rmp_serde::to_vec(table).expect("a table encodes")
}

fn restored(table: &Table) -> Table {
    let bytes = bytes_of(table);
    let copy: Table = rmp_serde::from_slice(&bytes).expect("a table decodes");
    assert_eq!(&copy, table);
    assert_eq!(bytes_of(&copy), bytes);
    copy
}

fn tokens_granted(effects: &[Effect]) -> impl Iterator<Item = Token> {
    effects.iter().filter_map(|effect| match effect {
        Effect::Event(Event::Granted { token, .. }) => Some(*token),
        _ => None,
    })
}

fn same_as_the_model(steps: &[Step]) {
    let (mut table, mut model) = (Table::default(), Model::default());
    // A second node runs the same entries, and never the snapshot.
    let mut replica = Table::default();
    let (mut now_ms, mut newest) = (0, Token(0));
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Pass { ms } => now_ms += ms,
            Step::Term { grace_ms } => {
                for table in [&mut table, &mut replica] {
                    table.start_term(now_ms, *grace_ms);
                }
                model.start_term(*grace_ms);
            }
            Step::Restore => table = restored(&table),
            _ => {}
        }
        let (mut effects, mut replica_effects) = (Vec::new(), Vec::new());
        table.expire(now_ms, &mut effects);
        replica.expire(now_ms, &mut replica_effects);
        model.expire(now_ms);
        assert_eq!(
            effects,
            model.take_effects(),
            "expiring before step {number}"
        );
        if let Some(command) = command_of(step, &model.tokens(), number) {
            let before = effects.len();
            let outcome = table.apply(now_ms, &command, &mut effects);
            replica.apply(now_ms, &command, &mut replica_effects);
            let reported = deadlocks_in(&effects[before..]);
            assert_eq!(
                outcome,
                model.apply(&command, &reported),
                "step {number}: {command:?}"
            );
            assert_eq!(
                effects[before..],
                model.take_effects(),
                "step {number}: {command:?}"
            );
        }
        for token in tokens_granted(&effects) {
            assert!(token > newest, "tokens rise");
            newest = token;
        }
        assert!(!model.has_cycle());
        assert_eq!(table.next_deadline(), model.next_deadline());
        for resource in (0..RESOURCES).map(|n| format!("r{n}")) {
            assert_eq!(table.get(&resource, now_ms), model.get(&resource));
        }
        table.assert_consistent();
        assert_eq!(effects, replica_effects);
    }
    assert_eq!(bytes_of(&restored(&table)), bytes_of(&replica));
}

/// When each lease and each wait ends, kept from the answers alone.
#[derive(Default)]
struct Ends {
    leases: BTreeMap<Token, (String, u64)>,
    waits: BTreeMap<String, u64>,
}

impl Ends {
    fn granted(&mut self, now_ms: u64, acquired: &Acquired) {
        let end_ms = now_ms + acquired.expires_in_ms;
        let lease = self.leases.entry(acquired.token).or_default();
        // A grant and its extension can come out of one step.
        *lease = (acquired.resource.clone(), end_ms.max(lease.1));
    }

    fn note(&mut self, now_ms: u64, command: &Command, outcome: &Outcome) {
        match (command, outcome) {
            (_, Outcome::Acquired(acquired)) => self.granted(now_ms, acquired),
            (Command::Acquire(Acquire { wait, .. }), Outcome::Waiting) => {
                let wait = wait.as_ref().expect("only who asks for it waits");
                let end_ms = now_ms + wait.wait_ms;
                self.waits.insert(wait.reply.subject.clone(), end_ms);
            }
            (Command::Release { token, .. }, outcome) => {
                let live = self
                    .leases
                    .remove(token)
                    .is_some_and(|(_, end_ms)| end_ms > now_ms);
                assert_eq!(*outcome == Outcome::Released, live, "{command:?}");
            }
            (Command::Renew { token, .. }, outcome) => {
                let lease = self
                    .leases
                    .get_mut(token)
                    .filter(|(_, end_ms)| *end_ms > now_ms);
                match (outcome, lease) {
                    (Outcome::Renewed { expires_in_ms }, Some(lease)) => {
                        lease.1 = now_ms + expires_in_ms;
                    }
                    (outcome, None) => assert_eq!(*outcome, Outcome::NotHolder),
                    (outcome, _) => panic!("{command:?} of a live lease: {outcome:?}"),
                }
            }
            _ => {}
        }
    }

    fn tokens(&self) -> Vec<(String, Token)> {
        let leases = self.leases.iter();
        leases
            .map(|(token, (resource, _))| (resource.clone(), *token))
            .collect()
    }
}

/// With so few endings per entry that most are left behind: still nothing over is live.
fn nothing_over_is_live(steps: &[Step]) {
    let mut table = Table::new(Limits {
        endings_per_entry: 1,
        ..Limits::default()
    });
    let (mut now_ms, mut ends) = (0, Ends::default());
    for (number, step) in steps.iter().enumerate() {
        if let Step::Pass { ms } = step {
            now_ms += ms;
        }
        let mut effects = Vec::new();
        table.expire(now_ms, &mut effects);
        if let Some(command) = command_of(step, &ends.tokens(), number) {
            let outcome = table.apply(now_ms, &command, &mut effects);
            ends.note(now_ms, &command, &outcome);
        }
        for effect in &effects {
            if let Effect::WaitEnded { reply, outcome, .. } = effect {
                let end_ms = ends.waits[&reply.subject];
                match outcome {
                    Outcome::Acquired(acquired) => {
                        assert!(end_ms > now_ms, "granted when the wait was over");
                        ends.granted(now_ms, acquired);
                    }
                    Outcome::WaitTimeout(_) => assert!(end_ms <= now_ms, "ended early"),
                    _ => {}
                }
            }
        }
        for resource in (0..RESOURCES).map(|n| format!("r{n}")) {
            let view = table.get(&resource, now_ms);
            let live = ends
                .leases
                .values()
                .filter(|(r, end)| *r == resource && *end > now_ms);
            assert_eq!(view.holders.len(), live.count(), "{resource}");
            let shared = view
                .holders
                .iter()
                .all(|holder| holder.mode == Mode::Shared);
            assert!(view.holders.len() <= 1 || shared, "{resource}");
        }
        table.assert_consistent();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_table_behaves_like_the_model(steps in steps(80)) {
        same_as_the_model(&steps);
    }

    #[test]
    fn what_is_left_behind_by_expiry_is_never_live(steps in steps(80)) {
        nothing_over_is_live(&steps);
    }
}
