//! What is counted about the connections to the broker.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::{Gauge, Labelled};

/// The connections of a node to the broker: apart, so that clients cannot delay Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    Raft,
    Clients,
}

impl Connection {
    /// The label values, in the order of the variants.
    pub const LABELS: [&'static str; 2] = ["raft", "clients"];
}

#[derive(Debug)]
pub struct BrokerStats {
    connected: Labelled<Gauge>,
    reconnects: Labelled<Counter>,
}

impl BrokerStats {
    pub(super) fn new() -> Self {
        BrokerStats {
            connected: Labelled::new("connection", &Connection::LABELS, Gauge::default),
            reconnects: Labelled::new("connection", &Connection::LABELS, Counter::default),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "nats_connected",
            "1 while the connection to NATS stands",
            self.connected.clone(),
        );
        registry.register(
            "nats_reconnects",
            "Connections to NATS after the first",
            self.reconnects.clone(),
        );
    }

    pub fn set_connected(&self, connection: Connection, connected: bool) {
        self.connected[connection as usize].set(u64::from(connected));
    }

    pub fn reconnected(&self, connection: Connection) {
        self.reconnects[connection as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_variants() {
        assert_eq!(Connection::LABELS[Connection::Raft as usize], "raft");
        assert_eq!(Connection::LABELS[Connection::Clients as usize], "clients");
    }
}
