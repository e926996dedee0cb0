//! The cluster view.

pub mod cluster;
