//! `mufakat cache …`: one verb for each operation of the cache.

use clap::{Args, Subcommand};

use crate::cli::{Connection, ExitStatus, Failure, length_ms, node_id};
use crate::client::Target;
use crate::ids::{NodeId, Token};
use crate::protocol::Encoding;
use crate::protocol::cache::{
    Audit, Audited, Consistency, Delete, Explain, Explained, Fence, Found, FoundMany, Get, GetMany,
    Increment, Invalidate, Set, Stats, Status, Touch,
};
use crate::protocol::value::Value;

mod change;
mod watch;

use change::{ConditionArgs, RepeatArgs};
use watch::WatchArgs;

#[derive(Args)]
pub(super) struct CacheArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    pub(super) command: CacheCommand,
}

#[derive(Subcommand)]
pub(super) enum CacheCommand {
    Get(GetArgs),
    Set(SetArgs),
    Delete(DeleteArgs),
    Increment(IncrementArgs),
    Touch(TouchArgs),
    Invalidate(InvalidateArgs),
    Explain(ExplainArgs),
    Audit(AuditArgs),
    Stats(StatsArgs),
    Watch(WatchArgs),
}

/// Print the value of a key, or of several. A key without a value ends with exit code 1.
///
/// Examples:
///   mufakat cache get user.42
///   mufakat cache get user.42 user.43 --json
///   mufakat cache get user.42 --claim 5s --wait 5s
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct GetArgs {
    /// A key of 1 to 256 bytes without control characters.
    #[arg(value_name = "KEY")]
    key: String,
    /// More keys, read together with it.
    #[arg(value_name = "KEY", conflicts_with = "claim")]
    more: Vec<String>,
    /// Take whatever the asked node has, also when it may be old.
    #[arg(long)]
    any: bool,
    /// If there is no value, claim the right to load it, for so long; `set --claim` brings it.
    #[arg(long, value_name = "LENGTH", value_parser = length_ms)]
    claim: Option<u64>,
    /// How long to wait for the value if somebody else has claimed it.
    #[arg(long, value_name = "LENGTH", value_parser = length_ms, requires = "claim")]
    wait: Option<u64>,
}

/// Put a value in place of the one before, and print its version.
///
/// Examples:
///   mufakat cache set user.42 Ada
///   mufakat cache set user.42 '{"name":"Ada"}' --as-json --ttl 10m
///   mufakat cache set user.42 Grace --if-version 3-17
///   mufakat cache set page.7 'Hello' --tag author.42 --tag front-page
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct SetArgs {
    #[arg(value_name = "KEY")]
    key: String,
    #[arg(value_name = "VALUE")]
    value: String,
    /// The value is JSON, not text.
    #[arg(long)]
    as_json: bool,
    /// How long it lives.
    #[arg(long, value_name = "LENGTH", value_parser = length_ms)]
    ttl: Option<u64>,
    /// How long it lives without being read.
    #[arg(long, value_name = "LENGTH", value_parser = length_ms)]
    idle: Option<u64>,
    /// A name under which `cache invalidate` finds it; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only while this lock is held under this token, and no newer one has written the key.
    #[arg(long, value_name = "RESOURCE=TOKEN", value_parser = fence)]
    fence: Option<Fence>,
    /// The claim that `get --claim` gave: not if the key was written or invalidated since.
    #[arg(long, value_name = "CLAIM")]
    claim: Option<String>,
    #[command(flatten)]
    condition: ConditionArgs,
    #[command(flatten)]
    repeat: RepeatArgs,
}

/// Remove a value; exit code 1 if there was none.
///
/// Examples:
///   mufakat cache delete user.42
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DeleteArgs {
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    condition: ConditionArgs,
    #[command(flatten)]
    repeat: RepeatArgs,
}

/// Add to an integer and print the sum.
///
/// Examples:
///   mufakat cache increment visits --by 3 --initial 100
///   mufakat cache increment visits --request-id order-42
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct IncrementArgs {
    #[arg(value_name = "KEY")]
    key: String,
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    by: u64,
    /// What to add to when there is no value.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    initial: u64,
    /// How long it lives from now on.
    #[arg(long, value_name = "LENGTH", value_parser = length_ms)]
    ttl: Option<u64>,
    #[command(flatten)]
    repeat: RepeatArgs,
}

/// Let a value live so long from now on.
///
/// Examples:
///   mufakat cache touch user.42 --ttl 10m
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct TouchArgs {
    #[arg(value_name = "KEY")]
    key: String,
    #[arg(long, value_name = "LENGTH", value_parser = length_ms)]
    ttl: u64,
    #[command(flatten)]
    repeat: RepeatArgs,
}

/// Remove the values with a tag, those under a prefix, or all, and print how many there were.
///
/// When it is done, nobody reads a value that was there before.
///
/// Examples:
///   mufakat cache invalidate --tag author.42
///   mufakat cache invalidate --prefix-of session.
#[derive(Args)]
#[command(verbatim_doc_comment)]
#[group(required = true, multiple = false)]
pub(super) struct InvalidateArgs {
    /// Values that were set with this tag.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Keys that begin so.
    #[arg(long, value_name = "TEXT")]
    prefix_of: Option<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
}

/// Print what a node knows of a key: its home, and what the node itself has.
///
/// Examples:
///   mufakat cache explain user.42 --node 2
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ExplainArgs {
    #[arg(value_name = "KEY")]
    key: String,
    /// Ask this node; otherwise any node answers.
    #[arg(long, value_name = "ID", value_parser = node_id)]
    node: Option<NodeId>,
}

/// Compare copies of a node with what their homes have.
///
/// Exit code 1 if any copy is old, which is a defect.
///
/// Examples:
///   mufakat cache audit --node 2 --sample 1000
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct AuditArgs {
    /// How many copies to compare, at most 10,000.
    #[arg(long, value_name = "NUMBER")]
    sample: Option<u64>,
    /// Ask this node; otherwise any node answers.
    #[arg(long, value_name = "ID", value_parser = node_id)]
    node: Option<NodeId>,
}

/// Print what the cache of a node has and has counted.
///
/// Examples:
///   mufakat cache stats --node 1
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct StatsArgs {
    /// Ask this node; otherwise any node answers.
    #[arg(long, value_name = "ID", value_parser = node_id)]
    node: Option<NodeId>,
}

pub(super) async fn run(
    connection: &Connection,
    command: CacheCommand,
) -> Result<ExitStatus, Failure> {
    match command {
        CacheCommand::Get(args) => get(connection, args).await,
        CacheCommand::Set(args) => {
            let value = match args.as_json {
                true => Value::json(&args.value).map_err(invalid)?,
                false => Value::text(args.value),
            };
            let set = Set {
                ttl_ms: args.ttl,
                idle_ms: args.idle,
                condition: args.condition.condition(),
                tags: args.tags,
                fence: args.fence,
                claim: args.claim,
                repeat: args.repeat.repeat(),
                ..Set::new(args.key, value)
            };
            let written = connection
                .client_of_values(Target::Any)
                .await?
                .cache_set(&set)
                .await?;
            connection.print(&written, |written| written.version.clone())?;
            Ok(ExitStatus::Done)
        }
        CacheCommand::Delete(args) => {
            let delete = Delete {
                condition: args.condition.condition(),
                repeat: args.repeat.repeat(),
                ..Delete::new(args.key)
            };
            let client = connection.client(Target::Any).await?;
            let deleted = client.cache_delete(&delete).await?;
            connection.print(&deleted, |deleted| match deleted.existed {
                true => "deleted".to_owned(),
                false => "there was no value".to_owned(),
            })?;
            Ok(of_success(deleted.existed))
        }
        CacheCommand::Increment(args) => {
            let increment = Increment {
                by: args.by,
                initial: args.initial,
                ttl_ms: args.ttl,
                repeat: args.repeat.repeat(),
                ..Increment::new(args.key)
            };
            let client = connection.client(Target::Any).await?;
            let counted = client.cache_increment(&increment).await?;
            connection.print(&counted, |counted| counted.value.to_string())?;
            Ok(ExitStatus::Done)
        }
        CacheCommand::Touch(args) => {
            let touch = Touch {
                key: args.key,
                ttl_ms: args.ttl,
                repeat: args.repeat.repeat(),
                timeout_ms: None,
            };
            let client = connection.client(Target::Any).await?;
            let written = client.cache_touch(&touch).await?;
            connection.print(&written, |written| written.version.clone())?;
            Ok(ExitStatus::Done)
        }
        CacheCommand::Invalidate(args) => {
            let invalidate = Invalidate {
                tag: args.tag,
                prefix: args.prefix_of,
                all: args.all,
                timeout_ms: None,
            };
            let client = connection.client(Target::Any).await?;
            let invalidated = client.cache_invalidate(&invalidate).await?;
            connection.print(&invalidated, |invalidated| invalidated.count.to_string())?;
            Ok(ExitStatus::Done)
        }
        CacheCommand::Explain(args) => {
            let explain = Explain {
                key: args.key,
                timeout_ms: None,
            };
            let client = connection.client(target(args.node)).await?;
            let explained = client.cache_explain(&explain).await?;
            connection.print(&explained, explanation)?;
            Ok(ExitStatus::Done)
        }
        CacheCommand::Watch(args) => {
            watch::run(connection, args).await?;
            Ok(ExitStatus::Done)
        }
        CacheCommand::Audit(args) => {
            let audit = Audit {
                sample: args.sample,
                timeout_ms: None,
            };
            let client = connection.client(target(args.node)).await?;
            let audited = client.cache_audit(&audit).await?;
            connection.print(&audited, report)?;
            Ok(of_success(audited.mismatches == 0))
        }
        CacheCommand::Stats(args) => {
            let stats = connection
                .client(target(args.node))
                .await?
                .cache_stats()
                .await?;
            connection.print(&stats, statistics)?;
            Ok(ExitStatus::Done)
        }
    }
}

async fn get(connection: &Connection, args: GetArgs) -> Result<ExitStatus, Failure> {
    let client = connection.client_of_values(Target::Any).await?;
    let consistency = match args.any {
        true => Consistency::Any,
        false => Consistency::Linearizable,
    };
    if args.more.is_empty() {
        let get = Get {
            consistency,
            claim_ms: args.claim,
            wait_ms: args.wait.unwrap_or(0),
            ..Get::new(args.key)
        };
        let found = client.cache_get(&get).await?.written_for(Encoding::Json);
        connection.print(&found, line)?;
        return Ok(of_success(found.status == Status::Hit));
    }
    let get = GetMany {
        keys: [vec![args.key], args.more].concat(),
        consistency,
        timeout_ms: None,
    };
    let found = client.cache_get_many(&get).await?.results.into_iter();
    let found = FoundMany {
        results: found
            .map(|found| found.written_for(Encoding::Json))
            .collect(),
    };
    connection.print(&found, |found| {
        let lines: Vec<String> = found.results.iter().map(line).collect();
        lines.join("\n")
    })?;
    let all = found
        .results
        .iter()
        .all(|found| found.status == Status::Hit);
    Ok(of_success(all))
}

/// A lock and the token under which it is held.
fn fence(text: &str) -> Result<Fence, String> {
    let parts = text.rsplit_once('=');
    let parts = parts.and_then(|(resource, token)| Some((resource, token.parse().ok()?)));
    let (resource, token) = parts.ok_or("expected RESOURCE=TOKEN, such as orders.42=17")?;
    Ok(Fence {
        resource: resource.to_owned(),
        token: Token(token),
    })
}

fn of_success(is_so: bool) -> ExitStatus {
    match is_so {
        true => ExitStatus::Done,
        false => ExitStatus::Refused,
    }
}

fn target(node: Option<NodeId>) -> Target {
    node.map_or(Target::Any, Target::Node)
}

fn invalid(why: String) -> Failure {
    Failure::Output(std::io::Error::new(std::io::ErrorKind::InvalidInput, why))
}

/// The value as text, or where it is binary its length.
fn line(found: &Found) -> String {
    match found.value() {
        Ok(Some(value)) => match std::str::from_utf8(value.bytes()) {
            Ok(text) => text.to_owned(),
            Err(_) => format!("({} bytes)", value.bytes().len()),
        },
        Ok(None) => match &found.claim {
            Some(claim) => format!("(no value, claim {claim})"),
            None => "(no value)".to_owned(),
        },
        Err(why) => format!("(unreadable: {why})"),
    }
}

fn report(audited: &Audited) -> String {
    let mut report = format!(
        "compared    {}\nmismatches  {}\n",
        audited.compared, audited.mismatches
    );
    for key in &audited.keys {
        report.push_str(&format!("  {key}\n"));
    }
    report
}

fn explanation(explained: &Explained) -> String {
    let node = |node: Option<NodeId>| node.map_or("unknown".to_owned(), |node| node.to_string());
    let version = explained.version.as_deref().unwrap_or("none");
    format!(
        "home     {}, then {}\nhere     {}, version {version}\nsharers  {}\n",
        node(explained.home),
        node(explained.second),
        explained.state,
        explained.sharers,
    )
}

fn statistics(stats: &Stats) -> String {
    let Stats {
        entries,
        bytes,
        bytes_max,
        lease_ms,
        hits,
        misses,
        fills,
        evictions,
        invalidations,
        updates,
        writes,
        promoted,
        store,
    } = stats;
    let store = store.map_or(String::new(), |store| {
        format!(
            "store          {} read, {} written, {} failed\n",
            store.reads, store.writes, store.errors
        )
    });
    format!(
        "entries        {entries}, {bytes} of {bytes_max} bytes\n\
         lease          {lease_ms} ms left\n\
         hits           {} local, {} from a home, {} from the store\n\
         misses         {misses}\n\
         fills          {fills}\n\
         writes         {writes} as a home\n\
         invalidations  {} sent, {} acknowledged, {} sent again\n\
         updates        {updates}\n\
         evictions      {evictions}\n\
         promoted       {promoted}\n\
         {store}",
        hits.local,
        hits.home,
        hits.store,
        invalidations.sent,
        invalidations.acked,
        invalidations.resent,
    )
}
