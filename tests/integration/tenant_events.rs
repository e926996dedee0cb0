//! Who hears of what: with the shipped `nats/accounts.conf`, each team of its own names and no other's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use mufakat::client::{Client, ClientOptions};
use serde_json::{Value, json};

use crate::permissions::{User, secured_cluster};
use crate::wait;

/// What one round of [`act`] makes known.
const KINDS: [&str; 10] = [
    "lock.granted",
    "lock.contended",
    "lock.deadlock",
    "lock.released",
    "session.opened",
    "session.closed",
    "queue.paused",
    "queue.resumed",
    "cache.set",
    "cache.invalidate",
];

/// Everything that a user's subscription got, in order.
struct Heard(Arc<Mutex<Vec<(String, Value)>>>);

impl Heard {
    async fn by(user: &User) -> Self {
        let all = "mufakat.event.>";
        let mut events = user.nats.subscribe(all).await.expect("connected");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = heard.clone();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let body = serde_json::from_slice(&event.payload).expect("JSON");
                let kind = event.subject.strip_prefix("mufakat.event.");
                let kind = kind.expect("what was subscribed to").to_owned();
                kept.lock().expect("no holder panics").push((kind, body));
            }
        });
        Heard(heard)
    }

    fn events(&self) -> Vec<(String, Value)> {
        self.0.lock().expect("no holder panics").clone()
    }

    fn has_all_kinds(&self) -> bool {
        let heard: BTreeSet<String> = self.events().into_iter().map(|(kind, _)| kind).collect();
        KINDS.iter().all(|kind| heard.contains(*kind))
    }

    fn text(&self) -> String {
        let events = self.events().into_iter();
        events
            .map(|(kind, body)| format!("{kind} {body}\n"))
            .collect()
    }
}

/// Does something of each kind with names that every team has, and with owners that tell the team.
async fn act(team: &User, who: &str) {
    let ask = async |subject: &str, body: Value| {
        let answer = team.ask(subject, body).await;
        assert_eq!(answer["ok"], true, "{subject}: {answer}");
        answer
    };
    // Two that lock `x` and `y` in opposite order, which is found.
    let (first, second) = (format!("{who}-1"), format!("{who}-2"));
    let lock = |owner: &str, resource: &str, wait_ms: u64| {
        let body = json!({"owner": owner, "wait_ms": wait_ms});
        (format!("mufakat.lock.acquire.{resource}"), body)
    };
    let (subject, body) = lock(&first, "x", 0);
    let x = ask(&subject, body).await;
    let (subject, body) = lock(&second, "y", 0);
    let y = ask(&subject, body).await;
    let release = async |resource: &str, held: &Value| {
        let body = json!({"token": held["token"]});
        ask(&format!("mufakat.lock.release.{resource}"), body).await;
    };
    let (subject, body) = lock(&first, "y", 20_000);
    let (then, ()) = tokio::join!(ask(&subject, body), async {
        wait::until("it waits", async || {
            let seen = team.ask("mufakat.lock.get.y", json!({})).await;
            (seen["waiters"][0]["owner"] == first).then_some(())
        })
        .await;
        let (subject, body) = lock(&second, "x", 20_000);
        let found = team.ask(&subject, body).await;
        assert_eq!(found["error"]["code"], "deadlock", "{found}");
        release("y", &y).await;
    });
    release("x", &x).await;
    release("y", &then).await;
    let opened = ask(
        "mufakat.session.open",
        json!({"ttl_ms": 60_000, "name": who}),
    )
    .await;
    let session = json!({"session": opened["session"]});
    ask("mufakat.session.close", session).await;
    ask("mufakat.queue.push.jobs", json!({"payload": who})).await;
    ask("mufakat.queue.pause.jobs", json!({})).await;
    ask("mufakat.queue.resume.jobs", json!({})).await;
    let tagged = json!({"key": "k", "value": who, "tags": ["page"]});
    ask("mufakat.cache.set", tagged).await;
    ask("mufakat.cache.invalidate", json!({"tag": "page"})).await;
}

#[tokio::test]
async fn a_team_hears_of_what_is_its_own_and_operators_of_everything() {
    let cluster = secured_cluster().await;
    let a = User::connect(&cluster, "team_a").await;
    let b = User::connect(&cluster, "team_b").await;
    let operator = User::connect(&cluster, "operator").await;
    let [by_a, by_b, by_operator] = [
        Heard::by(&a).await,
        Heard::by(&b).await,
        Heard::by(&operator).await,
    ];
    // In its first moments a watcher may miss something.
    wait::until("each has heard of each kind", async || {
        act(&a, "of-a").await;
        act(&b, "of-b").await;
        let all = [&by_a, &by_b, &by_operator];
        all.iter().all(|heard| heard.has_all_kinds()).then_some(())
    })
    .await;

    for (heard, own, other) in [(&by_a, "of-a", "of-b"), (&by_b, "of-b", "of-a")] {
        let text = heard.text();
        assert!(text.contains(own) && !text.contains(other), "{text}");
        assert!(!text.contains("TEAM_"), "{text}");
        let mut seqs: BTreeMap<_, u64> = BTreeMap::new();
        for (kind, body) in heard.events() {
            match &*kind {
                "lock.granted" => assert!(["x", "y"].contains(&body["resource"].as_str().unwrap())),
                "cache.set" => assert_eq!(body["key"], "k", "{body}"),
                "cache.invalidate" => assert_eq!(body["tag"], "page", "{body}"),
                "queue.paused" => assert_eq!(body["topic"], "jobs", "{body}"),
                _ => {}
            }
            // The counts are of this team's events: those of others leave no gaps.
            if let Some(seq) = body["seq"].as_u64() {
                let run = (kind, body["node"].to_string(), body["boot"].to_string());
                let before = seqs.insert(run, seq);
                assert!(before.is_none_or(|before| seq == before + 1), "{text}");
            }
        }
    }
    let text = by_operator.text();
    for name in [
        "TEAM_A/x",
        "TEAM_B/x",
        "TEAM_A/jobs",
        "TEAM_B/k",
        "of-a",
        "of-b",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
    // Each was told once.
    let events = by_operator.events();
    let granted = events.iter().filter(|(kind, _)| kind == "lock.granted");
    let tokens: Vec<&Value> = granted.map(|(_, body)| &body["token"]).collect();
    let distinct: BTreeSet<String> = tokens.iter().map(|token| token.to_string()).collect();
    assert_eq!(distinct.len(), tokens.len(), "{text}");
}

/// The broker brings a reply to whatever subject of the account its asker named, be it one of events.
#[tokio::test]
async fn a_reply_that_is_brought_to_a_subject_of_events_is_none_to_our_watcher() {
    let cluster = secured_cluster().await;
    let team = User::connect(&cluster, "team_b").await;
    let reports = User::connect(&cluster, "reports").await;
    let client = Client::new(team.nats.clone(), ClientOptions::default()).await;
    let client = client.expect("connected");
    let mut watched = client.lock_events().await.expect("it may");
    let heard = Heard::by(&team).await;
    let is_reply = |(_, body): &(String, Value)| body.get("ok").is_some();
    wait::until("a reply comes as an event", async || {
        let body = json!({"ttl_ms": 100}).to_string();
        let (acquire, event) = (
            "mufakat.lock.acquire.reports.f2",
            "mufakat.event.lock.expired",
        );
        let sent = reports
            .nats
            .publish_with_reply(acquire, event, body.into())
            .await;
        sent.expect("connected");
        heard.events().iter().any(is_reply).then_some(())
    })
    .await;
    let release = "mufakat.lock.release.mark";
    let end = async {
        loop {
            let granted = team.ask("mufakat.lock.acquire.mark", json!({})).await;
            let token = json!({"token": granted["token"]});
            team.ask(release, token).await;
        }
    };
    let watch = async {
        while let Some(event) = watched.next().await.expect("it may watch") {
            assert!(!event.fields.contains_key("ok"), "{event:?}");
            if event.resource() == Some("mark") {
                return;
            }
        }
        panic!("the connection was closed");
    };
    tokio::select! {
        () = watch => {}
        () = end => {}
    }
}
