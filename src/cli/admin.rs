//! `mufakat admin …`: what operators may do to the locks and sessions of clients.

use clap::{Args, Subcommand};

use crate::cli::lock::token;
use crate::cli::{Connection, Failure, session};
use crate::client::Target;
use crate::ids::Token;
use crate::protocol::admin::{CloseSession, LockReleased, ReleaseLock};

#[derive(Args)]
pub(super) struct AdminArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Subcommand)]
enum AdminCommand {
    /// End holds of locks.
    #[command(subcommand)]
    Lock(AdminLockCommand),
    /// End sessions.
    #[command(subcommand)]
    Session(AdminSessionCommand),
}

#[derive(Subcommand)]
enum AdminLockCommand {
    Release(ReleaseArgs),
}

#[derive(Subcommand)]
enum AdminSessionCommand {
    Close(CloseArgs),
}

/// Release a lock that others hold: every hold, or the one with a token
///
/// The reason goes into the event and the log. The former holder learns of the release at its next
/// renewal. Until then only fencing tokens stop its work.
///
/// Examples:
///   mufakat admin lock release orders.42 --reason hangs
///   mufakat admin lock release orders.42 --token 17 --reason hangs
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct ReleaseArgs {
    /// Name of the lock.
    #[arg(value_name = "RESOURCE")]
    resource: String,
    /// Release only the hold with this token.
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    token: Option<Token>,
    /// Reason, for whoever looks into it later.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Close the session of another client, and end everything it holds and waits for
///
/// Examples:
///   mufakat admin session close 3f7a --reason machine-lost
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct CloseArgs {
    /// Id of the session.
    #[arg(value_name = "SESSION")]
    session: String,
    /// Reason, for whoever looks into it later.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(super) async fn run(args: &AdminArgs) -> Result<(), Failure> {
    let connection = &args.connection;
    let client = connection.client(Target::Any).await?;
    match &args.command {
        AdminCommand::Lock(AdminLockCommand::Release(args)) => {
            let mut request = ReleaseLock::new(&args.resource, &args.reason);
            request.token = args.token;
            connection.print(&client.admin_lock_release(&request).await?, released)
        }
        AdminCommand::Session(AdminSessionCommand::Close(args)) => {
            let request = CloseSession::new(&args.session, &args.reason);
            connection.print(
                &client.admin_session_close(&request).await?,
                session::closed,
            )
        }
    }
}

fn released(released: &LockReleased) -> String {
    let holders = released.holders.iter();
    let lines: Vec<String> = holders
        .map(|holder| format!("released from {}, token {}", holder.owner, holder.token))
        .collect();
    match lines.is_empty() {
        true => "released".to_owned(),
        false => lines.join("\n"),
    }
}
