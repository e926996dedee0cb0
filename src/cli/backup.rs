//! `mufakat backup` writes the replicated state to a file; `mufakat restore` makes a new cluster from it.

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

/// Only its owner may read a backup: it contains names of owners and their metadata.
const MODE: u32 = 0o600;
/// How long a node may take to make a copy.
const MAKE_MS: u64 = 60_000;

/// Copy the replicated state of a running cluster to a file
///
/// The state is locks, waits, sessions, remembered request ids, tokens, and how far topics had come.
/// The copy has everything that was answered before the command began. It is checked before the file
/// gets its name. Messages (in Redis) and cached values (in memory) are not included. Needs the
/// rights of an operator (`admin.cluster.backup`).
///
/// Examples:
///   mufakat backup state.mufakat
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct BackupArgs {
    /// File to create; an existing file is not overwritten.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    pub(super) connection: Connection,
}

/// Make a new cluster of one node from a backup
///
/// Other nodes are added to it later. No node of the old cluster may run any more. Tokens continue
/// far above those of the old cluster. Leases, waits and sessions keep the remaining time they had
/// when the backup was made. Needs no broker.
///
/// Examples:
///   mufakat restore state.mufakat --id 1 --data-dir /var/lib/mufakat
///   mufakat restore state.mufakat --id 1 --data-dir /var/lib/mufakat --adopt-queues
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RestoreArgs {
    /// File that `mufakat backup` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Id of the first node.
    #[arg(long, value_name = "ID", value_parser = node_id)]
    id: NodeId,
    /// Data directory of the node; it must be empty (but for lost+found) or not exist.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Take over the topics of the old cluster in Redis, and lock the old cluster out of them;
    /// without this flag the new cluster has no topics.
    #[arg(long)]
    adopt_queues: bool,
    /// Print one line of JSON, even on a terminal.
    #[arg(long)]
    json: bool,
}

/// The contents of a backup, for printing.
#[derive(Serialize)]
struct Told<'a> {
    file: &'a Path,
    bytes: u64,
    /// The cluster that was copied.
    cluster: Option<String>,
    term: u64,
    index: u64,
    last_token: u64,
    held: u64,
    waiting: u64,
    sessions: u64,
    topics: u64,
    /// The cluster that was made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_cluster: Option<String>,
}

pub(super) async fn back_up(args: &BackupArgs) -> Result<(), Failure> {
    if args.file.exists() {
        return Err(anyhow!("{} already exists", args.file.display()).into());
    }
    let bytes = fetch(&args.connection).await?;
    let contents =
        backup::examine(&bytes).map_err(|why| anyhow!("the received backup is damaged: {why}"))?;
    write(&args.file, &bytes).with_context(|| format!("{}", args.file.display()))?;
    let told = Told::new(&args.file, bytes.len() as u64, &contents);
    args.connection.print(&told, Told::line)
}

/// Fetches all parts of one copy from the node that made it.
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
            let node = first.node;
            return Err(anyhow!("node {node} sent fewer bytes than it announced").into());
        }
        bytes.extend(part);
    }
    Ok(bytes)
}

/// Writes the file; it gets its name only once all of it is on disk.
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
    // Fails if a file of this name was created meanwhile.
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
