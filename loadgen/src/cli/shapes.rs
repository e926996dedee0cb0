//! The shape of the rounds of each workload: flags of its own command and of `mix`.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;

use super::values;

#[derive(Args)]
#[command(next_help_heading = "Locks")]
pub struct LocksShape {
    /// Number of locks that all clients share [default: each client has a lock of its own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub locks: Option<u32>,
    /// Number of shared locks to take together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32), requires = "locks")]
    pub set: u32,
    /// Share of the rounds that take locks in shared mode, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = values::share)]
    pub shared: f64,
    /// How long to hold a lock
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = values::hold)]
    pub hold: Duration,
    /// How long to wait for a lock that others hold [default: 5s with --locks, otherwise 0s]
    #[arg(long, value_name = "DURATION", value_parser = values::wait)]
    pub wait: Option<Duration>,
}

/// How long to wait for a lock that others hold.
const WAIT_DEFAULT: Duration = Duration::from_secs(5);

impl LocksShape {
    /// How long an acquire waits.
    pub fn wait(&self) -> Duration {
        let default = match self.locks {
            Some(_) => WAIT_DEFAULT,
            None => Duration::ZERO,
        };
        self.wait.unwrap_or(default)
    }
}

#[derive(Args)]
#[command(next_help_heading = "Queue")]
pub struct QueueShape {
    /// Number of topics that the clients share
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub topics: u32,
    /// Number of messages in a push; a pop and its acknowledgement take at most as many
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub batch: u32,
    /// Size of a message in bytes: a number, or a range to draw from such as 100-4096
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = values::sizes)]
    pub message_bytes: RangeInclusive<usize>,
}

#[derive(Args)]
#[command(next_help_heading = "Cache")]
pub struct CacheShape {
    /// Share of the rounds that add to one of ten counters, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = values::share)]
    pub increments: f64,
    /// Share of the other rounds that are reads, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0.9", value_parser = values::share)]
    pub reads: f64,
    /// Number of keys that the clients share
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub keys: u32,
    /// Use the n-th key 1/n^EXPONENT times as often as the first [default: all keys equally often]
    #[arg(long, value_name = "EXPONENT", value_parser = values::exponent)]
    pub zipf: Option<f64>,
    /// Size of a value in bytes: a number, or a range to draw from such as 100-4096
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = values::sizes)]
    pub value_bytes: RangeInclusive<usize>,
}
