//! Black-box tests: real nodes, a real broker, killed and restarted.
//!
//! Each test has a cluster of its own. What a test measures (how long service was away) it prints;
//! what it asserts about time is loose, since the machine may be busy.

mod cli;
mod cluster;
mod deadlock;
mod dev;
mod documented;
mod full_restart;
mod fuzz;
mod http;
mod leader_killed;
mod leases;
mod locks;
mod operations;
mod process;
mod programs;
mod raw;
mod requests;
mod rest;
mod start;
mod wait;
mod waiting;
mod wire;
