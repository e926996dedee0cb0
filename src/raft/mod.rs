//! Replication: one log of commands, the same on every node, and the state that results from it.
//!
//! Openraft decides what is in the log; no code outside this folder names it. The rest is written here:
//! the way into the log (batches, forwards, lease time), the network, the log on disk, and the state.
//!
//! ```text
//!               no leader is known             a majority grants (after a pre-vote)
//!   Leaderless ◄───────────────── Follower ───────────────────────► Elected
//!        │                          ▲  ▲                               │ applies an entry
//!        └── a leader is known ─────┘  │                               ▼ of its own term
//!                                      └──── a later term ────────── Leader
//!
//!   commands wait (Leaderless, Elected), are forwarded (Follower), or proposed (Leader)
//! ```
//!
//! **Promises.**
//!
//! - A command that was answered is on the disks of a majority, and in the state of the node that
//!   answered.
//! - A command takes effect at most once, through any changes of leader.
//! - Reads after [`Handle::read_barrier`](handle::Handle::read_barrier) are linearizable, without trust
//!   in clocks.
//! - Lease time, which the leader stamps on each entry, never goes back. It stands still without a
//!   quorum, and counts at most half a second of any pause ([`clock`]).
//! - A node that cannot write its log stops.
//!
//! **Not promised.** That a command is answered: a client of a node that died may get no answer, and
//! then does not know the outcome.
//!
//! **Bounds** are in [`proposals`] (commands that wait, entries in flight), [`handle`] (reads that
//! wait), and beside each channel of the network. A message stays below 1 MB.
//!
//! In reading order:
//!
//! - [`handle`]: the log as the rest of a node sees it, and the task that drives it
//! - [`proposals`], [`clock`]: what that task decides, in plain code
//! - [`command`], [`state`]: what is replicated, and the one transition of the state
//! - [`state_machine`]: the state behind openraft's interface
//! - [`log`], [`snapshot`], [`directory`]: what is on disk; [`memory_log`]: the disk of simulations
//! - [`network`]: what nodes say to each other. Under it: [`message`], `frame` (bodies and envelope),
//!   `pending`, `listener`, [`call`] (questions and answers), `factory`, `stream`, `transfer` (to a
//!   peer), [`receiver`], `intake`, `assembly`, `admission` (from one)
//! - [`posts`]: messages without answers, beside Raft
//! - `failure_detector`: stands for election at once when the broker knows that the leader is gone
//! - [`bootstrap`]: from an empty directory to a member of a cluster; [`membership`]: adds and removes
//!   nodes; [`backup`], [`restore`]: a copy of the state, and another cluster that begins with it
//! - [`types`], [`settings`], [`runtime`]: what openraft is instantiated with

pub mod handle;

pub mod clock;
pub mod proposals;

pub mod command;
pub mod state;

pub mod state_machine;

pub mod directory;
pub mod log;
pub mod memory_log;
pub mod snapshot;

mod admission;
mod assembly;
pub mod backup;
pub mod call;
mod factory;
mod failure_detector;
mod frame;
mod intake;
mod listener;
pub mod membership;
pub mod message;
pub mod network;
mod pending;
pub mod posts;
pub mod presence;
mod pulse;
pub mod receiver;
pub mod restore;
mod stream;
mod transfer;

pub mod bootstrap;

pub mod runtime;
pub mod settings;
pub mod types;

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod transport_tests;
