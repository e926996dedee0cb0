//! Looking at all messages of a topic in order, and `mufakat queue tail`, which follows them.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::cluster::Cluster;
use crate::command_line::{fails, mufakat, run, stdout};
use crate::queue::{Queue, messages, start};
use crate::wait;

/// Above this a look passes over sequence numbers, not over what is there.
const LOOK_MAX: u64 = 5_000;

async fn look(queue: &Queue, topic: &str, after_seq: u64, limit: u64) -> Value {
    let body = json!({"topic": topic, "state": "all", "after_seq": after_seq, "limit": limit});
    queue.ok("queue.peek", body).await
}

fn shown(answer: &Value) -> Vec<(u64, String)> {
    let each = messages(answer).into_iter();
    each.map(|message| {
        let state = message["state"].as_str().expect("a state").to_owned();
        (message["seq"].as_u64().expect("a number"), state)
    })
    .collect()
}

fn upto(answer: &Value) -> [u64; 2] {
    ["after_seq", "last_seq"].map(|name| answer[name].as_u64().expect("a number"))
}

#[tokio::test]
async fn queue_peek_shows_every_state_in_push_order() {
    let (_cluster, queue) = start(1).await;
    for more in [
        json!({}),
        json!({}),
        json!({"priority": 9}),
        json!({"delay_ms": 3_600_000}),
        json!({}),
        json!({}),
    ] {
        let mut body = json!({"topic": "a", "payload": {"n": 1}});
        let fields = body.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        queue.ok("queue.push", body).await;
    }
    // The third, of the highest priority, is done; the first is dead, the second in flight.
    let popped = queue.pop("a", 3).await;
    assert_eq!(queue.ack("a", &popped[0]["receipt"]).await, "acked");
    let dead = json!({"topic": "a", "receipt": popped[1]["receipt"], "dead": true});
    queue.ok("queue.nack", dead).await;

    let all = look(&queue, "a", 0, 100).await;
    let expected = [
        (1, "dead"),
        (2, "in_flight"),
        (4, "delayed"),
        (5, "ready"),
        (6, "ready"),
    ];
    let expected = expected.map(|(seq, state)| (seq, state.to_owned()));
    assert_eq!(shown(&all), expected);
    assert_eq!(upto(&all), [6, 6]);
    assert_eq!(messages(&all)[1]["consumer"], "c");
    assert!(messages(&all)[2]["due_at_ms"].is_u64());
    assert_eq!(messages(&all)[0]["dead"]["why"], "nack");

    // A look that is cut off says where.
    let some = look(&queue, "a", 1, 2).await;
    assert_eq!(shown(&some), expected[1..3]);
    assert_eq!(upto(&some), [4, 6]);
    assert_eq!(upto(&look(&queue, "a", 6, 2).await), [6, 6]);
    assert_eq!(shown(&look(&queue, "a", 99, 2).await), []);
    // Other states say it, too.
    let ready = queue.ok("queue.peek", json!({"topic": "a"})).await;
    assert_eq!(shown(&ready), expected[3..]);
}

/// Numbers without a message cost nothing where few messages are left, and one call passes over 5,000
/// of them where many are.
#[tokio::test]
async fn queue_peek_passes_over_what_is_gone() {
    let (_cluster, queue) = start(1).await;
    let batch = vec![json!({"payload": 1}); 1_000];
    for _ in 0..12 {
        let body = json!({"topic": "a", "messages": batch});
        queue.ok("queue.push", body).await;
    }
    for _ in 0..6 {
        let popped = queue.pop("a", 1_000).await;
        let receipts: Vec<&Value> = popped.iter().map(|message| &message["receipt"]).collect();
        let done = json!({"topic": "a", "receipts": receipts});
        queue.ok("queue.ack", done).await;
    }
    let first = look(&queue, "a", 0, 10).await;
    assert_eq!((shown(&first).len(), upto(&first)), (0, [LOOK_MAX, 12_000]));
    let second = look(&queue, "a", LOOK_MAX, 10).await;
    assert_eq!(shown(&second)[0].0, 6_001);
    assert_eq!(upto(&second), [6_010, 12_000]);
    for _ in 0..2 {
        let popped = queue.pop("a", 1_000).await;
        let receipts: Vec<&Value> = popped.iter().map(|message| &message["receipt"]).collect();
        let done = json!({"topic": "a", "receipts": receipts});
        queue.ok("queue.ack", done).await;
    }
    let few = look(&queue, "a", 0, 10).await;
    assert_eq!(shown(&few)[0].0, 8_001);
    assert_eq!(upto(&few), [8_010, 12_000]);
}

/// A `tail` that runs, and what it prints.
struct Tail {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Tail {
    fn start(cluster: &Cluster, words: &[&str]) -> Tail {
        let words = [&["queue", "tail"], words].concat();
        let mut command = tokio::process::Command::from(mufakat(cluster, &words));
        command.kill_on_drop(true).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("it starts");
        let stdout = child.stdout.take().expect("it is a pipe");
        Tail {
            lines: BufReader::new(stdout).lines(),
            _child: child,
        }
    }

    async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(wait::LONG, self.lines.next_line()).await;
        let line = line.expect("a line in time").expect("it can be read");
        serde_json::from_str(&line.expect("one more line")).expect("JSON in each line")
    }
}

#[tokio::test]
async fn queue_tail_follows_a_topic_and_takes_nothing() {
    let (mut cluster, queue) = start(1).await;
    queue.push("a", json!("before")).await;
    let mut all = Tail::start(&cluster, &["a", "--after", "0", "--every", "50ms"]);
    assert_eq!(all.next().await["payload"], "before");

    // One without --after begins with what comes after its first look.
    let mut new = Tail::start(&cluster, &["a", "--every", "50ms"]);
    let mut pushed = 1;
    let first = wait::until("the second tail shows something", async || {
        queue.push("a", json!({"n": pushed})).await;
        pushed += 1;
        let line = tokio::time::timeout(wait::LONG / 40, new.lines.next_line()).await;
        Some(line.ok()?.expect("it can be read").expect("a line"))
    })
    .await;
    let first: Value = serde_json::from_str(&first).expect("JSON");
    assert!(first["seq"].as_u64() > Some(1), "{first}");
    for n in 1..pushed {
        let message = all.next().await;
        assert_eq!(message["payload"], json!({"n": n}), "{message}");
        assert_eq!(message["state"], "ready");
    }
    assert_eq!(
        queue.counts("a").await,
        [pushed, 0, 0, 0],
        "nothing is taken"
    );

    // A node that is away for a while is waited for.
    cluster.kill(1);
    cluster.start_node(1);
    crate::queue::serves(&queue).await;
    queue.push("a", json!("after")).await;
    assert_eq!(all.next().await["payload"], "after");

    let some = run(
        &cluster,
        &["queue", "tail", "a", "--after", "0", "--count", "2"],
    )
    .await;
    assert_eq!(stdout(&some).lines().count(), 2, "{}", stdout(&some));
    fails(&cluster, &["queue", "tail", "a", "--every", "1ms"], 2).await;
}
