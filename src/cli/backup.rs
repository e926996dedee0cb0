//! `mufakat backup` and `mufakat restore`: the replicated state in a file, and a new cluster from it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde::Serialize;

use crate::cli::{Connection, Failure, node_id};
use crate::client::Target;
use crate::ids::{ClusterId, DiskId, NodeId};
use crate::protocol::backup::Request;
use crate::raft::backup::{self, Contents};
use crate::raft::restore::{self, Destination};
use crate::raft::state::Topics;

/// Who may read a backup: it names owners and what they attached.
const MODE: u32 = 0o600;
/// How long making a copy may take.
const MAKE_MS: u64 = 60_000;

/// Copy the replicated state of a running cluster into a file: locks, waits, sessions, tokens.
///
/// The copy has everything that was answered before the command began. It is checked before the file gets
/// its name. Messages are in Redis and cached values in memory: neither is in it. Takes the operator's
/// rights (`admin.cluster.backup`).
///
/// Examples:
///   mufakat backup state.mufakat
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// The new file; one that is there is not overwritten.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Make a new cluster of one node from a backup; other nodes are added to it.
///
/// Nothing of the old cluster may run any more. Tokens go on far above those of the old cluster; leases,
/// waits and sessions have left what they had left when the backup was made. Needs no broker.
///
/// Examples:
///   mufakat restore state.mufakat --id 1 --data-dir /var/lib/mufakat
///   mufakat restore state.mufakat --id 1 --data-dir /var/lib/mufakat --adopt-queues
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RestoreArgs {
    /// What `mufakat backup` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The number of the first node.
    #[arg(long, value_name = "ID", value_parser = node_id)]
    id: NodeId,
    /// Its data directory: one that is empty or does not exist.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Own the topics of the old cluster in their Redis from now on; the old one is shut out of them.
    /// Without it the new cluster has no topics.
    #[arg(long)]
    adopt_queues: bool,
    /// Print JSON, one line, also on a terminal.
    #[arg(long)]
    json: bool,
}

/// What a file holds.
#[derive(Serialize)]
struct Told<'a> {
    file: &'a Path,
    bytes: u64,
    /// The cluster that it was made of.
    cluster: Option<String>,
    term: u64,
    index: u64,
    last_token: u64,
    held: u64,
    waiting: u64,
    sessions: u64,
    topics: u64,
    /// The cluster that it became.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_cluster: Option<String>,
}

pub(super) async fn back_up(args: &BackupArgs) -> Result<(), Failure> {
    if args.file.exists() {
        return Err(anyhow!("{} is there already", args.file.display()).into());
    }
    let bytes = fetch(&args.connection).await?;
    let contents = backup::examine(&bytes).map_err(|why| anyhow!("what came is damaged: {why}"))?;
    write(&args.file, &bytes).with_context(|| format!("{}", args.file.display()))?;
    let told = Told::new(&args.file, bytes.len() as u64, &contents);
    args.connection.print(&told, Told::line)
}

/// All parts of a copy, each from the node that made it.
async fn fetch(connection: &Connection) -> Result<Vec<u8>, Failure> {
    let client = connection.client(Target::Any).await?;
    let begin = Request {
        timeout_ms: Some(MAKE_MS),
        ..Request::default()
    };
    let first = client.backup_part(&begin).await?;
    let client = connection.client(Target::Node(first.node)).await?;
    let mut bytes = first.data().map_err(anyhow::Error::msg)?;
    while (bytes.len() as u64) < first.size {
        let next = Request {
            backup: Some(first.backup.clone()),
            offset: bytes.len() as u64,
            timeout_ms: None,
        };
        let part = client.backup_part(&next).await?.data();
        let part = part.map_err(anyhow::Error::msg)?;
        if part.is_empty() {
            return Err(anyhow!("node {} has less than it said", first.node).into());
        }
        bytes.extend(part);
    }
    Ok(bytes)
}

/// The file has its name only once all of it is on disk.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = file.with_file_name(name);
    let mut out = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(&part)?;
    // One that an interrupted backup has left keeps its mode.
    out.set_permissions(Permissions::from_mode(MODE))?;
    out.write_all(bytes)?;
    out.sync_all()?;
    // Fails if a file of this name has come meanwhile.
    fs::hard_link(&part, file)?;
    fs::remove_file(&part)?;
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

pub(super) async fn restore(args: &RestoreArgs) -> Result<()> {
    let destination = Destination {
        data_dir: &args.data_dir,
        node: args.id,
        disk: DiskId(rand::random()),
        topics: match args.adopt_queues {
            true => Topics::Adopt,
            false => Topics::Leave,
        },
    };
    let (cluster, contents) = restore::restore(&args.file, &destination).await?;
    let bytes = fs::metadata(&args.file).map_or(0, |file| file.len());
    let told = Told {
        new_cluster: Some(cluster.to_string()),
        ..Told::new(&args.file, bytes, &contents)
    };
    super::print(args.json, &told, |told| {
        format!(
            "{}\nrestored into {} as cluster {}\n\
             start it:         mufakat node --id {id} --peers {id} --data-dir {dir} …\n\
             add the others:   mufakat node --id ID --join … and mufakat cluster add ID",
            told.line(),
            args.data_dir.display(),
            cluster,
            id = args.id,
            dir = args.data_dir.display(),
        )
    })?;
    Ok(())
}

impl Told<'_> {
    fn new<'a>(file: &'a Path, bytes: u64, contents: &Contents) -> Told<'a> {
        Told {
            file,
            bytes,
            cluster: contents.cluster.as_ref().map(ClusterId::to_string),
            term: contents.term,
            index: contents.index,
            last_token: contents.last_token.0,
            held: contents.held,
            waiting: contents.waiting,
            sessions: contents.sessions,
            topics: contents.topics,
            new_cluster: None,
        }
    }

    fn line(&self) -> String {
        format!(
            "{}: {} bytes of cluster {}, log up to {} in term {}: held {}, waiting {}, sessions {}, \
             tokens up to {}",
            self.file.display(),
            self.bytes,
            self.cluster.as_deref().unwrap_or("none"),
            self.index,
            self.term,
            self.held,
            self.waiting,
            self.sessions,
            self.last_token,
        )
    }
}
