//! The cluster view: which nodes take part now, and what each of them is home to.
//!
//! The view is replicated state, changed only by the log, so that every node that has applied the
//! same entries computes the same homes without asking anybody.
//!
//! Promises: the epoch grows by one with each activation and with nothing else; an incarnation is
//! assigned once in the life of a cluster; a change of the members moves only keys of the nodes
//! that came or went; no two nodes act as home to one key at a time.
//!
//! A change has two phases, since a node that has not heard of it still acts on the view that it
//! knows, for as long as its lease lasts:
//!
//! ```text
//!            Join, Leave: prepared             all members Frozen, or their leases are over
//!   Active ----------------------> Preparing ----------------------------------------> Active
//!   (epoch e)                      |      ^                                        (epoch e + 1)
//!                                  +------+
//!                        another change: prepared anew
//! ```
//!
//! A lease is the moment at which a linearizable read of the view was sent, plus its length: nobody
//! grants it. A node that reads a prepared view first stops to act on all that moves, then says so.
//! So a lease that was read before the preparation ends by itself, and one that was read later
//! covers only what does not move.
//!
//! Limits: members have equal weights, and are at most 64. Clocks must count suspension and run at
//! the same rate within [`tenure::DRIFT_PERCENT`].
//!
//! - [`cluster`]: the view and its changes, as they are replicated.
//! - [`rendezvous`]: from a key to its home.
//! - [`tenure`]: what one node may do, and when it may not any more.
//! - [`awake`]: since when this node could hear others.
//! - [`service`]: reads the view in time, and changes it.

pub mod awake;
pub mod cluster;
pub mod rendezvous;
pub mod service;
pub mod tenure;
