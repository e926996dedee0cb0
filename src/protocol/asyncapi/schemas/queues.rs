//! The queue: what its fields are for, and what it answers.

use serde_json::{Value, json};

use super::{boolean, component, describe, integer, list, object, one_of, or_null, text};
use crate::protocol::Operation;
use crate::protocol::queue::{DEDUP_MS_DEFAULT, PRIORITY_DEFAULT, ReceiptResult, State};
use crate::protocol::status::DurabilitySource;

pub(super) fn is_of_queue(operation: Operation) -> bool {
    let name = operation.name();
    name.starts_with("queue.") || name.starts_with("admin.queue.")
}

pub(super) fn summary(operation: Operation) -> &'static str {
    match operation {
        Operation::QueuePush => "Adds a message to a topic, or a batch, all of it or nothing.",
        Operation::QueuePop => "Takes messages, each for a time; waits for the first if asked to.",
        Operation::QueueAck => "Messages are done; more may be taken in the same trip.",
        Operation::QueueNack => "Messages are not done: they come again, or are dead.",
        Operation::QueueExtend => "Messages are not done yet.",
        Operation::QueuePeek => {
            "Shows messages of one state, or of all in the order of their pushes."
        }
        Operation::QueueCancel => "Takes a message back that nobody has got.",
        Operation::QueueConfigure => "Changes settings of a topic, and tells those in force.",
        Operation::QueueStats => "How many messages a topic has in each state.",
        Operation::QueueList => "The topics there are.",
        Operation::QueueRedrive => {
            "Makes dead messages ready again, in their topic or in another one."
        }
        Operation::QueuePause => "Stops pops of a topic, not pushes.",
        Operation::QueueResume => "Ends a pause.",
        Operation::AdminQueuePurge => "Removes all messages of some states.",
        other => panic!("say in schemas.rs what {other} does"),
    }
}

pub(super) fn request_field(operation: Operation, name: &str) -> (&'static str, Value) {
    let what = match (operation, name) {
        (_, "topic") => "The topic. Required in the body or in the subject.",
        (_, "payload") => "Text, or any JSON value.",
        (_, "payload_base64") => "A binary payload, instead of `payload`.",
        (_, "encoding") => "`json` says that text is JSON.",
        (_, "messages") => "Several messages, instead of the fields of one.",
        (Operation::QueuePush, "id") => {
            "A push with an id that was seen lately is the same message."
        }
        (_, "dedup_id") => {
            "What is compared instead of the id, with other ones of this field only."
        }
        (_, "dedup_scope") => "For a time, or until the message is done.",
        (_, "delay_ms") => "How long it rests first; of a nack: absent means by the backoff.",
        (_, "deliver_at_ms") => "Unix time before which it is not handed out.",
        (_, "group") => "Messages of a group are handed out in order, one at a time.",
        (_, "headers") => "An object whose values are text, handed out with the payload.",
        (_, "require_durability") => "Refuse the push if less is reached.",
        (_, "consumer") => "Who takes messages; shown to operators.",
        (_, "visibility_ms") => {
            "How long messages are this consumer's alone; 30000 unless the topic says."
        }
        (_, "receipt") => "The receipt of one message, or `receipts` of several.",
        (_, "receipts") => "Receipts of several messages.",
        (_, "pop") => "What to take in the same trip: fields of a pop.",
        (_, "dead") => "To the dead state at once.",
        (_, "reason") => "Why; kept with the message.",
        (_, "state") => "Which messages.",
        (_, "cursor") => "Where to go on, from an earlier answer.",
        (_, "after_seq") => {
            "With the state `all`: only messages with a greater `seq`; 0 when absent."
        }
        (_, "id") => "The id of the message.",
        (_, "max_deliveries") => "So many failures make a message dead; 10 at first.",
        (_, "backoff") => "How long a message rests after a failure; none at first.",
        (_, "max_length") => "The most messages that are not dead; 0: no limit.",
        (_, "overflow") => "What a full topic does: refuse, or bury the oldest.",
        (_, "prefix") => "What the names begin with.",
        (_, "ids") => "Only these, one at least; absent: all.",
        (_, "to") => "Into this topic instead; at least once each.",
        (_, "reason_contains") => "Only those whose last failure contains this.",
        (_, "dead_since_ms") => "Only those that died then or later; Unix time.",
        (_, "per_second") => "At most so many become ready in a second; up to 1000 a request.",
        (_, "states") => "Any of ready, delayed, in_flight, dead.",
        (_, "confirm") => "The topic again.",
        (Operation::QueueConfigure, "ttl_ms") => "Time to live of messages without one; 0: no end.",
        (_, "ttl_ms") => "So long after the push it is dropped, unless it is in flight.",
        _ => return with_default(operation, name),
    };
    (what, Value::Null)
}

fn with_default(operation: Operation, name: &str) -> (&'static str, Value) {
    match (operation, name) {
        (_, "dedup_ms") => (
            "Within this the id means the same message.",
            json!(DEDUP_MS_DEFAULT),
        ),
        (_, "priority") => ("9 is served first.", json!(PRIORITY_DEFAULT)),
        (_, "max") => ("How many messages at most.", json!(1)),
        (_, "wait_ms") => ("How long to wait for the first message.", json!(0)),
        (Operation::QueueRedrive, "limit") => ("How many at most; absent: all.", Value::Null),
        (_, "limit") => ("How many at most.", json!(100)),
        (_, "dry_run") => ("Only count.", json!(false)),
        (_, other) => panic!("say in queues.rs what `{other}` is for"),
    }
}

pub(super) fn is_required(operation: Operation, name: &str) -> bool {
    matches!(
        (operation, name),
        (Operation::QueuePop, "consumer")
            | (Operation::QueueExtend, "visibility_ms")
            | (Operation::QueueCancel, "id")
            | (Operation::AdminQueuePurge, "confirm")
    )
}

/// Two fields of which a request has one.
pub(super) fn either(operation: Operation) -> Option<&'static [&'static str]> {
    match operation {
        Operation::QueuePush => Some(&["payload", "payload_base64", "messages"]),
        Operation::QueueAck | Operation::QueueNack => Some(&["receipt", "receipts"]),
        _ => None,
    }
}

pub(super) fn success(operation: Operation) -> Vec<(&'static str, Value)> {
    let results = || {
        list(object(vec![
            ("receipt", text()),
            ("result", one_of(ReceiptResult::NAMES)),
            ("visible_until_ms?", integer()),
        ]))
    };
    match operation {
        Operation::QueuePush => pushed(),
        Operation::QueuePop => vec![("messages", list(component("message")))],
        Operation::QueueAck => vec![
            ("results", results()),
            ("messages?", list(component("message"))),
        ],
        Operation::QueueNack | Operation::QueueExtend => vec![("results", results())],
        Operation::QueuePeek => vec![
            ("messages", list(shown())),
            ("cursor?", integer()),
            ("after_seq?", integer()),
            ("last_seq?", integer()),
        ],
        Operation::QueueCancel => vec![("cancelled", boolean())],
        Operation::QueueConfigure => vec![
            ("visibility_ms", integer()),
            ("max_deliveries", integer()),
            ("backoff", json!({"type": "object"})),
            ("max_length?", integer()),
            ("overflow", one_of(&["reject", "dead"])),
            ("dedup_ms", integer()),
            ("ttl_ms?", integer()),
        ],
        Operation::QueueStats => stats_fields(),
        Operation::QueueList => vec![
            ("topics", list(component("topic_stats"))),
            ("cursor?", text()),
        ],
        Operation::QueueRedrive => vec![("moved", integer()), ("dead", integer())],
        Operation::QueuePause | Operation::QueueResume => {
            vec![("paused", boolean()), ("changed", boolean())]
        }
        Operation::AdminQueuePurge => vec![("count", integer())],
        other => panic!("say in schemas.rs what {other} answers"),
    }
}

fn pushed() -> Vec<(&'static str, Value)> {
    let levels = ["fsync", "os", "interval", "none", "unknown"];
    let durability = object(vec![
        ("level", one_of(&levels)),
        ("source", one_of(DurabilitySource::NAMES)),
        ("checked_at_ms", integer()),
    ]);
    let one = vec![("id", text()), ("seq", integer()), ("duplicate", boolean())];
    vec![
        ("id?", text()),
        ("seq?", integer()),
        ("duplicate?", boolean()),
        ("results?", list(object(one))),
        ("durability", durability),
    ]
}

fn payload() -> Vec<(&'static str, Value)> {
    let any =
        json!({"type": ["string", "integer", "number", "boolean", "array", "object", "null"]});
    vec![
        ("id", text()),
        ("seq", integer()),
        ("payload?", any),
        ("payload_base64?", text()),
        ("encoding", one_of(&["text", "json", "binary"])),
        ("headers", json!({"type": "object"})),
        ("deliveries", integer()),
        ("pushed_at_ms", integer()),
    ]
}

/// A message that was handed out.
pub(super) fn message() -> Value {
    let mut fields = payload();
    fields.extend([
        ("receipt", text()),
        ("visible_until_ms", integer()),
        ("last_error?", text()),
    ]);
    object(fields)
}

/// A message as a peek shows it.
fn shown() -> Value {
    let failed = vec![
        ("at_ms", integer()),
        ("delivery", integer()),
        ("consumer", text()),
        ("reason", text()),
    ];
    let dead = vec![
        ("why", one_of(&["max_deliveries", "nack", "overflow"])),
        ("at_ms", integer()),
    ];
    let mut fields = payload();
    fields.extend([
        ("state", one_of(State::NAMES)),
        ("due_at_ms?", integer()),
        ("visible_until_ms?", integer()),
        ("consumer?", text()),
        ("dead?", object(dead)),
        ("failures?", list(object(failed))),
    ]);
    object(fields)
}

fn rates() -> Value {
    let number = || json!({"type": "number"});
    let mut rates = object(vec![
        ("pushed", number()),
        ("delivered", number()),
        ("acked", number()),
    ]);
    rates["type"] = json!(["object", "null"]);
    let what = "Messages per second over the last minute; null if the topic's owner did not say.";
    describe(rates, what)
}

fn stats_fields() -> Vec<(&'static str, Value)> {
    vec![
        ("topic", text()),
        ("ready", integer()),
        ("delayed", integer()),
        ("in_flight", integer()),
        ("dead", integer()),
        ("oldest_age_ms", integer()),
        (
            "waiters",
            describe(
                or_null("integer"),
                "Pops that wait; null if the topic's owner did not say.",
            ),
        ),
        ("rates", rates()),
        ("pushed", integer()),
        ("acked", integer()),
        ("marked_seq", integer()),
        ("paused", boolean()),
        ("owner_node", or_null("integer")),
    ]
}

pub(super) fn stats() -> Value {
    object(stats_fields())
}

pub(super) fn event_summary(kind: &str) -> &'static str {
    match kind {
        "queue.dead" => "A message died.",
        "queue.data_loss" => "Redis has less of a topic than it had acknowledged.",
        "queue.paused" => "Pops of a topic were stopped.",
        "queue.resumed" => "A pause ended.",
        _ => unreachable!("no such event"),
    }
}

pub(super) fn events() -> Vec<(&'static str, Value)> {
    let topic = || ("topic", text());
    let dead = vec![
        topic(),
        ("seq", integer()),
        ("why", one_of(&["max_deliveries", "nack", "overflow"])),
    ];
    let lost = vec![
        topic(),
        ("operations", integer()),
        ("seq_from", integer()),
        ("seq_to", integer()),
    ];
    vec![
        ("queue.dead", object(dead)),
        ("queue.data_loss", object(lost)),
        ("queue.paused", object(vec![topic()])),
        ("queue.resumed", object(vec![topic()])),
    ]
}
