//! Which process is broken when, how and for how long: the same for the same seed and the same processes.

use std::time::Duration;

use clap::ValueEnum;
use rand::{RngExt, SeedableRng};

use crate::workload::Random;

/// The last of a run's time is left whole, so that what was broken last is up again when the run is looked at.
const CALM_AT_END: Duration = Duration::from_secs(2);
/// Seeds of users follow the run's; this is far from them.
const SEED_APART: u64 = 1 << 48;

/// What of a cluster is to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Nodes,
    Broker,
    Redis,
}

impl Part {
    /// Whether a process with the name that `mufakat dev` gives it is of this part.
    pub fn has(self, process: &str) -> bool {
        match self {
            Self::Nodes => process.starts_with("node-"),
            Self::Broker => process == "nats",
            Self::Redis => process == "redis",
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Broker => "broker",
            Self::Redis => "redis",
        }
    }
}

/// How it is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ended without warning, started after the outage.
    Kill,
    /// Made to stand still for the outage.
    Pause,
    /// Told to end, and started after the outage.
    Restart,
}

const KINDS: [Kind; 3] = [Kind::Kill, Kind::Pause, Kind::Restart];

/// How dense the blows are.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// From the end of one outage to the next blow, in the mean.
    pub every: Duration,
    /// The longest outage; the shortest is a fifth of it.
    pub outage: Duration,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blow {
    /// Since the recorded time began.
    pub at: Duration,
    pub process: String,
    pub kind: Kind,
    pub outage: Duration,
}

/// The blows of a run of this length, one after the other: there is never more than one process away.
pub fn draw(processes: &[String], shape: &Shape, length: Duration, seed: u64) -> Vec<Blow> {
    let mut random = Random::seed_from_u64(seed.wrapping_add(SEED_APART));
    let calm_from = length.saturating_sub(CALM_AT_END.min(length / 4));
    let mut blows = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        at += shape.every.mul_f64(random.random_range(0.5..1.5));
        let outage = shape.outage.mul_f64(random.random_range(0.2..1.0));
        let process = &processes[random.random_range(0..processes.len())];
        let kind = KINDS[random.random_range(0..KINDS.len())];
        if at + outage > calm_from {
            return blows;
        }
        blows.push(Blow {
            at,
            process: process.clone(),
            kind,
            outage,
        });
        at += outage;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        every: Duration::from_secs(5),
        outage: Duration::from_secs(2),
    };

    fn processes() -> Vec<String> {
        ["nats", "node-1", "node-2"].map(str::to_owned).to_vec()
    }

    #[test]
    fn one_process_at_a_time_is_away_and_none_at_the_end() {
        let length = Duration::from_secs(600);
        let blows = draw(&processes(), &SHAPE, length, 7);
        // One in 6.2 s, in the mean.
        assert!((85..110).contains(&blows.len()), "{}", blows.len());
        let mut free_from = Duration::ZERO;
        for blow in &blows {
            assert!(blow.at >= free_from + SHAPE.every / 2, "{blow:?}");
            assert!(blow.outage >= SHAPE.outage / 5 && blow.outage <= SHAPE.outage);
            free_from = blow.at + blow.outage;
        }
        assert!(free_from <= length - CALM_AT_END);
        for process in processes() {
            for kind in KINDS {
                let hit = |blow: &Blow| blow.process == process && blow.kind == kind;
                assert!(blows.iter().any(hit), "{process}: {kind:?}");
            }
        }
    }

    #[test]
    fn a_seed_decides_everything() {
        let length = Duration::from_secs(100);
        let blows = |seed| draw(&processes(), &SHAPE, length, seed);
        assert_eq!(blows(1), blows(1));
        assert_ne!(blows(1), blows(2));
        assert!(draw(&processes(), &SHAPE, Duration::from_secs(1), 1).is_empty());
    }

    #[test]
    fn parts_are_told_by_the_names_of_dev() {
        assert!(Part::Nodes.has("node-3") && Part::Broker.has("nats") && Part::Redis.has("redis"));
        assert!(
            !Part::Nodes.has("nats") && !Part::Broker.has("redis") && !Part::Redis.has("node-1")
        );
    }
}
