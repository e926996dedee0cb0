//! A new cluster that begins with a copy of another one's state ([`backup`]).
//!
//! The copy becomes the data directory of one node, which is the whole cluster at first; others are added
//! as to any cluster, and get the state from there. So no two nodes can begin with different copies.
//!
//! Promises. The new cluster has another identity: nodes and disks of the old one are strangers to it.
//! Every token that it grants is greater than any that the old one granted, also after the copy was made,
//! unless those were more than [`TOKENS_SKIPPED`](super::state::TOKENS_SKIPPED). Leases, waits and sessions
//! have left what they had left when the copy was made. What came after it is lost: a lock that was granted
//! then can be granted again, with a greater token. An interrupted restore leaves no directory that a node
//! would start with. The directory may be a mount point or a link: it is filled in place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::storage::RaftLogStorage;
use openraft::type_config::alias::CommittedLeaderIdOf;

use super::backup::{self, Contents};
use super::directory::{DataDirectory, DirectoryError};
use super::log::{LogStore, OpenError};
use super::snapshot::SnapshotStore;
use super::state::Topics;
use super::state_machine::cluster_of;
use super::types::{LogId, Member, Membership, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use crate::ids::{ClusterId, DiskId, NodeId};

/// Why a copy was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{}: {reason}. This is no intact backup; nothing was restored", file.display())]
    Damaged { file: PathBuf, reason: String },
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error("{}: {reason}", path.display())]
    Io { path: PathBuf, reason: io::Error },
}

/// Where a copy goes to.
pub struct Destination<'a> {
    /// Absent or empty.
    pub data_dir: &'a Path,
    pub node: NodeId,
    /// Drawn anew.
    pub disk: DiskId,
    pub topics: Topics,
}

/// Makes `destination` the directory of a cluster of one node that has the state in `file`. Returns the
/// new cluster, and what the copy held.
///
/// # Errors
/// See [`RestoreError`].
pub async fn restore(
    file: &Path,
    destination: &Destination<'_>,
) -> Result<(ClusterId, Contents), RestoreError> {
    let damaged = |reason| RestoreError::Damaged {
        file: file.to_owned(),
        reason,
    };
    let bytes = fs::read(file).map_err(at(file))?;
    let contents = backup::examine(&bytes).map_err(damaged)?;
    let (meta, mut state) = backup::open(&bytes).map_err(damaged)?;
    drop(bytes);

    let data_dir = destination.data_dir;
    let mut directory = DataDirectory::begin_restore(data_dir, destination.node, destination.disk)?;
    let member = Member {
        disk: destination.disk,
    };
    let voters = BTreeSet::from([destination.node]);
    let nodes = BTreeMap::from([(destination.node, member)]);
    let membership = Membership::new(vec![voters], nodes).expect("every voter has a disk");
    let cluster = cluster_of(&membership);
    state.found_anew(cluster, destination.topics);

    // Behind all that the copy may have, so that no term and no index comes twice.
    let (index, term) = backup::position(&meta);
    let last = LogId {
        leader_id: CommittedLeaderIdOf::<TypeConfig>::new(term + 1),
        index: index + 1,
    };
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
    };
    let snapshots = SnapshotStore::open(&directory.snapshots_path()).map_err(at(data_dir))?;
    let saved = snapshots.save(&meta, |out| state.encode_to(out));
    saved.map_err(at(data_dir))?;
    let mut log = LogStore::open(&directory.log_site(), Arc::new(|_| {}))?;
    log.purge(last).await.map_err(at(data_dir))?;
    // Its fsync covers the purge.
    let vote = Vote::new(term + 1, destination.node);
    log.save_vote(&vote).await.map_err(at(data_dir))?;
    drop(log);
    directory.set_cluster(cluster)?;
    directory.end_restore()?;
    Ok((cluster, contents))
}

fn at(path: &Path) -> impl Fn(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |reason| RestoreError::Io {
        path: path.clone(),
        reason,
    }
}
