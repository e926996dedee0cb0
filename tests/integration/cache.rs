//! The cache with real nodes: read from memory, never old, also around pauses and deaths.

use std::time::{Duration, Instant};

use mufakat::client::{Client, Target};
use mufakat::ids::{NodeId, Token};
use mufakat::protocol::cache::{
    Counted, Delete, Explain, Fence, Found, Get, GetMany, If, Increment, Repeat, Set, Source,
    Status, Touch,
};
use mufakat::protocol::lock::{Acquire, Mode, Release};
use mufakat::protocol::value::Value;
use mufakat::protocol::{Code, Encoding};

use crate::cluster::{Cluster, Options};
use crate::wait;

pub async fn clients(cluster: &Cluster) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in cluster.ids() {
        clients.push(cluster.client(Target::Node(NodeId(node))).await);
    }
    clients
}

/// Waits until every node has a lease.
pub async fn all_hold(cluster: &Cluster) {
    wait::until("a lease on every node", async || {
        for node in cluster.ids() {
            let status = cluster.status(node).await?;
            if status.lease_ms == 0 {
                return None;
            }
        }
        Some(())
    })
    .await;
}

pub async fn set(client: &Client, key: &str, value: Value) -> String {
    let written = client.cache_set(&Set::new(key, value)).await;
    written.expect("the value is written").version
}

pub async fn get(client: &Client, key: &str) -> Found {
    let found = client.cache_get(&Get::new(key)).await;
    found.expect("the key is read")
}

pub fn value(found: &Found) -> Option<Value> {
    found.value().expect("a value that can be read")
}

#[tokio::test]
async fn each_operation_does_what_it_says_through_every_node() {
    let cluster = Cluster::start(Options::default()).await;
    all_hold(&cluster).await;
    let clients = clients(&cluster).await;
    let [one, two, three] = &clients[..] else {
        panic!("three nodes");
    };

    let first = set(one, "a", Value::text("x")).await;
    for client in &clients {
        assert_eq!(value(&get(client, "a").await), Some(Value::text("x")));
        assert_eq!(get(client, "a").await.source, Some(Source::Local));
    }
    let absent = Set {
        condition: Some(If {
            absent: true,
            ..If::default()
        }),
        ..Set::new("a", Value::text("y"))
    };
    let refused = two.cache_set(&absent).await.expect_err("it is there");
    assert_eq!(refused.code(), Some(Code::AlreadyExists));
    let replace = |version: &str, text: &str| Set {
        condition: Some(If {
            version: Some(version.to_owned()),
            ..If::default()
        }),
        ..Set::new("a", Value::text(text))
    };
    let second = two
        .cache_set(&replace(&first, "y"))
        .await
        .expect("it is that version");
    let refused = three
        .cache_set(&replace(&first, "z"))
        .await
        .expect_err("it is not");
    assert_eq!(refused.code(), Some(Code::VersionMismatch));
    for client in &clients {
        let found = get(client, "a").await;
        assert_eq!(value(&found), Some(Value::text("y")));
        assert_eq!(found.version.as_ref(), Some(&second.version));
    }

    for (n, client) in clients.iter().enumerate() {
        let Counted { value, .. } = client
            .cache_increment(&Increment {
                by: 2,
                initial: 10,
                ..Increment::new("n")
            })
            .await
            .expect("an integer");
        assert_eq!(value, 12 + 2 * n as u64);
    }
    let refused = one
        .cache_increment(&Increment::new("a"))
        .await
        .expect_err("text");
    assert_eq!(refused.code(), Some(Code::WrongType));

    let binary = Value::binary(vec![0, 255, 7]);
    set(one, "b", binary.clone()).await;
    let keys = ["a", "none", "b", "n"].map(str::to_owned).to_vec();
    let many = three
        .cache_get_many(&GetMany {
            keys,
            consistency: Default::default(),
            timeout_ms: None,
        })
        .await
        .expect("all are read");
    let values: Vec<Option<Value>> = many.results.iter().map(value).collect();
    let expected = [
        Some(Value::text("y")),
        None,
        Some(binary),
        Some(Value::json("16").expect("JSON")),
    ];
    assert_eq!(values, expected);

    let touch = Touch {
        key: "a".to_owned(),
        ttl_ms: 60_000,
        repeat: Repeat::default(),
        timeout_ms: None,
    };
    one.cache_touch(&touch).await.expect("it is there");
    let left = get(two, "a").await.ttl_ms.expect("a lifetime");
    assert!((50_000..=60_000).contains(&left), "{left}");

    let deleted = two.cache_delete(&Delete::new("a")).await.expect("deleted");
    assert!(deleted.existed);
    for client in &clients {
        assert_eq!(get(client, "a").await.status, Status::Miss);
    }
    let status = cluster.status(1).await.expect("a status");
    assert!(
        status.cache.entries > 0 && status.lease_ms > 0,
        "{status:?}"
    );
}

#[tokio::test]
async fn a_value_ends_on_every_node_when_its_lifetime_does() {
    let cluster = Cluster::start(Options::default()).await;
    all_hold(&cluster).await;
    let clients = clients(&cluster).await;
    let short = Set {
        ttl_ms: Some(400),
        ..Set::new("a", Value::text("x"))
    };
    clients[0].cache_set(&short).await.expect("written");
    // At its home it ends earlier: the answer was on its way.
    let ends_at = Instant::now() + Duration::from_millis(400);
    for client in &clients {
        assert_eq!(get(client, "a").await.status, Status::Hit);
    }
    for client in &clients {
        wait::until("its end", async || {
            let asked_at = Instant::now();
            let status = get(client, "a").await.status;
            assert!(status == Status::Miss || asked_at < ends_at, "it lives on");
            (status == Status::Miss).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_that_was_stopped_past_its_lease_serves_nothing_old() {
    let mut cluster = Cluster::start(Options::flags(&[
        "--view-lease",
        "600ms",
        "--suspicion",
        "500ms",
    ]))
    .await;
    all_hold(&cluster).await;
    let clients = clients(&cluster).await;
    let explain = Explain {
        key: "a".to_owned(),
        timeout_ms: None,
    };
    let explained = clients[0].cache_explain(&explain).await.expect("explained");
    let home = explained.home.expect("a home").0;
    let paused = cluster
        .ids()
        .into_iter()
        .find(|node| *node != home)
        .expect("three");
    let (here, there) = (&clients[home as usize - 1], &clients[paused as usize - 1]);
    for past_its_lease in [false, true] {
        set(here, "a", Value::text("old")).await;
        wait::until("a copy", async || {
            let found = get(there, "a").await;
            (found.source == Some(Source::Local)).then_some(())
        })
        .await;
        cluster.pause(paused);
        // Requests that wait in the stopped node's connection are the first thing it sees.
        let asking: Vec<_> = (0..50)
            .map(|_| {
                let there = there.clone();
                tokio::spawn(async move { there.cache_get(&Get::new("a")).await })
            })
            .collect();
        let writing = set(here, "a", Value::text("new"));
        let resuming = async {
            match past_its_lease {
                // The write ends once the stopped node is out and its lease is over.
                true => std::future::pending().await,
                false => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        };
        tokio::pin!(writing);
        let was_written = tokio::select! {
            _ = &mut writing => true,
            () = resuming => false,
        };
        cluster.resume(paused);
        if !was_written {
            writing.await;
        }
        println!("stopped past its lease: {past_its_lease}; written meanwhile: {was_written}");
        for asked in asking {
            // A cache may forget, and a node that is about to join again refuses.
            if let (true, Ok(found)) = (was_written, asked.await.expect("it ends")) {
                assert_ne!(value(&found), Some(Value::text("old")), "{found:?}");
            }
        }
        let found = get(there, "a").await;
        assert_ne!(value(&found), Some(Value::text("old")), "{found:?}");
    }
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_with_one_node() {
    let mut cluster = Cluster::start(Options::default()).await;
    all_hold(&cluster).await;
    let clients = clients(&cluster).await;
    for key in 0..30 {
        set(
            &clients[key % 3],
            &format!("k{key}"),
            Value::text(format!("v{key}")),
        )
        .await;
    }
    cluster.kill(2);
    for key in 0..30 {
        let found = get(&clients[0], &format!("k{key}")).await;
        assert_eq!(
            value(&found),
            Some(Value::text(format!("v{key}"))),
            "k{key}"
        );
    }
    cluster.start_node(2);
    all_hold(&cluster).await;
    for key in 0..30 {
        let found = get(&clients[1], &format!("k{key}")).await;
        assert_eq!(
            value(&found),
            Some(Value::text(format!("v{key}"))),
            "k{key}"
        );
    }
    let any = cluster.client(Target::Any).await;
    assert_eq!(any.options().encoding, Encoding::Json);
    set(&any, "k0", Value::text("last")).await;
    for client in &clients {
        assert_eq!(value(&get(client, "k0").await), Some(Value::text("last")));
    }
}

#[tokio::test]
async fn who_lost_the_lock_does_not_overwrite_what_its_successor_wrote() {
    let cluster = Cluster::start(Options::default()).await;
    all_hold(&cluster).await;
    let client = cluster.client(Target::Any).await;
    let write = async |resource: &str, token: Token, text: &str| {
        let fenced = Set {
            fence: Some(Fence {
                resource: resource.to_owned(),
                token,
            }),
            ..Set::new("report", Value::text(text))
        };
        let written = client.cache_set(&fenced).await;
        written.map(|_| ()).map_err(|error| error.code())
    };
    let first = client.acquire(&Acquire::new("lock")).await.expect("free");
    assert_eq!(write("lock", first.token, "first").await, Ok(()));
    assert_eq!(write("lock", first.token, "again").await, Ok(()));
    let release = Release::new("lock", first.token);
    client.release(&release).await.expect("it is held");
    // The key has seen no newer token: its former holder is harmless still.
    assert_eq!(write("lock", first.token, "late").await, Ok(()));
    let second = client.acquire(&Acquire::new("lock")).await.expect("free");
    assert_eq!(write("lock", second.token, "second").await, Ok(()));
    let stale = Err(Some(Code::StaleToken));
    assert_eq!(write("lock", first.token, "late").await, stale);
    // What the key has forgotten is looked up among the locks.
    client
        .cache_delete(&Delete::new("report"))
        .await
        .expect("there");
    assert_eq!(write("lock", first.token, "late").await, stale);
    assert_eq!(write("free", second.token, "of another lock").await, stale);
    assert_eq!(write("lock", second.token, "second").await, Ok(()));
    let shared = Acquire {
        mode: Mode::Shared,
        ..Acquire::new("shared")
    };
    let shared = client.acquire(&shared).await.expect("free");
    let refused = Err(Some(Code::BadRequest));
    assert_eq!(
        write("shared", shared.token, "by one of many").await,
        refused
    );
    assert_eq!(
        value(&get(&client, "report").await),
        Some(Value::text("second"))
    );
}

/// Twenty clients through all nodes miss the same value at once.
#[tokio::test]
async fn a_stampede_loads_a_missing_value_once() {
    let cluster = Cluster::start(Options::default()).await;
    all_hold(&cluster).await;
    let clients = clients(&cluster).await;
    let loads = std::sync::atomic::AtomicU64::new(0);
    let ask = Get {
        claim_ms: Some(10_000),
        wait_ms: 10_000,
        ..Get::new("page")
    };
    let readers = (0..20).map(async |n| {
        let client = &clients[n % 3];
        let found = client.cache_get(&ask).await.expect("an answer");
        if let Some(claim) = found.claim {
            loads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let loaded = Set {
                claim: Some(claim),
                ..Set::new("page", Value::text("loaded"))
            };
            client.cache_set(&loaded).await.expect("the claim holds");
            return;
        }
        assert_eq!(value(&found), Some(Value::text("loaded")));
    });
    futures_util::future::join_all(readers).await;
    assert_eq!(loads.load(std::sync::atomic::Ordering::Relaxed), 1);

    // What a writer removes meanwhile is not brought back.
    let other = Get {
        key: "other".to_owned(),
        ..ask
    };
    let found = clients[0].cache_get(&other).await.expect("an answer");
    let delete = Delete::new("other");
    clients[1].cache_delete(&delete).await.expect("an answer");
    let late = Set {
        claim: found.claim,
        ..Set::new("other", Value::text("old"))
    };
    assert!(late.claim.is_some());
    let refused = clients[2].cache_set(&late).await.expect_err("it is over");
    assert_eq!(refused.code(), Some(Code::StaleToken));
}
