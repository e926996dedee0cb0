//! The cluster view: which nodes take part now, and what each of them is home to.
//!
//! The view is replicated state, changed only by the log, so that every node that has applied the
//! same entries computes the same homes without asking anybody.
//!
//! Promises: the epoch grows by one with each change and with nothing else; an incarnation is
//! assigned once in the life of a cluster; a change of the members moves only keys of the nodes
//! that came or went.
//!
//! ```text
//!              Join (first)                     Join (another boot): new incarnation
//!   unknown ------------------> member ---------+
//!      ^                        |    ^          |
//!      +------------------------+    +----------+
//!        Leave (this incarnation)
//! ```
//!
//! Limits: the view says who belonged when its entry was committed, not who is alive now; a right
//! to act on it takes a lease. Members have equal weights.
//!
//! - [`cluster`]: the view and its changes.
//! - [`rendezvous`]: from a key to its home.

pub mod cluster;
pub mod rendezvous;
pub mod service;
