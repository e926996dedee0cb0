//! Writes of the cache that are asked for again, with real nodes.

use mufakat::client::Client;
use mufakat::protocol::cache::{Delete, Explain, Increment, Repeat, Set};
use mufakat::protocol::value::Value;
use mufakat::protocol::{Code, Encoding, Outcome};
use serde_json::json;

use crate::cache::{all_hold, clients, get, set, value};
use crate::cluster::{Cluster, Options};
use crate::{raw, wait};

fn increment(id: &str, is_repeat: bool) -> Increment {
    Increment {
        repeat: Repeat {
            request_id: Some(id.to_owned()),
            repeat: is_repeat,
        },
        ..Increment::new("visits")
    }
}

async fn counted(client: &Client, increment: Increment) -> (u64, String) {
    let counted = client.cache_increment(&increment).await;
    let counted = counted.expect("it is counted");
    (counted.value, counted.version)
}

#[tokio::test]
async fn a_repeat_through_any_node_gets_the_first_answer() {
    let cluster = Cluster::start(Options::default()).await;
    all_hold(&cluster).await;
    let clients = clients(&cluster).await;
    let first = counted(&clients[0], increment("a", false)).await;
    assert_eq!(first.0, 1);
    for client in &clients {
        assert_eq!(counted(client, increment("a", true)).await, first);
        assert_eq!(counted(client, increment("a", false)).await, first);
    }
    let by_two = Increment {
        by: 2,
        ..increment("a", false)
    };
    let refused = clients[1].cache_increment(&by_two).await;
    let refused = refused.expect_err("it is another write");
    assert_eq!(refused.code(), Some(Code::RequestMismatch));

    let repeat = |id: &str| Repeat {
        request_id: Some(id.to_owned()),
        repeat: false,
    };
    let written = Set {
        repeat: repeat("set"),
        ..Set::new("key", Value::text("first"))
    };
    let delete = Delete {
        repeat: repeat("delete"),
        ..Delete::new("key")
    };
    let version = clients[0].cache_set(&written).await.expect("set").version;
    let deleted = clients[1].cache_delete(&delete).await.expect("deleted");
    assert!(deleted.existed);
    set(&clients[2], "key", Value::text("other")).await;
    let again = clients[2].cache_set(&written).await.expect("again").version;
    assert_eq!(again, version);
    assert!(
        clients[0]
            .cache_delete(&delete)
            .await
            .expect("again")
            .existed
    );
    let found = get(&clients[1], "key").await;
    assert_eq!(value(&found), Some(Value::text("other")));

    // The cluster is young: something may have been before.
    let brief = Increment {
        timeout_ms: Some(300),
        ..increment("unknown", true)
    };
    let refused = clients[0].cache_increment(&brief).await;
    let refused = refused.expect_err("it may have been made");
    assert_eq!(refused.code(), Some(Code::Indeterminate));
    assert_eq!(refused.outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn ids_come_in_both_encodings_and_in_the_header() {
    let cluster = Cluster::start(Options::default()).await;
    all_hold(&cluster).await;
    let nats = cluster.nats().await;
    let subject = "mufakat.cache.increment.visits";
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let body = json!({"request_id": "a", "repeat": false});
        let answer = raw::ask(&nats, encoding, subject, &body).await;
        assert_eq!(answer.success()["value"], 1);
    }
    let header = [("Nats-Msg-Id", "a")];
    let answer = raw::ask_bytes(&nats, subject, &header, "{}").await;
    assert_eq!(answer.success()["value"], 1);
    let alone = json!({"repeat": true});
    let answer = raw::ask(&nats, Encoding::Json, subject, &alone).await;
    assert_eq!(answer.refusal().0, "bad_request");
    assert_eq!(answer.body["error"]["field"], "repeat");
}

#[tokio::test]
async fn an_increment_counts_once_when_its_home_dies() {
    let mut cluster = Cluster::start(Options::default()).await;
    all_hold(&cluster).await;
    let all = clients(&cluster).await;
    for round in 0..2 {
        let id = format!("round {round}");
        let first = counted(&all[0], increment(&id, false)).await;
        assert_eq!(first.0, round + 1);
        let explain = Explain {
            key: "visits".to_owned(),
            timeout_ms: None,
        };
        let explained = all[0].cache_explain(&explain).await.expect("explained");
        let home = explained.home.expect("a home").0;
        let other = &all[home as usize % 3];
        cluster.kill(home);
        wait::until("the answer of the first", async || {
            let again = other.cache_increment(&increment(&id, true)).await.ok()?;
            assert_eq!((again.value, again.version), first);
            Some(())
        })
        .await;
        cluster.start_node(home);
        all_hold(&cluster).await;
        for client in &all {
            assert_eq!(counted(client, increment(&id, true)).await, first);
        }
    }
    assert_eq!(counted(&all[2], increment("last", false)).await.0, 3);
}
