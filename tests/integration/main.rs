//! Black-box tests: real nodes, a real broker, killed and restarted.
//!
//! Each test has a cluster of its own. What a test measures (how long service was away) it prints;
//! what it asserts about time is loose, since the machine may be busy.

mod broker_killed;
mod cache;
mod catch_up;
mod chaos;
mod cli;
mod cli_verbs;
mod cluster;
mod credentials;
mod damaged_disk;
mod deadlock;
mod dev;
mod dice;
mod documented;
mod examples;
mod failover;
mod full_restart;
mod fuzz;
mod http;
mod leader_killed;
mod leases;
mod lock_modes;
mod locks;
mod no_quorum;
mod operations;
mod paused_leader;
mod permissions;
mod process;
mod programs;
mod queue;
mod queue_chaos;
mod queue_failures;
mod queue_model;
mod queue_reference;
mod raw;
mod redis_server;
mod requests;
mod rest;
mod rolling_restart;
mod secured;
mod sessions;
mod start;
mod wait;
mod waiting;
mod wire;
