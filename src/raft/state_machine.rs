//! The replicated state behind openraft's state machine interface: apply, snapshot, install.
//!
//! The state lives in memory. After a restart it is rebuilt from the newest snapshot and the
//! committed part of the log; no client was ever answered from anything newer than that.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{ClusterId, DiskId, NodeId};
use crate::lock::event::Effect;
use crate::raft::command::{Batch, Proposed};
use crate::raft::snapshot::Snapshots;
use crate::raft::state::{Outcome, State};
use crate::raft::types::{LogId, Membership, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// The state as shared between the log, which changes it, and reads.
#[derive(Clone, Default)]
pub struct SharedState(Arc<Mutex<State>>);

impl SharedState {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("no holder of the state panics: replicated code is total")
    }
}

/// What applying tells the rest of the node, synchronously and in log order.
pub trait Observer: Send + Sync + 'static {
    fn applied(&self, entry: Applied<'_>);
    /// An entry without commands was applied: its term has a leader.
    fn term_applied(&self, term: u64);
    /// The state was replaced by a snapshot that ends in `term`.
    fn installed(&self, term: u64);
    /// Who belongs to the consensus group has changed, or was read from a snapshot.
    fn members_applied(&self, membership: &Membership);
}

/// One applied batch with what came out of it.
pub struct Applied<'a> {
    pub term: u64,
    pub batch: &'a Batch,
    pub commands: &'a [Proposed],
    pub outcomes: Vec<Outcome>,
    pub effects: Vec<Effect>,
    /// When the next lease, wait, session or lock delay ends.
    pub next_deadline_ms: Option<u64>,
}

pub struct StateMachine {
    state: SharedState,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: Arc<dyn Snapshots>,
    observer: Arc<dyn Observer>,
}

impl StateMachine {
    pub fn new(
        state: SharedState,
        snapshots: Arc<dyn Snapshots>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        StateMachine {
            state,
            last_applied: None,
            membership: StoredMembership::default(),
            snapshots,
            observer,
        }
    }

    fn apply_batch(&self, term: u64, batch: &Batch) -> io::Result<()> {
        let commands = batch.commands().map_err(|error| {
            let what = format!("{batch} in the log does not decode: {error}; was the node started with an older version?");
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        let mut effects = Vec::new();
        let (outcomes, next_deadline_ms) = {
            let mut state = self.state.lock();
            let outcomes = state.apply(batch.now_ms, &commands, &mut effects);
            (outcomes, state.locks.next_deadline())
        };
        self.observer.applied(Applied {
            term,
            batch,
            commands: &commands,
            outcomes,
            effects,
            next_deadline_ms,
        });
        Ok(())
    }

    fn apply_membership(&mut self, log_id: LogId, membership: Membership) {
        let disks = |membership: &Membership| -> BTreeMap<NodeId, DiskId> {
            let nodes = membership.nodes();
            nodes.map(|(node, member)| (*node, member.disk)).collect()
        };
        let before = disks(self.membership.membership());
        let mut state = self.state.lock();
        if state.cluster.is_none() {
            state.cluster = Some(cluster_of(&membership));
        }
        state.members_changed(&before, &disks(&membership));
        drop(state);
        self.observer.members_applied(&membership);
        self.membership = StoredMembership::new(Some(log_id), membership);
    }
}

/// The identity of a cluster: a hash over the nodes and disks it was initialised with.
pub(super) fn cluster_of(membership: &Membership) -> ClusterId {
    let founders: Vec<(u64, u64)> = membership
        .nodes()
        .map(|(id, member)| (id.0, member.disk.0))
        .collect();
    let bytes: Vec<u8> = founders
        .iter()
        .flat_map(|(id, disk)| [id.to_be_bytes(), disk.to_be_bytes()])
        .flatten()
        .collect();
    ClusterId(xxh3_64(&bytes))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let term = *entry.log_id.committed_leader_id();
            match entry.payload {
                EntryPayload::Blank => self.observer.term_applied(*term),
                EntryPayload::Normal(batch) => self.apply_batch(*term, &batch)?,
                EntryPayload::Membership(membership) => {
                    self.apply_membership(entry.log_id, membership);
                    self.observer.term_applied(*term);
                }
            }
            self.last_applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: self.state.lock().clone(),
            meta: SnapshotMeta {
                last_log_id: self.last_applied,
                last_membership: self.membership.clone(),
            },
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        let state = self.snapshots.receive(meta, data).await?;
        *self.state.lock() = state;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.observer.members_applied(self.membership.membership());
        if let Some(last) = meta.last_log_id {
            tracing::info!(index = last.index(), "installed a snapshot");
            self.observer.installed(**last.committed_leader_id());
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let loaded = self.snapshots.load().await?;
        Ok(loaded.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Writes the state of one moment to disk while entries go on being applied.
pub struct Builder {
    state: State,
    meta: SnapshotMeta,
    snapshots: Arc<dyn Snapshots>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let state = std::mem::take(&mut self.state);
        self.snapshots.save(&self.meta, state).await?;
        // openraft takes note of the meta; what it sends it asks `get_current_snapshot` for.
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: Bytes::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::stream;

    use super::*;
    use crate::raft::format_tests::{log_id, payload};
    use crate::raft::memory_log::MemoryDisk;
    use crate::raft::types::Entry;

    struct Silent;

    impl Observer for Silent {
        fn applied(&self, _: Applied<'_>) {}
        fn term_applied(&self, _: u64) {}
        fn installed(&self, _: u64) {}
        fn members_applied(&self, _: &Membership) {}
    }

    async fn apply(machine: &mut StateMachine, index: u64) {
        let entry = Entry {
            log_id: log_id(1, index),
            payload: payload(),
        };
        let applied = machine.apply(stream::iter([Ok((entry, None))])).await;
        applied.expect("the entry decodes");
    }

    #[tokio::test]
    async fn entries_go_on_while_a_snapshot_is_built_and_are_not_in_it() {
        let state = SharedState::default();
        let disk = Arc::new(MemoryDisk::new(Duration::ZERO));
        let mut machine = StateMachine::new(state.clone(), disk.clone(), Arc::new(Silent));
        apply(&mut machine, 1).await;
        let at_one = state.lock().encode();

        let mut builder = machine.get_snapshot_builder().await;
        apply(&mut machine, 2).await;
        assert_ne!(state.lock().encode(), at_one);
        let built = builder.build_snapshot().await.expect("memory takes it");
        assert_eq!(built.meta.last_log_id, Some(log_id(1, 1)));
        let stored = machine.get_current_snapshot().await.expect("it is there");
        let stored = stored.expect("it was built");
        assert_eq!(
            (&stored.meta, &stored.snapshot[..]),
            (&built.meta, &at_one[..])
        );

        let other = SharedState::default();
        let mut follower = StateMachine::new(other.clone(), disk, Arc::new(Silent));
        let installed = follower
            .install_snapshot(&stored.meta, stored.snapshot.clone())
            .await;
        installed.expect("it is a state");
        assert_eq!(other.lock().encode(), at_one);
        let broken = follower
            .install_snapshot(&stored.meta, stored.snapshot.slice(1..))
            .await;
        broken.expect_err("it is none");
        assert_eq!(other.lock().encode(), at_one);
    }
}
