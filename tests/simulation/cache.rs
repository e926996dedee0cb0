//! The cache of a whole cluster: what nodes read from their memory is never old, and what was
//! acknowledged is there after the loss of a node.

use std::time::Duration;

use mufakat::broker::simulated::Faults;
use mufakat::ids::NodeId;
use mufakat::time::now;
use serde_json::Value;

use crate::client::{Client, code};
use crate::cluster::{Cluster, NODES};
use crate::run;

const PATIENCE: Duration = Duration::from_secs(15);

struct Asker {
    cluster: Cluster,
    client: Client,
}

impl Asker {
    async fn new(seed: u64) -> Self {
        let mut cluster = Cluster::of_three(seed, 10_000).await;
        let client = Client::new(&cluster, 1).await;
        // All have joined the view, and have a lease.
        cluster.pass(3_000).await;
        Asker { cluster, client }
    }

    async fn ask(&mut self, node: NodeId, operation: &str, body: &str) -> Value {
        let request = (operation, body);
        let answer = self
            .client
            .call(&mut self.cluster, node, request, PATIENCE)
            .await;
        answer.unwrap_or_else(|| panic!("no answer of node {node} to {operation} {body}"))
    }

    /// Asks again while nodes are about to agree on who decides.
    async fn insist(&mut self, node: NodeId, operation: &str, body: &str) -> Value {
        let begun = now();
        loop {
            let answer = self.ask(node, operation, body).await;
            let passing = matches!(
                code(&answer),
                "reconfiguring" | "no_lease" | "indeterminate"
            );
            if !passing || begun.elapsed() > PATIENCE {
                return answer;
            }
            self.cluster.pass(100).await;
        }
    }

    async fn home(&mut self, key: &str) -> NodeId {
        let body = format!(r#"{{"key":"{key}"}}"#);
        let explained = self.ask(NODES[0], "cache.explain", &body).await;
        NodeId(explained["home"].as_u64().expect("a home"))
    }
}

#[test]
fn a_value_is_read_from_the_memory_of_each_node_and_new_after_each_write() {
    run(1, async {
        let mut asker = Asker::new(1).await;
        for round in 0..6 {
            let writer = NODES[round % 3];
            let set = format!(r#"{{"key":"a","value":{round}}}"#);
            let written = asker.ask(writer, "cache.set", &set).await;
            assert_eq!(code(&written), "ok", "{written}");
            for node in NODES {
                for again in 0..2 {
                    let found = asker.ask(node, "cache.get", r#"{"key":"a"}"#).await;
                    assert_eq!(found["value"], round, "{found}");
                    assert_eq!(found["version"], written["version"]);
                    if again == 1 {
                        assert_eq!(found["source"], "local", "{found}");
                    }
                }
            }
        }
        let gone = asker.ask(NODES[1], "cache.delete", r#"{"key":"a"}"#).await;
        assert_eq!(gone["existed"], true, "{gone}");
        for node in NODES {
            let found = asker.ask(node, "cache.get", r#"{"key":"a"}"#).await;
            assert_eq!(found["status"], "miss", "{found}");
        }
    });
}

#[test]
fn what_was_acknowledged_is_there_after_its_home_is_lost() {
    for seed in 1..=3 {
        run(seed, async {
            let mut asker = Asker::new(seed).await;
            for key in 0..12 {
                let set = format!(r#"{{"key":"k{key}","value":"v{key}"}}"#);
                let written = asker.ask(NODES[0], "cache.set", &set).await;
                assert_eq!(code(&written), "ok", "{written}");
            }
            let lost = asker.home("k0").await;
            asker.cluster.crash(lost, 0).await;
            let other = *NODES
                .iter()
                .find(|node| **node != lost)
                .expect("two are left");
            for key in 0..12 {
                let get = format!(r#"{{"key":"k{key}"}}"#);
                let found = asker.insist(other, "cache.get", &get).await;
                assert_eq!(found["value"], format!("v{key}"), "{found}");
            }
            asker.cluster.start(lost).await;
            asker.cluster.pass(5_000).await;
            let set = asker
                .insist(lost, "cache.set", r#"{"key":"k0","value":1}"#)
                .await;
            assert_eq!(code(&set), "ok", "{set}");
            let found = asker.ask(other, "cache.get", r#"{"key":"k0"}"#).await;
            assert_eq!(found["value"], 1, "{found}");
        });
    }
}

#[test]
fn a_node_that_is_cut_off_serves_nothing_once_its_lease_is_over() {
    run(1, async {
        let mut asker = Asker::new(1).await;
        let home = asker.home("a").await;
        let away = *NODES.iter().find(|node| **node != home).expect("three");
        asker
            .ask(home, "cache.set", r#"{"key":"a","value":1}"#)
            .await;
        for _ in 0..2 {
            asker.ask(away, "cache.get", r#"{"key":"a"}"#).await;
        }
        asker.cluster.isolate(away);
        let set = asker
            .insist(home, "cache.set", r#"{"key":"a","value":2}"#)
            .await;
        assert_eq!(code(&set), "ok", "{set}");
        let get = r#"{"key":"a","timeout_ms":500}"#;
        let found = asker.ask(away, "cache.get", get).await;
        assert_ne!(code(&found), "ok", "{found}");
        asker.cluster.heal();
        let found = asker.insist(away, "cache.get", r#"{"key":"a"}"#).await;
        assert_eq!(found["value"], 2, "{found}");
    });
}

#[test]
fn lost_and_repeated_messages_make_nothing_old() {
    for seed in 1..=4 {
        run(seed, async {
            let mut asker = Asker::new(seed).await;
            asker.cluster.network.set_faults(Faults {
                drop: 0.05,
                duplicate: 0.05,
                reorder: 0.1,
                ..Faults::NONE
            });
            for round in 0..20 {
                let (writer, reader) = (NODES[round % 3], NODES[(round + 1) % 3]);
                let set = format!(r#"{{"key":"a","value":{round},"timeout_ms":3000}}"#);
                // A request that is lost on its way to the home is not answered.
                let request = ("cache.set", set.as_str());
                let patience = Duration::from_secs(4);
                let answer = asker
                    .client
                    .call(&mut asker.cluster, writer, request, patience)
                    .await;
                if answer.is_some_and(|answer| code(&answer) == "ok") {
                    let found = asker.insist(reader, "cache.get", r#"{"key":"a"}"#).await;
                    assert_eq!(found["value"], round, "{found}");
                }
            }
        });
    }
}
