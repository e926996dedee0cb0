//! Replication.

pub mod command;
pub mod log;
pub mod types;
