//! Clients: they ask nodes and hear the answers through the simulated broker.

use std::time::Duration;

use mufakat::broker::Subscription;
use mufakat::ids::NodeId;
use mufakat::time::{Instant, now};
use serde_json::Value;

use crate::cluster::Cluster;

/// One client with an inbox.
pub struct Client {
    name: String,
    inbox: Subscription,
    asked: u64,
}

impl Client {
    pub async fn new(cluster: &Cluster, number: u64) -> Self {
        let name = format!("inbox.{number}");
        let broker = cluster.clients.broker(NodeId(1000 + number));
        let inbox = broker.subscribe(format!("{name}.>"), 1024).await;
        Client {
            name,
            inbox: inbox.expect("a simulated broker takes subscriptions"),
            asked: 0,
        }
    }

    /// Sends a request to a node; the number that its answers carry.
    pub fn ask(&mut self, cluster: &Cluster, node: NodeId, operation: &str, body: &str) -> u64 {
        self.asked += 1;
        let reply = format!("{}.{}", self.name, self.asked);
        cluster.ask(node, operation, reply, body);
        self.asked
    }

    /// The answers that are here, each with its number.
    pub fn heard(&mut self) -> Vec<(u64, Value)> {
        let mut heard = Vec::new();
        while let Some(message) = self.inbox.try_next() {
            let number = message
                .subject
                .rsplit('.')
                .next()
                .and_then(|n| n.parse().ok());
            let answer = serde_json::from_slice(&message.payload);
            heard.push((
                number.expect("a number"),
                answer.expect("an answer in JSON"),
            ));
        }
        heard
    }

    /// Asks and waits for the answer, at most so long.
    pub async fn call(
        &mut self,
        cluster: &mut Cluster,
        node: NodeId,
        (operation, body): (&str, &str),
        patience: Duration,
    ) -> Option<Value> {
        let number = self.ask(cluster, node, operation, body);
        self.answer(cluster, number, now() + patience).await
    }

    pub async fn answer(
        &mut self,
        cluster: &mut Cluster,
        number: u64,
        until: Instant,
    ) -> Option<Value> {
        while now() < until {
            let heard = self.heard().into_iter().find(|(of, _)| *of == number);
            if let Some((_, answer)) = heard {
                return Some(answer);
            }
            cluster.pass(5).await;
        }
        None
    }
}

pub fn token(answer: &Value) -> u64 {
    answer["token"]
        .as_u64()
        .unwrap_or_else(|| panic!("no token in {answer}"))
}

pub fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or("ok")
}
