//! What one team may have in a node's hands, while nobody leads and all of it waits.

use std::time::Duration;

use serde_json::json;

use crate::permissions::{User, secured_cluster_with};
use crate::{wait, wire};

/// More than a tenant may have in hand, as docs/protocol.md has it.
const TOO_MANY: usize = 8_200;
/// What one request may take here.
const ANSWER_MAX: Duration = Duration::from_secs(5);

#[tokio::test]
async fn what_a_team_has_in_hand_leaves_room_for_another() {
    let mut cluster = secured_cluster_with(&["--tenant-rate", "0"]).await;
    let a = User::connect(&cluster, "team_a").await;
    let b = User::connect(&cluster, "team_b").await;
    for node in [2, 3] {
        cluster.pause(node);
    }
    let subject = "mufakat.node.1.lock.acquire.x";
    let inbox = a.nats.new_inbox();
    for _ in 0..TOO_MANY {
        let body = json!({"timeout_ms": 30_000}).to_string();
        let asked = a
            .nats
            .publish_with_reply(subject, inbox.clone(), body.into());
        asked.await.expect("connected");
    }
    let ask = async |user: &User| {
        let body = json!({"timeout_ms": 300});
        let answer = wire::request(&user.nats, subject, &body, ANSWER_MAX).await?;
        Some(wire::code(&answer).to_owned())
    };
    wait::until("one more is too many", async || {
        (ask(&a).await? == "overloaded").then_some(())
    })
    .await;
    let of_b = ask(&b).await.expect("an answer");
    assert!(
        ["no_leader", "timeout", "indeterminate"].contains(&&*of_b),
        "{of_b}"
    );
    for node in [2, 3] {
        cluster.resume(node);
    }
    // What is answered is in hand no more.
    wait::until("both are served", async || {
        let served = [ask(&a).await?, ask(&b).await?];
        let known = |code: &String| ["ok", "lock_held"].contains(&&**code);
        served.iter().all(known).then_some(())
    })
    .await;
}
