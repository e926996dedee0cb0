//! Whole clusters in one process, in virtual time, from a seed.
//!
//! The nodes are built by the same code as real ones ([`mufakat::node::Core`]); only the broker, the
//! disk and the draws are simulated. The same seed gives the same run, byte for byte. A failure
//! prints its seed; `SIMULATION_SEED=<seed> cargo test --test simulation random` runs that one alone.

mod client;
mod cluster;
mod history;

mod cache;
mod failover;
mod forwards;
mod leases;
mod members;
mod random;
mod relay;
mod waits;

use std::future::Future;

/// Runs `test` in virtual time with every draw decided by `seed`.
fn run<T>(seed: u64, test: impl Future<Output = T>) -> T {
    println!("seed {seed}");
    mufakat::raft::runtime::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime for the simulation");
    runtime.block_on(test)
}
