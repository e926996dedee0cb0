//! The dashboard of a real cluster: what its stream says, and what may be done with the token.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;

use crate::cluster::{Cluster, Options};
use crate::{wait, wire};

const TOKEN: &str = "0123456789abcdef-of-a-test";

async fn send(cluster: &Cluster, node: u64, request: String) -> TcpStream {
    let address = ("127.0.0.1", cluster.http_port(node));
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it is sent");
    stream
}

/// Head and body of an answer. HTTP 1.0: the end of the connection ends the body.
async fn ask(cluster: &Cluster, node: u64, head: &str, body: &str) -> (String, String) {
    let length = body.len();
    let request = format!("{head} HTTP/1.0\r\nHost: x\r\nContent-Length: {length}\r\n");
    let request = match head.starts_with("POST ") {
        true => format!("{request}\r\n{body}"),
        false => format!("{request}\r\n"),
    };
    let mut stream = send(cluster, node, request).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    (head.to_owned(), body.to_owned())
}

/// Does something with a token, and returns status and body.
async fn act(
    cluster: &Cluster,
    operation: &str,
    token: Option<&str>,
    body: Value,
) -> (u16, String) {
    let body = body.to_string();
    let header = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!(
        "POST /dashboard/act/{operation} HTTP/1.0\r\nHost: x\r\n{}Content-Length: {}\r\n\r\n{body}",
        header.unwrap_or_default(),
        body.len(),
    );
    let mut stream = send(cluster, 1, request).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).expect("a status line");
    (status.parse().expect("a number"), body.to_owned())
}

/// What a viewer hears.
struct Documents(Lines<BufReader<TcpStream>>);

impl Documents {
    async fn of(cluster: &Cluster, node: u64) -> Self {
        let request = "GET /dashboard/events HTTP/1.0\r\nHost: x\r\n\r\n".to_owned();
        let stream = send(cluster, node, request).await;
        Documents(BufReader::new(stream).lines())
    }

    /// The first document that is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = tokio::time::timeout(wait::LONG, async {
            loop {
                let line = self.0.next_line().await.expect("it is open");
                let line = line.expect("the stream goes on");
                let Some(text) = line.strip_prefix("data: ") else {
                    continue;
                };
                let document = serde_json::from_str(text).expect("JSON");
                if wanted(&document) {
                    return document;
                }
            }
        });
        found
            .await
            .unwrap_or_else(|_| panic!("no document in which {what}"))
    }
}

fn all_answer(document: &Value) -> bool {
    let nodes = document["nodes"].as_array().expect("a list");
    nodes.len() == 3 && nodes.iter().all(|node| !node["report"].is_null())
}

#[tokio::test]
async fn the_dashboard_shows_the_cluster_and_acts_with_the_token() {
    let options = Options {
        redis: true,
        ..Options::flags(&["--admin-token", TOKEN])
    };
    let mut cluster = Cluster::start(options).await;
    let nats = cluster.nats().await;
    let (head, page) = ask(&cluster, 2, "GET /", "").await;
    assert!(
        head.contains("content-security-policy: default-src 'none'"),
        "{head}"
    );
    assert!(page.contains("<script src=\"dashboard.js\""), "{page}");

    let name = "<script>alert(1)</script>";
    let body = json!({"resource": name, "owner": "o\"'&", "ttl_ms": 600_000});
    let granted = wire::request(&nats, "mufakat.lock.acquire", &body, wait::LONG).await;
    assert_eq!(granted.expect("an answer")["ok"], true);
    let mut documents = Documents::of(&cluster, 1).await;
    let document = documents.until("all nodes answer", all_answer).await;
    assert_eq!(document["can_act"], true);
    let document = documents
        .until("everything is known", |seen| seen["missing"] == json!({}))
        .await;
    assert_eq!(document["parts"]["locks"]["locks"][0]["resource"], name);
    assert_eq!(document["parts"]["queues"]["topics"], json!([]));

    let release = json!({"resource": name, "reason": "a test"});
    for token in [None, Some("0123456789abcdef-of-another")] {
        let (status, said) = act(&cluster, "admin.lock.release", token, release.clone()).await;
        assert_eq!(status, 403, "{said}");
    }
    let (status, said) = act(
        &cluster,
        "lock.acquire",
        Some(TOKEN),
        json!({"resource": "x"}),
    )
    .await;
    assert_eq!(status, 403, "{said}");
    documents
        .until("it is held yet", |seen| {
            seen["parts"]["locks"]["locks"][0]["held"] == 1
        })
        .await;
    let (status, said) = act(&cluster, "admin.lock.release", Some(TOKEN), release).await;
    assert_eq!(status, 200, "{said}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["holders"][0]["owner"], "o\"'&", "{said}");
    documents
        .until("it is not held", |seen| {
            seen["parts"]["locks"]["locks"] == json!([])
        })
        .await;
    // Whoever opens the page later is told by nodes that were not asked for the lock, too.
    wait::until("the past is remembered", async || {
        let (head, history) = ask(&cluster, 3, "GET /dashboard/history", "").await;
        assert!(head.contains("application/json"), "{head}");
        let history: Value = serde_json::from_str(&history).expect("JSON");
        let points = history["points"].as_array().expect("a list").clone();
        let locked = |point: &Value| point["requests"]["lock_acquire"].as_f64().unwrap_or(0.0);
        let sum: f64 = points.iter().map(locked).sum();
        assert!(sum < 1.001, "one lock was asked for: {sum}");
        (sum > 0.999).then_some(())
    })
    .await;
    // An action on a topic, which another node may have to execute.
    let (status, said) = act(&cluster, "queue.pause", Some(TOKEN), json!({"topic": "t"})).await;
    assert_eq!(
        (status, said.contains("\"paused\":true")),
        (200, true),
        "{said}"
    );

    let leader = cluster.leader().await;
    let witness = cluster.ids().into_iter().find(|node| *node != leader);
    let mut documents = Documents::of(&cluster, witness.expect("three nodes")).await;
    documents.until("all nodes answer", all_answer).await;
    cluster.kill(leader);
    documents
        .until("the killed leader is gone, and another leads", |seen| {
            let nodes = seen["nodes"].as_array().expect("a list");
            let gone = nodes.iter().find(|node| node["node"] == leader);
            let leads = |node: &Value| node["report"]["status"]["role"] == "leader";
            gone.is_some_and(|node| node["report"].is_null()) && nodes.iter().any(leads)
        })
        .await;
}

#[tokio::test]
async fn without_a_token_nothing_can_be_done() {
    let cluster = Cluster::start(Options::default()).await;
    let body = json!({"resource": "x", "reason": "a test"});
    let (status, said) = act(&cluster, "admin.lock.release", Some(TOKEN), body).await;
    assert_eq!(status, 403);
    assert!(said.contains("no admin token"), "{said}");
    let mut documents = Documents::of(&cluster, 1).await;
    let document = documents.until("all nodes answer", all_answer).await;
    assert_eq!(document["can_act"], false);
    // Without Redis there are no queues, and the rest is shown.
    let document = documents
        .until("locks are known", |seen| {
            seen["parts"]["locks"]["ok"] == true
        })
        .await;
    assert_eq!(document["parts"]["queues"]["ok"], false, "{document}");
}
