//! `mufakat queue tail`: shows the messages that come into a topic without taking them.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::payload_text;
use crate::cli::output::say;
use crate::cli::reader::while_read;
use crate::cli::{Connection, Failure, length_ms};
use crate::client::{Client, ClientError, Target};
use crate::protocol::queue::{Peeked, Shown, Stats};
use crate::protocol::{Code, Encoding, Operation};

/// Messages of one look, at first; fewer if they are too large for one reply.
const LIMIT: u64 = 1_000;
/// The shortest time between two looks that find nothing new: each is a script in Redis.
const EVERY_MS_MIN: u64 = 20;

/// Show messages as they are pushed to a topic, without taking them, until Ctrl-C
///
/// Looks repeatedly for messages that are newer than those seen, whatever their state, and shows each
/// once. A message that is pushed and then acknowledged, expired, cancelled or purged between two
/// looks is not shown. To see every message use a consumer, or an --every shorter than the work takes.
///
/// Examples:
///   mufakat queue tail mails
///   mufakat queue tail mails --after 0 --count 10
///   mufakat queue tail mails --json | jq .payload
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct TailArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Start with existing messages above this sequence number; 0: all [default: only new ones].
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Exit after this many messages.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How long to pause after a look that found nothing new, at least 20ms.
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = rest_ms)]
    every: u64,
}

fn rest_ms(text: &str) -> Result<u64, String> {
    match length_ms(text)? {
        ms if ms >= EVERY_MS_MIN => Ok(ms),
        _ => Err(format!("at least {EVERY_MS_MIN}ms")),
    }
}

pub(super) async fn run(connection: &Connection, args: TailArgs) -> Result<(), Failure> {
    let client = connection.client_of_values(Target::Leader).await?;
    while_read(follow(connection, &client, args)).await
}

async fn follow(connection: &Connection, client: &Client, args: TailArgs) -> Result<(), Failure> {
    let mut tail = Tail {
        after_seq: match args.after {
            Some(seq) => seq,
            None => newest(client, &args.topic).await?,
        },
        limit: LIMIT,
        left: args.count.unwrap_or(u64::MAX),
        is_cut_off: false,
    };
    while tail.left > 0 {
        let Some(page) = tail.look(client, &args).await? else {
            tokio::time::sleep(Duration::from_millis(args.every)).await;
            continue;
        };
        tail.left -= page.messages.len() as u64;
        for message in page.messages {
            let message = message.written_for(Encoding::Json);
            if !connection.print_to_reader(&message, line)? {
                return Ok(());
            }
        }
        tail.after_seq = page.after_seq.unwrap_or(tail.after_seq);
        if page.last_seq.is_none_or(|last| last <= tail.after_seq) {
            tokio::time::sleep(Duration::from_millis(args.every)).await;
        }
    }
    Ok(())
}

/// The sequence number of the topic's newest message, whatever became of it.
async fn newest(client: &Client, topic: &str) -> Result<u64, ClientError> {
    let body = json!({"topic": topic});
    let stats: Stats = client
        .ask_queue(Operation::QueueStats, topic, &body)
        .await?;
    Ok(stats.pushed)
}

/// How far the topic has been followed.
struct Tail {
    after_seq: u64,
    limit: u64,
    /// How many messages are still to be shown.
    left: u64,
    /// The last look failed, which was reported.
    is_cut_off: bool,
}

impl Tail {
    /// The new messages; none if they cannot be read for the moment.
    async fn look(&mut self, client: &Client, args: &TailArgs) -> Result<Option<Peeked>, Failure> {
        let body = json!({"topic": args.topic, "state": "all", "after_seq": self.after_seq,
            "limit": self.limit.min(self.left)});
        let looked = client.ask_queue(Operation::QueuePeek, &args.topic, &body);
        match looked.await {
            Ok(page) => {
                self.is_cut_off = false;
                Ok(Some(page))
            }
            Err(error) if error.code() == Some(Code::PayloadTooLarge) && self.limit > 1 => {
                self.limit /= 2;
                Ok(None)
            }
            Err(error) if error.retryable() => {
                if !std::mem::replace(&mut self.is_cut_off, true) {
                    say(format_args!("mufakat: {error}; looking again"));
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn line(message: &Shown) -> String {
    let state = match message.state.as_str() {
        "ready" => String::new(),
        other => format!(" [{}]", other.replace('_', " ")),
    };
    format!("{}{state} {}", message.seq, payload_text(message.payload()))
}
