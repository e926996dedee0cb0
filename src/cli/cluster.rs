//! `mufakat cluster …`: who belongs, and changes of it.

use std::fmt::Write;

use clap::{Args, Subcommand};

use crate::cli::{Connection, Failure, length_ms, node_id};
use crate::client::Target;
use crate::ids::NodeId;
use crate::protocol::TIMEOUT_MS_MAX;
use crate::protocol::cluster::{Changed, Members};

#[derive(Args)]
pub(super) struct ClusterArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Who belongs, as the leader knows it.
    Members,
    Add(AddArgs),
    Remove(RemoveArgs),
    Transfer(TransferArgs),
}

/// Give a node a vote that was started with `mufakat node --id ID --join …`.
///
/// Returns once its log has caught up and it votes. One change at a time; may be repeated.
///
/// Examples:
///   mufakat cluster add 4
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct AddArgs {
    #[command(flatten)]
    change: Change,
}

/// Remove a node: one that runs hands over, answers its last clients and ends; a dead one is let go.
///
/// Its number stays with its data directory: a machine that lost its disk comes back under a new one.
///
/// Examples:
///   mufakat cluster remove 4
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct RemoveArgs {
    #[command(flatten)]
    change: Change,
}

/// Have another node lead: the named one, or the one whose log is furthest.
///
/// Examples:
///   mufakat cluster transfer
///   mufakat cluster transfer 2
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct TransferArgs {
    /// Who shall lead.
    #[arg(value_name = "ID", value_parser = node_id)]
    node: Option<NodeId>,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Args)]
struct Change {
    /// The node's number.
    #[arg(value_name = "ID", value_parser = node_id)]
    node: NodeId,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Args)]
struct Patience {
    /// How long to wait for it, at most 2m; a change that takes longer goes on.
    #[arg(long, value_name = "TIME", value_parser = length_ms, default_value = "1m")]
    timeout: u64,
}

impl Patience {
    fn ms(&self) -> u64 {
        self.timeout.clamp(1, TIMEOUT_MS_MAX)
    }
}

pub(super) async fn run(args: &ClusterArgs) -> Result<(), Failure> {
    let connection = &args.connection;
    let client = connection.client(Target::Any).await?;
    let changed = match &args.command {
        ClusterCommand::Members => {
            return connection.print(&client.members().await?, members);
        }
        ClusterCommand::Add(AddArgs { change }) => {
            client.add_node(change.node, change.patience.ms()).await?
        }
        ClusterCommand::Remove(RemoveArgs { change }) => {
            client
                .remove_node(change.node, change.patience.ms())
                .await?
        }
        ClusterCommand::Transfer(args) => {
            let transferred = client.transfer_leadership(args.node, args.patience.ms());
            transferred.await?
        }
    };
    connection.print(&changed, after)
}

fn after(changed: &Changed) -> String {
    let voters: Vec<String> = changed.voters.iter().map(NodeId::to_string).collect();
    format!("leader {}, voters {}", changed.leader, voters.join(", "))
}

fn members(members: &Members) -> String {
    let mut out = format!(
        "leader {} in term {}, epoch {}, log up to {}{}\n\n{:>6}  {:<8}  {:<5}  {:>8}  {:>7}  {}\n",
        members.leader,
        members.term,
        members.epoch,
        members.last_log_index,
        if members.changing { ", changing" } else { "" },
        "NODE",
        "ROLE",
        "VOTER",
        "LAG",
        "SILENT",
        "DISK",
    );
    for member in &members.members {
        let lag = member
            .matched_index
            .map(|index| members.last_log_index.saturating_sub(index).to_string());
        let silent = member.silent_ms.map(|ms| format!("{ms} ms"));
        let unknown = || "never".to_owned();
        let _ = writeln!(
            out,
            "{:>6}  {:<8}  {:<5}  {:>8}  {:>7}  {}",
            member.node,
            member.role.name(),
            if member.voter { "yes" } else { "no" },
            lag.unwrap_or_else(|| "unknown".to_owned()),
            silent.unwrap_or_else(unknown),
            member.disk,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;
    use crate::protocol::cluster::Member;
    use crate::protocol::status::Role;

    #[test]
    fn members_are_a_table() {
        let member = |node, role, matched_index, silent_ms| Member {
            node: NodeId(node),
            role,
            voter: role != Role::Learner,
            incarnation: None,
            disk: format!("{node:016x}"),
            matched_index,
            silent_ms,
        };
        let table = members(&Members {
            leader: NodeId(1),
            term: 3,
            epoch: Epoch(7),
            last_log_index: 1_000,
            changing: false,
            members: vec![
                member(1, Role::Leader, Some(1_000), Some(0)),
                member(4, Role::Learner, None, None),
            ],
        });
        let expected = "\
leader 1 in term 3, epoch 7, log up to 1000

  NODE  ROLE      VOTER       LAG   SILENT  DISK
     1  leader    yes           0     0 ms  0000000000000001
     4  learner   no      unknown    never  0000000000000004
";
        assert_eq!(table, expected);
    }
}
