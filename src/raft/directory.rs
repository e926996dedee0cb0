//! The data directory of a node: whose it is, and that only one process has it.
//!
//! ```text
//! lock            locked while a process has the directory; holds that process's id
//! identity.json   node, disk and cluster: written once, and once more when the cluster is known
//! log/            the Raft log
//! log.newest      which file of the log is the newest
//! snapshots/      snapshots of the state
//! restoring       there while a backup is restored into the directory
//! ```
//!
//! Promises: a directory belongs to one node id for ever; its disk id is drawn once, and lost only
//! with the directory. A directory that holds a log but no identity is refused: with a new disk id
//! the votes in it would count for nobody. A directory whose restore was interrupted is refused too.
//! Limits: a copied directory has the same disk id, and nobody must run both copies.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, DiskId, NodeId};
use crate::raft::log::Site;

#[cfg(test)]
mod tests;

const LOCK: &str = "lock";
const IDENTITY: &str = "identity.json";
const IDENTITY_INCOMING: &str = "identity.tmp";
const LOG: &str = "log";
const LOG_NEWEST: &str = "log.newest";
const SNAPSHOTS: &str = "snapshots";
const RESTORING: &str = "restoring";

/// What an empty directory may hold: an ext4 file system of its own has the first, and a start or a restore
/// that was refused leaves the second.
const NOTHING: [&str; 2] = ["lost+found", LOCK];

/// Version of the files in the directory; another one is refused.
const FORMAT: u32 = 1;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error(
        "the data directory {} is in use{}: a directory serves one process; stop that one, or give \
         --data-dir another directory", dir.display(), by(*process)
    )]
    InUse { dir: PathBuf, process: Option<u32> },
    #[error(
        "the data directory {} belongs to node {found}, not to node {asked}: start with --id \
         {found}, or give --data-dir another directory", dir.display()
    )]
    OtherNode {
        dir: PathBuf,
        found: NodeId,
        asked: NodeId,
    },
    #[error(
        "the data directory {} belongs to cluster {found}, not to cluster {asked}", dir.display()
    )]
    OtherCluster {
        dir: PathBuf,
        found: ClusterId,
        asked: ClusterId,
    },
    #[error(
        "{}: {reason}. The identity of a node cannot be made up again: put the file back if you \
         have it; otherwise remove this node from the cluster, delete the data directory, and add \
         the node again under a new node id", file.display()
    )]
    Damaged { file: PathBuf, reason: String },
    #[error(
        "a restore into the data directory {} was interrupted: delete what is in it, and restore again",
        dir.display()
    )]
    HalfRestored { dir: PathBuf },
    #[error(
        "{} is not empty: a backup is restored into a new directory only, since a node's votes must \
         not be mixed with another's", dir.display()
    )]
    NotEmpty { dir: PathBuf },
    #[error("the data directory {} cannot be used: {reason}", dir.display())]
    Io { dir: PathBuf, reason: io::Error },
}

fn by(process: Option<u32>) -> String {
    process.map_or(String::new(), |id| format!(" by process {id}"))
}

/// What `identity.json` says. Ids are text: they use all 64 bits, which JSON readers may round.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    node: NodeId,
    #[serde(with = "hexadecimal")]
    disk: u64,
    #[serde(with = "hexadecimal_or_null")]
    cluster: Option<u64>,
}

impl Identity {
    fn new(node: NodeId, disk: DiskId) -> Self {
        Identity {
            format: FORMAT,
            node,
            disk: disk.0,
            cluster: None,
        }
    }
}

/// The data directory, locked until this is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

impl DataDirectory {
    /// Takes the directory for `node`, creating it and its identity if it is new; `draw_disk` then
    /// draws its disk id. Blocks for a few fsyncs.
    ///
    /// # Errors
    /// See [`DirectoryError`]; each message says what to do.
    pub fn open(
        path: &Path,
        node: NodeId,
        draw_disk: impl FnOnce() -> DiskId,
    ) -> Result<DataDirectory, DirectoryError> {
        let io_error = |reason| DirectoryError::Io {
            dir: path.to_owned(),
            reason,
        };
        create(path).map_err(io_error)?;
        let lock = lock(path)?;
        refuse_half_restored(path)?;
        let identity = match read_identity(path)? {
            Some(identity) => identity,
            None => {
                refuse_orphan(path).map_err(io_error)??;
                let identity = Identity::new(node, draw_disk());
                write_identity(path, &identity).map_err(io_error)?;
                identity
            }
        };
        if identity.node != node {
            return Err(DirectoryError::OtherNode {
                dir: path.to_owned(),
                found: identity.node,
                asked: node,
            });
        }
        Ok(DataDirectory {
            path: path.to_owned(),
            identity,
            _lock: lock,
        })
    }

    /// Takes an empty directory for `node`, creating it if need be. Nobody else can open it before
    /// [`end_restore`](Self::end_restore), also after a crash. Blocks for a few fsyncs.
    ///
    /// # Errors
    /// See [`DirectoryError`]. A directory that is not empty is left as it is.
    pub fn begin_restore(
        path: &Path,
        node: NodeId,
        disk: DiskId,
    ) -> Result<DataDirectory, DirectoryError> {
        let io_error = |reason| DirectoryError::Io {
            dir: path.to_owned(),
            reason,
        };
        create(path).map_err(io_error)?;
        // Nothing is written, not even a lock, into what is no data directory.
        if !path.join(LOCK).try_exists().map_err(io_error)? {
            refuse_used(path)?;
        }
        let lock = lock(path)?;
        refuse_half_restored(path)?;
        refuse_used(path)?;
        File::create(path.join(RESTORING))
            .and_then(|_| sync_dir(path))
            .map_err(io_error)?;
        let identity = Identity::new(node, disk);
        write_identity(path, &identity).map_err(io_error)?;
        Ok(DataDirectory {
            path: path.to_owned(),
            identity,
            _lock: lock,
        })
    }

    /// The restore is complete: all of it is on disk, and a node may open the directory.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn end_restore(self) -> Result<(), DirectoryError> {
        let ended = sync_dir(&self.path)
            .and_then(|()| fs::remove_file(self.path.join(RESTORING)))
            .and_then(|()| sync_dir(&self.path));
        ended.map_err(|reason| DirectoryError::Io {
            dir: self.path,
            reason,
        })
    }

    pub fn node(&self) -> NodeId {
        self.identity.node
    }

    pub fn disk(&self) -> DiskId {
        DiskId(self.identity.disk)
    }

    /// The cluster this directory belongs to, once it has joined one.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.identity.cluster.map(ClusterId)
    }

    /// Binds the directory to a cluster, for ever; again to the same one changes nothing. Blocks
    /// for two fsyncs.
    ///
    /// # Errors
    /// When it belongs to another cluster, or cannot be written.
    pub fn set_cluster(&mut self, cluster: ClusterId) -> Result<(), DirectoryError> {
        match self.cluster() {
            Some(found) if found == cluster => return Ok(()),
            Some(found) => {
                return Err(DirectoryError::OtherCluster {
                    dir: self.path.clone(),
                    found,
                    asked: cluster,
                });
            }
            None => {}
        }
        let identity = Identity {
            cluster: Some(cluster.0),
            ..self.identity.clone()
        };
        write_identity(&self.path, &identity).map_err(|reason| DirectoryError::Io {
            dir: self.path.clone(),
            reason,
        })?;
        self.identity = identity;
        Ok(())
    }

    /// Where the Raft log is.
    pub fn log_site(&self) -> Site {
        Site {
            dir: self.path.join(LOG),
            newest: self.path.join(LOG_NEWEST),
            disk: self.disk(),
            has_cluster: self.identity.cluster.is_some(),
        }
    }

    /// Where the snapshots are.
    pub fn snapshots_path(&self) -> PathBuf {
        self.path.join(SNAPSHOTS)
    }
}

fn create(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent),
        None => sync_dir(Path::new(".")),
    }
}

fn lock(path: &Path) -> Result<File, DirectoryError> {
    let io_error = |reason| DirectoryError::Io {
        dir: path.to_owned(),
        reason,
    };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK))
        .map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            // The process id only makes the message better.
            let _ = file.read_to_string(&mut process);
            return Err(DirectoryError::InUse {
                dir: path.to_owned(),
                process: process.trim().parse().ok(),
            });
        }
        Err(TryLockError::Error(e)) => return Err(io_error(e)),
    }
    file.set_len(0).map_err(io_error)?;
    writeln!(file, "{}", std::process::id()).map_err(io_error)?;
    Ok(file)
}

fn refuse_half_restored(path: &Path) -> Result<(), DirectoryError> {
    let dir = path.to_owned();
    match path.join(RESTORING).try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => Err(DirectoryError::HalfRestored { dir }),
        Err(reason) => Err(DirectoryError::Io { dir, reason }),
    }
}

/// Only an empty directory takes a backup.
fn refuse_used(path: &Path) -> Result<(), DirectoryError> {
    let dir = path.to_owned();
    let names = fs::read_dir(path).and_then(|files| {
        let names = files.map(|file| Ok(file?.file_name()));
        names.collect::<io::Result<Vec<_>>>()
    });
    match names {
        Ok(names) if names.iter().all(|name| NOTHING.iter().any(|n| name == n)) => Ok(()),
        Ok(_) => Err(DirectoryError::NotEmpty { dir }),
        Err(reason) => Err(DirectoryError::Io { dir, reason }),
    }
}

fn read_identity(path: &Path) -> Result<Option<Identity>, DirectoryError> {
    let file = path.join(IDENTITY);
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(reason) => {
            let dir = path.to_owned();
            return Err(DirectoryError::Io { dir, reason });
        }
    };
    let damaged = |reason| DirectoryError::Damaged { file, reason };
    match serde_json::from_slice::<Identity>(&text) {
        Ok(identity) if identity.format == FORMAT => Ok(Some(identity)),
        Ok(identity) => Err(damaged(format!(
            "its format is {}, this version knows {FORMAT}",
            identity.format
        ))),
        Err(e) => Err(damaged(format!("it cannot be read: {e}"))),
    }
}

/// A directory with a log or snapshots had an identity once. The outer error is the file system's.
fn refuse_orphan(path: &Path) -> io::Result<Result<(), DirectoryError>> {
    let missing = |there| DirectoryError::Damaged {
        file: path.join(IDENTITY),
        reason: format!("the file is missing, though there is {there}"),
    };
    for folder in [LOG, SNAPSHOTS] {
        let mut files = match fs::read_dir(path.join(folder)) {
            Ok(files) => files,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if files.next().is_some() {
            return Ok(Err(missing(format!("something in {folder}"))));
        }
    }
    match path.join(LOG_NEWEST).try_exists()? {
        true => Ok(Err(missing(LOG_NEWEST.to_owned()))),
        false => Ok(Ok(())),
    }
}

fn write_identity(path: &Path, identity: &Identity) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(identity).expect("an identity always encodes");
    text.push(b'\n');
    let incoming = path.join(IDENTITY_INCOMING);
    let mut file = File::create(&incoming)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&incoming, path.join(IDENTITY))?;
    sync_dir(path)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(id: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{id:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

mod hexadecimal_or_null {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(id: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => super::hexadecimal::serialize(id, to),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| u64::from_str_radix(&text, 16).map_err(D::Error::custom))
            .transpose()
    }
}
