//! Locks: leased, fenced by tokens, first come first served, with every deadlock found at once.
//!
//! ```text
//!                 free for it                          release, lease over
//!   acquire ───────────────────────────────▶ holder ───────────────────────▶ gone
//!      │                                        ▲  └─ renew, acquire again: same token
//!      │ held, or somebody waits                │
//!      ├─ try ────────────▶ refused             │ everybody before it is compatible or gone
//!      └─ wait ─▶ waiter ───────────────────────┘
//!                   └─ wait over, given up, victim of a deadlock ──▶ gone
//! ```
//!
//! **Promises.** An exclusive holder is alone; shared ones are among themselves. Each grant has a
//! token above all earlier ones, over all resources. Nobody overtakes: a request is granted when it
//! is compatible with all holders and with everybody who waits before it, so readers that come
//! after a waiting writer wait behind it, and readers that wait in a row are granted together. What
//! becomes grantable is granted in the same step. No cycle of waits outlives the step that would
//! close it, as long as owners are threads of control with one blocked request each.
//!
//! **Time** is an argument, in milliseconds, and never goes back. What ends at a moment is over at
//! that moment: a renewal then comes too late, and a wait then is not granted.
//!
//! **Bounds** are in [`limits`]. A lock that nobody holds and nobody waits for leaves no trace,
//! except the ids of its requests for a while ([`requests`]).
//!
//! **Limits of what it is.** A client that stalls past its lease may still act: only the resource
//! that compares tokens can refuse it.
//!
//! In reading order:
//!
//! - [`claim`], [`command`], [`outcome`], [`event`]: what is asked and answered, as values
//! - [`table`]: the lock table, one transition per command
//! - `holding`, `waiting`, `converting`: how a hold or a wait starts, changes and ends
//! - [`sessions`]: one lease for many of them
//! - `operators`: what is done against a holder's will
//! - `wait_graph`, `reduction`: who waits for whom, derived from the table, and who waits for ever
//! - [`reads`], [`listing`]: what can be seen without changing anything
//! - `resource`, `deadlines`, `owners`, [`requests`], [`endings`], [`recent_deadlocks`]: the table's
//!   parts
//! - [`limits`], `room`: its bounds, and the refusals; `weight`, `weighed`: what they count
//! - [`answer`], [`service`], [`keepalives`]: what clients ask and are told
//! - [`counted`]: what is counted of it

use std::sync::Arc;

pub mod answer;
pub mod claim;
pub mod command;
pub mod counted;
pub mod endings;
pub mod event;
pub mod keepalives;
pub mod limits;
pub mod listing;
pub mod outcome;
pub mod reads;
pub mod recent_deadlocks;
pub mod requests;
pub mod service;
pub mod sessions;
pub mod table;

mod converting;
mod deadlines;
mod holding;
mod operators;
mod owners;
mod reduction;
mod resource;
mod room;
mod tenants;
mod wait_graph;
mod waiting;
mod weighed;
mod weight;

#[cfg(test)]
mod table_consistency;
#[cfg(test)]
mod table_copies;
#[cfg(test)]
mod table_hand_over;
#[cfg(test)]
mod table_model;
#[cfg(test)]
mod table_model_ends;
#[cfg(test)]
mod table_model_limits;
#[cfg(test)]
mod table_oracle;
#[cfg(test)]
mod table_print;
#[cfg(test)]
mod table_properties;
#[cfg(test)]
mod table_room;
#[cfg(test)]
mod table_scripts;
#[cfg(test)]
mod table_steps;
#[cfg(test)]
mod table_tenants;

pub use limits::Limits;
pub use table::{Counts, Table};

/// The name of a resource or an owner, or a request id. The indexes share a claim's copy of it; in a
/// table that came from a snapshot each has its own, until the claims of that time have ended.
pub type Name = Arc<str>;
