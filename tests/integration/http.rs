//! What a node tells operators: HTTP and NATS service discovery.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::{Cluster, Options};
use crate::documented::Documented;
use crate::{command_line, locks, wait};

/// Status and body of an answer; none while nobody listens.
pub async fn get(cluster: &Cluster, node: u64, path: &str) -> Option<(u16, String)> {
    let address = ("127.0.0.1", cluster.http_port(node));
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).expect("a status line");
    Some((status.parse().expect("a number"), body.to_owned()))
}

async fn until_answered(cluster: &Cluster, node: u64, path: &str, expected: (u16, &str)) {
    let what = format!("{path} of node {node} answers {expected:?}");
    wait::until(&what, async || {
        let (status, body) = get(cluster, node, path).await?;
        (status == expected.0 && body.contains(expected.1)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_is_alive_at_once_and_ready_with_a_leader() {
    let mut cluster = Cluster::prepare(Options::default()).await;
    cluster.start_node(1);
    until_answered(&cluster, 1, "/livez", (200, "ok")).await;
    until_answered(&cluster, 1, "/readyz", (503, "not connected to NATS")).await;
    cluster.start_broker().await;
    let nats = cluster.nats().await;
    nats.flush().await.expect("connected");
    until_answered(&cluster, 1, "/readyz", (503, "no leader is known")).await;
    cluster.start_all();
    for node in cluster.ids() {
        until_answered(&cluster, node, "/readyz", (200, "ready")).await;
        // Ready means that requests reach it now.
        let subject = format!("mufakat.node.{node}.status");
        let answer = nats.request(subject, "".into()).await.expect("it listens");
        assert!(!answer.payload.is_empty());
    }
    let (status, body) = get(&cluster, 2, "/statusz").await.expect("it listens");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["node"]), (200, &2.into()));
    Documented::load().check_answer("status", &body);
    let (status, _) = get(&cluster, 2, "/nothing").await.expect("it listens");
    assert_eq!(status, 404);
    cluster.kill_broker();
    until_answered(&cluster, 3, "/readyz", (503, "not connected to NATS")).await;
    until_answered(&cluster, 3, "/livez", (200, "ok")).await;
}

#[tokio::test]
async fn a_node_without_its_redis_is_ready_for_all_but_the_queue() {
    let mut cluster = Cluster::start(Options {
        redis: true,
        ..Options::default()
    })
    .await;
    let whole = async |cluster: &Cluster| {
        wait::until("node 1 is ready for everything", async || {
            let answer = get(cluster, 1, "/readyz").await?;
            (answer == (200, "ready\n".to_owned())).then_some(())
        })
        .await;
    };
    whole(&cluster).await;
    cluster.kill_redis();
    until_answered(&cluster, 1, "/readyz", (200, "degraded: [\"queue\"]")).await;
    cluster.start_redis().await;
    whole(&cluster).await;
}

/// A Redis that hangs refuses nothing and closes nothing: only that it does not answer shows it.
#[tokio::test]
async fn a_redis_that_hangs_is_told_within_four_seconds() {
    let cluster = Cluster::start(Options {
        redis: true,
        ..Options::default()
    })
    .await;
    for (paused, expected) in [(false, "ready\n"), (true, "degraded"), (false, "ready\n")] {
        let limit = match paused {
            true => {
                cluster.pause_redis();
                Duration::from_secs(4)
            }
            false => {
                cluster.resume_redis();
                wait::LONG
            }
        };
        for node in cluster.ids() {
            let what = format!("/readyz of node {node} says {expected:?}");
            wait::until_within(limit, &what, async || {
                let (status, body) = get(&cluster, node, "/readyz").await?;
                let says = match paused {
                    true => body.contains("degraded: [\"queue\"]"),
                    false => body == expected,
                };
                (status == 200 && says).then_some(())
            })
            .await;
            let status = cluster.status(node).await.expect("an answer");
            assert_eq!(status.redis.expect("there is one").connected, !paused);
        }
    }
}

#[tokio::test]
async fn the_health_check_says_what_ready_says() {
    let mut cluster = Cluster::start(Options::default()).await;
    let address = format!("127.0.0.1:{}", cluster.http_port(1));
    let check = async |cluster: &Cluster| {
        let mut command =
            tokio::process::Command::from(command_line::mufakat(cluster, &["healthcheck"]));
        let output = command.env("MUFAKAT_HTTP", &address).output().await;
        let output = output.expect("it starts");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8(text).expect("it prints text"),
        )
    };
    let serves = (Some(0), "ready\n".to_owned());
    wait::until("node 1 serves", async || {
        (check(&cluster).await == serves).then_some(())
    })
    .await;
    cluster.kill_broker();
    wait::until("node 1 does not serve", async || {
        let (code, text) = check(&cluster).await;
        (code == Some(1) && text == "mufakat: not ready: not connected to NATS\n").then_some(())
    })
    .await;
    cluster.kill(1);
    let (code, text) = check(&cluster).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("cannot reach a node at 127.0.0.1:"), "{text}");
}

/// The samples of an OpenMetrics text by name, every line of which has to be right.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let mut families = BTreeMap::new();
    let mut samples = BTreeMap::new();
    assert!(text.ends_with("\n# EOF\n"));
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').expect("name and type");
            assert!(families.insert(name, kind).is_none(), "{name} twice");
            continue;
        }
        if line.starts_with('#') {
            let known = ["# HELP ", "# UNIT ", "# EOF"];
            assert!(known.iter().any(|start| line.starts_with(start)), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("series and value");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(samples.insert(series, value).is_none(), "{line} twice");
        let name = series.split('{').next().expect("a name");
        let (family, kind) = family_of(&families, name);
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("{family} is a {other}"),
        };
        let suffix = &name[family.len()..];
        assert!(suffixes.contains(&suffix), "{name} of {family}, a {kind}");
    }
    samples
}

/// The family that a name belongs to, the longest that it begins with, and its type.
fn family_of<'a>(families: &BTreeMap<&'a str, &'a str>, name: &str) -> (&'a str, &'a str) {
    let begins = families
        .iter()
        .filter(|(family, _)| name.starts_with(**family));
    let longest = begins.max_by_key(|(family, _)| family.len());
    let (family, kind) = longest.unwrap_or_else(|| panic!("{name} has no type"));
    (family, kind)
}

#[tokio::test]
async fn metrics_are_open_metrics_with_the_documented_names() {
    let mut cluster = Cluster::start(Options::default()).await;
    let leader = cluster.all_follow().await;
    let nats = cluster.nats().await;
    for _ in 0..10 {
        let token = locks::acquire(&nats, "m", "m", 60_000).await;
        locks::release(&nats, "m", token).await;
    }
    locks::acquire(&nats, "kept", "m", 60_000).await;
    let mut answered = 0.0;
    for node in cluster.ids() {
        let (status, text) = get(&cluster, node, "/metrics").await.expect("it listens");
        assert_eq!(status, 200);
        let samples = samples(&text);
        for name in [
            "mufakat_request_duration_seconds_count{operation=\"lock_acquire\"}",
            "mufakat_raft_term",
            "mufakat_raft_commit_index",
            "mufakat_raft_applied_index",
            "mufakat_raft_last_log_index",
            "mufakat_raft_snapshot_index",
            "mufakat_raft_batch_commands_count",
            "mufakat_raft_commit_seconds_count",
            "mufakat_locks_waiting",
            "mufakat_view_epoch",
        ] {
            assert!(samples.contains_key(name), "no {name} in\n{text}");
        }
        assert!(samples["mufakat_raft_fsync_seconds_count"] > 0.0);
        assert_eq!(samples["mufakat_raft_leader"], leader as f64);
        assert_eq!(
            samples["mufakat_nats_connected{connection=\"clients\"}"],
            1.0
        );
        assert_eq!(samples["mufakat_nats_connected{connection=\"raft\"}"], 1.0);
        let role = if node == leader { "leader" } else { "follower" };
        assert_eq!(
            samples[&*format!("mufakat_raft_role{{role=\"{role}\"}}")],
            1.0
        );
        answered += samples["mufakat_requests_total{operation=\"lock_acquire\"}"];
        if node == leader {
            assert_eq!(samples["mufakat_locks_held"], 1.0);
        }
    }
    assert!(answered >= 11.0, "{answered}");
}

#[tokio::test]
async fn every_node_answers_service_discovery() {
    let cluster = Cluster::start(Options::default()).await;
    let nats = cluster.nats().await;
    locks::acquire(&nats, "d", "d", 60_000).await;
    // Without a reply subject: nobody is answered, and the node goes on.
    nats.publish("$SRV.PING", "".into()).await.unwrap();
    for (verb, kind) in [
        ("PING", "io.nats.micro.v1.ping_response"),
        ("INFO", "io.nats.micro.v1.info_response"),
        ("STATS", "io.nats.micro.v1.stats_response"),
    ] {
        for subject in [format!("$SRV.{verb}"), format!("$SRV.{verb}.mufakat")] {
            let answers = discover(&cluster, &subject).await;
            let ids: BTreeSet<&str> = answers.iter().map(|a| a["id"].as_str().unwrap()).collect();
            assert_eq!(ids.len(), 3, "{subject}: {ids:?}");
            for answer in &answers {
                assert_eq!(answer["type"], kind, "{answer}");
                assert_eq!(answer["name"], "mufakat", "{answer}");
            }
            let endpoints = |answer: &Value| -> Vec<Value> {
                answer["endpoints"].as_array().cloned().unwrap_or_default()
            };
            if verb == "PING" {
                continue;
            }
            for answer in &answers {
                let names: Vec<Value> = endpoints(answer)
                    .iter()
                    .map(|endpoint| endpoint["name"].clone())
                    .collect();
                for name in [
                    "lock-acquire",
                    "lock-release",
                    "lock-renew",
                    "lock-check",
                    "lock-get",
                    "status",
                    "metrics",
                ] {
                    assert!(names.contains(&name.into()), "{name} in {answer}");
                }
            }
            if verb == "INFO" {
                for endpoint in answers.iter().flat_map(endpoints) {
                    let schema = endpoint["metadata"]["request_schema"].as_str().unwrap();
                    let schema: Value = serde_json::from_str(schema).expect("a schema is JSON");
                    assert_eq!(schema["type"], "object", "{endpoint}");
                    let takes_one = schema["properties"].get("resource").is_some();
                    assert!(takes_one || endpoint["name"] != "lock-acquire", "{schema}");
                }
            }
            if verb == "STATS" {
                let acquires = answers.iter().flat_map(endpoints);
                let acquires = acquires.filter(|endpoint| endpoint["name"] == "lock-acquire");
                let count: u64 = acquires.filter_map(|e| e["num_requests"].as_u64()).sum();
                assert!(count >= 1, "{answers:?}");
            }
        }
    }
}

/// The answers of all nodes.
async fn discover(cluster: &Cluster, subject: &str) -> Vec<Value> {
    let nats = cluster.nats().await;
    let inbox = nats.new_inbox();
    let mut answers = nats.subscribe(inbox.clone()).await.expect("not closed");
    nats.publish_with_reply(subject.to_owned(), inbox, "".into())
        .await
        .expect("not closed");
    let mut found = Vec::new();
    for _ in cluster.ids() {
        let answer = tokio::time::timeout(wait::LONG, answers.next()).await;
        let answer = answer.expect("every node answers").expect("subscribed");
        found.push(serde_json::from_slice(&answer.payload).expect("JSON"));
    }
    found
}
