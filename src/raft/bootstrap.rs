//! From an empty data directory to a member of a cluster.
//!
//! A cluster is initialised once, by the node with the lowest id, and only when every peer has
//! answered that its directory is empty too. A node whose directory was lost finds peers that know
//! it with another disk and refuses to start: under its old id it would vote as if it had never
//! acknowledged anything (notes on Raft; openraft#1535). So do all of them when others of their
//! cluster, which the peers do not name, still know it: before a cluster is founded, every node that
//! there is gets asked, and twice. While one of them is to found another cluster, none is founded: nodes
//! whose lists of peers differ would have several under the same subjects.
//!
//! A node that is to join a cluster that runs founds none: it waits until the leader, asked by an
//! operator, sends it the log and then gives it a vote. So does a node that was removed and is started
//! again, if it is told to join; otherwise it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, DiskId, NodeId};
use crate::raft::call::{Caller, Trust};
use crate::raft::handle::{Handle, Raft};
use crate::raft::message::Refusal;
use crate::raft::network::{CallError, Identity, Network};
use crate::raft::types::Member;

/// The kind of call in which nodes greet each other.
const HELLO: &str = "bootstrap.hello";
const HELLO_TIMEOUT: Duration = Duration::from_millis(500);
/// How long nodes that nobody named have to answer: it is a round trip, and a cluster's first start waits for it.
const ANYONE_TIMEOUT: Duration = Duration::from_millis(200);
/// How often all nodes are asked before a cluster is founded: one that has just begun to listen may not be
/// known to all brokers at once.
const LOOKS: usize = 2;
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
    /// The entry up to which it has applied the log at least, so that all of this is as of then or later.
    #[serde(default)]
    pub applied_index: u64,
    /// With whom it is to found a cluster, unless it belongs to one; none if it is to join one, or is of a
    /// version that does not say.
    #[serde(default)]
    pub founds_with: Option<BTreeSet<NodeId>>,
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

/// Answers greetings from now on. `peers` are those with whom this node is to found a cluster, if it is.
pub fn answer_greetings(
    network: &Network,
    raft: Raft,
    handle: &Handle,
    peers: Option<BTreeSet<NodeId>>,
) {
    let (known_disk, handle) = (handle.known_disk(), handle.clone());
    let me = network.identity();
    let handler = move |caller: Caller, _: Bytes| -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let (raft, known_disk, peers) = (raft.clone(), known_disk.clone(), peers.clone());
        // Before the state is read, which may go on meanwhile.
        let applied_index = handle.applied_index();
        let (cluster, retired) =
            handle.read(|state, _| (state.cluster, state.retired.get(&caller.node).copied()));
        Box::pin(async move {
            let initialized = raft.is_initialized().await.unwrap_or(true);
            let hello = Hello {
                node: me.node,
                disk: me.disk,
                initialized,
                // After Raft has answered, since until it runs nobody is known; so who names a cluster
                // knows its members.
                knows_you_as: known_disk(caller.node),
                cluster,
                removed_you: retired == Some(caller.disk),
                applied_index,
                founds_with: peers.filter(|_| !initialized),
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

/// What a node waits for.
#[derive(PartialEq, Eq)]
enum Wait {
    /// It comes by itself, or was announced.
    For(String),
    /// Somebody has to mend this.
    Because(String),
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
    let mut told = None;
    loop {
        let initialized = raft.is_initialized().await;
        let initialized =
            initialized.map_err(|fatal| BootstrapError::Stopped(fatal.to_string()))?;
        if initialized && handle.known_members().is_voter(me.node) {
            // As far as its own log goes, which knows nothing of what came while it was away.
            if matches!(start, Start::Found(_)) && was_removed(handle, network).await {
                return Err(BootstrapError::Removed { me: me.node });
            }
            return Ok(());
        }
        let waits = match start {
            _ if initialized => wait_for_vote(handle, network, start).await?,
            Start::Join => {
                if network.meant_for_another_disk() {
                    return Err(BootstrapError::DiskChanged { me: me.node });
                }
                Wait::For(format!(
                    "waiting to be added: mufakat cluster add {}",
                    me.node
                ))
            }
            Start::Found(peers) => found(raft, network, peers).await?,
        };
        if told.as_ref() != Some(&waits) {
            match &waits {
                Wait::For(what) => tracing::info!("{what}"),
                Wait::Because(why) => tracing::warn!("{why}"),
            }
            told = Some(waits);
        }
        tokio::time::sleep(ROUND_EVERY).await;
    }
}

/// One look of a node that belongs to a cluster, or did, and has no vote; what it waits for.
async fn wait_for_vote(
    handle: &Handle,
    network: &Network,
    start: Start<'_>,
) -> Result<Wait, BootstrapError> {
    let me = network.identity().node;
    if matches!(start, Start::Found(_)) && was_removed(handle, network).await {
        return Err(BootstrapError::Removed { me });
    }
    Ok(Wait::For(format!(
        "without a vote in the cluster: waiting for it (mufakat cluster add {me})"
    )))
}

/// One round of a node with an empty directory that is to found a cluster; what it waits for.
async fn found(raft: &Raft, network: &Network, peers: &[NodeId]) -> Result<Wait, BootstrapError> {
    let me = network.identity();
    let others: Vec<NodeId> = peers
        .iter()
        .copied()
        .filter(|peer| *peer != me.node)
        .collect();
    let hellos = greet(network, &others).await;
    if let Some(objection) = objection(me, peers, &hellos)? {
        return Ok(Wait::Because(objection));
    }
    let answered = hellos.len();
    let wait = Wait::For(format!(
        "waiting for the other nodes of {peers:?}; {answered} have answered"
    ));
    let is_in_cluster = |hello: &Hello| hello.initialized;
    if answered < others.len() || hellos.iter().any(is_in_cluster) {
        return Ok(wait);
    }
    for _ in 0..LOOKS {
        let Some(there) = greet_all(network).await else {
            return Ok(Wait::For("waiting for the broker".to_owned()));
        };
        if let Some(objection) = objection(me, peers, &there)? {
            return Ok(Wait::Because(objection));
        }
        if there.iter().any(is_in_cluster) {
            return Ok(wait);
        }
    }
    if peers.iter().min() != Some(&me.node) {
        return Ok(wait);
    }
    let founders = hellos.iter().map(|hello| (hello.node, hello.disk));
    let founders: BTreeMap<NodeId, Member> = founders
        .chain([(me.node, me.disk)])
        .map(|(node, disk)| (node, Member { disk }))
        .collect();
    // Fails only if the node was initialised meanwhile, which the next round sees.
    let _ = raft.initialize(founders).await;
    Ok(Wait::For(format!(
        "initialising a new cluster of {peers:?}"
    )))
}

/// What stands against founding a cluster of `peers`, of all that these nodes say.
///
/// # Errors
/// When this node will not found or belong to one, whatever else comes.
fn objection(
    me: Identity,
    peers: &[NodeId],
    hellos: &[Hello],
) -> Result<Option<String>, BootstrapError> {
    let knows_another = |hello: &Hello| hello.knows_you_as.is_some_and(|disk| disk != me.disk);
    if hellos.iter().any(knows_another) {
        return Err(BootstrapError::DiskChanged { me: me.node });
    }
    // A founder that is late finds a cluster that knows it. Who has only voted may know nobody yet.
    let is_of_another = |hello: &&Hello| {
        let knows_me_not = hello.cluster.is_some() && hello.knows_you_as.is_none();
        knows_me_not || (hello.initialized && !peers.contains(&hello.node))
    };
    if let Some(other) = hellos.iter().find(is_of_another) {
        let (me, other) = (me.node, other.node);
        return Err(BootstrapError::OtherCluster { me, other });
    }
    let ours: BTreeSet<NodeId> = peers.iter().copied().collect();
    Ok(hellos.iter().find_map(|hello| {
        let theirs = hello.founds_with.as_ref()?;
        if hello.node == me.node && hello.disk != me.disk {
            return Some(format!(
                "no cluster is founded: another node runs under the number {} with another data \
                 directory; end one of them",
                me.node
            ));
        }
        (*theirs != ours).then(|| {
            format!(
                "no cluster is founded: this node is to found one of the nodes {} (--peers), node \
                 {} one of the nodes {}. Start all of them with the same --peers, or give each \
                 cluster a --prefix of its own",
                list(&ours),
                hello.node,
                list(theirs)
            )
        })
    }))
}

fn list(nodes: &BTreeSet<NodeId>) -> String {
    let nodes: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    nodes.join(",")
}

/// Whether a member of the cluster says that this node, with this data directory, was removed; waits for the
/// broker, without which nobody can be asked.
///
/// A member that is behind this node's log may not know that this node was added again: it is not believed.
pub async fn was_removed(handle: &Handle, network: &Network) -> bool {
    let me = network.identity().node;
    let belongs_since = handle.known_members_index();
    let members = handle.known_members().disks.into_keys();
    let asked = members.filter(|node| *node != me).map(async |node| {
        let answer = network.call_connected(node, HELLO, HELLO_TIMEOUT).await;
        read_hello(node, &answer.ok()?).ok()
    });
    let hellos = join_all(asked).await;
    hellos
        .iter()
        .flatten()
        .any(|hello| hello.removed_you && hello.applied_index >= belongs_since)
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
    read_hello(
        peer,
        &network.call(peer, HELLO, Bytes::new(), timeout).await?,
    )
}

fn read_hello(peer: NodeId, answer: &[u8]) -> Result<Hello, CallError> {
    let hello: Hello = rmp_serde::from_slice(answer).map_err(|_| CallError::BadAnswer)?;
    match hello.node == peer {
        true => Ok(hello),
        false => Err(CallError::BadAnswer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BootId;

    const ME: Identity = Identity {
        node: NodeId(1),
        disk: DiskId(11),
        boot: BootId(5),
    };

    /// Of a node that is to found a cluster with these.
    fn founds(node: u64, peers: &[u64]) -> Hello {
        Hello {
            node: NodeId(node),
            disk: DiskId(10 + node),
            initialized: false,
            knows_you_as: None,
            cluster: None,
            removed_you: false,
            applied_index: 0,
            founds_with: Some(peers.iter().copied().map(NodeId).collect()),
        }
    }

    /// Of a node of a cluster that knows this one with that disk.
    fn belongs(node: u64, knows_you_as: Option<DiskId>) -> Hello {
        Hello {
            initialized: true,
            knows_you_as,
            cluster: Some(ClusterId(7)),
            founds_with: None,
            ..founds(node, &[])
        }
    }

    fn judge(hello: Hello) -> Result<Option<String>, BootstrapError> {
        let peers = [NodeId(1), NodeId(2)];
        objection(ME, &peers, &[founds(1, &[1, 2]), hello])
    }

    #[test]
    fn only_nodes_with_the_same_peers_found_a_cluster() {
        assert_eq!(judge(founds(2, &[2, 1])).unwrap(), None);
        for (node, theirs) in [(2, &[2, 3][..]), (2, &[2]), (3, &[3]), (3, &[1, 2, 3])] {
            let why = judge(founds(node, theirs)).unwrap().unwrap();
            assert!(why.contains("one of the nodes 1,2 (--peers)"), "{why}");
            assert!(why.contains(&format!("node {node} one of")), "{why}");
        }
        // One that is to join, or does not say.
        let waits = Hello {
            founds_with: None,
            ..founds(3, &[])
        };
        assert_eq!(judge(waits).unwrap(), None);
        let twin = Hello {
            disk: DiskId(99),
            ..founds(1, &[1, 2])
        };
        let why = judge(twin).unwrap().unwrap();
        assert!(
            why.contains("another node runs under the number 1"),
            "{why}"
        );
    }

    #[test]
    fn a_cluster_without_this_node_ends_the_founding_and_one_with_it_does_not() {
        assert_eq!(judge(belongs(2, Some(ME.disk))).unwrap(), None);
        // It has voted for a founder, and has no entry yet.
        let voted = Hello {
            cluster: None,
            ..belongs(2, None)
        };
        assert_eq!(judge(voted.clone()).unwrap(), None);
        let outside = Hello {
            node: NodeId(3),
            ..voted
        };
        for hello in [belongs(2, None), belongs(3, None), outside] {
            let refused = judge(hello).unwrap_err();
            assert!(matches!(refused, BootstrapError::OtherCluster { .. }));
        }
        let refused = judge(belongs(2, Some(DiskId(12)))).unwrap_err();
        assert!(matches!(refused, BootstrapError::DiskChanged { .. }));
    }

    #[test]
    fn greetings_are_read_by_the_version_before_and_its_greetings_here() {
        #[derive(Serialize, Deserialize)]
        struct Before {
            node: NodeId,
            disk: DiskId,
            initialized: bool,
            knows_you_as: Option<DiskId>,
            cluster: Option<ClusterId>,
            removed_you: bool,
        }
        let now = rmp_serde::to_vec_named(&founds(2, &[1, 2])).unwrap();
        let before: Before = rmp_serde::from_slice(&now).unwrap();
        assert_eq!((before.node, before.disk), (NodeId(2), DiskId(12)));
        let before = rmp_serde::to_vec_named(&before).unwrap();
        let now: Hello = rmp_serde::from_slice(&before).unwrap();
        assert_eq!((now.node, now.founds_with), (NodeId(2), None));
    }
}
