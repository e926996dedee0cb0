//! Nodes in one process: openraft over the simulated broker, a log in memory, and a state machine
//! that only remembers what it was given.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{Config, EntryPayload, OptionalSend, ReadPolicy, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::broker::simulated::Simulation;
use crate::ids::{BootId, DiskId, NodeId};
use crate::raft::command::{Batch, Command, Proposed, Stamp};
use crate::raft::memory_log::MemoryDisk;
use crate::raft::network::{Identity, Network};
use crate::raft::receiver::{Beats, Raft, Receiver};
use crate::raft::types::{LogId, Member, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

pub const PREFIX: &str = "test";
const HEARTBEAT: Duration = Duration::from_millis(100);
const BEATS: Beats = Beats {
    every: HEARTBEAT,
    silence_max: Duration::from_millis(800),
};

/// Remembers the number of each batch and, as ballast, its bytes.
#[derive(Clone, Default)]
pub struct Recorder(pub Arc<Mutex<Recorded>>);

#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Recorded {
    applied: Option<LogId>,
    membership: StoredMembership,
    pub numbers: Vec<u64>,
    ballast: Vec<Bytes>,
    #[serde(skip)]
    snapshot: Option<Snapshot>,
    #[serde(skip)]
    pub snapshots_installed: usize,
}

impl Recorder {
    /// What was in memory is gone; the snapshot, a file on real nodes, stays.
    fn forget(&self) {
        let mut recorded = self.0.lock().unwrap();
        let snapshot = recorded.snapshot.take();
        *recorded = match &snapshot {
            Some(snapshot) => rmp_serde::from_slice(&snapshot.snapshot).unwrap(),
            None => Recorded::default(),
        };
        recorded.snapshot = snapshot;
    }
}

impl RaftStateMachine<TypeConfig> for Recorder {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Recorder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let recorded = self.0.lock().unwrap();
        Ok((recorded.applied, recorded.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let mut recorded = self.0.lock().unwrap();
            recorded.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(batch) => {
                    recorded.numbers.push(batch.number);
                    recorded.ballast.push(batch.encoded);
                }
                EntryPayload::Membership(membership) => {
                    recorded.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Recorder {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        let mut recorded = self.0.lock().unwrap();
        let snapshots_installed = recorded.snapshots_installed + 1;
        *recorded = rmp_serde::from_slice(&data).map_err(io::Error::other)?;
        recorded.snapshots_installed = snapshots_installed;
        let meta = meta.clone();
        recorded.snapshot = Some(Snapshot {
            meta,
            snapshot: data,
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.0.lock().unwrap().snapshot.clone())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Recorder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let mut recorded = self.0.lock().unwrap();
        let meta = SnapshotMeta {
            last_log_id: recorded.applied,
            last_membership: recorded.membership.clone(),
        };
        let data = rmp_serde::to_vec(&*recorded).map_err(io::Error::other)?;
        let snapshot = Snapshot {
            meta,
            snapshot: data.into(),
        };
        recorded.snapshot = Some(snapshot.clone());
        Ok(snapshot)
    }
}

pub struct Node {
    pub raft: Raft<Recorder>,
    pub network: Network,
    shutdown: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

pub struct Cluster {
    pub broker: Simulation,
    pub nodes: BTreeMap<u64, Node>,
    pub disks: BTreeMap<u64, MemoryDisk>,
    pub recorders: BTreeMap<u64, Recorder>,
    boots: u64,
    written: u64,
}

pub fn disk_id(node: u64) -> DiskId {
    DiskId(1000 + node)
}

impl Cluster {
    /// Three running nodes that are one cluster, with a leader.
    pub async fn of_three(seed: u64) -> Self {
        println!("seed {seed}");
        let mut cluster = Cluster {
            broker: Simulation::new(seed),
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            recorders: BTreeMap::new(),
            boots: 0,
            written: 0,
        };
        for node in 1..=3 {
            cluster.start(node).await;
        }
        let members: BTreeMap<NodeId, Member> = (1..=3)
            .map(|node| {
                (
                    NodeId(node),
                    Member {
                        disk: disk_id(node),
                    },
                )
            })
            .collect();
        cluster.nodes[&1].raft.initialize(members).await.unwrap();
        cluster.leader_among(&[1, 2, 3]).await;
        cluster
    }

    pub async fn start(&mut self, node: u64) {
        self.boots += 1;
        let flush = Duration::from_millis(1);
        let disk = self
            .disks
            .entry(node)
            .or_insert_with(|| MemoryDisk::new(flush))
            .clone();
        let recorder = self.recorders.entry(node).or_default().clone();
        let identity = Identity {
            node: NodeId(node),
            disk: disk_id(node),
            boot: BootId(self.boots),
        };
        let known = |node: NodeId| (node.0 <= 3).then(|| disk_id(node.0));
        let broker = self.broker.broker(NodeId(node));
        let network = Network::new(identity, broker, PREFIX, Arc::new(known));
        let (shutdown, stop) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(network.listen().await.unwrap().run(stop.clone()));
        let raft = Raft::build(
            NodeId(node),
            config(),
            network.factory(Duration::from_secs(1)),
            disk.open(),
            recorder,
        )
        .await
        .unwrap();
        let receiver = Receiver::listen(network.clone(), raft.clone(), BEATS)
            .await
            .unwrap();
        tasks.spawn(receiver.run(stop));
        raft.run();
        let started = Node {
            raft,
            network,
            shutdown,
            tasks,
        };
        self.nodes.insert(node, started);
    }

    /// Ends a node as its process's death would: what was not flushed is gone.
    pub async fn crash(&mut self, node: u64) {
        let dead = self.nodes.remove(&node).unwrap();
        self.broker.crash(NodeId(node));
        self.disks[&node].crash(0);
        let Node {
            raft,
            shutdown,
            tasks,
            ..
        } = dead;
        shutdown.send_replace(true);
        drop(tasks);
        raft.shutdown().await.ok();
        self.recorders[&node].forget();
    }

    /// The leader that all of `nodes` agree on, once they do.
    pub async fn leader_among(&self, nodes: &[u64]) -> u64 {
        self.until("a leader", || {
            let metrics: Vec<_> = nodes
                .iter()
                .map(|node| self.nodes[node].raft.metrics().borrow_watched().clone())
                .collect();
            let leader = metrics[0].current_leader?;
            let agreed = nodes.contains(&leader.0)
                && metrics.iter().all(|m| m.current_leader == Some(leader))
                && metrics
                    .iter()
                    .all(|m| m.current_term == metrics[0].current_term);
            agreed.then_some(leader.0)
        })
        .await
    }

    pub fn term(&self, node: u64) -> u64 {
        self.nodes[&node]
            .raft
            .metrics()
            .borrow_watched()
            .current_term
    }

    /// Has the leader of `nodes` write `count` batches of about `bytes` each, many at once, without
    /// waiting for them; the leader. It leads for certain when it starts: openraft drops writes of a
    /// leader whose lease is not valid (yet).
    pub async fn write(&mut self, nodes: &[u64], count: u64, bytes: usize) -> u64 {
        for _ in 0..100 {
            let leader = self.leader_among(nodes).await;
            let leads = self.nodes[&leader]
                .raft
                .ensure_linearizable(ReadPolicy::ReadIndex);
            if matches!(
                tokio::time::timeout(Duration::from_secs(1), leads).await,
                Ok(Ok(_))
            ) {
                self.write_through(leader, count, bytes).await;
                return leader;
            }
        }
        panic!("a hundred times no leader of {nodes:?} could confirm that it leads");
    }

    pub async fn write_through(&mut self, node: u64, count: u64, bytes: usize) {
        for _ in 0..count {
            self.written += 1;
            let batch = batch(node, self.written, bytes);
            self.nodes[&node]
                .raft
                .client_write_ff(batch, None)
                .await
                .unwrap();
        }
    }

    /// The number of the last batch that was written.
    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn has_applied(&self, node: u64, number: u64) -> bool {
        self.recorders[&node]
            .0
            .lock()
            .unwrap()
            .numbers
            .contains(&number)
    }

    /// Waits until each of `nodes` has applied at least `count` batches, as many as the others; their
    /// numbers, the same on all.
    pub async fn applied_everywhere(&self, nodes: &[u64], count: usize) -> Vec<u64> {
        let numbers = |node: &u64| self.recorders[node].0.lock().unwrap().numbers.clone();
        self.until("all to apply", || {
            let first = numbers(&nodes[0]).len();
            let level = nodes.iter().all(|node| numbers(node).len() == first);
            (level && first >= count).then_some(())
        })
        .await;
        let first = numbers(&nodes[0]);
        for node in nodes {
            assert_eq!(numbers(node), first, "node {node} applied something else");
        }
        first
    }

    /// Polls in virtual time; two minutes of it are more than anything here takes.
    pub async fn until<T>(&self, what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
        for _ in 0..12_000 {
            if let Some(value) = holds() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for (id, node) in &self.nodes {
            let numbers = self.recorders[id].0.lock().unwrap().numbers.len();
            let counters = node.network.counters();
            println!("node {id}: {numbers} batches, {counters:?}");
            println!("{}", *node.raft.metrics().borrow_watched());
        }
        panic!("waited two minutes for {what}");
    }
}

pub fn batch(proposer: u64, number: u64, bytes: usize) -> Batch {
    let stamp = Stamp {
        now_ms: number,
        proposer: NodeId(proposer),
        boot: BootId(1),
        number,
    };
    let command = Proposed {
        origin: None,
        command: Command::TermStarted {
            grace_ms: number,
            keeps_over: true,
        },
    };
    let each = rmp_serde::to_vec(&command).unwrap().len();
    Batch::new(stamp, vec![command; bytes / each + 1])
}

fn config() -> Arc<Config> {
    let config = Config {
        heartbeat_interval: HEARTBEAT.as_millis() as u64,
        election_timeout_min: 400,
        election_timeout_max: 800,
        max_payload_entries: 16,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        ..Config::default()
    };
    Arc::new(config.validate().unwrap())
}
