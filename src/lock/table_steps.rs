//! Random steps for the tests of the table, and the commands that they amount to.

use std::sync::Arc;

use proptest::prelude::*;

use super::Name;
use super::claim::{Grip, Want, Wants};
use super::command::*;
use crate::ids::Token;
use crate::protocol::{Encoding, ReplyTo, Tenant};

pub(super) const RESOURCES: usize = 5;
const OWNERS: usize = 6;
/// Permits of every resource; now and then somebody believes in another number.
const LIMIT: u32 = 3;

/// One resource of a step, its mode, and how many permits.
type Wanted = (usize, u8, u32);

/// A number that picks one of what is there, modulo.
type Nth = usize;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Acquire {
        wanted: Vec<Wanted>,
        owner: usize,
        wait_ms: Option<u64>,
        youngest: bool,
        id: Option<u8>,
        ttl_ms: u64,
        session: Option<(Nth, bool)>,
    },
    /// Or of a token that was never given, or by the wrong name.
    Release {
        nth: Nth,
        wrong: u8,
    },
    Renew {
        nth: Nth,
        ttl_ms: Option<u64>,
    },
    Convert {
        nth: Nth,
        exclusive: bool,
        wait_ms: Option<u64>,
    },
    Cancel {
        resource: usize,
        owner: usize,
        id: Option<u8>,
        session: Option<Nth>,
    },
    GiveBack {
        nth: Nth,
    },
    Open {
        ttl_ms: u64,
        lock_delay_ms: u64,
    },
    KeepAlive {
        nths: Vec<Nth>,
    },
    Close {
        nth: Nth,
        forced: bool,
    },
    Force {
        resource: usize,
        nth: Option<Nth>,
    },
    Pass {
        ms: u64,
    },
    Term {
        grace_ms: u64,
    },
    Restore,
}

/// What commands may be about: the tokens that live, and the sessions that were ever opened.
pub(super) struct Known {
    pub(super) tokens: Vec<(Wants, Token)>,
    pub(super) sessions: usize,
}

fn ttl() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 200u64..2000, 1 => 10u64..50]
}

fn wait() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![2 => Just(None), 1 => Just(Some(0)), 10 => (10u64..800).prop_map(Some)]
}

fn acquire() -> impl Strategy<Value = Step> {
    let mode = prop_oneof![4 => Just(0u8), 4 => Just(1u8), 3 => Just(2u8)];
    let permits = prop_oneof![8 => 1..=LIMIT, 1 => Just(LIMIT + 1)];
    let one = (0..RESOURCES, mode, permits);
    let wanted = prop_oneof![
        3 => prop::collection::vec(one.clone(), 1),
        1 => prop::collection::vec(one, 2..4),
    ];
    let session = prop::option::weighted(0.25, (any::<Nth>(), any::<bool>()));
    let id = prop::option::weighted(0.3, 0u8..4);
    (wanted, 0..OWNERS, wait(), any::<bool>(), id, ttl(), session).prop_map(
        |(wanted, owner, wait_ms, youngest, id, ttl_ms, session)| Step::Acquire {
            wanted,
            owner,
            wait_ms,
            youngest,
            id,
            ttl_ms,
            session,
        },
    )
}

pub(super) fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let nth = any::<Nth>;
    let id = || prop::option::weighted(0.3, 0u8..4);
    let convert = (nth(), prop::bool::weighted(0.8), wait());
    let open = (100u64..1500, prop_oneof![2 => Just(0u64), 1 => 10u64..400]);
    let step = prop_oneof![
        28 => acquire(),
        5 => (nth(), 0u8..12).prop_map(|(nth, wrong)| Step::Release { nth, wrong }),
        2 => (nth(), prop::option::of(ttl())).prop_map(|(nth, ttl_ms)| Step::Renew { nth, ttl_ms }),
        4 => convert.prop_map(|(nth, exclusive, wait_ms)| Step::Convert { nth, exclusive, wait_ms }),
        2 => (0..RESOURCES, 0..OWNERS, id(), prop::option::weighted(0.3, nth())).prop_map(
            |(resource, owner, id, session)| Step::Cancel { resource, owner, id, session }
        ),
        1 => nth().prop_map(|nth| Step::GiveBack { nth }),
        2 => open.prop_map(|(ttl_ms, lock_delay_ms)| Step::Open { ttl_ms, lock_delay_ms }),
        2 => prop::collection::vec(nth(), 1..4).prop_map(|nths| Step::KeepAlive { nths }),
        1 => (nth(), any::<bool>()).prop_map(|(nth, forced)| Step::Close { nth, forced }),
        1 => (0..RESOURCES, prop::option::of(nth()))
            .prop_map(|(resource, nth)| Step::Force { resource, nth }),
        6 => (0u64..120).prop_map(|ms| Step::Pass { ms }),
        1 => (200_000u64..400_000).prop_map(|ms| Step::Pass { ms }),
        1 => (0u64..500).prop_map(|grace_ms| Step::Term { grace_ms }),
        1 => Just(Step::Restore),
    ];
    prop::collection::vec(step, 1..count)
}

pub(super) fn resource(number: usize) -> Name {
    format!("r{number}").into()
}

fn session(nth: Nth, known: &Known) -> Name {
    // One more than there are: that one was never opened.
    format!("s{}", nth % (known.sessions + 1)).into()
}

fn want(&(number, mode, permits): &Wanted) -> Want {
    Want {
        resource: resource(number),
        grip: match mode {
            0 => Grip::Exclusive,
            1 => Grip::Shared,
            _ => Grip::Permits {
                permits: permits.min(LIMIT),
                limit: LIMIT.max(permits),
            },
        },
    }
}

fn wants(wanted: &[Wanted]) -> Wants {
    let mut wants: Vec<Want> = wanted.iter().map(want).collect();
    wants.sort_by(|a, b| a.resource.cmp(&b.resource));
    wants.dedup_by(|a, b| a.resource == b.resource);
    match wants.len() {
        1 => Wants::One(wants.remove(0)),
        _ => Wants::Set(Arc::from(wants)),
    }
}

fn name(id: u8) -> Name {
    id.to_string().into()
}

/// The table command of a step, if it is one. `number` makes reply subjects distinct.
pub(super) fn command_of(step: &Step, known: &Known, number: usize) -> Option<Command> {
    let live = &known.tokens;
    let pick = |nth: Nth| live.get(nth % live.len().max(1)).cloned();
    let first = |wants: &Wants| wants.as_slice()[0].resource.clone();
    let sole = |wants: &Wants| (!wants.is_set()).then(|| first(wants));
    let wait_of = |wait_ms: Option<u64>| {
        let subject = format!("inbox.{number}");
        let encoding = Encoding::Json;
        let reply = ReplyTo::new(subject, encoding);
        wait_ms.map(|wait_ms| Wait { wait_ms, reply })
    };
    // Whoever asks, in whatever name: what is counted as whose must not depend on names.
    let tenant = match number % 3 {
        0 => None,
        1 => Tenant::of_account("A"),
        _ => Tenant::of_account("B"),
    };
    let owner_name = |owner: usize| Name::from(format!("o{owner}"));
    Some(match step {
        Step::Acquire {
            wanted,
            owner,
            wait_ms,
            youngest,
            id,
            ttl_ms,
            session: of,
        } => Command::Acquire(Acquire {
            wants: wants(wanted),
            owner: owner_name(*owner),
            request_id: id.map(name),
            session: of.map(|(nth, _)| session(nth, known)),
            ttl_ms: of.is_none_or(|(_, own)| own).then_some(*ttl_ms),
            wait: wait_of(*wait_ms),
            on_deadlock: match youngest {
                true => DeadlockPolicy::Youngest,
                false => DeadlockPolicy::Requester,
            },
            meta: None,
            tenant,
        }),
        Step::Release { nth, wrong } => {
            let (wants, token) = pick(*nth)?;
            match wrong {
                0 => Command::Release {
                    resource: sole(&wants),
                    token: Token(token.0 + 1000),
                    tenant: None,
                },
                1 => Command::Release {
                    resource: Some(first(&wants)),
                    token,
                    tenant: None,
                },
                2 => Command::Release {
                    resource: None,
                    token,
                    tenant: None,
                },
                _ => Command::Release {
                    resource: sole(&wants),
                    token,
                    tenant: None,
                },
            }
        }
        Step::Renew { nth, ttl_ms } => {
            let (wants, token) = pick(*nth)?;
            Command::Renew {
                resource: sole(&wants),
                token,
                tenant: None,
                ttl_ms: *ttl_ms,
            }
        }
        Step::Convert {
            nth,
            exclusive,
            wait_ms,
        } => {
            let (wants, token) = pick(*nth)?;
            Command::Convert(Box::new(Convert {
                resource: first(&wants),
                // Now and then the token from before an earlier conversion.
                token: Token(token.0 - u64::from(nth % 7 == 0)),
                to: match exclusive {
                    true => Grip::Exclusive,
                    false => Grip::Shared,
                },
                wait: wait_of(*wait_ms),
            }))
        }
        Step::Cancel {
            resource: number,
            owner,
            id,
            session: of,
        } => Command::Cancel {
            resource: resource(*number),
            owner: owner_name(*owner),
            request_id: id.map(name),
            session: of.map(|nth| session(nth, known)),
        },
        Step::GiveBack { nth } => Command::GiveBack {
            token: pick(*nth)?.1,
        },
        Step::Open {
            ttl_ms,
            lock_delay_ms,
        } => Command::OpenSession(Box::new(OpenSession {
            session: format!("s{}", known.sessions).into(),
            name: None,
            ttl_ms: *ttl_ms,
            lock_delay_ms: *lock_delay_ms,
            meta: None,
            tenant,
        })),
        Step::KeepAlive { nths } => Command::KeepAlive {
            sessions: nths.iter().map(|nth| session(*nth, known)).collect(),
        },
        Step::Close { nth, forced } => Command::CloseSession {
            session: session(*nth, known),
            reason: forced.then(|| "because".into()),
        },
        Step::Force {
            resource: number,
            nth,
        } => Command::ForceRelease {
            resource: resource(*number),
            token: match nth {
                Some(nth) => Some(pick(*nth)?.1),
                None => None,
            },
            reason: "because".into(),
        },
        Step::Pass { .. } | Step::Term { .. } | Step::Restore => return None,
    })
}
