//! Ports for the clusters of tests.

use std::net::TcpListener;

/// Ports of a cluster with the base 0.
pub const PORTS: [u16; 5] = [4222, 6379, 5001, 5002, 5003];

/// A base at which all ports are free.
pub fn free_base() -> u16 {
    let start = 9_000 + (std::process::id() % 2_000) as u16 * 2;
    let free = |base: &u16| {
        let bind = |port: &u16| TcpListener::bind(("127.0.0.1", port + base)).is_ok();
        PORTS.iter().all(bind)
    };
    (start..14_000).find(free).expect("ports are free")
}
