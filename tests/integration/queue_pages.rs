//! Looks at topics whose messages do not go into one answer, and looks that have no answer in time.

use serde_json::{Value, json};

use crate::queue::{messages, start};
use crate::wire;

#[tokio::test]
async fn queue_a_page_of_peek_ends_before_a_message_that_has_no_room() {
    let (_cluster, queue) = start(1).await;
    for length in [500_000, 700_000] {
        queue.push("a", json!("x".repeat(length))).await;
        let delayed = json!({"topic": "b", "payload": "x".repeat(length), "delay_ms": 600_000});
        queue.ok("queue.push", delayed).await;
    }
    let looks = [
        ("a", "ready", "cursor"),
        ("a", "all", "after_seq"),
        ("b", "delayed", "cursor"),
    ];
    for (topic, state, cursor) in looks {
        let (mut at, mut seqs) = (json!(0), Vec::new());
        for _ in 0..2 {
            let body = json!({"topic": topic, "state": state, cursor: at});
            let page = queue.ok("queue.peek", body).await;
            let shown = messages(&page).into_iter();
            seqs.push(
                shown
                    .map(|message| message["seq"].clone())
                    .collect::<Vec<_>>(),
            );
            at = page[cursor].clone();
        }
        assert_eq!(seqs, [[1], [2]], "{state}");
    }
}

#[tokio::test]
async fn queue_a_look_that_has_no_answer_in_time_is_a_timeout() {
    let (cluster, queue) = start(1).await;
    queue.push("a", json!(1)).await;
    cluster.pause_redis();
    let looks = [
        ("queue.stats", json!({"topic": "a", "timeout_ms": 300})),
        ("queue.peek", json!({"topic": "a", "timeout_ms": 300})),
        ("queue.list", json!({"timeout_ms": 300})),
        // After so long no answer of Redis is waited for.
        ("queue.stats", json!({"topic": "a", "timeout_ms": 8_000})),
    ];
    for (operation, body) in looks {
        let answer = queue.ask(operation, body).await;
        let outcome: &Value = &answer["error"]["outcome"];
        assert_eq!(
            (wire::code(&answer), outcome),
            ("timeout", &json!("not_applied")),
            "{answer}"
        );
    }
    cluster.resume_redis();
}
