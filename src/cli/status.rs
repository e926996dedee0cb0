//! `mufakat status` and `mufakat metrics`.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;

use crate::cli::output::{clear_screen, write_out};
use crate::cli::reader::while_read;
use crate::cli::{Connection, ExitStatus, Failure, node_id, target};
use crate::client::Client;
use crate::ids::NodeId;
use crate::protocol::status::{RedisState, Status};

/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How long a node may take to answer; one that takes longer counts as silent.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Show the state of all nodes, or of one
///
/// The first node that answers names the members. A member that does not answer within 2 s is shown
/// as silent.
///
/// Examples:
///   mufakat status
///   mufakat status --watch
///   mufakat status --node 2 --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct StatusArgs {
    /// Show this node in more detail; --json has every field.
    #[arg(long, value_name = "ID", value_parser = node_id)]
    node: Option<NodeId>,
    /// Refresh every second, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    pub(super) connection: Connection,
}

/// Print the metrics of a node in the text format of Prometheus
///
/// Examples:
///   mufakat metrics | grep ^mufakat_
///   mufakat metrics --node 2 --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct MetricsArgs {
    /// Node to ask [default: any].
    #[arg(long, value_name = "ID", value_parser = node_id)]
    node: Option<NodeId>,
    #[command(flatten)]
    pub(super) connection: Connection,
}

/// A status with the id of its node, which on the wire is in the envelope.
#[derive(Serialize)]
struct Printed<'a> {
    node: NodeId,
    #[serde(flatten)]
    status: &'a Status,
}

/// The states of all nodes of a cluster.
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

/// Prints one state. False once nobody reads.
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
    if args.watch && !args.connection.json && std::io::stdout().is_terminal() {
        clear_screen()?;
    }
    Ok(())
}

/// The status of every member, and the members that are silent.
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
        connection.print(&values, |_| unreachable!("--json prints JSON"))?;
    } else {
        write_out(client.metrics().await?.metrics)?;
    }
    Ok(ExitStatus::Done)
}

/// The cluster as a table with a line for each node.
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
        Some(state) => state.durability.name().to_owned(),
    }
}

/// One node in detail.
fn lines(status: &Status) -> String {
    let leader = match status.leader {
        Some(leader) => leader.to_string(),
        None => "unknown".to_owned(),
    };
    let members: Vec<_> = status.members.iter().map(|m| m.node.to_string()).collect();
    let uptime = Duration::from_secs(status.uptime_ms / 1000);
    let mut lines = format!(
        "node     {} ({}), version {}, up {}\n\
         leader   {leader} in term {}\n\
         members  {} in epoch {}\n\
         log      {} committed, {} applied\n\
         locks    {} held, {} waiting\n\
         queue    {} topics in use\n\
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
        status.queue.topics,
        status.cache.entries,
        status.cache.bytes,
        status.lease_ms,
        if status.nats.connected {
            "connected"
        } else {
            "not connected"
        },
    );
    lines.push_str(&redis_lines(status.redis.as_ref()));
    lines
}

/// The state of Redis, and a line for each warning.
fn redis_lines(state: Option<&RedisState>) -> String {
    let Some(state) = state else {
        return "redis    none\n".to_owned();
    };
    let connected = match state.connected {
        true => "connected",
        false => "not connected",
    };
    let source = state.source.name();
    let level = state.durability.name();
    let mut lines = format!("redis    {connected}, durability {level} ({source})\n");
    for warning in &state.warnings {
        // Writing into a string cannot fail.
        let _ = writeln!(lines, "         warning: {warning}");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::status::{Durability, DurabilitySource};

    #[test]
    fn redis_is_shown_with_its_warnings() {
        assert_eq!(redis_lines(None), "redis    none\n");
        let state = RedisState {
            connected: true,
            durability: Durability::Interval,
            source: DurabilitySource::Inspected,
            settings: [].into(),
            warnings: vec!["appendfsync is everysec".to_owned()],
        };
        let expected = "\
redis    connected, durability interval (inspected)
         warning: appendfsync is everysec
";
        assert_eq!(redis_lines(Some(&state)), expected);
    }
}
