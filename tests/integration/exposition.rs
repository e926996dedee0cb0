//! What nodes expose is what is documented, in the format that Prometheus reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use async_nats::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::documented::Documented;
use crate::queue::Queue;
use crate::{locks, metrics, wait, wire};

/// One metric, as a parser for Prometheus understands it.
#[derive(Deserialize)]
struct Family {
    name: String,
    r#type: String,
    unit: String,
    help: String,
    /// Name, labels and value.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// One metric, as docs/operations.md has it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    name: String,
    kind: String,
    /// With their values, where they are few.
    labels: BTreeMap<String, BTreeSet<String>>,
    unit: String,
    help: String,
}

/// Parses by Prometheus's own rules: the parser refuses what OpenMetrics does not allow.
fn parsed(text: &str) -> Vec<Family> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut parser = Command::new("python3")
        .arg(root.join("tests/integration/openmetrics.py"))
        .env("PYTHONPATH", root.join(".tools/python"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let mut stdin = parser.stdin.take().expect("it is piped");
    stdin.write_all(text.as_bytes()).expect("it reads all");
    drop(stdin);
    let output = parser.wait_with_output().expect("it ends");
    assert!(output.status.success(), "see above, or run `make tools`");
    serde_json::from_slice(&output.stdout).expect("it writes JSON")
}

/// The rows of the table.
fn documented() -> BTreeMap<String, Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = fs::read_to_string(path).expect("it is in the repository");
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let &[_, name, kind, labels, unit, help, _] = &cells[..] else {
            return None;
        };
        let name = name.trim_matches('`');
        let known = name.starts_with("mufakat_") || name.starts_with("process_");
        let row = Row {
            name: name.to_owned(),
            kind: kind.to_owned(),
            labels: labels.split(';').filter_map(label).collect(),
            unit: unit.to_owned(),
            help: help.to_owned(),
        };
        known.then(|| (row.name.clone(), row))
    });
    rows.collect()
}

fn label(text: &str) -> Option<(String, BTreeSet<String>)> {
    let mut words = text.split('`').skip(1).step_by(2).map(str::to_owned);
    Some((words.next()?, words.collect()))
}

/// What the samples of a metric are called, before the ending that its type has.
fn sample_name(family: &Family) -> String {
    match family.r#type.as_str() {
        "counter" => format!("{}_total", family.name),
        "info" => format!("{}_info", family.name),
        _ => family.name.clone(),
    }
}

/// The same node's metrics as values, as documented.
async fn values(nats: &Client, node: u64) -> Vec<Value> {
    let subject = format!("mufakat.node.{node}.metrics");
    let answer = wire::request_until_ok(nats, &subject, &json!({"format": "values"})).await;
    Documented::load().check_answer("metrics", &answer);
    assert!(answer.get("metrics").is_none());
    answer["families"].as_array().expect("a list").clone()
}

/// Whatever the text has, values have too; there may be more by the time that they are asked for.
fn same_as_values(families: &[Family], values: &[Value]) {
    assert_eq!(families.len(), values.len());
    for (family, value) in families.iter().zip(values) {
        assert_eq!(value["name"], *family.name);
        assert_eq!(value["type"], *family.r#type, "{}", family.name);
        let samples = value["samples"].as_array().expect("a list").iter();
        let known: BTreeSet<(String, String)> = samples
            .map(|sample| {
                let labels = sample.get("labels").cloned().unwrap_or_else(|| json!({}));
                let name = sample["name"].as_str().expect("a name");
                assert!(sample["value"].is_number(), "{sample}");
                (name.to_owned(), labels.to_string())
            })
            .collect();
        for (name, labels, _) in &family.samples {
            let series = (name.clone(), json!(labels).to_string());
            assert!(known.contains(&series), "{series:?}");
        }
    }
    let applied = |value: &&Value| value["name"] == "mufakat_raft_last_log_index";
    let applied = values.iter().find(applied).expect("it is there");
    assert!(
        applied["samples"][0]["value"].as_u64() > Some(0),
        "{applied}"
    );
}

#[tokio::test]
async fn every_documented_metric_is_there_and_no_other() {
    let cluster = Cluster::start(Options {
        redis: true,
        ..Options::default()
    })
    .await;
    let queue = Queue::of(&cluster).await;
    queue.push("jobs", json!(1)).await;
    locks::acquire(&queue.nats, "secret-lock", "me", 60_000).await;
    let body = json!({"resource": "secret-lock", "owner": "you"});
    let refused = wire::request(&queue.nats, "mufakat.lock.acquire", &body, wait::LONG).await;
    assert_eq!(wire::code(&refused.expect("an answer")), "lock_held");
    let documented = documented();
    let mut labels_seen: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let mut without_samples: BTreeSet<String> = documented.keys().cloned().collect();
    for node in cluster.ids() {
        let text = metrics::text(&queue.nats, node).await;
        assert!(!text.contains("secret-lock"));
        let families = parsed(&text);
        same_as_values(&families, &values(&queue.nats, node).await);
        let names: BTreeSet<String> = families.iter().map(sample_name).collect();
        let expected: BTreeSet<String> = documented.keys().cloned().collect();
        assert_eq!(names, expected);
        for family in families {
            let row = &documented[&sample_name(&family)];
            assert_eq!(family.r#type, row.kind, "{}", family.name);
            assert_eq!(family.unit, row.unit, "{}", family.name);
            let help = family.help.trim_end_matches('.');
            assert_eq!(help, row.help, "{}", family.name);
            for (name, labels, value) in &family.samples {
                without_samples.remove(&row.name);
                assert!(*value >= 0.0, "{name} {value}");
                let ends = match row.kind.as_str() {
                    "counter" => name.ends_with("_total"),
                    "histogram" => ["_bucket", "_sum", "_count"]
                        .iter()
                        .any(|e| name.ends_with(e)),
                    _ => *name == row.name,
                };
                assert!(ends, "{name} is a {}", row.kind);
                let named = labels.iter().filter(|(label, _)| *label != "le");
                for (label, value) in named {
                    let known = row.labels.get(label);
                    let known = known.unwrap_or_else(|| panic!("{name} has a label {label}"));
                    assert!(
                        known.is_empty() || known.contains(value),
                        "{name} {label} {value}"
                    );
                    let seen = labels_seen
                        .entry((row.name.clone(), label.clone()))
                        .or_default();
                    seen.insert(value.clone());
                }
            }
        }
    }
    assert_eq!(without_samples, BTreeSet::new());
    // What is not among the values of the table comes from lists that are as long as the code has them.
    for ((metric, label), values) in labels_seen {
        let most = match label.as_str() {
            "operation" => 60,
            "code" => 40,
            "topic" => 101,
            "peer" => 3,
            _ => 8,
        };
        let count = values.len();
        assert!(count <= most, "{label} of {metric} has {count} values");
    }
}

/// However many topics there are, a node names a hundred.
#[tokio::test]
async fn topics_beyond_the_hundredth_have_no_name_in_metrics() {
    let cluster = Cluster::start(Options {
        nodes: 1,
        redis: true,
        ..Options::default()
    })
    .await;
    let queue = Queue::of(&cluster).await;
    for number in 0..110 {
        queue.push(&format!("topic-{number}"), json!(number)).await;
    }
    let families = parsed(&metrics::text(&queue.nats, 1).await);
    let pushed = families.iter().find(|f| f.name == "mufakat_queue_pushed");
    let pushed = &pushed.expect("it is there").samples;
    assert_eq!(pushed.len(), 101);
    let of = |topic: &str| {
        pushed
            .iter()
            .find(|(_, labels, _)| labels["topic"] == topic)
    };
    assert_eq!(of("other").expect("it is there").2, 10.0);
    assert_eq!(of("topic-0").expect("it came first").2, 1.0);
    assert!(of("topic-109").is_none());
}
