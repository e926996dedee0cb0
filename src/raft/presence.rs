//! Whether another node is there, by the broker's word and its own.
//!
//! A broker sees at once that a process has died, since its connections close, and tells whoever asks it
//! that nobody listens. That is no proof that the process is gone: its connection may be about to come
//! back. So it may only shorten what is waited for, and never decide who may do what.
//!
//! After this node's own connection was made anew nothing is concluded until the others have had the time
//! to come back too ([`SETTLE`]): a broker that restarts is not a node that died.
//!
//! **Limit.** A machine that loses power, or a process that stalls, closes no connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::network::{CallError, Network};
use crate::ids::NodeId;
use crate::time::{Instant, now};

/// The kind of call that asks whether a node is there; who listens answers, be it that he knows no such call.
const PRESENT: &str = "present";

/// After this node's connection was made anew: longer than the pause between two attempts of others.
const SETTLE: Duration = Duration::from_millis(600);

/// Asks the broker about other nodes; clones share what was seen.
#[derive(Clone)]
pub struct Presence {
    network: Network,
    link: Arc<Mutex<Link>>,
}

/// This node's own connection.
struct Link {
    connects: u64,
    /// When it was made anew, if it ever was.
    since: Option<Instant>,
}

impl Presence {
    pub fn new(network: Network) -> Self {
        let connects = network.connects();
        let link = Link {
            connects,
            since: None,
        };
        Presence {
            network,
            link: Arc::new(Mutex::new(link)),
        }
    }

    /// When this node's connection, and those that broke with it, are surely back.
    pub fn settled_at(&self) -> Instant {
        let mut link = self.link.lock().expect("no holder panics");
        let connects = self.network.connects();
        if link.connects != connects {
            // A first connection, later than the process, says nothing about others.
            let anew = link.connects > 0;
            link.connects = connects;
            link.since = anew.then(now);
        }
        link.since.map_or_else(now, |since| since + SETTLE)
    }

    /// Whether a node is there: it answers, or the broker says that nobody listens at its subjects. None if
    /// neither comes within `patience`, or connections are being made anew.
    pub async fn is_there(&self, node: NodeId, patience: Duration) -> Option<bool> {
        if self.settled_at() > now() {
            return None;
        }
        let connects = self.network.connects();
        let answer = self
            .network
            .call(node, PRESENT, Bytes::new(), patience)
            .await;
        match answer {
            // Whatever it says: it has heard the question, and its answer has arrived.
            Ok(_) | Err(CallError::Refused(_)) => Some(true),
            Err(CallError::NoResponders) if connects == self.network.connects() => Some(false),
            Err(_) => None,
        }
    }
}
