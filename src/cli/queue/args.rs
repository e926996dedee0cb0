//! The flags of `mufakat queue …`.

use clap::{Args, Subcommand, ValueEnum};

use super::tail::TailArgs;
use crate::cli::lock::PageArgs;
use crate::cli::work::WorkArgs;
use crate::cli::{Connection, length_ms};
use crate::protocol::meta::Meta;
use crate::protocol::queue::Receipt;

#[derive(Args)]
pub(in crate::cli) struct QueueArgs {
    #[command(flatten)]
    pub(in crate::cli) connection: Connection,
    #[command(subcommand)]
    pub(in crate::cli) command: QueueCommand,
}

#[derive(Subcommand)]
pub(in crate::cli) enum QueueCommand {
    Push(PushArgs),
    Pop(PopArgs),
    Ack(AckArgs),
    Nack(NackArgs),
    Extend(ExtendArgs),
    /// Count the messages of a topic by state, and say how old the oldest is.
    ///
    /// Examples:
    ///   mufakat queue stats mails
    #[command(verbatim_doc_comment)]
    Stats(TopicArgs),
    List(ListArgs),
    /// Show the dead messages of a topic, with why they died.
    ///
    /// Examples:
    ///   mufakat queue dead mails
    #[command(verbatim_doc_comment)]
    Dead(DeadArgs),
    Peek(PeekArgs),
    Tail(TailArgs),
    Redrive(RedriveArgs),
    Cancel(CancelArgs),
    Configure(ConfigureArgs),
    /// Hand out no message of a topic until it is resumed; pushes go on.
    ///
    /// Examples:
    ///   mufakat queue pause mails
    #[command(verbatim_doc_comment)]
    Pause(TopicArgs),
    /// Hand out messages of a topic again.
    ///
    /// Examples:
    ///   mufakat queue resume mails
    #[command(verbatim_doc_comment)]
    Resume(TopicArgs),
    Purge(PurgeArgs),
    Work(WorkArgs),
}

/// Add a message to a topic. Without PAYLOAD it is read from stdin.
///
/// Examples:
///   mufakat queue push mails 'hello'
///   mufakat queue push mails '{"to":"ann"}' --kind json --id welcome-ann
///   mufakat queue push mails reminder --delay 1h --priority 9
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct PushArgs {
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    #[arg(value_name = "PAYLOAD")]
    pub(super) payload: Option<String>,
    /// What the payload is.
    #[arg(long, value_enum, default_value = "text")]
    pub(super) kind: KindArg,
    /// A push with the same id within two minutes is the same message.
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// Not handed out before.
    #[arg(long, value_name = "LENGTH", value_parser = length_ms)]
    pub(super) delay: Option<u64>,
    /// 0 to 9; 9 is served first.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(0..=9))]
    pub(super) priority: u64,
    /// Dropped after that.
    #[arg(long, value_name = "LENGTH", value_parser = length_ms)]
    pub(super) ttl: Option<u64>,
    /// Messages of one group are handed out in order, one at a time.
    #[arg(long, value_name = "GROUP")]
    pub(super) group: Option<String>,
    /// A JSON object whose values are text.
    #[arg(long, value_name = "JSON", value_parser = headers)]
    pub(super) headers: Option<Meta>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum KindArg {
    Text,
    Json,
    Binary,
}

/// Take messages, each for a time. The reply has the receipts for ack, nack and extend.
///
/// Examples:
///   mufakat queue pop mails
///   mufakat queue pop mails --max 10 --wait 30s --visibility 1m
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct PopArgs {
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(super) max: u64,
    /// How long to wait for the first message, at most 60s.
    #[arg(long, value_name = "LENGTH", default_value = "0s", value_parser = length_ms)]
    pub(super) wait: u64,
    /// How long the messages are ours alone; absent: as the topic says.
    #[arg(long, value_name = "LENGTH", value_parser = length_ms)]
    pub(super) visibility: Option<u64>,
    /// Who takes them; shown to operators.
    #[arg(long, value_name = "NAME", default_value = "command-line")]
    pub(super) consumer: String,
}

/// Messages are done.
///
/// Examples:
///   mufakat queue ack mails 1.1.6f0c2a9b1d3e4f50
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct AckArgs {
    #[command(flatten)]
    pub(super) which: WhichArgs,
}

/// Messages are not done: they come again, or are dead.
///
/// Examples:
///   mufakat queue nack mails 1.1.6f0c2a9b1d3e4f50 --delay 10s --reason timeout
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct NackArgs {
    #[command(flatten)]
    pub(super) which: WhichArgs,
    /// Not handed out before; absent: by the topic's backoff.
    #[arg(long, value_name = "LENGTH", value_parser = length_ms)]
    pub(super) delay: Option<u64>,
    /// To the dead state at once.
    #[arg(long)]
    pub(super) dead: bool,
    /// Kept with the message.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

/// Messages are not done yet.
///
/// Examples:
///   mufakat queue extend mails 1.1.6f0c2a9b1d3e4f50 --visibility 5m
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct ExtendArgs {
    #[command(flatten)]
    pub(super) which: WhichArgs,
    #[arg(long, value_name = "LENGTH", default_value = "30s", value_parser = length_ms)]
    pub(super) visibility: u64,
}

#[derive(Args)]
pub(super) struct WhichArgs {
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    #[arg(value_name = "RECEIPT", required = true, value_parser = receipt)]
    pub(super) receipts: Vec<Receipt>,
}

#[derive(Args)]
pub(in crate::cli) struct TopicArgs {
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
}

/// The topics there are.
///
/// Examples:
///   mufakat queue list mails.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct ListArgs {
    /// What their names begin with.
    #[arg(value_name = "PREFIX")]
    pub(super) beginning: Option<String>,
    #[command(flatten)]
    pub(super) page: PageArgs,
}

/// Show messages of one state.
///
/// Examples:
///   mufakat queue peek mails --state in_flight --limit 10
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct PeekArgs {
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    #[arg(long, default_value = "ready", value_parser = STATES)]
    pub(super) state: String,
    #[command(flatten)]
    pub(super) page: PageOfMessagesArgs,
}

#[derive(Args)]
pub(in crate::cli) struct DeadArgs {
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    #[command(flatten)]
    pub(super) page: PageOfMessagesArgs,
}

#[derive(Args)]
pub(in crate::cli) struct PageOfMessagesArgs {
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(super) limit: u64,
    /// Go on where the answer before ended.
    #[arg(long, value_name = "CURSOR")]
    pub(super) cursor: Option<u64>,
}

const STATES: [&str; 4] = ["ready", "delayed", "in_flight", "dead"];

/// Make dead messages ready again: all, or those that are chosen.
///
/// With --to they go to another topic, as they were pushed. What is moved so comes at least once: if this is
/// interrupted, some may be in both topics until it is run again.
///
/// Examples:
///   mufakat queue redrive mails --dry-run
///   mufakat queue redrive mails --reason timeout --per-second 10
///   mufakat queue redrive mails --to mails-by-hand
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct RedriveArgs {
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    /// Only these messages.
    #[arg(long = "id", value_name = "ID")]
    pub(super) ids: Vec<String>,
    /// Only those whose last failure contains this text.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// At most so many become ready in a second.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(super) per_second: Option<u64>,
    /// Into this topic instead of their own.
    #[arg(long, value_name = "TOPIC")]
    pub(super) to: Option<String>,
    /// Only count.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Take a message back that nobody has got.
///
/// Examples:
///   mufakat queue cancel mails welcome-ann
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct CancelArgs {
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// Change settings of a topic and show those in force.
///
/// Examples:
///   mufakat queue configure mails --max-deliveries 5 --visibility 1m
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct ConfigureArgs {
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    #[arg(long, value_name = "LENGTH", value_parser = length_ms)]
    pub(super) visibility: Option<u64>,
    /// So many failures make a message dead.
    #[arg(long)]
    pub(super) max_deliveries: Option<u64>,
    /// The most messages that are not dead; 0: no limit.
    #[arg(long)]
    pub(super) max_length: Option<u64>,
    /// What a full topic does: refuse, or bury the oldest.
    #[arg(long, value_parser = ["reject", "dead"])]
    pub(super) overflow: Option<String>,
    /// Time to live of messages that have none; 0s: no end.
    #[arg(long, value_name = "LENGTH", value_parser = length_ms)]
    pub(super) ttl: Option<u64>,
}

/// Remove all messages of some states, for good.
///
/// Examples:
///   mufakat queue purge mails --state dead --confirm mails
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct PurgeArgs {
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    #[arg(long = "state", required = true, value_parser = STATES)]
    pub(super) states: Vec<String>,
    /// The topic again.
    #[arg(long, value_name = "TOPIC")]
    pub(super) confirm: String,
}

fn receipt(text: &str) -> Result<Receipt, String> {
    text.parse()
        .map_err(|_| "a receipt is what a pop printed, unchanged".to_owned())
}

fn headers(text: &str) -> Result<Meta, String> {
    Meta::from_json(text).map_err(|error| format!("not a JSON object: {error}"))
}
