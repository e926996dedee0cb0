//! `mufakat cache …`: one verb for each operation of the cache.

use clap::{Args, Subcommand};

use crate::cli::{Connection, ExitStatus, Failure, length_ms, node_id, target};
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

/// Print the value of a key, or of several
///
/// Exits with 1 if any key has no value.
///
/// Examples:
///   mufakat cache get user.42
///   mufakat cache get user.42 user.43 --json
///   mufakat cache get user.42 --claim 5s --wait 5s
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct GetArgs {
    /// Key of 1 to 256 bytes without control characters.
    #[arg(value_name = "KEY")]
    key: String,
    /// More keys to read together with the first one.
    #[arg(value_name = "KEY", conflicts_with = "claim")]
    more: Vec<String>,
    /// Accept the copy of the node that answers, which may be stale.
    #[arg(long)]
    any: bool,
    /// If there is no value, claim the right to load it for this long; see `set --claim`.
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    claim: Option<u64>,
    /// How long to wait for the value if another client has claimed it.
    #[arg(long, value_name = "DURATION", value_parser = length_ms, requires = "claim")]
    wait: Option<u64>,
}

/// Set the value of a key, and print its version
///
/// Examples:
///   mufakat cache set user.42 Ada
///   mufakat cache set user.42 '{"name":"Ada"}' --as-json --ttl 10m
///   mufakat cache set user.42 Grace --if-version 3-17
///   mufakat cache set page.7 'Hello' --tag author.42 --tag front-page
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct SetArgs {
    /// Key of the value.
    #[arg(value_name = "KEY")]
    key: String,
    /// The value: text, or JSON with --as-json.
    #[arg(value_name = "VALUE")]
    value: String,
    /// Read VALUE as JSON.
    #[arg(long)]
    as_json: bool,
    /// Lifetime of the value [default: until it is evicted].
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    ttl: Option<u64>,
    /// How long the value lives without being read.
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    idle: Option<u64>,
    /// Tag by which `cache invalidate` finds the value; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Write only if this token holds this lock and no newer token has written the key.
    #[arg(long, value_name = "RESOURCE=TOKEN", value_parser = fence)]
    fence: Option<Fence>,
    /// Claim from `get --claim`; refused if the key has changed since.
    #[arg(long, value_name = "CLAIM")]
    claim: Option<String>,
    #[command(flatten)]
    condition: ConditionArgs,
    #[command(flatten)]
    repeat: RepeatArgs,
}

/// Delete the value of a key
///
/// Exits with 1 if there was none.
///
/// Examples:
///   mufakat cache delete user.42
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DeleteArgs {
    /// Key of the value.
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    condition: ConditionArgs,
    #[command(flatten)]
    repeat: RepeatArgs,
}

/// Add to an integer, and print the sum
///
/// Examples:
///   mufakat cache increment visits --by 3 --initial 100
///   mufakat cache increment visits --request-id order-42
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct IncrementArgs {
    /// Key of the value.
    #[arg(value_name = "KEY")]
    key: String,
    /// How much to add.
    #[arg(long, value_name = "N", default_value_t = 1)]
    by: u64,
    /// What to add to if there is no value.
    #[arg(long, value_name = "N", default_value_t = 0)]
    initial: u64,
    /// Lifetime from now on [default: unchanged].
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    ttl: Option<u64>,
    #[command(flatten)]
    repeat: RepeatArgs,
}

/// Set the remaining lifetime of a value
///
/// Examples:
///   mufakat cache touch user.42 --ttl 10m
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct TouchArgs {
    /// Key of the value.
    #[arg(value_name = "KEY")]
    key: String,
    /// Lifetime from now on.
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    ttl: u64,
    #[command(flatten)]
    repeat: RepeatArgs,
}

/// Remove the values with a tag, under a prefix, or all, and print their number
///
/// Once the command returns, no node serves a value from before it.
///
/// Examples:
///   mufakat cache invalidate --tag author.42
///   mufakat cache invalidate --prefix-of session.
#[derive(Args)]
#[command(verbatim_doc_comment)]
#[group(required = true, multiple = false)]
pub(super) struct InvalidateArgs {
    /// Remove the values that were set with this tag.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Remove the values whose keys start with this.
    #[arg(long, value_name = "PREFIX")]
    prefix_of: Option<String>,
    /// Remove all values.
    #[arg(long)]
    all: bool,
}

/// Show which node is the home of a key, and what one node has of it
///
/// Examples:
///   mufakat cache explain user.42 --node 2
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ExplainArgs {
    /// Key of the value.
    #[arg(value_name = "KEY")]
    key: String,
    /// Node to ask [default: any].
    #[arg(long, value_name = "ID", value_parser = node_id)]
    node: Option<NodeId>,
}

/// Compare the copies on a node with the authoritative values of their homes
///
/// Exits with 1 if any copy is stale, which would be a defect.
///
/// Examples:
///   mufakat cache audit --node 2 --sample 1000
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct AuditArgs {
    /// Number of copies to compare, at most 10,000 [default: 100].
    #[arg(long, value_name = "N")]
    sample: Option<u64>,
    /// Node to ask [default: any].
    #[arg(long, value_name = "ID", value_parser = node_id)]
    node: Option<NodeId>,
}

/// Show the contents and the counters of one node's cache
///
/// Examples:
///   mufakat cache stats --node 1
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct StatsArgs {
    /// Node to ask [default: any].
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
                true => Value::json(&args.value).map_err(not_json)?,
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
            Ok(ExitStatus::of_finding(deleted.existed))
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
            Ok(ExitStatus::of_finding(audited.mismatches == 0))
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
        return Ok(ExitStatus::of_finding(found.status == Status::Hit));
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
    Ok(ExitStatus::of_finding(all))
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

fn not_json(why: String) -> Failure {
    Failure::Usage(format!("the value is not valid JSON: {why}"))
}

/// The value as text; of a binary value its length.
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
