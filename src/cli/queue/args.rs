//! The flags of `mufakat queue …`.

use clap::{Args, Subcommand, ValueEnum};

use super::tail::TailArgs;
use crate::cli::lock::{PageArgs, meta};
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
    /// Show how many messages a topic has in each state, and the age of the oldest
    ///
    /// Examples:
    ///   mufakat queue stats mails
    #[command(verbatim_doc_comment)]
    Stats(TopicArgs),
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show the dead messages of a topic, and why they died
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
    /// Stop the delivery of a topic's messages until it is resumed; pushes go on
    ///
    /// Examples:
    ///   mufakat queue pause mails
    #[command(verbatim_doc_comment)]
    Pause(TopicArgs),
    /// Resume the delivery of a topic's messages
    ///
    /// Examples:
    ///   mufakat queue resume mails
    #[command(verbatim_doc_comment)]
    Resume(TopicArgs),
    Purge(PurgeArgs),
    Work(WorkArgs),
}

/// Push a message to a topic
///
/// Examples:
///   mufakat queue push mails 'hello'
///   mufakat queue push mails '{"to":"ann"}' --kind json --id welcome-ann
///   mufakat queue push mails reminder --delay 1h --priority 9
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct PushArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    /// Payload of the message [default: read from stdin].
    #[arg(value_name = "PAYLOAD")]
    pub(super) payload: Option<String>,
    /// Kind of the payload.
    #[arg(long, value_enum, default_value = "text")]
    pub(super) kind: KindArg,
    /// Id of the message; a second push with it within two minutes is a duplicate [default: made up].
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// Deliver no earlier than this long from now.
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    pub(super) delay: Option<u64>,
    /// Priority from 0 to 9; 9 is delivered first.
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=9))]
    pub(super) priority: u64,
    /// Drop the message after this long, unless it is in flight or dead.
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    pub(super) ttl: Option<u64>,
    /// Group of the message; a group is delivered in order, one message at a time.
    #[arg(long, value_name = "GROUP")]
    pub(super) group: Option<String>,
    /// JSON object whose values are text.
    #[arg(long, value_name = "JSON", value_parser = meta)]
    pub(super) headers: Option<Meta>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum KindArg {
    Text,
    Json,
    Binary,
}

/// Receive messages, and reserve them for a time
///
/// Each message comes with a receipt, for `ack`, `nack` and `extend`.
///
/// Examples:
///   mufakat queue pop mails
///   mufakat queue pop mails --max 10 --wait 30s --visibility 1m
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct PopArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    /// Maximum number of messages.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(super) max: u64,
    /// How long to wait for the first message, at most 60s.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = length_ms)]
    pub(super) wait: u64,
    /// How long the messages stay reserved for this consumer [default: the topic's setting].
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    pub(super) visibility: Option<u64>,
    /// Name of this consumer, shown to operators.
    #[arg(long, value_name = "NAME", default_value = "command-line")]
    pub(super) consumer: String,
}

/// Acknowledge messages
///
/// Examples:
///   mufakat queue ack mails 1.1.6f0c2a9b1d3e4f50
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct AckArgs {
    #[command(flatten)]
    pub(super) which: WhichArgs,
}

/// Return messages for redelivery, or move them to the dead state
///
/// Examples:
///   mufakat queue nack mails 1.1.6f0c2a9b1d3e4f50 --delay 10s --reason timeout
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct NackArgs {
    #[command(flatten)]
    pub(super) which: WhichArgs,
    /// Redeliver no earlier than this long from now [default: the topic's backoff].
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    pub(super) delay: Option<u64>,
    /// Move the messages to the dead state at once.
    #[arg(long)]
    pub(super) dead: bool,
    /// Reason to keep with the messages.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

/// Extend the time that messages stay reserved
///
/// Examples:
///   mufakat queue extend mails 1.1.6f0c2a9b1d3e4f50 --visibility 5m
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct ExtendArgs {
    #[command(flatten)]
    pub(super) which: WhichArgs,
    /// How long the messages stay reserved from now on.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = length_ms)]
    pub(super) visibility: u64,
}

#[derive(Args)]
pub(super) struct WhichArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    /// Receipts that `queue pop` printed.
    #[arg(value_name = "RECEIPT", required = true, value_parser = receipt)]
    pub(super) receipts: Vec<Receipt>,
}

#[derive(Args)]
pub(in crate::cli) struct TopicArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
}

/// List topics
///
/// Examples:
///   mufakat queue list mails.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct ListArgs {
    /// Only topics whose names start with this.
    #[arg(value_name = "PREFIX")]
    pub(super) beginning: Option<String>,
    #[command(flatten)]
    pub(super) page: PageArgs,
}

/// Show the messages of one state without taking them
///
/// Examples:
///   mufakat queue peek mails --state in_flight --limit 10
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct PeekArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    /// State of the messages to show.
    #[arg(long, value_name = "STATE", default_value = "ready", value_parser = STATES)]
    pub(super) state: String,
    #[command(flatten)]
    pub(super) page: PageOfMessagesArgs,
}

#[derive(Args)]
pub(in crate::cli) struct DeadArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    #[command(flatten)]
    pub(super) page: PageOfMessagesArgs,
}

#[derive(Args)]
pub(in crate::cli) struct PageOfMessagesArgs {
    /// Maximum number of results, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(super) limit: u64,
    /// Continue after the previous page, which printed this cursor.
    #[arg(long, value_name = "CURSOR")]
    pub(super) cursor: Option<u64>,
}

const STATES: [&str; 4] = ["ready", "delayed", "in_flight", "dead"];

/// Make dead messages ready again, or with `--to` move them to another topic
///
/// Without --id and --reason, all dead messages of the topic are moved. With --to they are pushed to
/// the other topic at least once: after an interruption some may be in both topics until the command
/// is run again.
///
/// Examples:
///   mufakat queue redrive mails --dry-run
///   mufakat queue redrive mails --reason timeout --per-second 10
///   mufakat queue redrive mails --to mails-by-hand
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct RedriveArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    /// Only the message with this id; may be given several times.
    #[arg(long = "id", value_name = "ID")]
    pub(super) ids: Vec<String>,
    /// Only messages whose last failure contains this text.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Maximum number to become ready per second, 1 to 1000; the command then moves at most 1000
    /// [default: no limit].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(super) per_second: Option<u64>,
    /// Move the messages to this topic instead of their own.
    #[arg(long, value_name = "TOPIC")]
    pub(super) to: Option<String>,
    /// Only count what would be moved.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Cancel a message that has not been delivered
///
/// Exits with 1 if no such message was waiting.
///
/// Examples:
///   mufakat queue cancel mails welcome-ann
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct CancelArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    /// Id of the message, as `queue push` printed it.
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// Change the settings of a topic, and show those in force
///
/// Examples:
///   mufakat queue configure mails --max-deliveries 5 --visibility 1m
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct ConfigureArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    /// How long a message stays reserved unless the pop says otherwise.
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    pub(super) visibility: Option<u64>,
    /// Number of failures after which a message is dead.
    #[arg(long, value_name = "N")]
    pub(super) max_deliveries: Option<u64>,
    /// Maximum number of messages that are not dead; 0: no limit.
    #[arg(long, value_name = "N")]
    pub(super) max_length: Option<u64>,
    /// What happens when the topic is full: reject the push, or move the oldest to the dead state.
    #[arg(long, value_name = "POLICY", value_parser = ["reject", "dead"])]
    pub(super) overflow: Option<String>,
    /// Time to live of messages that have none of their own; 0s: no limit.
    #[arg(long, value_name = "DURATION", value_parser = length_ms)]
    pub(super) ttl: Option<u64>,
}

/// Delete all messages of some states, for good
///
/// Examples:
///   mufakat queue purge mails --state dead --confirm mails
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct PurgeArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    /// State whose messages are deleted; may be given several times.
    #[arg(long = "state", value_name = "STATE", required = true, value_parser = STATES)]
    pub(super) states: Vec<String>,
    /// Name of the topic again, as a confirmation.
    #[arg(long, value_name = "TOPIC")]
    pub(super) confirm: String,
}

fn receipt(text: &str) -> Result<Receipt, String> {
    text.parse()
        .map_err(|_| "not a receipt as `queue pop` printed it".to_owned())
}
