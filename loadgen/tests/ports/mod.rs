//! Ports for the clusters of tests.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports of a cluster with the base 0.
pub const PORTS: [u16; 5] = [4222, 6379, 5001, 5002, 5003];

/// Clusters of this process so far.
static CLUSTERS: AtomicU16 = AtomicU16::new(0);

/// A base at which all ports are free, and that no other cluster of this process begins at.
pub fn free_base() -> u16 {
    let clusters = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let start = 9_000 + (std::process::id() % 2_000) as u16 * 2 + clusters * 10;
    let free = |base: &u16| {
        let bind = |port: &u16| TcpListener::bind(("127.0.0.1", port + base)).is_ok();
        PORTS.iter().all(bind)
    };
    (start..14_000).find(free).expect("ports are free")
}
