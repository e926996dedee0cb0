//! From an empty data directory to a member of a cluster.
//!
//! A cluster is initialised once, by the node with the lowest id, and only when every peer has
//! answered that its directory is empty too. A node whose directory was lost finds peers that know
//! it with another disk and refuses to start: under its old id it would vote as if it had never
//! acknowledged anything (notes on Raft; openraft#1535).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use serde::{Deserialize, Serialize};

use crate::ids::{DiskId, NodeId};
use crate::raft::call::{Caller, Trust};
use crate::raft::handle::Raft;
use crate::raft::message::Refusal;
use crate::raft::network::{KnownDisk, Network};
use crate::raft::types::Member;

/// The kind of call in which nodes greet each other.
const HELLO: &str = "bootstrap.hello";
const HELLO_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two rounds of greetings.
const ROUND_EVERY: Duration = Duration::from_millis(200);

/// What a node says of itself when greeted.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Hello {
    node: NodeId,
    disk: DiskId,
    /// Whether it belongs to a cluster.
    initialized: bool,
    /// The disk with which that cluster knows the node that asked.
    knows_you_as: Option<DiskId>,
}

#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error(
        "node {peer} knows node {me} with another data directory: this one is empty or was \
         replaced. A node that lost its disk must not come back under its old id, since it would \
         vote without knowing what it promised. Put the old directory back, or remove node {me} \
         from the cluster and start this machine as a node with a new id"
    )]
    DiskChanged { me: NodeId, peer: NodeId },
    #[error("Raft stopped: {0}")]
    Stopped(String),
}

/// Answers greetings from now on.
pub fn answer_greetings(network: &Network, raft: Raft, known_disk: KnownDisk) {
    let me = network.identity();
    let handler = move |caller: Caller, _: Bytes| -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let (raft, knows_you_as) = (raft.clone(), known_disk(caller.node));
        Box::pin(async move {
            let initialized = raft.is_initialized().await.unwrap_or(true);
            let hello = Hello {
                node: me.node,
                disk: me.disk,
                initialized,
                knows_you_as,
            };
            Ok(rmp_serde::to_vec(&hello)
                .expect("greetings always encode")
                .into())
        })
    };
    network.handle(HELLO, Trust::Anyone, Arc::new(handler));
}

/// Returns once this node belongs to a cluster: initialised by itself, or by another.
///
/// # Errors
/// [`BootstrapError::DiskChanged`] when the cluster knows this node with another data directory.
pub async fn join_or_found(
    raft: &Raft,
    network: &Network,
    peers: &[NodeId],
) -> Result<(), BootstrapError> {
    let me = network.identity();
    let others: Vec<NodeId> = peers
        .iter()
        .copied()
        .filter(|peer| *peer != me.node)
        .collect();
    let mut told = false;
    loop {
        let initialized = raft.is_initialized().await;
        if initialized.map_err(|fatal| BootstrapError::Stopped(fatal.to_string()))? {
            return Ok(());
        }
        let hellos = greet(network, &others).await;
        let stranger = |hello: &&Hello| hello.knows_you_as.is_some_and(|disk| disk != me.disk);
        if let Some(hello) = hellos.iter().find(stranger) {
            return Err(BootstrapError::DiskChanged {
                me: me.node,
                peer: hello.node,
            });
        }
        let all_empty =
            hellos.len() == others.len() && hellos.iter().all(|hello| !hello.initialized);
        if all_empty && peers.iter().min() == Some(&me.node) {
            let founders = hellos.iter().map(|hello| (hello.node, hello.disk));
            let founders: BTreeMap<NodeId, Member> = founders
                .chain([(me.node, me.disk)])
                .map(|(node, disk)| (node, Member { disk }))
                .collect();
            tracing::info!(?peers, "initialising a new cluster");
            // Fails only if the node was initialised meanwhile, which the next round sees.
            let _ = raft.initialize(founders).await;
        } else if !told {
            tracing::info!(
                ?peers,
                answered = hellos.len(),
                "waiting for the other nodes"
            );
            told = true;
        }
        tokio::time::sleep(ROUND_EVERY).await;
    }
}

/// The answers that came, each from the node that was asked.
async fn greet(network: &Network, others: &[NodeId]) -> Vec<Hello> {
    let calls = others.iter().map(|peer| async move {
        let answer = network
            .call(*peer, HELLO, Bytes::new(), HELLO_TIMEOUT)
            .await
            .ok()?;
        let hello: Hello = rmp_serde::from_slice(&answer).ok()?;
        (hello.node == *peer).then_some(hello)
    });
    join_all(calls).await.into_iter().flatten().collect()
}
