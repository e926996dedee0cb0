//! `mufakat queue …`: one verb for each operation of the queue.

use std::io::Read;

use serde_json::{Value as Json, json};

use crate::cli::lock::lines::{length, more};
use crate::cli::work;
use crate::cli::{Connection, ExitStatus, Failure};
use crate::client::{Client, Target};
use crate::protocol::queue::{
    Cancelled, Demand, Listed, Message, Paused, Peeked, Pop, Popped, Purged, Push, Pushed, Rates,
    Receipts, Redriven, Results, Stats, Verdict,
};
use crate::protocol::value::{Kind, Value};
use crate::protocol::{Encoding, Operation};

mod args;
mod tail;

pub(super) use args::{QueueArgs, QueueCommand};

use args::{CancelArgs, KindArg, ListArgs, PageOfMessagesArgs, PushArgs, TopicArgs, WhichArgs};

pub(super) async fn run(
    connection: &Connection,
    command: QueueCommand,
) -> Result<ExitStatus, Failure> {
    let command = match command {
        QueueCommand::Work(args) => return work::run(connection, args).await,
        QueueCommand::Tail(args) => {
            tail::run(connection, args).await?;
            return Ok(ExitStatus::Done);
        }
        other => other,
    };
    let client = connection.client_of_values(Target::Any).await?;
    match command {
        QueueCommand::Push(args) => {
            let pushed = client.push(&push_of(args)?).await?;
            connection.print(&pushed, pushed_line)?;
        }
        QueueCommand::Pop(args) => {
            let demand = Demand {
                max: args.max,
                wait_ms: args.wait,
                visibility_ms: args.visibility,
                ..Demand::new(args.consumer)
            };
            let pop = Pop {
                topic: args.topic,
                demand,
                timeout_ms: None,
            };
            let popped = client.pop(&pop).await?.messages.into_iter();
            let messages = popped.map(|message| message.written_for(Encoding::Json));
            let messages = messages.collect();
            connection.print(&Popped { messages }, popped_lines)?;
        }
        QueueCommand::Ack(args) => {
            settle(connection, &client, args.which, Verdict::Ack { pop: None }).await?;
        }
        QueueCommand::Nack(args) => {
            let verdict = Verdict::Nack {
                delay_ms: args.delay,
                dead: args.dead,
                reason: args.reason,
            };
            settle(connection, &client, args.which, verdict).await?;
        }
        QueueCommand::Extend(args) => {
            let visibility_ms = args.visibility;
            let verdict = Verdict::Extend { visibility_ms };
            settle(connection, &client, args.which, verdict).await?;
        }
        QueueCommand::Cancel(args) => return cancel(connection, &client, args).await,
        other => operate(connection, &client, other).await?,
    }
    Ok(ExitStatus::Done)
}

async fn cancel(
    connection: &Connection,
    client: &Client,
    CancelArgs { topic, id }: CancelArgs,
) -> Result<ExitStatus, Failure> {
    let body = json!({"topic": topic, "id": id});
    let done: Cancelled = client
        .ask_queue(Operation::QueueCancel, &topic, &body)
        .await?;
    connection.print(&done, |done| match done.cancelled {
        true => "cancelled".to_owned(),
        false => "not cancelled: no such message is waiting".to_owned(),
    })?;
    Ok(ExitStatus::of_finding(done.cancelled))
}

/// Inspects and manages topics.
async fn operate(
    connection: &Connection,
    client: &Client,
    command: QueueCommand,
) -> Result<(), Failure> {
    match command {
        QueueCommand::Stats(TopicArgs { topic }) => {
            let body = json!({"topic": topic});
            let stats: Stats = client
                .ask_queue(Operation::QueueStats, &topic, &body)
                .await?;
            connection.print(&stats, stats_line)
        }
        QueueCommand::List(ListArgs { beginning, page }) => {
            let body = json!({"prefix": beginning, "limit": page.limit, "cursor": page.cursor});
            let listed: Listed = client.ask_queue(Operation::QueueList, "", &body).await?;
            connection.print(&listed, |listed| {
                let each = listed.topics.iter();
                let mut lines: String = each.map(|topic| stats_line(topic) + "\n").collect();
                if listed.topics.is_empty() {
                    lines.push_str("no topics\n");
                }
                more(&mut lines, listed.cursor.as_deref());
                lines
            })
        }
        QueueCommand::Dead(args) => {
            show(connection, client, (&args.topic, "dead", args.page)).await
        }
        QueueCommand::Peek(args) => {
            show(connection, client, (&args.topic, &args.state, args.page)).await
        }
        QueueCommand::Redrive(args) => {
            let ids = (!args.ids.is_empty()).then_some(&args.ids);
            let body = json!({"topic": args.topic, "ids": ids, "reason_contains": args.reason,
                "per_second": args.per_second, "dry_run": args.dry_run, "to": args.to});
            let operation = Operation::QueueRedrive;
            let done: Redriven = client.ask_queue(operation, &args.topic, &body).await?;
            let verb = if args.dry_run { "would move" } else { "moved" };
            connection.print(&done, |done| {
                format!("{verb} {}, {} left dead", done.moved, done.dead)
            })
        }
        QueueCommand::Configure(args) => {
            let body = json!({"topic": args.topic, "visibility_ms": args.visibility,
                "max_deliveries": args.max_deliveries, "max_length": args.max_length,
                "overflow": args.overflow, "ttl_ms": args.ttl});
            let operation = Operation::QueueConfigure;
            let settings: Json = client.ask_queue(operation, &args.topic, &body).await?;
            connection.print(&settings, Json::to_string)
        }
        QueueCommand::Pause(args) => pause(connection, client, args, Operation::QueuePause).await,
        QueueCommand::Resume(args) => pause(connection, client, args, Operation::QueueResume).await,
        QueueCommand::Purge(args) => {
            let body = json!({"topic": args.topic, "states": args.states, "confirm": args.confirm});
            let operation = Operation::AdminQueuePurge;
            let done: Purged = client.ask_queue(operation, &args.topic, &body).await?;
            connection.print(&done, |done| format!("removed {}", done.count))
        }
        QueueCommand::Push(_)
        | QueueCommand::Pop(_)
        | QueueCommand::Ack(_)
        | QueueCommand::Nack(_)
        | QueueCommand::Extend(_)
        | QueueCommand::Cancel(_)
        | QueueCommand::Tail(_)
        | QueueCommand::Work(_) => unreachable!("`run` handles these"),
    }
}

async fn settle(
    connection: &Connection,
    client: &Client,
    which: WhichArgs,
    what: Verdict,
) -> Result<(), Failure> {
    let request = Receipts {
        topic: which.topic,
        receipts: which.receipts,
        what,
        timeout_ms: None,
    };
    connection.print(&client.settle(&request).await?, |results: &Results| {
        let results = results.results.iter();
        let lines = results.map(|one| format!("{} {}", one.receipt, one.result.name()));
        lines.collect::<Vec<String>>().join("\n")
    })
}

async fn pause(
    connection: &Connection,
    client: &Client,
    TopicArgs { topic }: TopicArgs,
    operation: Operation,
) -> Result<(), Failure> {
    let body = json!({"topic": topic});
    let done: Paused = client.ask_queue(operation, &topic, &body).await?;
    connection.print(&done, |done| match done.paused {
        true => "paused".to_owned(),
        false => "not paused".to_owned(),
    })
}

async fn show(
    connection: &Connection,
    client: &Client,
    (topic, state, page): (&str, &str, PageOfMessagesArgs),
) -> Result<(), Failure> {
    let (limit, cursor) = (page.limit, page.cursor);
    let body = json!({"topic": topic, "state": state, "limit": limit, "cursor": cursor});
    let mut peeked: Peeked = client.ask_queue(Operation::QueuePeek, topic, &body).await?;
    let messages = peeked.messages.into_iter();
    let messages = messages.map(|message| message.written_for(Encoding::Json));
    peeked.messages = messages.collect();
    connection.print(&peeked, |peeked| {
        let lines = peeked.messages.iter().map(serde_json::to_string);
        let lines = lines.collect::<Result<Vec<String>, _>>();
        let mut lines = lines.expect("a message has a form in JSON").join("\n");
        lines.push('\n');
        let cursor = peeked.cursor.map(|cursor| cursor.to_string());
        more(&mut lines, cursor.as_deref());
        lines
    })
}

/// The request of `queue push`, whose payload may come from stdin.
fn push_of(args: PushArgs) -> Result<Push, Failure> {
    let bytes = match args.payload {
        Some(payload) => payload.into_bytes(),
        None => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes)?;
            bytes
        }
    };
    let text = |bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned());
    let (kind, payload) = match args.kind {
        KindArg::Text => ("text", text(bytes).map(Value::text)),
        KindArg::Json => ("JSON", text(bytes).and_then(|text| Value::json(&text))),
        KindArg::Binary => ("binary", Ok(Value::binary(bytes))),
    };
    let payload =
        payload.map_err(|why| Failure::Usage(format!("the payload is not valid {kind}: {why}")))?;
    let message = Message {
        id: args.id,
        delay_ms: args.delay,
        priority: args.priority,
        ttl_ms: args.ttl,
        group: args.group,
        headers: args.headers,
        ..Message::new(payload)
    };
    Ok(Push::one(args.topic, message))
}

fn pushed_line(pushed: &Pushed) -> String {
    let id = pushed.id.as_deref().unwrap_or_default();
    let known = match pushed.duplicate {
        Some(true) => ", duplicate",
        _ => "",
    };
    let level = pushed.durability.level.name();
    format!("{id}{known}, durability {level}")
}

fn popped_lines(popped: &Popped) -> String {
    if popped.messages.is_empty() {
        return "no messages".to_owned();
    }
    let lines = popped
        .messages
        .iter()
        .map(|message| format!("{} {}", message.receipt, payload_text(message.payload())));
    lines.collect::<Vec<String>>().join("\n")
}

/// The payload as text; of a binary payload its length.
fn payload_text(payload: Result<Value, String>) -> String {
    match payload {
        Ok(payload) if payload.kind() != Kind::Binary => {
            String::from_utf8_lossy(payload.bytes()).into_owned()
        }
        Ok(payload) => format!("{} bytes", payload.bytes().len()),
        Err(why) => why,
    }
}

fn stats_line(stats: &Stats) -> String {
    let waiting = stats.waiters.map(|count| format!(", {count} pops waiting"));
    let waiting = waiting.unwrap_or_default();
    let rates = stats.rates.map(|rates| {
        let Rates {
            pushed,
            delivered,
            acked,
        } = rates;
        format!(", per second: {pushed} pushed, {delivered} delivered, {acked} acknowledged")
    });
    let rates = rates.unwrap_or_default();
    let oldest = match stats.ready + stats.in_flight {
        0 => String::new(),
        _ => format!(", the oldest {} old", length(stats.oldest_age_ms)),
    };
    format!(
        "{}: {} ready, {} delayed, {} in flight, {} dead{oldest}{waiting}{rates}, known to the log \
         up to seq {}{}",
        stats.topic,
        stats.ready,
        stats.delayed,
        stats.in_flight,
        stats.dead,
        stats.marked_seq,
        if stats.paused { ", paused" } else { "" }
    )
}
