//! Random commands, run by the table and by the naive model, must give the same answers and
//! effects; and what the table promises is checked on its own.
//!
//! [`CASES`] says how many sequences of steps, on average about forty each, are tried.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::claim::Wants;
use super::command::*;
use super::event::{Effect, Event};
use super::limits::Limits;
use super::outcome::*;
use super::table::Table;
use super::table_model::Model;
use super::table_steps::{Known, RESOURCES, Step, command_of, resource, steps};
use crate::ids::Token;

/// Overrides how many sequences are tried.
const CASES: &str = "MUFAKAT_TABLE_CASES";

fn cases() -> u32 {
    let given = std::env::var(CASES).ok();
    given.map_or(1_000, |cases| cases.parse().expect("a number of cases"))
}

fn deadlocks_in(effects: &[Effect]) -> Vec<Arc<Deadlock>> {
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

fn same_as_the_model(steps: &[Step], limits: Limits) {
    let mut table = Table::new(limits);
    let mut model = Model::new(limits);
    // A second node runs the same entries, and never the snapshot.
    let mut replica = Table::new(limits);
    let (mut now_ms, mut newest, mut sessions) = (0, Token(0), 0);
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Pass { ms } => now_ms += ms,
            Step::Term { grace_ms } => {
                for table in [&mut table, &mut replica] {
                    table.start_term(
                        now_ms,
                        Grace {
                            ms: *grace_ms,
                            keeps_over: true,
                        },
                    );
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
        let expected = model.take_effects();
        assert_eq!(effects, expected, "expiring before step {number}");
        let known = Known {
            tokens: model.tokens(),
            sessions,
        };
        if let Some(command) = command_of(step, &known, number) {
            sessions += usize::from(matches!(command, Command::OpenSession(_)));
            let before = effects.len();
            let outcome = table.apply(now_ms, &command, &mut effects);
            replica.apply(now_ms, &command, &mut replica_effects);
            let reported = deadlocks_in(&effects[before..]);
            let about = format!("step {number}: {command:?}");
            assert_eq!(outcome, model.apply(&command, &reported), "{about}");
            assert_eq!(effects[before..], model.take_effects(), "{about}");
        }
        for token in tokens_granted(&effects) {
            assert!(token >= newest, "tokens rise");
            newest = token;
        }
        assert!(model.deadlocked().is_empty());
        assert_eq!(table.next_deadline(), model.next_deadline());
        for resource in (0..RESOURCES).map(resource) {
            assert_eq!(table.get(&resource, now_ms), model.get(&resource));
        }
        table.assert_consistent(now_ms);
        assert_eq!(effects, replica_effects);
    }
    assert_eq!(bytes_of(&restored(&table)), bytes_of(&replica));
}

/// When each lease and each wait without a session ends, kept from the answers alone.
#[derive(Default)]
struct Ends {
    leases: BTreeMap<Token, (Wants, u64)>,
    waits: BTreeMap<String, u64>,
}

impl Ends {
    fn granted(&mut self, now_ms: u64, acquired: &Acquired) {
        let end_ms = now_ms + acquired.expires_in_ms;
        let lease = self.leases.entry(acquired.token);
        let lease = lease.or_insert_with(|| (acquired.wants.clone(), end_ms));
        // A grant and its extension can come out of one step.
        lease.1 = end_ms.max(lease.1);
    }

    fn note(&mut self, now_ms: u64, command: &Command, outcome: &Outcome) {
        let is_live = |lease: &(Wants, u64)| lease.1 > now_ms;
        match (command, outcome) {
            (_, Outcome::Acquired(acquired)) => self.granted(now_ms, acquired),
            (Command::Acquire(Acquire { wait, .. }), Outcome::Waiting) => {
                let wait = wait.as_ref().expect("only who asks for it waits");
                let end_ms = now_ms + wait.wait_ms;
                self.waits.insert(wait.reply.subject.clone(), end_ms);
            }
            (Command::Release { token, .. }, outcome) => {
                let live = self.leases.get(token).is_some_and(is_live);
                if *outcome == Outcome::Released {
                    assert!(live, "{command:?}");
                    self.leases.remove(token);
                }
            }
            (Command::Renew { token, .. }, outcome) => match outcome {
                Outcome::Renewed { expires_in_ms } => {
                    let lease = self.leases.get_mut(token).filter(|lease| is_live(lease));
                    lease.expect("it was live").1 = now_ms + expires_in_ms;
                }
                outcome => {
                    assert_eq!(*outcome, Outcome::NotHolder);
                    assert!(!self.leases.get(token).is_some_and(is_live), "{command:?}");
                }
            },
            _ => {}
        }
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
        let step = match step.clone() {
            Step::Pass { ms } => {
                now_ms += ms;
                continue;
            }
            Step::Acquire {
                wanted,
                owner,
                wait_ms,
                youngest,
                id,
                ttl_ms,
                ..
            } => Step::Acquire {
                wanted,
                owner,
                wait_ms,
                youngest,
                id,
                ttl_ms,
                session: None,
            },
            other @ (Step::Release { .. } | Step::Renew { .. }) => other,
            _ => continue,
        };
        let mut effects = Vec::new();
        table.expire(now_ms, &mut effects);
        let leases = ends.leases.iter();
        let known = Known {
            tokens: leases
                .map(|(token, (wants, _))| (wants.clone(), *token))
                .collect(),
            sessions: 0,
        };
        if let Some(command) = command_of(&step, &known, number) {
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
        for resource in (0..RESOURCES).map(resource) {
            let view = table.get(&resource, now_ms);
            let live = ends
                .leases
                .values()
                .filter(|(wants, end_ms)| wants.grip_of(&resource).is_some() && *end_ms > now_ms);
            assert_eq!(view.holders.len(), live.count(), "{resource}");
            let modes: Vec<Mode> = view.holders.iter().map(|h| h.grip.mode()).collect();
            let alike = modes.iter().all(|mode| *mode == modes[0]);
            let alone = modes.len() <= 1 || modes[0] != Mode::Exclusive;
            assert!(alike && alone, "{resource}: {modes:?}");
        }
        table.assert_consistent(now_ms);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn the_table_behaves_like_the_model(steps in steps(80)) {
        same_as_the_model(&steps, Limits::default());
    }

    #[test]
    fn the_table_refuses_what_the_model_refuses(steps in steps(80)) {
        let limits = Limits {
            claims: 9,
            claims_per_tenant: 5,
            claims_per_resource: 4,
            claims_per_session: 3,
            ..Limits::default()
        };
        same_as_the_model(&steps, limits);
    }

    #[test]
    fn what_is_left_behind_by_expiry_is_never_live(steps in steps(80)) {
        nothing_over_is_live(&steps);
    }
}
