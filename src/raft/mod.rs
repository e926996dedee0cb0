//! Replication.

pub mod command;
pub mod directory;
pub mod log;
pub mod snapshot;
pub mod types;
