//! Mufakat: locks, a queue and a coherent cache for programs that talk NATS, served by equal nodes.
//!
//! # The map
//!
//! The folders, in reading order. Layering is by file, not by folder: the plain code of a folder is
//! low, the service that uses it is high (`LAYERS` in `tests/tidy`, which checks every import):
//!
//! - [`ids`], [`time`], [`config`], [`stats`], [`trace`]: newtypes, the only reader of real time, one
//!   `Config`, the counters, and the trace that a request belongs to
//! - [`protocol`]: what clients and nodes say to each other, in types
//! - [`lock`], [`view`], [`cache`]: the plain code that decides, and the services that use it
//! - [`broker`]: the way in and out, over NATS
//! - [`queue`]: queues, in Redis
//! - [`client`]: the typed client
//! - [`raft`]: one log of commands, the same on every node
//! - [`monitor`]: HTTP and metrics
//! - [`node`]: the only place that builds things and hands them out
//! - [`cli`], [`dev`]: the command line, and a cluster on one machine
//!
//! # The journey of a request
//!
//! ```text
//!   client ── NATS ──► broker::listen      a message, from one of the subscriptions
//!                      protocol            decoded; an invalid request is answered here
//!                      broker::dispatch    one match, one arm for each operation
//!                      lock::service       turned into a command, complete with its defaults
//!                      raft::handle        collected into a batch, or forwarded to the leader
//!                      raft::{log, network}   on the disks of a majority
//!                      raft::state_machine    applied, the same on every node
//!                      lock::table         decided, in plain code (with lock::wait_graph)
//!   client ◄─ NATS ─── broker::reply       answered by the leader, whichever node was asked
//! ```
//!
//! A wait for a lock is in the log and nowhere else. The code that decides reads no clock: the leader
//! stamps each entry. Broker, disk, clock and random numbers stand behind seams, so that
//! `tests/simulation/` runs whole clusters of the same code in virtual time, from a seed.

pub mod ids;
pub mod time;

pub mod config;
pub mod stats;
pub mod trace;

pub mod protocol;

pub mod cache;
pub mod lock;
pub mod view;

pub mod broker;
pub mod queue;

pub mod client;
pub mod raft;

pub mod monitor;
pub mod node;

pub mod cli;
pub mod dev;
