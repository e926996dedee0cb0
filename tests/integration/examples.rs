//! The examples of `docs/protocol.md`, sent again in their order to a fresh cluster.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::cluster::{Cluster, Options};
use crate::{raw, rest};

/// Fields whose values are another cluster's business; those that end with `_ms` are, too.
const VARIES: [&str; 17] = [
    "node",
    "role",
    "leader",
    "term",
    "commit_index",
    "applied_index",
    "epoch",
    "incarnation",
    "version",
    "claim",
    "batches",
    "source",
    "entries",
    "bytes",
    "hash",
    "receipt",
    "session",
];

/// What follows `nats req` in the blocks marked `console`, each with the answer below it.
fn examples(text: &str) -> Vec<(&str, &str, Value)> {
    let blocks = text.split("```console\n").skip(1);
    let lines: Vec<&str> = blocks
        .flat_map(|block| block.split("```").next().expect("a block ends").lines())
        .collect();
    lines
        .chunks(2)
        .map(|pair| {
            let request = pair[0].strip_prefix("nats req ").expect("a request");
            let (subject, body) = request.split_once(' ').expect("subject and body");
            let answer = serde_json::from_str(pair[1]).expect("answers are JSON");
            (subject, body.trim_matches('\''), answer)
        })
        .collect()
}

/// Demands that two values have the same fields and, but for those that vary, the same values.
fn same(shown: &Value, real: &Value, place: &str) {
    match (shown, real) {
        (Value::Object(shown), Value::Object(real)) => {
            // Who is asked is the broker's choice.
            let names = |object: &serde_json::Map<String, Value>| -> Vec<String> {
                let names = object.keys().filter(|name| *name != "ask_node");
                names.cloned().collect()
            };
            assert_eq!(names(shown), names(real), "{place}");
            for name in names(shown) {
                if !name.ends_with("_ms") && !VARIES.contains(&name.as_str()) {
                    same(&shown[&name], &real[&name], &format!("{place}.{name}"));
                }
            }
        }
        (Value::Array(shown), Value::Array(real)) => {
            assert_eq!(shown.len(), real.len(), "{place}");
            for (shown, real) in shown.iter().zip(real) {
                same(shown, real, place);
            }
        }
        (shown, real) => assert_eq!(shown, real, "{place}"),
    }
}

#[tokio::test]
async fn the_examples_of_the_reference_are_what_nodes_answer() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let text = fs::read_to_string(path).expect("the reference is in the repository");
    let examples = examples(&text);
    assert!(examples.len() >= 15, "{}", examples.len());
    let options = Options {
        redis: true,
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    rest::state_at_rest(&cluster).await;
    let nats = cluster.nats().await;
    for (subject, body, shown) in examples {
        let answer = raw::ask_bytes(&nats, subject, &[], body.to_owned()).await;
        same(&shown, &answer.body, &format!("{subject} {body}"));
    }
}
