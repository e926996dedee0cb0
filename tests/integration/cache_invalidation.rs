//! Invalidations by tag, by prefix and of all, with real nodes; and what watchers are told.

use std::time::Duration;

use mufakat::client::events::Event;
use mufakat::client::{Client, Target};
use mufakat::ids::NodeId;
use mufakat::protocol::cache::{Audit, Delete, Invalidate, Set, Status};
use mufakat::protocol::value::Value;

use crate::cache::{all_hold, clients, get, set};
use crate::cluster::{Cluster, Options};
use crate::wait;

#[tokio::test]
async fn what_is_invalidated_is_read_nowhere_any_more() {
    let cluster = Cluster::start(Options::default()).await;
    all_hold(&cluster).await;
    let clients = clients(&cluster).await;
    let keys: Vec<String> = (0..30).map(|n| format!("page.{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        let tag = if n % 3 == 0 { "third" } else { "other" };
        let tagged = Set {
            tags: vec![tag.to_owned(), "page".to_owned(), tag.to_owned()],
            ..Set::new(key, Value::text("x"))
        };
        clients[n % 3].cache_set(&tagged).await.expect("written");
        for client in &clients {
            assert_eq!(get(client, key).await.status, Status::Hit);
        }
    }
    let invalidate = async |client: &Client, asked: Invalidate| {
        let invalidated = client.cache_invalidate(&asked).await;
        invalidated.expect("all nodes do their part").count
    };
    for client in &clients {
        let audited = client
            .cache_audit(&Audit::default())
            .await
            .expect("a lease");
        assert_eq!(audited.mismatches, 0, "{audited:?}");
        assert!(audited.compared > 0, "{audited:?}");
    }
    let third = Invalidate {
        tag: Some("third".to_owned()),
        ..Invalidate::default()
    };
    assert_eq!(invalidate(&clients[0], third).await, 10);
    for (n, key) in keys.iter().enumerate() {
        for client in &clients {
            let expected = if n % 3 == 0 {
                Status::Miss
            } else {
                Status::Hit
            };
            assert_eq!(get(client, key).await.status, expected, "{key}");
        }
    }
    let prefix = Invalidate {
        prefix: Some("page.1".to_owned()),
        ..Invalidate::default()
    };
    // 1, 10, 11, 13, 14, 16, 17, 19: 12, 15 and 18 are gone already.
    assert_eq!(invalidate(&clients[1], prefix).await, 8);
    set(&clients[2], "untagged", Value::text("x")).await;
    let all = Invalidate {
        all: true,
        ..Invalidate::default()
    };
    assert_eq!(invalidate(&clients[2], all).await, 13);
    for client in &clients {
        assert_eq!(get(client, "untagged").await.status, Status::Miss);
    }
}

/// The node that homes some of the keys dies in the middle: the sweep begins anew without it.
#[tokio::test]
async fn an_invalidation_outlives_the_death_of_a_node() {
    let mut cluster = Cluster::start(Options::default()).await;
    all_hold(&cluster).await;
    let client = cluster.client(Target::Node(NodeId(1))).await;
    let tagged = |key: String| Set {
        tags: vec!["t".to_owned()],
        ..Set::new(key, Value::text("x"))
    };
    for n in 0..20 {
        let written = client.cache_set(&tagged(format!("key.{n}"))).await;
        written.expect("written");
    }
    cluster.kill(3);
    let asked = Invalidate {
        tag: Some("t".to_owned()),
        timeout_ms: Some(20_000),
        ..Invalidate::default()
    };
    client
        .cache_invalidate(&asked)
        .await
        .expect("the others do");
    for n in 0..20 {
        let found = get(&client, &format!("key.{n}")).await;
        assert_eq!(found.status, Status::Miss);
    }
}

#[tokio::test]
async fn watchers_are_told_of_every_change_and_how_many_they_missed() {
    let cluster = Cluster::start(Options::default()).await;
    all_hold(&cluster).await;
    let client = cluster.client(Target::Any).await;
    let mut events = client.cache_events().await.expect("a subscription");
    // Nodes look every tenth of a second whether anybody listens.
    let mut written = 0;
    let first = wait::until("an event comes", async || {
        set(&client, "noise", Value::text("x")).await;
        written += 1;
        let next = events.next();
        let next = tokio::time::timeout(Duration::from_millis(50), next).await;
        next.ok().and_then(|told| told.expect("it may watch"))
    })
    .await;
    let told = |event: &Event, field: &str| event.fields[field].clone();
    assert_eq!((first.event.as_str(), first.missed), ("cache.set", 0));
    assert!(told(&first, "seq").as_u64() <= Some(written));

    let brief = Set {
        ttl_ms: Some(50),
        tags: vec!["t".to_owned()],
        ..Set::new("brief", Value::text("x"))
    };
    let tagged = Set {
        tags: vec!["t".to_owned()],
        ..Set::new("tagged", Value::text("x"))
    };
    client.cache_set(&tagged).await.expect("written");
    client.cache_set(&brief).await.expect("written");
    wait::until("its time is over", async || {
        (get(&client, "brief").await.status == Status::Miss).then_some(())
    })
    .await;
    let delete = Delete::new("noise");
    assert!(client.cache_delete(&delete).await.expect("deleted").existed);
    let asked = Invalidate {
        tag: Some("t".to_owned()),
        ..Invalidate::default()
    };
    client
        .cache_invalidate(&asked)
        .await
        .expect("all take part");
    let mut seen = Vec::new();
    while seen.len() < 6 {
        let event = tokio::time::timeout(wait::LONG, events.next()).await;
        let event = event.expect("it comes").expect("it may watch");
        let event = event.expect("the connection is there");
        assert_eq!(event.missed, 0, "{event:?}");
        let about = ["key", "why", "tag", "count"].map(|field| match event.fields.get(field) {
            Some(value) => format!(" {value}"),
            None => String::new(),
        });
        let line = format!("{}{}", event.event, about.concat());
        if line != r#"cache.set "noise""# {
            seen.push(line);
        }
    }
    // Keys live on different nodes, whose events come in an order of their own.
    seen.sort_unstable();
    let expected = [
        r#"cache.delete "brief" "expired""#,
        r#"cache.delete "noise" "deleted""#,
        r#"cache.delete "tagged" "invalidated""#,
        r#"cache.invalidate "t" 1"#,
        r#"cache.set "brief""#,
        r#"cache.set "tagged""#,
    ];
    assert_eq!(seen, expected);
}
