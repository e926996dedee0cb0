//! Locks: leased, fenced by tokens, first come first served. Every deadlock is found at once.
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
//! **Promises.**
//!
//! - An exclusive holder is alone. Shared holders are together with shared holders only.
//! - Each grant has a token above all earlier ones, over all resources.
//! - A request is granted when it is compatible with all holders and with every waiter before it. So
//!   readers that come after a waiting writer wait behind it, and readers that wait in a row are
//!   granted together. Nobody overtakes, except a holder that converts to exclusive: it is granted
//!   before all others that wait.
//! - A request that becomes grantable is granted in the same step.
//! - A cycle of waits is broken in the step that would close it, as long as each owner is a thread of
//!   control with one blocked request.
//!
//! **Time** is an argument, in milliseconds, and never goes back. A lease or wait that ends at a
//! moment is over at that moment: a renewal then comes too late, and the wait is not granted.
//!
//! **Bounds** are in [`limits`]. A lock without holders and waiters leaves no trace, except the ids of
//! its requests for a while ([`requests`]).
//!
//! **Not promised.** A client that stalls past its lease may still act: only the resource can refuse
//! it, by comparing tokens.
//!
//! In reading order:
//!
//! - [`claim`], [`command`], [`outcome`], [`event`]: commands and their outcomes, as values
//! - [`table`]: the lock table, one transition per command
//! - `holding`, `waiting`, `converting`: how a hold or a wait starts, changes and ends
//! - [`sessions`]: one lease for many holds and waits
//! - `operators`: holds that are ended against their holder's will
//! - `wait_graph`, `reduction`: who waits for whom, derived from the table, and which waits never end
//! - [`reads`], [`listing`]: views of the table, which change nothing
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
mod dependants;
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
