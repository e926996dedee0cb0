//! What an OpenTelemetry collector hears: spans, by OTLP over HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::json;

use super::{TRACE, ask};
use crate::cluster::{Cluster, Options};
use crate::wait;

/// The fields of a message of Protocol Buffers by their numbers: those that have bytes.
fn fields(mut message: &[u8]) -> BTreeMap<u64, Vec<&[u8]>> {
    fn integer(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = message.split_first().expect("an integer ends");
            *message = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found: BTreeMap<u64, Vec<&[u8]>> = BTreeMap::new();
    while !message.is_empty() {
        let key = integer(&mut message);
        let length = match key & 7 {
            0 => {
                integer(&mut message);
                continue;
            }
            1 => 8,
            5 => 4,
            2 => integer(&mut message) as usize,
            other => panic!("wire type {other}"),
        };
        let (bytes, rest) = message.split_at(length);
        message = rest;
        if key & 7 == 2 {
            found.entry(key >> 3).or_default().push(bytes);
        }
    }
    found
}

#[derive(Clone, Debug)]
struct Span {
    service: String,
    /// The node, by the instance of the service.
    node: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    attributes: BTreeMap<String, String>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(all: Option<&Vec<&[u8]>>) -> BTreeMap<String, String> {
    let each = all.into_iter().flatten().map(|attribute| {
        let attribute = fields(attribute);
        let value = fields(attribute[&2][0]);
        let value = value.get(&1).map_or(String::new(), |value| text(value[0]));
        (text(attribute[&1][0]), value)
    });
    each.collect()
}

/// The spans of an `ExportTraceServiceRequest`.
fn spans(request: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in &fields(request)[&1] {
        let of_resource = fields(of_resource);
        let resource = attributes(fields(of_resource[&1][0]).get(&1));
        for span in fields(of_resource[&2][0])[&2]
            .iter()
            .map(|span| fields(span))
        {
            spans.push(Span {
                service: resource["service.name"].clone(),
                node: resource["service.instance.id"].clone(),
                name: text(span[&5][0]),
                trace: hex(span[&1][0]),
                id: hex(span[&2][0]),
                parent: hex(span[&4][0]),
                attributes: attributes(span.get(&9)),
            });
        }
    }
    spans
}

/// A collector on this machine; refuses everything while `is_ill`.
struct Collector {
    port: u16,
    heard: Arc<Mutex<Vec<Span>>>,
    is_ill: Arc<Mutex<bool>>,
}

impl Collector {
    async fn start() -> Self {
        let heard: Arc<Mutex<Vec<Span>>> = Arc::default();
        let is_ill: Arc<Mutex<bool>> = Arc::default();
        let (into, ill) = (heard.clone(), is_ill.clone());
        let take = move |body: Bytes| async move {
            if *ill.lock().expect("no holder panics") {
                return StatusCode::BAD_GATEWAY;
            }
            into.lock().expect("no holder panics").extend(spans(&body));
            StatusCode::OK
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let service = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, service).await });
        Collector {
            port,
            heard,
            is_ill,
        }
    }

    /// The span at a node whose parent is this one.
    async fn child(&self, node: u64, parent: &str) -> Span {
        let what = format!("the collector has a span of node {node} after {parent}");
        wait::until(&what, async || {
            let heard = self.heard.lock().expect("no holder panics");
            let mut of_node = heard.iter().filter(|span| span.node == node.to_string());
            of_node.find(|span| span.parent == parent).cloned()
        })
        .await
    }
}

async fn cluster(collector: &Collector) -> Cluster {
    Cluster::start(Options {
        environment: vec![
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("http://127.0.0.1:{}", collector.port),
            ),
            ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
            ("NO_PROXY", "127.0.0.1".to_owned()),
        ],
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn the_span_of_the_node_that_answers_follows_that_of_the_node_that_was_asked() {
    let collector = Collector::start().await;
    let mut cluster = cluster(&collector).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;

    // A command goes to the leader.
    let body = json!({"resource": "a", "request_id": "first"});
    let answered = ask((&nats, follower), ("lock.acquire", 7), &body).await;
    assert_eq!(answered, leader);
    let asked = collector.child(follower, "0000000000000007").await;
    let executed = collector.child(leader, &asked.id).await;
    for span in [&asked, &executed] {
        assert_eq!(
            (span.trace.as_str(), span.name.as_str()),
            (TRACE, "lock.acquire")
        );
        assert_eq!(span.service, "mufakat");
        assert_eq!(span.attributes["mufakat.request_id"], "first");
    }

    // A write goes to the home of its key, whoever is asked.
    for node in cluster.ids() {
        let span = 16 + node;
        let body = json!({"key": "k", "value": "v"});
        let home = ask((&nats, node), ("cache.set", span), &body).await;
        let asked = collector.child(node, &format!("{span:016x}")).await;
        if home != node {
            let executed = collector.child(home, &asked.id).await;
            assert_eq!(
                (executed.trace.as_str(), executed.name.as_str()),
                (TRACE, "cache.set")
            );
        }
    }

    // Without the header there is no span: what the tests' own requests for the status would have.
    cluster.stop(follower).await;
    let heard = collector.heard.lock().expect("no holder panics");
    assert!(heard.iter().all(|span| span.trace == TRACE), "{heard:?}");
}

#[tokio::test]
async fn a_wait_belongs_to_its_trace_until_it_ends_and_a_collector_that_is_ill_costs_nothing_else()
{
    let collector = Collector::start().await;
    let mut cluster = cluster(&collector).await;
    let follower = cluster.follower().await;
    let nats = cluster.nats().await;
    let hold = json!({"resource": "a", "owner": "one"});
    let token = nats.request("mufakat.lock.acquire", hold.to_string().into());
    let token = token.await.expect("it is answered").payload;
    let token: serde_json::Value = serde_json::from_slice(&token).expect("JSON");

    let wait_for = json!({"resource": "a", "owner": "two", "wait_ms": 30_000});
    let waiting = ask((&nats, follower), ("lock.acquire", 9), &wait_for);
    let release = async {
        // What had ended before a later request at the same node is heard before it, or with it.
        ask(
            (&nats, follower),
            ("lock.get", 10),
            &json!({"resource": "a"}),
        )
        .await;
        collector.child(follower, "000000000000000a").await;
        let heard = collector.heard.lock().expect("no holder panics").clone();
        let has_ended = heard.iter().any(|span| span.parent == "0000000000000009");
        assert!(!has_ended, "{heard:?}");
        let body = json!({"resource": "a", "token": token["token"]});
        nats.request("mufakat.lock.release", body.to_string().into())
            .await
            .expect("it is answered");
    };
    tokio::join!(waiting, release);
    collector.child(follower, "0000000000000009").await;

    *collector.is_ill.lock().expect("no holder panics") = true;
    for number in 0..10 {
        let body = json!({"resource": format!("ill-{number}")});
        ask((&nats, follower), ("lock.acquire", 100 + number), &body).await;
    }
    wait::until("the node says that spans are lost", async || {
        cluster
            .log(follower)
            .contains("does not accept spans")
            .then_some(())
    })
    .await;
}
