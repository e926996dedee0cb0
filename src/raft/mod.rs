//! Replication.

pub mod command;
pub mod types;
