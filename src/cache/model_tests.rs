//! Caches of three nodes in virtual time, from a seed: messages are lost, repeated and late, nodes
//! pause, die and come back, clocks run apart. What clients saw has to be linearizable, key by key.

mod audits;
mod checker;
mod claims;
mod clients;
mod exhaustive;
mod fences;
mod lifetimes;
mod moves;
mod nodes;
mod pitfalls;
mod requests;
mod room;
mod seen;
mod shares;
mod stopping;
mod store;
mod sweeps;
mod through;
mod updates;
mod world;

use std::ops::Range;

use crate::cache::state::Flaws;
use seen::Seen;
use store::Lax;
use world::{World, Wrong};

/// Seeds that every run of the tests looks at.
const SEEDS: u64 = 40;
/// Within how many seeds each part of the protocol that is left out has to be missed.
const SEEDS_UNTIL_MISSED: u64 = 400;
/// The same for what needs several accidents at once, from shortly before the first that finds it now.
const SEEDS_UNTIL_RARE_IS_MISSED: Range<u64> = 800..4_800;

fn verdict(seed: u64, wrong: Wrong) -> Result<Seen, String> {
    let mut world = World::new(seed, wrong);
    world.run();
    world.check()
}

#[test]
fn what_clients_see_is_linearizable_whatever_happens() {
    let mut total = Seen::default();
    for seed in 0..SEEDS {
        match verdict(seed, Wrong::default()) {
            Ok(seen) => total.add(&seen),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    println!("{total:?}");
    assert!(
        total.operations > 20_000 && total.local > 1_000,
        "{total:?}"
    );
    assert!(
        total.promoted > 0 && total.swept > 0 && total.crashes > 0 && total.pauses > 0,
        "{total:?}"
    );
    assert!(total.recalled > 50 && total.counted > 500, "{total:?}");
    assert!(total.updates > 100, "{total:?}");
}

#[test]
fn what_clients_see_is_linearizable_with_a_store_behind_little_memory() {
    let mut total = Seen::default();
    for seed in 0..SEEDS {
        match verdict(seed, before_store(Flaws::default(), Lax::default())) {
            Ok(seen) => total.add(&seen),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    println!("{total:?}");
    assert!(
        total.operations > 10_000 && total.local > 1_000 && total.stored > 500,
        "{total:?}"
    );
    assert!(
        total.swept > 0 && total.crashes > 0 && total.evictions > 300,
        "{total:?}"
    );
    assert!(total.recalled > 50 && total.counted > 500, "{total:?}");
    assert!(total.updates > 100, "{total:?}");
}

fn before_store(flaws: Flaws, lax: Lax) -> Wrong {
    Wrong {
        flaws,
        store: Some(lax),
        ..Wrong::default()
    }
}

#[test]
fn a_write_that_does_not_wait_for_the_store_is_found() {
    let flaws = Flaws {
        no_wait_for_store: true,
        ..Flaws::default()
    };
    is_missed("no wait for the store", before_store(flaws, Lax::default()));
}

#[test]
fn a_value_of_before_an_invalidation_that_is_installed_after_it_is_found() {
    let flaws = Flaws {
        no_asking_after_voiding: true,
        ..Flaws::default()
    };
    is_missed(
        "no asking after voiding",
        before_store(flaws, Lax::default()),
    );
}

#[test]
fn a_store_that_takes_calls_of_an_older_view_is_found() {
    let lax = Lax {
        no_epoch_check: true,
        ..Lax::default()
    };
    is_missed("no epoch check", before_store(Flaws::default(), lax));
}

#[test]
fn a_new_home_that_reads_before_it_shuts_the_old_one_out_is_found() {
    let lax = Lax {
        reads_raise_nothing: true,
        ..Lax::default()
    };
    let wrong = before_store(Flaws::default(), lax);
    is_missed_within(SEEDS_UNTIL_RARE_IS_MISSED, "reads raise nothing", wrong);
}

#[test]
fn a_store_that_takes_calls_over_an_older_connection_is_found() {
    let lax = Lax {
        no_connection_check: true,
        ..Lax::default()
    };
    is_missed("no connection check", before_store(Flaws::default(), lax));
}

#[track_caller]
fn is_missed(what: &str, wrong: Wrong) {
    is_missed_within(0..SEEDS_UNTIL_MISSED, what, wrong);
}

#[track_caller]
fn is_missed_within(seeds: Range<u64>, what: &str, wrong: Wrong) {
    for seed in seeds.clone() {
        if let Err(why) = verdict(seed, wrong) {
            println!("{what}: found by seed {seed}: {why}");
            return;
        }
    }
    panic!("{what}: not found by the seeds {seeds:?}");
}

fn flawed(flaws: Flaws) -> Wrong {
    Wrong {
        flaws,
        ..Wrong::default()
    }
}

#[test]
fn a_write_that_does_not_wait_for_acknowledgements_is_found() {
    is_missed(
        "no wait for acknowledgement",
        flawed(Flaws {
            no_wait_for_acknowledgement: true,
            ..Flaws::default()
        }),
    );
}

#[test]
fn a_value_that_is_served_before_its_write_has_taken_effect_is_found() {
    is_missed(
        "serves unconfirmed",
        flawed(Flaws {
            serves_unconfirmed: true,
            ..Flaws::default()
        }),
    );
}

#[test]
fn sharers_that_no_note_is_kept_of_are_found() {
    is_missed(
        "no note of updates",
        flawed(Flaws {
            no_note_of_updates: true,
            ..Flaws::default()
        }),
    );
}

#[test]
fn a_confirmation_that_counts_for_another_write_is_found() {
    is_missed(
        "confirms any",
        flawed(Flaws {
            confirms_any: true,
            ..Flaws::default()
        }),
    );
}

#[test]
fn a_fill_that_is_not_detached_is_found() {
    is_missed(
        "no detach",
        flawed(Flaws {
            no_detach: true,
            ..Flaws::default()
        }),
    );
}

#[test]
fn a_backup_that_is_not_purged_is_found() {
    is_missed(
        "no purge of backups",
        flawed(Flaws {
            no_purge_of_backups: true,
            ..Flaws::default()
        }),
    );
}

#[test]
fn versions_that_are_used_again_after_a_restart_are_found() {
    is_missed(
        "versions without epoch",
        flawed(Flaws {
            versions_without_epoch: true,
            ..Flaws::default()
        }),
    );
}

#[test]
fn a_repeat_of_something_unknown_that_is_executed_is_found() {
    is_missed(
        "repeats are new",
        flawed(Flaws {
            repeats_are_new: true,
            ..Flaws::default()
        }),
    );
}

#[test]
fn an_activation_that_does_not_wait_for_leases_is_found() {
    is_missed(
        "no wait before activation",
        Wrong {
            no_wait_before_activation: true,
            ..Wrong::default()
        },
    );
}

#[test]
fn a_clock_that_is_not_read_at_each_hit_is_found() {
    is_missed(
        "cached clock",
        Wrong {
            cached_clock: true,
            ..Wrong::default()
        },
    );
}

#[test]
fn a_lease_that_begins_when_the_answer_comes_is_found() {
    is_missed(
        "lease from receive time",
        Wrong {
            lease_from_receipt: true,
            ..Wrong::default()
        },
    );
}
