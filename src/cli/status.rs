//! `mufakat status` and `mufakat metrics`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::cli::{Connection, ExitStatus, Failure, node_id};
use crate::client::Target;
use crate::ids::NodeId;
use crate::protocol::status::{Metrics, Status};

/// Examples:
///   mufakat status
///   mufakat status --node 2 --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// Ask this node; otherwise any node answers.
    #[arg(long, value_name = "ID", value_parser = node_id)]
    node: Option<NodeId>,
}

/// Examples:
///   mufakat metrics | grep ^mufakat_
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

pub(super) async fn status(args: &StatusArgs) -> Result<ExitStatus, Failure> {
    let status = args
        .connection
        .client(target(args.node))
        .await?
        .status()
        .await?;
    let printed = Printed {
        node: status.node,
        status: &status,
    };
    args.connection
        .print(&printed, |printed| lines(printed.status))?;
    Ok(ExitStatus::Done)
}

pub(super) async fn metrics(args: &MetricsArgs) -> Result<ExitStatus, Failure> {
    let Metrics { metrics, .. } = args
        .connection
        .client(target(args.node))
        .await?
        .metrics()
        .await?;
    args.connection.print_text(metrics)?;
    Ok(ExitStatus::Done)
}

fn target(node: Option<NodeId>) -> Target {
    node.map_or(Target::Any, Target::Node)
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
