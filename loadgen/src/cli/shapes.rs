//! What the rounds of each workload are like: the flags of its own command, and of `mix`.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;

use super::values;

#[derive(Args)]
#[command(next_help_heading = "Locks")]
pub struct LocksShape {
    /// Locks that all clients share; absent: each client has its own
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub locks: Option<u32>,
    /// How many of the shared locks are taken together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32), requires = "locks")]
    pub set: u32,
    /// How many of the rounds take their locks in shared mode, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = values::share)]
    pub shared: f64,
    /// How long a lock is held
    #[arg(long, default_value = "0s", value_parser = values::hold)]
    pub hold: Duration,
    /// How long to wait for a lock that others hold; absent: 5s for shared locks, not at all for a client's own
    #[arg(long, value_parser = values::wait)]
    pub wait: Option<Duration>,
}

/// A wait for a lock that others hold.
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
    /// Topics that the clients share
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub topics: u32,
    /// Messages in a push; a pop and its acknowledgement take up to as many
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub batch: u32,
    /// Bytes of a message: a number, or a range to draw from, as in 100-4096
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = values::sizes)]
    pub message_bytes: RangeInclusive<usize>,
}

#[derive(Args)]
#[command(next_help_heading = "Cache")]
pub struct CacheShape {
    /// How many of the rounds add to one of ten counters, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = values::share)]
    pub increments: f64,
    /// How many of the other rounds are reads, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0.9", value_parser = values::share)]
    pub reads: f64,
    /// Keys that the clients share
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub keys: u32,
    /// Use the n-th key 1/n^EXPONENT times as often as the first; absent: all keys alike
    #[arg(long, value_name = "EXPONENT", value_parser = values::exponent)]
    pub zipf: Option<f64>,
    /// Bytes of a value: a number, or a range to draw from, as in 100-4096
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = values::sizes)]
    pub value_bytes: RangeInclusive<usize>,
}
