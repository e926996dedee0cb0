//! Whether another node takes part, by the broker's word and its own.
//!
//! A broker sees at once that a process has died, since its connections close, and tells whoever asks it
//! that nobody listens. That is no proof that the process is gone: its connection may be about to come
//! back. So it may only shorten what is waited for, and never decide who may do what.
//!
//! After this node's own connection was made anew nothing is concluded until the others have had the time
//! to come back too ([`SETTLE`]): a broker that restarts is not a node that died.
//!
//! **Limit.** A machine that loses power, or a process that stalls, closes no connection.

use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::call::{Caller, Trust};
use super::message::Refusal;
use super::network::{CallError, Network};
use crate::broker::reconnects::Reconnects;
use crate::ids::{BootId, NodeId};
use crate::time::{Instant, now};

/// The kind of call that asks which run of a node takes part; one that has not caught up knows no such call.
const TAKES_PART: &str = "takes part";

/// After this node's connection was made anew: longer than the pause between two attempts of others.
const SETTLE: Duration = Duration::from_millis(600);

/// Asks the broker about other nodes; clones share what was seen.
#[derive(Clone)]
pub struct Presence {
    network: Network,
    reconnects: Arc<Mutex<Reconnects>>,
}

impl Presence {
    pub fn new(network: Network) -> Self {
        let reconnects = Reconnects::new(network.connects());
        Presence {
            network,
            reconnects: Arc::new(Mutex::new(reconnects)),
        }
    }

    /// When this node's connection, and those that broke with it, are surely back.
    pub fn settled_at(&self) -> Instant {
        let mut reconnects = self.reconnects.lock().expect("no holder panics");
        let last = reconnects.last(self.network.connects());
        last.map_or_else(now, |last| last + SETTLE)
    }

    /// Whether a run of a node takes part: it says so; or the broker says that nobody listens at the node's
    /// subjects, or another run of it takes part. None if nothing of this comes within `patience`, or
    /// connections are being made anew.
    pub async fn takes_part(
        &self,
        (node, run): (NodeId, BootId),
        patience: Duration,
    ) -> Option<bool> {
        if self.settled_at() > now() {
            return None;
        }
        let connects = self.network.connects();
        let answer = self
            .network
            .call(node, TAKES_PART, Bytes::new(), patience)
            .await;
        match answer {
            Ok(answer) => Some(answer[..] == run.0.to_be_bytes()),
            Err(CallError::NoResponders) if connects == self.network.connects() => Some(false),
            Err(_) => None,
        }
    }
}

/// Says from now on that this run of the node takes part.
pub fn tell(network: &Network) {
    let run = network.identity().boot;
    let answer = Bytes::copy_from_slice(&run.0.to_be_bytes());
    let answer = move |_: Caller, _: Bytes| -> BoxFuture<'static, Result<Bytes, Refusal>> {
        Box::pin(ready(Ok(answer.clone())))
    };
    network.handle(TAKES_PART, Trust::Members, Arc::new(answer));
}
