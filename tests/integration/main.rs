//! Black-box tests: real nodes, a real broker, killed and restarted.
//!
//! Each test has a cluster of its own. What a test measures (how long service was away) it prints;
//! what it asserts about time is loose, since the machine may be busy.

mod broker_killed;
mod catch_up;
mod chaos;
mod cluster;
mod damaged_disk;
mod dice;
mod full_restart;
mod leader_killed;
mod locks;
mod no_quorum;
mod paused_leader;
mod process;
mod programs;
mod rolling_restart;
mod start;
mod wait;
mod wire;
