//! Locks.

pub mod command;
