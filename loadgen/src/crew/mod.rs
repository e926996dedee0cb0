//! Load from several machines: `coordinate` and `worker`.
//!
//! All of them run the same command step by step. The coordinator has no load threads of its own: it waits until every
//! worker is connected, tells all to begin, and adds up what their threads recorded in each second, as it would for
//! threads of its own. So histograms are merged, and nothing is ever averaged. Clients, rates and numbers of requests
//! are those of all workers together.
//!
//! They talk over the broker that carries the load, on subjects under `loadgen.`:
//!
//! | subject | what goes there |
//! |---|---|
//! | `loadgen.<group>.join` | requests of workers for a place |
//! | `<job>.told` | what workers tell: ready, a second's figures, the end of a run |
//! | `<job>.start`, `<job>.stop` | orders of the coordinator |
//!
//! Limits: a checker hears only of its own process's requests, so that `--check` is refused; so is `--chaos`.

mod coordinator;
mod wire;
mod worker;

pub use coordinator::{Coordinator, Order};
pub use worker::{Link, work};

/// Which part this process has in a run.
pub enum Role {
    /// It does all by itself.
    Alone,
    Coordinator(Coordinator),
    Worker(Link),
}

/// Where the threads of a process are among those of all workers, which have the same number of threads each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub index: u32,
    /// How many workers there are, this one included.
    pub of: u32,
}

impl Place {
    /// The only one.
    pub const ALONE: Self = Self { index: 0, of: 1 };
}
