//! Which ports a local cluster uses, and whether they are free.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, bail};

const NATS: u16 = 4222;
const REDIS: u16 = 6379;
/// Node 1 serves HTTP one above this.
const HTTP: u16 = 5000;

/// The ports of one cluster.
pub(super) struct Ports {
    pub(super) nats: u16,
    pub(super) redis: u16,
    http: u16,
    count: u8,
}

impl Ports {
    /// The usual ports, each `shift` higher.
    pub(super) fn new(count: u8, shift: u16) -> anyhow::Result<Self> {
        let highest = REDIS.max(HTTP + u16::from(count));
        highest
            .checked_add(shift)
            .with_context(|| format!("--port-base {shift} moves port {highest} above 65535"))?;
        Ok(Self {
            nats: NATS + shift,
            redis: REDIS + shift,
            http: HTTP + shift,
            count,
        })
    }

    /// The ids of the nodes, from 1.
    pub(super) fn nodes(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.count
    }

    /// The HTTP port of a node.
    pub(super) fn http(&self, node: u8) -> u16 {
        self.http + u16::from(node)
    }

    /// # Errors
    /// A port is in use; the message names the first one.
    pub(super) fn all_free(&self) -> anyhow::Result<()> {
        free(self.nats, "the broker")?;
        free(self.redis, "Redis")?;
        for node in self.nodes() {
            free(self.http(node), &format!("HTTP of node {node}"))?;
        }
        Ok(())
    }
}

fn free(port: u16, wanted_for: &str) -> anyhow::Result<()> {
    if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        bail!(
            "port {port}, wanted for {wanted_for}, is not free ({error}): stop the program that uses \
             it, or move all ports with --port-base N"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_moves_every_port() {
        let ports = Ports::new(3, 1000).expect("in range");
        assert_eq!((ports.nats, ports.redis), (5222, 7379));
        let http: Vec<u16> = ports.nodes().map(|node| ports.http(node)).collect();
        assert_eq!(http, [6001, 6002, 6003]);
        assert!(Ports::new(3, 60_000).is_err());
    }

    #[test]
    fn a_busy_port_is_named_with_the_flag() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = taken.local_addr().expect("address").port();
        let message = free(port, "Redis").expect_err("busy").to_string();
        let start = format!("port {port}, wanted for Redis, is not free");
        assert!(
            message.starts_with(&start) && message.contains("--port-base"),
            "{message}"
        );
        drop(taken);
        // Others on the machine may take one that was given back.
        let given_back = || {
            let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
            taken.local_addr().expect("address").port()
        };
        let free_again = std::iter::repeat_with(given_back).take(20);
        assert!(
            free_again
                .into_iter()
                .any(|port| free(port, "Redis").is_ok())
        );
    }
}
