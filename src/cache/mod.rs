//! The coherent cache: values in the memory of nodes, read from there and never old.
//!
//! Each key has one home among the members of the view, which orders its writes and knows who has a
//! copy. A node that is asked for a key answers from its own copy, at no message at all, or asks the
//! home once and keeps what it gets.
//!
//! ```text
//!   read    client ─► any node ─(a copy, a lease)─────────────────────────► client
//!                         └──(none)── Fetch ─► home ── Filled ─► copy ────► client
//!   write   client ─► any node ─ relay ─► home ── Invalidation ─► sharers
//!                                          │ │        └─(with what it leaves)─► copy, once it is said
//!                                          │ │                                 to have taken effect
//!                                          │ └──── Store ───────► second node
//!                                          └─(all have answered)──────────► client
//! ```
//!
//! With a store the home tells that instead of the second node, and asks it for what is not in memory.
//!
//! **Promises.** Reads and writes of one key are linearizable, also reads from a node's own memory: a
//! write is answered once no node can serve the value before it. What makes that so: a copy is served
//! only under a lease on the view ([`tenure`](crate::view::tenure)); a write waits until every sharer
//! serves its copy no more, or has left the view and its lease is over. Memory stays below its limit, and
//! the entry that was used least recently goes first. With backups, no acknowledged write is lost
//! when one node is; with a store none is whatever becomes of nodes, as long as Redis keeps what it has
//! acknowledged.
//!
//! **What it does not promise.** That a value is still there: any read may miss. Clocks have to count
//! suspension and to keep the same rate within [`DRIFT_PERCENT`](crate::view::tenure::DRIFT_PERCENT).
//!
//! **Bounds** are named beside what they bound: keys that are written, questions that are open,
//! requests that wait ([`writes`], [`copies`], [`state`]).
//!
//! In reading order:
//!
//! - [`entry`], [`operation`]: what is kept, and what can be done to it
//! - [`memory`]: tables in the order of use
//! - [`message`]: what nodes say to each other
//! - [`state`]: the cache of one node; [`reads`], [`home`], [`writing`], [`writes`], [`copies`], [`news`], [`backups`],
//!   [`updates`], [`deciding`], [`moving`], [`sweeps`], [`fences`], [`room`], [`uses`], [`claims`],
//!   [`requests`], [`through`], [`audit`], [`explain`], [`stopping`]: its parts
//! - [`service`]: the same with messages and time; [`store`]: Redis behind it
//! - [`event`]: what watchers are told
//! - [`change`], [`answer`]: what the wire asks for, and what it is told

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
