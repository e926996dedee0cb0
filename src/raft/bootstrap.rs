//! From an empty data directory to a member of a cluster.
//!
//! A cluster is initialised once, by the node with the lowest id, and only when every peer has
//! answered that its directory is empty too. A node whose directory was lost finds peers that know
//! it with another disk and refuses to start: under its old id it would vote as if it had never
//! acknowledged anything (notes on Raft; openraft#1535). So do all of them when others of their
//! cluster, which the peers do not name, still know it: before a cluster is founded, every node that
//! there is gets asked.
//!
//! A node that is to join a cluster that runs founds none: it waits until the leader, asked by an
//! operator, sends it the log and then gives it a vote. So does a node that was removed and is started
//! again, if it is told to join; otherwise it ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, DiskId, NodeId};
use crate::raft::call::{Caller, Trust};
use crate::raft::handle::{Handle, Raft};
use crate::raft::message::Refusal;
use crate::raft::network::{CallError, Network};
use crate::raft::types::Member;

/// The kind of call in which nodes greet each other.
const HELLO: &str = "bootstrap.hello";
const HELLO_TIMEOUT: Duration = Duration::from_millis(500);
/// How long nodes that nobody named have to answer: it is a round trip, and a cluster's first start waits for it.
const ANYONE_TIMEOUT: Duration = Duration::from_millis(200);
/// Between two rounds of greetings.
const ROUND_EVERY: Duration = Duration::from_millis(200);

/// What a node says of itself when greeted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub node: NodeId,
    pub disk: DiskId,
    /// Whether it belongs to a cluster.
    pub initialized: bool,
    /// The disk with which that cluster knows the node that asked.
    pub knows_you_as: Option<DiskId>,
    /// The cluster, once the node has applied the entry that founded it.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    /// Whether the node that asked was removed from the cluster, with the disk that it asks with.
    #[serde(default)]
    pub removed_you: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error(
        "the cluster knows node {me} with another data directory: this one is empty or was \
         replaced. A node that lost its disk must not come back under its old id, since it would \
         vote without knowing what it promised. Put the old directory back; or remove node {me} \
         from the cluster (mufakat cluster remove {me}), start this machine as a node with a new id \
         and --join, and add that one (mufakat cluster add ID)"
    )]
    DiskChanged { me: NodeId },
    #[error(
        "node {me} was removed from the cluster. To have it back with this data directory, start it \
         with --join and add it (mufakat cluster add {me})"
    )]
    Removed { me: NodeId },
    #[error(
        "no cluster is founded, since node {other} belongs to one that has the same subjects: have \
         this node added to it (--join, and mufakat cluster add {me}), or give the new cluster a \
         --prefix of its own"
    )]
    OtherCluster { me: NodeId, other: NodeId },
    #[error("Raft stopped: {0}")]
    Stopped(String),
}

/// Answers greetings from now on.
pub fn answer_greetings(network: &Network, raft: Raft, handle: &Handle) {
    let (known_disk, handle) = (handle.known_disk(), handle.clone());
    let me = network.identity();
    let handler = move |caller: Caller, _: Bytes| -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let (raft, knows_you_as) = (raft.clone(), known_disk(caller.node));
        let (cluster, retired) =
            handle.read(|state, _| (state.cluster, state.retired.get(&caller.node).copied()));
        Box::pin(async move {
            let initialized = raft.is_initialized().await.unwrap_or(true);
            let hello = Hello {
                node: me.node,
                disk: me.disk,
                initialized,
                knows_you_as,
                cluster,
                removed_you: retired == Some(caller.disk),
            };
            // By name, so that another version may know more or less.
            Ok(rmp_serde::to_vec_named(&hello)
                .expect("greetings always encode")
                .into())
        })
    };
    network.handle(HELLO, Trust::Anyone, Arc::new(handler));
}

/// How a node comes to a cluster.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// It founds one with these peers, or is one of those that founded it.
    Found(&'a [NodeId]),
    /// It waits to be added by those that are in it.
    Join,
}

/// Returns once this node has a vote in a cluster: initialised by itself or by another, or added.
///
/// # Errors
/// [`BootstrapError::DiskChanged`] when the cluster knows this node with another data directory,
/// [`BootstrapError::OtherCluster`] when there is a cluster already where it is to found one,
/// [`BootstrapError::Removed`] when it was removed and does not ask to join again.
pub async fn join_or_found(
    handle: &Handle,
    raft: &Raft,
    network: &Network,
    start: Start<'_>,
) -> Result<(), BootstrapError> {
    let me = network.identity();
    let mut told = false;
    loop {
        let initialized = raft.is_initialized().await;
        let initialized =
            initialized.map_err(|fatal| BootstrapError::Stopped(fatal.to_string()))?;
        if initialized && handle.known_members().is_voter(me.node) {
            return Ok(());
        }
        let waits = match start {
            _ if initialized => wait_for_vote(handle, network, start).await?,
            Start::Join => {
                if network.meant_for_another_disk() {
                    return Err(BootstrapError::DiskChanged { me: me.node });
                }
                format!("waiting to be added: mufakat cluster add {}", me.node)
            }
            Start::Found(peers) => found(raft, network, peers).await?,
        };
        if !std::mem::replace(&mut told, true) {
            tracing::info!("{waits}");
        }
        tokio::time::sleep(ROUND_EVERY).await;
    }
}

/// One look of a node that belongs to a cluster, or did, and has no vote; what it waits for.
async fn wait_for_vote(
    handle: &Handle,
    network: &Network,
    start: Start<'_>,
) -> Result<String, BootstrapError> {
    let me = network.identity().node;
    if matches!(start, Start::Found(_)) && was_removed(handle, network).await {
        return Err(BootstrapError::Removed { me });
    }
    Ok(format!(
        "without a vote in the cluster: waiting for it (mufakat cluster add {me})"
    ))
}

/// One round of a node with an empty directory that is to found a cluster; what it waits for.
async fn found(raft: &Raft, network: &Network, peers: &[NodeId]) -> Result<String, BootstrapError> {
    let me = network.identity();
    let others: Vec<NodeId> = peers
        .iter()
        .copied()
        .filter(|peer| *peer != me.node)
        .collect();
    let hellos = greet(network, &others).await;
    let stranger = |hello: &Hello| hello.knows_you_as.is_some_and(|disk| disk != me.disk);
    if hellos.iter().any(stranger) {
        return Err(BootstrapError::DiskChanged { me: me.node });
    }
    let all_empty = hellos.len() == others.len() && hellos.iter().all(|hello| !hello.initialized);
    if all_empty {
        let Some(there) = greet_all(network).await else {
            return Ok("waiting for the broker".to_owned());
        };
        if there.iter().any(stranger) {
            return Err(BootstrapError::DiskChanged { me: me.node });
        }
        let is_of_another = |hello: &&Hello| hello.initialized && !peers.contains(&hello.node);
        if let Some(other) = there.iter().find(is_of_another) {
            let (me, other) = (me.node, other.node);
            return Err(BootstrapError::OtherCluster { me, other });
        }
    }
    if all_empty && peers.iter().min() == Some(&me.node) {
        let founders = hellos.iter().map(|hello| (hello.node, hello.disk));
        let founders: BTreeMap<NodeId, Member> = founders
            .chain([(me.node, me.disk)])
            .map(|(node, disk)| (node, Member { disk }))
            .collect();
        // Fails only if the node was initialised meanwhile, which the next round sees.
        let _ = raft.initialize(founders).await;
        return Ok(format!("initialising a new cluster of {peers:?}"));
    }
    let answered = hellos.len();
    Ok(format!(
        "waiting for the other nodes of {peers:?}; {answered} have answered"
    ))
}

/// Whether a member of the cluster says that this node, with this data directory, was removed.
pub async fn was_removed(handle: &Handle, network: &Network) -> bool {
    let me = network.identity().node;
    let members = handle.known_members().disks.into_keys();
    let others: Vec<NodeId> = members.filter(|node| *node != me).collect();
    let hellos = greet(network, &others).await;
    hellos.iter().any(|hello| hello.removed_you)
}

/// The answers that came, each from the node that was asked.
async fn greet(network: &Network, others: &[NodeId]) -> Vec<Hello> {
    let calls = others
        .iter()
        .map(|peer| async move { hello(network, *peer, HELLO_TIMEOUT).await.ok() });
    join_all(calls).await.into_iter().flatten().collect()
}

/// What all nodes say that there are, of whichever number; none if not even this one heard the question:
/// then others may not have heard it either.
async fn greet_all(network: &Network) -> Option<Vec<Hello>> {
    let answers = network.call_all(HELLO, ANYONE_TIMEOUT).await.ok()?;
    let hellos = answers.iter().map(|answer| rmp_serde::from_slice(answer));
    let hellos: Vec<Hello> = hellos.filter_map(Result::ok).collect();
    let me = network.identity().node;
    hellos
        .iter()
        .any(|hello| hello.node == me)
        .then_some(hellos)
}

/// Greets one node.
///
/// # Errors
/// See [`CallError`].
pub(super) async fn hello(
    network: &Network,
    peer: NodeId,
    timeout: Duration,
) -> Result<Hello, CallError> {
    let answer = network.call(peer, HELLO, Bytes::new(), timeout).await?;
    let hello: Hello = rmp_serde::from_slice(&answer).map_err(|_| CallError::BadAnswer)?;
    match hello.node == peer {
        true => Ok(hello),
        false => Err(CallError::BadAnswer),
    }
}
