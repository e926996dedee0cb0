//! The coherent cache: values in the memory of nodes, read from there and never old.
//!
//! Each key has one home among the members of the view. The home orders the key's writes and knows
//! which nodes have a copy: the sharers. A node that is asked for a key answers from its own copy,
//! without any message, or asks the home once and keeps the answer.
//!
//! ```text
//!   read    client ─► any node ─(a copy, a lease)─────────────────────────► client
//!                         └──(none)── Fetch ─► home ── Filled ─► copy ────► client
//!   write   client ─► any node ─ relay ─► home ── Invalidation ─► sharers
//!                                          │ │        └─(with the new value)─► copy, once the home says
//!                                          │ │                                that it has taken effect
//!                                          │ └──── Store ───────► second node
//!                                          └─(all have answered)──────────► client
//! ```
//!
//! With a store, the home sends each write to the store instead of to the second node, and asks the
//! store for what is not in memory.
//!
//! **Promises.**
//!
//! - Reads and writes of one key are linearizable, reads from a node's own memory included: a write is
//!   answered once no node can serve the value before it. Two rules ensure this. A copy is served only
//!   under a lease on the view ([`tenure`](crate::view::tenure)). A write waits until every sharer no
//!   longer serves its copy, or has left the view and its lease is over.
//! - Memory stays below its limit. The least recently used entry goes first.
//! - With backups, the loss of one node loses no acknowledged write. With a store, no loss of nodes
//!   does, as long as Redis keeps what it has acknowledged.
//!
//! **Not promised.** That a value is still there: any read may miss.
//!
//! **Required.** Clocks count suspension, and keep the same rate within
//! [`DRIFT_PERCENT`](crate::view::tenure::DRIFT_PERCENT).
//!
//! **Bounds** stand beside what they bound: keys that are written, questions that are open, requests
//! that wait ([`writes`], [`copies`], [`state`]).
//!
//! In reading order:
//!
//! - [`entry`], [`operation`]: a value as it is kept, and what can be done to it
//! - [`memory`]: tables in order of use
//! - [`message`]: what nodes say to each other
//! - [`state`]: the cache of one node; [`reads`], [`home`], [`writing`], [`writes`], [`copies`], [`news`], [`backups`],
//!   [`updates`], [`deciding`], [`moving`], [`sweeps`], [`fences`], [`room`], [`uses`], [`claims`],
//!   [`requests`], [`through`], [`audit`], [`explain`], [`stopping`]: its parts
//! - [`service`]: the same with messages and time; [`store`]: Redis behind it
//! - [`event`]: events for watchers
//! - [`change`], [`answer`]: from requests on the wire, and to replies

pub mod answer;
pub mod audit;
pub mod backups;
pub mod change;
pub mod claims;
pub mod copies;
pub mod deciding;
pub mod entry;
pub mod event;
pub mod explain;
pub mod fences;
pub mod home;
pub mod memory;
pub mod message;
pub mod moving;
pub mod news;
pub mod operation;
pub mod reads;
pub mod requests;
pub mod room;
pub mod service;
pub mod state;
pub mod stopping;
pub mod store;
pub mod sweeps;
pub mod through;
pub mod updates;
pub mod uses;
pub mod writes;
pub mod writing;

#[cfg(test)]
mod model_tests;
