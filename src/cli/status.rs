//! `mufakat status` and `mufakat metrics`.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;

use crate::cli::reader::while_read;
use crate::cli::{Connection, ExitStatus, Failure, node_id};
use crate::client::{Client, Target};
use crate::ids::NodeId;
use crate::protocol::status::{RedisState, Status};

/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How long a node may take to tell its status; one that takes longer counts as silent.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Every node of the cluster in a table, or all that one node says about itself.
///
/// The nodes are those that whoever answers first knows of; who does not answer within 2 s is silent.
///
/// Examples:
///   mufakat status
///   mufakat status --watch
///   mufakat status --node 2 --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// Only this node, with all that it says.
    #[arg(long, value_name = "ID", value_parser = node_id)]
    node: Option<NodeId>,
    /// Look again each second, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

/// Examples:
///   mufakat metrics | grep ^mufakat_
///   mufakat metrics --node 2 --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct MetricsArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// Ask this node; otherwise any node answers.
    #[arg(long, value_name = "ID", value_parser = node_id)]
    node: Option<NodeId>,
}

/// A status with the name of its node, which on the wire stands in the envelope.
#[derive(Serialize)]
struct Printed<'a> {
    node: NodeId,
    #[serde(flatten)]
    status: &'a Status,
}

/// What the nodes of a cluster say.
#[derive(Serialize)]
struct Cluster<'a> {
    nodes: Vec<Printed<'a>>,
    /// Members that did not answer.
    silent: Vec<NodeId>,
}

pub(super) async fn status(args: &StatusArgs) -> Result<ExitStatus, Failure> {
    let connection = &args.connection;
    let client = connection.client(target(args.node)).await?;
    if !args.watch {
        show(args, &client).await?;
        return Ok(ExitStatus::Done);
    }
    let watched = while_read(async {
        loop {
            match show(args, &client).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // They may be back at the next look.
                Err(failure) if failure.exit_status() == ExitStatus::Unavailable => {
                    failure.report(connection);
                }
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    });
    watched.await.map(|()| ExitStatus::Done)
}

/// False when nobody reads.
async fn show(args: &StatusArgs, client: &Client) -> Result<bool, Failure> {
    let connection = &args.connection;
    if args.node.is_some() {
        let status = client.status().await?;
        clear(args)?;
        return connection.print_to_reader(&printed(&status), |printed| lines(printed.status));
    }
    let (statuses, silent) = ask_all(client).await?;
    clear(args)?;
    let nodes = statuses.iter().map(printed).collect();
    connection.print_to_reader(&Cluster { nodes, silent }, table)
}

/// On a terminal a look takes the place of the one before.
fn clear(args: &StatusArgs) -> Result<(), Failure> {
    let connection = &args.connection;
    match args.watch && !connection.json && std::io::stdout().is_terminal() {
        true => connection.print_text(CLEAR.to_owned()),
        false => Ok(()),
    }
}

/// Every member's status, by node, and who is silent.
async fn ask_all(client: &Client) -> Result<(Vec<Status>, Vec<NodeId>), Failure> {
    let first = client.status().await?;
    let members: Vec<NodeId> = first.members.iter().map(|member| member.node).collect();
    let asked = members.iter().map(|node| async {
        let answer = tokio::time::timeout(ANSWER_MAX, client.status_of(*node)).await;
        answer.ok().and_then(Result::ok).ok_or(*node)
    });
    let (mut statuses, mut silent) = (Vec::new(), Vec::new());
    for answer in join_all(asked).await {
        match answer {
            Ok(status) => statuses.push(status),
            Err(node) => silent.push(node),
        }
    }
    Ok((statuses, silent))
}

fn printed(status: &Status) -> Printed<'_> {
    Printed {
        node: status.node,
        status,
    }
}

pub(super) async fn metrics(args: &MetricsArgs) -> Result<ExitStatus, Failure> {
    let connection = &args.connection;
    let client = connection.client(target(args.node)).await?;
    if connection.json {
        let values = client.metric_values().await?;
        connection.print(&values, |_| unreachable!("it is asked for JSON"))?;
    } else {
        connection.print_text(client.metrics().await?.metrics)?;
    }
    Ok(ExitStatus::Done)
}

fn target(node: Option<NodeId>) -> Target {
    node.map_or(Target::Any, Target::Node)
}

/// The cluster, a line for each node.
fn table(cluster: &Cluster<'_>) -> String {
    let statuses = || cluster.nodes.iter().map(|printed| printed.status);
    let committed = statuses()
        .map(|status| status.commit_index)
        .max()
        .unwrap_or(0);
    let mut out = format!(
        "{:>6}  {:<9}  {:>6}  {:>9}  {:>6}  {:>10}  {:>8}  {:>7}  {:<4}  {}\n",
        "NODE", "ROLE", "TERM", "APPLIED", "LAG", "UP", "LEASE", "LOCKS", "NATS", "REDIS"
    );
    for status in statuses() {
        let up = humantime::format_duration(Duration::from_secs(status.uptime_ms / 1000));
        let up: Vec<String> = up
            .to_string()
            .split(' ')
            .take(2)
            .map(str::to_owned)
            .collect();
        let _ = writeln!(
            out,
            "{:>6}  {:<9}  {:>6}  {:>9}  {:>6}  {:>10}  {:>5} ms  {:>7}  {:<4}  {}",
            status.node,
            status.role.name(),
            status.term,
            status.applied_index,
            committed.saturating_sub(status.applied_index),
            up.join(" "),
            status.lease_ms,
            status.locks.held,
            if status.nats.connected { "yes" } else { "no" },
            redis(status.redis.as_ref()),
        );
    }
    for node in &cluster.silent {
        let _ = writeln!(out, "{node:>6}  silent");
    }
    out
}

fn redis(state: Option<&RedisState>) -> String {
    match state {
        None => "none".to_owned(),
        Some(state) if !state.connected => "not connected".to_owned(),
        Some(state) => {
            let level = serde_json::to_value(state.durability).expect("a level is text");
            level.as_str().unwrap_or_default().to_owned()
        }
    }
}
fn lines(status: &Status) -> String {
    let leader = match status.leader {
        Some(leader) => leader.to_string(),
        None => "unknown".to_owned(),
    };
    let members: Vec<_> = status.members.iter().map(|m| m.node.to_string()).collect();
    let uptime = Duration::from_secs(status.uptime_ms / 1000);
    format!(
        "node     {} ({}), version {}, up {}\n\
         leader   {leader} in term {}\n\
         members  {} in epoch {}\n\
         log      {} committed, {} applied\n\
         locks    {} held, {} waiting\n\
         cache    {} entries, {} bytes, lease {} ms\n\
         nats     {}\n",
        status.node,
        status.role.name(),
        status.version,
        humantime::format_duration(uptime),
        status.term,
        members.join(", "),
        status.epoch,
        status.commit_index,
        status.applied_index,
        status.locks.held,
        status.locks.waiting,
        status.cache.entries,
        status.cache.bytes,
        status.lease_ms,
        if status.nats.connected {
            "connected"
        } else {
            "not connected"
        },
    )
}
