//! Locks as plain clients use them in tests.

use std::time::Duration;

use async_nats::Client;
use serde_json::{Value, json};

use crate::{wait, wire};

/// How long one attempt waits for its answer.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The answer to `lock.get`, as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub holders: Vec<Held>,
    /// The owners, in the order of the queue.
    pub waiters: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub owner: String,
    pub token: u64,
    pub expires_in_ms: u64,
}

/// Asks who holds a resource, as often as needed.
pub async fn get(nats: &Client, resource: &str) -> Seen {
    let body = json!({"resource": resource});
    seen(&wire::request_until_ok(nats, "mufakat.lock.get", &body).await)
}

/// Reads an answer to `lock.get`.
pub fn seen(answer: &Value) -> Seen {
    let list = |field: &str| answer[field].as_array().expect("a list").clone();
    let owner = |entry: &Value| entry["owner"].as_str().expect("a name").to_owned();
    let holder = |holder: &Value| Held {
        owner: owner(holder),
        token: holder["token"].as_u64().expect("a number"),
        expires_in_ms: holder["expires_in_ms"].as_u64().expect("a number"),
    };
    Seen {
        holders: list("holders").iter().map(holder).collect(),
        waiters: list("waiters").iter().map(owner).collect(),
    }
}

/// Takes a free lock and returns the token.
pub async fn acquire(nats: &Client, resource: &str, owner: &str, ttl_ms: u64) -> u64 {
    let body = json!({"resource": resource, "owner": owner, "ttl_ms": ttl_ms});
    let answer = wire::request_until_ok(nats, "mufakat.lock.acquire", &body).await;
    answer["token"].as_u64().expect("a grant has a token")
}

/// Releases, as often as needed.
pub async fn release(nats: &Client, resource: &str, token: u64) {
    release_with(nats, resource, token, false).await;
}

/// Releases what may have been released already by an attempt whose answer nobody read.
pub async fn release_again(nats: &Client, resource: &str, token: u64) {
    release_with(nats, resource, token, true).await;
}

/// Once an attempt went unanswered, `not_holder` means that it did what it should.
async fn release_with(nats: &Client, resource: &str, token: u64, mut unknown: bool) {
    let body = json!({"resource": resource, "token": token});
    wait::until("the lock is released", async || {
        match wire::request(nats, "mufakat.lock.release", &body, ATTEMPT).await {
            None => unknown = true,
            Some(answer) => match wire::code(&answer) {
                "ok" => return Some(()),
                "not_holder" if unknown => return Some(()),
                "indeterminate" => unknown = true,
                "no_leader" | "timeout" | "shutting_down" => {}
                other => panic!("release of {resource} {token}: {other} in {answer}"),
            },
        }
        None
    })
    .await;
}
