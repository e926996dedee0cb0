//! A request belongs to the trace that its client names: in the logs of all nodes that have it in hand.
//!
//! What a collector hears with the feature `otel` is in [`collector`].

use std::time::Duration;

use async_nats::HeaderMap;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::wait;

#[cfg(feature = "otel")]
mod collector;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Sends one request of the trace to one node, as a client's span of this number; returns who answered.
async fn ask(
    (nats, node): (&async_nats::Client, u64),
    (operation, span): (&str, u64),
    body: &Value,
) -> u64 {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", format!("00-{TRACE}-{span:016x}-01").as_str());
    let subject = format!("mufakat.node.{node}.{operation}");
    let answer = nats.request_with_headers(subject, headers, body.to_string().into());
    let answer = answer.await.expect("it is answered");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert_eq!(answer["ok"], true, "{answer}");
    answer["node"].as_u64().expect("a number")
}

/// The lines of a node's log about one request.
fn lines(cluster: &Cluster, node: u64, request_id: &str) -> Vec<Value> {
    let log = cluster.log(node);
    let lines = log.lines().map(serde_json::from_str::<Value>);
    let lines = lines.map(|line| line.expect("each line is one JSON object"));
    lines
        .filter(|line| line["span"]["request_id"] == request_id)
        .collect()
}

#[tokio::test]
async fn lines_about_a_request_have_its_id_and_its_trace_on_every_node_that_has_it() {
    let mut cluster = Cluster::start(Options {
        environment: vec![("MUFAKAT_LOG", "info,mufakat::request=debug".to_owned())],
        ..Options::default()
    })
    .await;
    let leader = cluster.leader().await;
    let nats = cluster.nats().await;
    for node in cluster.ids() {
        let id = format!("r-{node}");
        let body = json!({"resource": id, "request_id": id});
        assert_eq!(
            ask((&nats, node), ("lock.acquire", node), &body).await,
            leader
        );
        let said = wait::until("the leader has logged it", async || {
            let said = lines(&cluster, leader, &id);
            said.into_iter().find(|line| line["message"] == "answered")
        })
        .await;
        assert_eq!(said["span"]["operation"], "lock.acquire", "{said}");
        let traceparent = said["span"]["traceparent"].as_str().expect("it has one");
        assert!(traceparent.starts_with(&format!("00-{TRACE}-")), "{said}");
        if node != leader {
            let said = &lines(&cluster, node, &id)[0];
            assert_eq!(said["message"], "goes to another node", "{said}");
            assert_eq!(said["to"], leader, "{said}");
            let asked = format!("00-{TRACE}-{node:016x}-01");
            assert_eq!(said["span"]["traceparent"], asked, "{said}");
        }
    }
    // What is no trace changes nothing, and without one the id is logged.
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", "00-nonsense");
    let body = json!({"resource": "x", "request_id": "untraced"});
    let subject = format!("mufakat.node.{leader}.lock.acquire");
    let answer = nats.request_with_headers(subject, headers, body.to_string().into());
    tokio::time::timeout(Duration::from_secs(20), answer)
        .await
        .expect("in time")
        .expect("it is answered");
    let said = &lines(&cluster, leader, "untraced")[0];
    assert_eq!(said["span"]["traceparent"], Value::Null, "{said}");
}
