//! `mufakat cluster …`: the members of the cluster, and changes of them.

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
    /// List the members as the leader knows them.
    Members,
    Add(AddArgs),
    Remove(RemoveArgs),
    Transfer(TransferArgs),
}

/// Add a node that was started with `mufakat node --id ID --join …`, and give it a vote
///
/// Returns once the log of the node has caught up and it votes. Only one change runs at a time.
/// The command may be repeated.
///
/// Examples:
///   mufakat cluster add 4
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct AddArgs {
    #[command(flatten)]
    change: Change,
}

/// Remove a node for good, running or dead
///
/// A running node hands over, answers its last clients and exits. A dead node is removed after at
/// most 10 s. An id belongs to one data directory: a machine that lost its disk comes back under a
/// new id. The command may be repeated.
///
/// Examples:
///   mufakat cluster remove 4
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct RemoveArgs {
    #[command(flatten)]
    change: Change,
}

/// Move the leadership to a node, or to the one whose log is most complete
///
/// Examples:
///   mufakat cluster transfer
///   mufakat cluster transfer 2
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct TransferArgs {
    /// Id of the node that is to lead.
    #[arg(value_name = "ID", value_parser = node_id)]
    node: Option<NodeId>,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Args)]
struct Change {
    /// Id of the node.
    #[arg(value_name = "ID", value_parser = node_id)]
    node: NodeId,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Args)]
struct Patience {
    /// How long to wait for the change, at most 2m; a change that takes longer goes on.
    #[arg(long, value_name = "DURATION", value_parser = timeout_ms, default_value = "1m")]
    timeout: u64,
}

fn timeout_ms(text: &str) -> Result<u64, String> {
    match length_ms(text)? {
        ms @ 1..=TIMEOUT_MS_MAX => Ok(ms),
        _ => Err("a timeout is between 1ms and 2m".to_owned()),
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
            client
                .add_node(change.node, change.patience.timeout)
                .await?
        }
        ClusterCommand::Remove(RemoveArgs { change }) => {
            client
                .remove_node(change.node, change.patience.timeout)
                .await?
        }
        ClusterCommand::Transfer(args) => {
            let transferred = client.transfer_leadership(args.node, args.patience.timeout);
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
    fn a_timeout_out_of_range_is_refused() {
        assert_eq!(timeout_ms("2m"), Ok(TIMEOUT_MS_MAX));
        for wrong in ["0s", "121s", "10m"] {
            assert!(timeout_ms(wrong).is_err(), "{wrong}");
        }
    }

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
