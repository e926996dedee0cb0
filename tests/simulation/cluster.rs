//! Three nodes and those that join them, their disks and their networks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mufakat::broker::relay::Incoming;
use mufakat::broker::simulated::{Faults, Simulation};
use mufakat::config::{Config, NodeArgs};
use mufakat::ids::{BootId, DiskId, NodeId};
use mufakat::monitor::insight;
use mufakat::node::{Core, Parts};
use mufakat::raft::memory_log::MemoryDisk;
use mufakat::raft::network::Identity;
use mufakat::raft::proposals::Role;
use mufakat::stats::Stats;
use mufakat::time::{Instant, now};
use tokio::sync::watch;

use crate::history::History;

pub const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// How often the history takes what was applied; well before a snapshot purges it from the logs.
const LOOK_EVERY_MS: u64 = 25;
/// How long, in virtual time, anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Node {
    pub core: Arc<Core>,
    stop: watch::Sender<bool>,
    joining: tokio::task::JoinHandle<()>,
}

pub struct Cluster {
    /// What nodes say to each other; faults are for this one.
    pub network: Simulation,
    /// The way of answers to clients; it loses nothing.
    pub clients: Simulation,
    pub nodes: BTreeMap<NodeId, Node>,
    pub history: History,
    disks: BTreeMap<NodeId, MemoryDisk>,
    boots: u64,
    /// Nodes that wait to be added instead of founding the cluster.
    joining: BTreeSet<NodeId>,
    snapshot_entries: u64,
    /// Who led each term: there is never a second.
    leaders: BTreeMap<u64, NodeId>,
    /// When a node last crashed or was cut off, or came back: until things settle, answers may be lost.
    pub disturbed_at: Instant,
}

impl Cluster {
    /// Three nodes that have formed a cluster and serve.
    pub async fn of_three(seed: u64, snapshot_entries: u64) -> Self {
        let mut cluster = Cluster {
            network: Simulation::new(seed),
            clients: Simulation::new(seed + 1),
            nodes: BTreeMap::new(),
            history: History::default(),
            disks: BTreeMap::new(),
            boots: seed * 1000,
            joining: BTreeSet::new(),
            snapshot_entries,
            leaders: BTreeMap::new(),
            disturbed_at: now(),
        };
        for node in NODES {
            cluster.start(node).await;
        }
        cluster.leader().await;
        cluster
    }

    pub async fn start(&mut self, node: NodeId) {
        self.disturbed_at = now();
        self.boots += 1;
        let flush = Duration::from_millis(2);
        let disk = self
            .disks
            .entry(node)
            .or_insert_with(|| MemoryDisk::new(flush));
        let parts = Parts {
            config: config(node, self.joining.contains(&node), self.snapshot_entries),
            identity: Identity {
                node,
                disk: DiskId(100 + node.0),
                boot: BootId(self.boots),
            },
            raft_broker: self.network.broker(node),
            clients: self.clients.broker(node),
            posts: self.network.broker(node),
            log: disk.open(),
            snapshots: Arc::new(disk.clone()),
            redis: None,
            stats: Stats::new(insight::operation_labels(), insight::code_labels()),
        };
        let (stop, stopped) = watch::channel(false);
        let core = Core::start(parts, stopped.clone())
            .await
            .expect("a node starts");
        let core = Arc::new(core);
        let joining = tokio::spawn({
            let core = core.clone();
            async move { core.join(stopped).await.expect("a node joins") }
        });
        self.nodes.insert(
            node,
            Node {
                core,
                stop,
                joining,
            },
        );
    }

    /// Starts a node that waits to be added.
    pub async fn start_joining(&mut self, node: NodeId) {
        self.joining.insert(node);
        self.start(node).await;
    }

    /// From now on a change takes so long until it is on the node's disk.
    pub fn slow_disk(&mut self, node: NodeId, flush: Duration) {
        self.disks[&node].set_flush(flush);
    }

    /// The node's process dies; of the last changes to its log only the `kept` oldest were written.
    pub async fn crash(&mut self, node: NodeId, kept: usize) {
        self.look();
        self.disturbed_at = now();
        let dead = self.nodes.remove(&node).expect("only what runs can crash");
        self.network.crash(node);
        self.clients.crash(node);
        self.disks[&node].crash(kept);
        dead.joining.abort();
        dead.stop.send_replace(true);
        let _ = dead.core.raft.shutdown().await;
    }

    /// Cuts the node off from the others; its clients still reach it.
    pub fn isolate(&mut self, node: NodeId) {
        self.disturbed_at = now();
        let all: Vec<NodeId> = self.disks.keys().copied().collect();
        self.network.isolate(node, &all);
    }

    pub fn heal(&mut self) {
        self.disturbed_at = now();
        self.network.heal();
        self.network.set_faults(Faults::NONE);
    }

    pub fn core(&self, node: NodeId) -> &Core {
        &self.nodes[&node].core
    }

    /// Hands a request to a node as its broker would.
    pub fn ask(&self, node: NodeId, operation: &str, reply: String, body: &str) {
        self.core(node).dispatch.take(Incoming {
            subject: &format!("mufakat.{operation}"),
            reply: Some(&reply),
            content_type: None,
            message_id: None,
            traceparent: None,
            payload: &Bytes::copy_from_slice(body.as_bytes()),
        });
    }

    /// The node that leads, if one says so of the highest term that is known.
    pub fn leading(&self) -> Option<(u64, NodeId)> {
        let leads = |(id, node): (&NodeId, &Node)| match node.core.handle.role() {
            Role::Leader { term } => Some((term, *id)),
            _ => None,
        };
        self.nodes.iter().filter_map(leads).max()
    }

    /// Waits for a leader that all running nodes follow.
    pub async fn leader(&mut self) -> NodeId {
        let begun = now();
        loop {
            if let Some((term, leader)) = self.leading() {
                let follows = |node: &Node| match node.core.handle.role() {
                    Role::Follower { leader: l, term: t } => (l, t) == (leader, term),
                    Role::Leader { term: t } => t == term,
                    _ => false,
                };
                if self.nodes.values().all(follows) {
                    return leader;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no leader: {:?}", self.roles());
            self.pass(10).await;
        }
    }

    pub fn followers(&self) -> Vec<NodeId> {
        let leader = self.leading().map(|(_, leader)| leader);
        self.nodes
            .keys()
            .copied()
            .filter(|n| Some(*n) != leader)
            .collect()
    }

    fn roles(&self) -> Vec<(NodeId, Role)> {
        self.nodes
            .iter()
            .map(|(id, node)| (*id, node.core.handle.role()))
            .collect()
    }

    /// Lets `ms` of virtual time pass, looking at what the nodes apply.
    pub async fn pass(&mut self, ms: u64) {
        let end = now() + Duration::from_millis(ms);
        while now() < end {
            let step = Duration::from_millis(LOOK_EVERY_MS).min(end - now());
            tokio::time::sleep(step).await;
            self.look();
        }
    }

    /// Takes what was applied into the history, and checks each node's state.
    fn look(&mut self) {
        for (id, node) in &self.nodes {
            if let Role::Leader { term } | Role::Elected { term } = node.core.handle.role() {
                let leader = *self.leaders.entry(term).or_insert(*id);
                assert_eq!(leader, *id, "two nodes lead term {term}");
            }
            let applied = node.core.handle.status().applied_index;
            let disk = &self.disks[id];
            self.history
                .take(*id, applied, |first, last| disk.read(first, last));
        }
    }

    /// Waits until all nodes have applied the same, and compares it with what the history gives.
    pub async fn settle(&mut self) {
        self.settle_of(NODES.len()).await;
    }

    /// The same of a cluster of so many nodes.
    pub async fn settle_of(&mut self, nodes: usize) {
        let begun = now();
        loop {
            self.pass(20).await;
            let at = |node: &Node| {
                node.core.handle.read(|state, _| {
                    // Who was removed comes from the membership, not from a batch.
                    ((state.batches(), state.retired.clone()), state.hash())
                })
            };
            let states: Vec<_> = self.nodes.values().map(at).collect();
            let level = states.iter().all(|state| state.0 == states[0].0);
            if level && self.nodes.len() == nodes {
                let mut replayed = self.history.replay().state;
                // These come from the membership, not from a batch.
                let any = self.nodes.values().next().expect("some node runs");
                (replayed.cluster, replayed.retired) = any
                    .core
                    .handle
                    .read(|state, _| (state.cluster, state.retired.clone()));
                let expected = replayed.hash();
                for (node, (_, hash)) in self.nodes.keys().zip(&states) {
                    assert_eq!(
                        *hash, expected,
                        "node {node} has another state than its log gives"
                    );
                }
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the nodes never agree: {states:?}"
            );
        }
    }
}

fn config(node: NodeId, joins: bool, snapshot_entries: u64) -> Config {
    let args = NodeArgs {
        id: Some(node.0),
        join: joins.then(|| "on".to_owned()),
        peers: (!joins).then(|| NODES.iter().map(|node| node.0).collect()),
        nats: Some("nats://127.0.0.1:4222".to_owned()),
        data_dir: Some("/nonexistent".into()),
        snapshot_entries: Some(snapshot_entries),
        snapshot_keep_entries: Some(100),
        ..NodeArgs::default()
    };
    Config::load(args, []).expect("a configuration that works")
}
