//! `mufakat lock …`: one verb for each operation of the lock service.

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::output::write_out;
use crate::cli::run::{self, RunArgs};
use crate::cli::{Connection, ExitStatus, Failure, length_ms};
use crate::client::Target;
use crate::ids::Token;
use crate::protocol::lock::{
    Acquire, Cancel, Check, Consistency, Convert, DeadlockPolicy, Deadlocks, Get, Graph, List,
    Mode, RESOURCES_MAX, Release, Renew, TTL_MS_DEFAULT, Wanted,
};
use crate::protocol::meta::Meta;

mod graph;
pub(super) mod lines;
mod watch;

use watch::WatchArgs;

#[derive(Args)]
pub(super) struct LockArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    pub(super) command: LockCommand,
}

#[derive(Subcommand)]
pub(super) enum LockCommand {
    Acquire(AcquireArgs),
    Release(ReleaseArgs),
    Renew(RenewArgs),
    Convert(ConvertArgs),
    Check(CheckArgs),
    Get(GetArgs),
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    Cancel(CancelArgs),
    Graph(GraphArgs),
    Deadlocks(DeadlocksArgs),
    Watch(WatchArgs),
    Run(RunArgs),
}

/// Acquire a lock and print its token
///
/// The lock ends with its lease unless it is renewed. Several locks are acquired together: all of
/// them or none.
///
/// Examples:
///   mufakat lock acquire orders.42
///   mufakat lock acquire orders.42 --wait 10s --ttl 1m --owner worker-7
///   mufakat lock acquire orders.42 stock.7 --wait 10s
///   mufakat lock acquire catalogue --shared --meta '{"job":"report"}'
///   mufakat lock acquire printers --permits 1 --limit 3
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct AcquireArgs {
    #[command(flatten)]
    pub(super) what: WantedArgs,
    /// Id of this request; a repeat with the same id attaches to it [default: made up].
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// The arguments that `acquire` and `run` share.
#[derive(Args)]
pub(super) struct WantedArgs {
    /// Names of the locks, each 1 to 256 bytes without control characters.
    #[arg(value_name = "RESOURCE", required = true, num_args = 1..=RESOURCES_MAX)]
    resources: Vec<String>,
    /// exclusive: one holder; shared: any number; permit: N of --limit [default: exclusive].
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// Short for `--mode shared`.
    #[arg(long, conflicts_with_all = ["mode", "permits"])]
    shared: bool,
    /// Number of permits to take; implies `--mode permit`.
    #[arg(long, value_name = "N", requires = "limit")]
    permits: Option<u32>,
    /// Number of permits that exist; all requests for the lock must agree on it.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Name of the owner; one per thread of control [default: made up].
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Session to hold the lock with: the lock ends with it at the latest (see `session open`).
    #[arg(long, value_name = "SESSION")]
    pub(super) session: Option<String>,
    /// Length of the lease, 100ms to 1day [default: 30s, or the length of the session].
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    ttl: Option<u64>,
    /// How long to wait for other holders, without an upper limit; 0s: try once.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = length_ms)]
    wait: u64,
    /// JSON object of at most 1 KiB, shown to everyone who inspects the lock.
    #[arg(long, value_name = "JSON", value_parser = meta)]
    meta: Option<Meta>,
    /// Which request fails if waiting would close a cycle of waits.
    #[arg(long, value_enum, value_name = "POLICY", default_value = "requester")]
    on_deadlock: PolicyArg,
}

impl WantedArgs {
    pub(super) fn request(self) -> Acquire {
        let mode = match self.mode {
            Some(mode) => mode.into(),
            None if self.shared => Mode::Shared,
            None if self.permits.is_some() => Mode::Permit,
            None => Mode::Exclusive,
        };
        let (resource, resources) = match <[String; 1]>::try_from(self.resources) {
            Ok([sole]) => (sole, Vec::new()),
            Err(several) => (String::new(), several),
        };
        let wanted = |resource| Wanted {
            resource,
            ..Wanted::default()
        };
        Acquire {
            resources: resources.into_iter().map(wanted).collect(),
            mode,
            permits: self.permits,
            limit: self.limit,
            owner: self.owner,
            ttl_ms: match (self.ttl, &self.session) {
                (None, None) => Some(TTL_MS_DEFAULT),
                (ttl, _) => ttl,
            },
            session: self.session,
            wait_ms: self.wait,
            on_deadlock: match self.on_deadlock {
                PolicyArg::Requester => DeadlockPolicy::Requester,
                PolicyArg::Youngest => DeadlockPolicy::Youngest,
            },
            meta: self.meta,
            ..Acquire::new(resource)
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    Exclusive,
    Shared,
    Permit,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Mode {
        match mode {
            ModeArg::Exclusive => Mode::Exclusive,
            ModeArg::Shared => Mode::Shared,
            ModeArg::Permit => Mode::Permit,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum PolicyArg {
    /// This request fails.
    Requester,
    /// The request of the youngest owner in the cycle fails.
    Youngest,
}

/// Release a lock, or with `--set` all locks that were taken together
///
/// Examples:
///   mufakat lock release orders.42 17
///   mufakat lock release --set 18
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    hold: HoldOrSetArgs,
}

/// Renew the lease of a lock, or with `--set` of locks taken together
///
/// Examples:
///   mufakat lock renew orders.42 17
///   mufakat lock renew orders.42 17 --ttl 5m
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RenewArgs {
    #[command(flatten)]
    hold: HoldOrSetArgs,
    /// New length of the lease, 100ms to 1day [default: unchanged].
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    ttl: Option<u64>,
}

/// Change the mode of a held lock in one step, and print the new token
///
/// An exclusive lock becomes shared at once. A shared lock becomes exclusive when no other holder is
/// left, before all waiters. If two holders ask for exclusive, the second is refused, since both
/// would wait forever.
///
/// Examples:
///   mufakat lock convert orders.42 17 --to shared
///   mufakat lock convert orders.42 17 --to exclusive --wait 10s
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ConvertArgs {
    #[command(flatten)]
    hold: HoldArgs,
    /// The mode to change to.
    #[arg(long, value_enum, value_name = "MODE")]
    to: ConvertMode,
    /// How long to wait for other holders, at most 60s; 0s: try once.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = length_ms)]
    wait: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum ConvertMode {
    Exclusive,
    Shared,
}

/// Check whether a token belongs to a live hold of a lock
///
/// Exits with 1 if it does not.
///
/// Examples:
///   mufakat lock check orders.42 17
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    hold: HoldArgs,
}

/// One hold.
#[derive(Args)]
struct HoldArgs {
    /// Name of the lock.
    #[arg(value_name = "RESOURCE")]
    resource: String,
    /// Token that `acquire` printed.
    #[arg(value_name = "TOKEN", env = "MUFAKAT_TOKEN", hide_env_values = true)]
    #[arg(value_parser = token)]
    token: Token,
}

/// One hold, of one lock or of several that were taken together.
#[derive(Args)]
struct HoldOrSetArgs {
    /// Name of the lock.
    #[arg(value_name = "RESOURCE", required_unless_present = "set")]
    resource: Option<String>,
    /// Token that `acquire` printed.
    #[arg(value_name = "TOKEN", env = "MUFAKAT_TOKEN", hide_env_values = true)]
    #[arg(value_parser = token, required_unless_present = "set")]
    token: Option<Token>,
    /// Token of locks that were taken together, instead of RESOURCE and TOKEN.
    #[arg(long, value_name = "TOKEN", value_parser = token, conflicts_with = "resource")]
    set: Option<Token>,
}

impl HoldOrSetArgs {
    fn token(&self) -> Token {
        let token = self.set.or(self.token);
        token.expect("one of them is required")
    }
}

/// Show who holds a lock and who waits for it
///
/// Examples:
///   mufakat lock get orders.42
///   mufakat lock get orders.42 --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct GetArgs {
    /// Name of the lock.
    #[arg(value_name = "RESOURCE")]
    resource: String,
    /// Read the answering node's own copy, which may be stale.
    #[arg(long)]
    stale: bool,
}

/// List locks that are held or waited for, by name
///
/// Examples:
///   mufakat lock ls
///   mufakat lock ls orders. --limit 20
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct LsArgs {
    /// Only locks whose names start with this.
    #[arg(value_name = "PREFIX")]
    beginning: Option<String>,
    #[command(flatten)]
    page: PageArgs,
}

/// Which part of a long list.
#[derive(Args)]
pub(super) struct PageArgs {
    /// Maximum number of results, 1 to 1000 [default: 100].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(super) limit: Option<u64>,
    /// Continue after the previous page, which printed this cursor.
    #[arg(long, value_name = "CURSOR")]
    pub(super) cursor: Option<String>,
}

impl PageArgs {
    pub(super) fn request(&self) -> List {
        List {
            limit: self.limit,
            cursor: self.cursor.clone(),
            ..List::default()
        }
    }
}

/// End the wait of a request for a lock
///
/// Exits with 1 if no such request was waiting.
///
/// Examples:
///   mufakat lock cancel orders.42 --owner worker-7
///   mufakat lock cancel orders.42 --request-id 5f0c
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CancelArgs {
    /// Name of the lock.
    #[arg(value_name = "RESOURCE")]
    resource: String,
    /// Owner whose wait is to end.
    #[arg(long, value_name = "NAME", required_unless_present = "request_id")]
    owner: Option<String>,
    /// Id of the request whose wait is to end.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Only if the request named this session.
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
}

/// Show who waits for whom
///
/// Examples:
///   mufakat lock graph
///   mufakat lock graph --dot | dot -Tsvg -o waits.svg
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct GraphArgs {
    /// Print the graph for Graphviz; a dashed edge is a wait for an earlier waiter.
    #[arg(long)]
    dot: bool,
}

/// Show recent deadlocks, newest first
///
/// Examples:
///   mufakat lock deadlocks
///   mufakat lock deadlocks --limit 1 --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DeadlocksArgs {
    /// Maximum number of results, 1 to 1000 [default: 100].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: Option<u64>,
}

pub(super) async fn run(
    connection: &Connection,
    command: LockCommand,
) -> Result<ExitStatus, Failure> {
    // A command that sends one request gains nothing from learning who leads.
    let client = match command {
        LockCommand::Run(args) => return run::run(connection, args).await,
        LockCommand::Watch(args) => {
            watch::run(connection, args).await?;
            return Ok(ExitStatus::Done);
        }
        _ => connection.client(Target::Any).await?,
    };
    match command {
        LockCommand::Acquire(args) => {
            let mut request = args.what.request();
            request.request_id = args.request_id;
            connection.print(&client.acquire(&request).await?, lines::acquired)?;
        }
        LockCommand::Release(ReleaseArgs { hold }) => {
            let request = Release {
                token: hold.token(),
                resource: hold.resource,
                in_subject: false,
                timeout_ms: None,
            };
            connection.print(&client.release(&request).await?, |_| "released".to_owned())?;
        }
        LockCommand::Renew(RenewArgs { hold, ttl }) => {
            let request = Renew {
                token: hold.token(),
                resource: hold.resource,
                in_subject: false,
                ttl_ms: ttl,
                timeout_ms: None,
            };
            connection.print(&client.renew(&request).await?, |renewed| {
                format!(
                    "renewed, expires in {}",
                    lines::length(renewed.expires_in_ms)
                )
            })?;
        }
        LockCommand::Convert(ConvertArgs { hold, to, wait }) => {
            let mode = match to {
                ConvertMode::Exclusive => Mode::Exclusive,
                ConvertMode::Shared => Mode::Shared,
            };
            let mut request = Convert::new(hold.resource, hold.token, mode);
            request.wait_ms = wait;
            connection.print(&client.convert(&request).await?, lines::acquired)?;
        }
        LockCommand::Check(CheckArgs { hold }) => {
            let checked = client.check(&Check::new(hold.resource, hold.token)).await?;
            connection.print(&checked, lines::checked)?;
            return Ok(ExitStatus::of_finding(checked.valid));
        }
        LockCommand::Get(args) => {
            let mut request = Get::new(args.resource);
            if args.stale {
                request.consistency = Consistency::Stale;
            }
            connection.print(&client.get(&request).await?, lines::view)?;
        }
        LockCommand::Ls(args) => {
            let mut request = args.page.request();
            request.prefix = args.beginning;
            connection.print(&client.list(&request).await?, lines::listing)?;
        }
        LockCommand::Cancel(args) => {
            let request = Cancel {
                resource: args.resource,
                owner: args.owner,
                request_id: args.request_id,
                session: args.session,
                timeout_ms: None,
            };
            let cancelled = client.cancel(&request).await?;
            connection.print(&cancelled, lines::cancelled)?;
            return Ok(ExitStatus::of_finding(cancelled.cancelled));
        }
        LockCommand::Graph(args) => {
            let found = client.graph(&Graph::default()).await?;
            match args.dot {
                true => drop(write_out(graph::dot(&found))?),
                false => connection.print(&found, graph::lines)?,
            }
        }
        LockCommand::Deadlocks(args) => {
            let request = Deadlocks {
                limit: args.limit,
                timeout_ms: None,
            };
            connection.print(&client.deadlocks(&request).await?, graph::deadlocks)?;
        }
        LockCommand::Run(_) | LockCommand::Watch(_) => unreachable!("these returned above"),
    }
    Ok(ExitStatus::Done)
}

pub(super) fn meta(text: &str) -> Result<Meta, String> {
    Meta::from_json(text).map_err(|error| format!("not a JSON object: {error}"))
}

pub(super) fn token(text: &str) -> Result<Token, String> {
    text.parse()
        .map(Token)
        .map_err(|_| "a token is a whole number".to_owned())
}
