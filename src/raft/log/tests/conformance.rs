//! openraft's own suite for log stores, with the smallest state machine it accepts.

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::StorageError;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::*;
use crate::raft::types::{Snapshot, SnapshotMeta, StoredMembership};

/// The suite makes up node ids.
impl From<u64> for NodeId {
    fn from(id: u64) -> Self {
        NodeId(id)
    }
}

#[derive(Clone, Default)]
struct Machine {
    applied: Arc<Mutex<(Option<LogId>, StoredMembership)>>,
    snapshot: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (last_log_id, last_membership) = self.applied.lock().unwrap().clone();
        let meta = SnapshotMeta {
            last_log_id,
            last_membership,
        };
        *self.snapshot.lock().unwrap() = Some(meta.clone());
        Ok(Snapshot {
            meta,
            snapshot: Bytes::new(),
        })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok(self.applied.lock().unwrap().clone())
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, _) = item?;
            let mut applied = self.applied.lock().unwrap();
            applied.0 = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                applied.1 = StoredMembership::new(Some(entry.log_id), membership);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _: Bytes) -> io::Result<()> {
        *self.applied.lock().unwrap() = (meta.last_log_id, meta.last_membership.clone());
        *self.snapshot.lock().unwrap() = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let meta = self.snapshot.lock().unwrap().clone();
        Ok(meta.map(|meta| Snapshot {
            meta,
            snapshot: Bytes::new(),
        }))
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        Ok((dir, store, Machine::default()))
    }
}

#[tokio::test]
async fn the_log_conforms_to_what_openraft_expects() {
    Suite::test_all(Builder).await.unwrap();
}
