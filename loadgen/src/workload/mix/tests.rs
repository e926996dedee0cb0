use std::time::Duration;

use super::super::cache::Keys;
use super::super::queue::Topics;
use super::super::resource::RunName;
use super::*;
use crate::check::Shared;

fn mix() -> Mix {
    let (run, timeout) = (RunName::new(), Duration::from_secs(1));
    Mix {
        weights: "lock=1".parse().unwrap(),
        locks: Locks {
            run: run.clone(),
            shared_locks: None,
            set: 1,
            shared_mode: 0.0,
            hold: Duration::ZERO,
            wait: Duration::ZERO,
            timeout,
            check: Shared::new(false),
        },
        queue: Cycles(Topics {
            run: run.clone(),
            count: 1,
            batch: 1,
            message_bytes: 100..=100,
            timeout,
            check: Shared::new(false),
        }),
        cache: Cache {
            run,
            keys: Keys::new(1, None),
            increments: 0.0,
            reads: 0.5,
            value_bytes: 1..=1,
            timeout,
            check: Shared::new(false),
            counter_check: Shared::new(false),
        },
        status: Status { timeout },
    }
}

/// The names at a workload's places are the workload's own.
#[test]
fn each_part_is_recorded_under_its_own_names() {
    fn agrees(mix: &Mix, part: &impl Workload, places: &[usize]) {
        let ours = [mix.operations(), mix.details()].concat();
        let theirs = [part.operations(), part.details()].concat();
        let named: Vec<_> = places.iter().map(|place| ours[*place]).collect();
        assert_eq!(named, theirs);
    }
    let mix = mix();
    agrees(&mix, &mix.locks, LOCKS);
    agrees(&mix, &mix.queue, QUEUE);
    agrees(&mix, &mix.cache, CACHE);
    agrees(&mix, &mix.status, STATUS);
    let mut places = [LOCKS, QUEUE, CACHE, STATUS].concat();
    places.sort();
    let all: Vec<_> = (0..OPERATIONS.len() + DETAILS.len()).collect();
    assert_eq!(places, all, "each place belongs to one part");
}

#[test]
fn rounds_are_drawn_by_weight() {
    let weights: Weights = "locks=3, queue=1,cache=6".parse().unwrap();
    let mut random = Random::seed_from_u64(7);
    let mut counts = [0_u32; 4];
    for _ in 0..100_000 {
        counts[weights.draw(&mut random) as usize] += 1;
    }
    for (count, expected) in counts.into_iter().zip([30_000, 10_000, 60_000, 0]) {
        // The greatest standard deviation is 155.
        assert!(count.abs_diff(expected) < 800, "{counts:?}");
    }
    assert_eq!(counts[Part::Status as usize], 0);
}

#[test]
fn what_are_no_weights_says_why() {
    for (text, why) in [
        ("", "NAME=WEIGHT"),
        ("lock", "NAME=WEIGHT"),
        ("lock=0", "above 0"),
        ("lock=-1", "`lock=-1`"),
        ("lock=1000001", "not a weight"),
        ("echo=1", "`echo`"),
    ] {
        let error = text.parse::<Weights>().unwrap_err();
        assert!(format!("{error:#}").contains(why), "{text}: {error:#}");
    }
}
