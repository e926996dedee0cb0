//! Who may do what, with the shipped `nats/accounts.conf`, a real broker and real nodes: each permission
//! by trying it, and the table in `docs/security.md` from what came of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::cluster::{Cluster, Options};
use crate::process::Process;
use crate::secured::Secured;
use crate::{command_line, programs, wait, wire};

const USERS: [&str; 6] = ["node", "operator", "monitor", "team_a", "team_b", "reports"];
/// No answer takes longer, on however busy a machine.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// What nobody may publish to.
const NOBODYS: &str = "nobodys.subject";

/// What is tried, and by whom it may be done: one letter for each of [`USERS`], `-` for none.
const PUBLISH: [(&str, &str); 22] = [
    ("mufakat.lock.acquire", "-o-ab-"),
    ("mufakat.lock.acquire.x", "-o-ab-"),
    ("mufakat.lock.acquire.reports.x", "-o-abr"),
    ("mufakat.lock.acquire.reports_of_others.x", "-o-ab-"),
    ("mufakat.queue.push.reports.x", "-o-abr"),
    ("mufakat.cache.get.x", "-o-ab-"),
    ("mufakat.session.open", "-o-ab-"),
    ("mufakat.node.1.lock.get.reports.x", "-o-abr"),
    ("mufakat.node.1.lock.get", "-o-ab-"),
    ("mufakat.status", "-omab-"),
    ("mufakat.metrics", "-om---"),
    ("mufakat.node.1.status", "-omab-"),
    ("mufakat.admin.lock.release", "-o----"),
    ("mufakat.event.lock.granted", "n-----"),
    ("mufakat.int.raft.1", "n-----"),
    ("mufakat.t.TEAM_A.lock.acquire", "------"),
    ("mufakat.t.TEAM_B.lock.acquire", "------"),
    ("mufakat.t.TEAM_A.event.lock.granted", "n-----"),
    ("_R_.x", "n-----"),
    ("_INBOX_team_b.x", "------"),
    ("$SRV.INFO", "-om---"),
    ("$SYS.REQ.SERVER.PING", "------"),
];
const SUBSCRIBE: [(&str, &str); 12] = [
    (">", "------"),
    ("mufakat.lock.>", "n-----"),
    ("mufakat.t.>", "n-----"),
    ("mufakat.int.>", "n-----"),
    ("mufakat.event.>", "nomab-"),
    ("$SRV.>", "n-----"),
    ("_INBOX.>", "------"),
    ("_INBOX_operator.>", "-o----"),
    ("_INBOX_monitor.>", "--m---"),
    ("_INBOX_team_a.>", "---a--"),
    ("_INBOX_team_b.>", "----b-"),
    ("_INBOX_reports.>", "-----r"),
];

/// One user's connection, and what the broker refused it.
pub struct User {
    pub nats: Client,
    refusals: mpsc::UnboundedReceiver<String>,
}

impl User {
    pub async fn connect(cluster: &Cluster, name: &str) -> Self {
        let (sender, refusals) = mpsc::unbounded_channel();
        let nats = cluster
            .secured()
            .connect_options(name)
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    let _ = sender.send(error.to_string());
                }
                async {}
            })
            .connect(cluster.nats_url())
            .await
            .unwrap_or_else(|error| panic!("{name} connects: {error}"));
        User { nats, refusals }
    }

    /// Whether the broker lets a message pass. What is refused on purpose afterwards marks the end of what
    /// could be said about it.
    async fn may_publish(&mut self, subject: &str) -> bool {
        let inbox = self.nats.new_inbox();
        let sent = self
            .nats
            .publish_with_reply(subject.to_owned(), inbox, "{}".into());
        sent.await.expect("it is handed over");
        self.nothing_refused(subject).await
    }

    async fn may_subscribe(&mut self, subject: &str) -> bool {
        let _subscription = self.nats.subscribe(subject.to_owned()).await;
        self.nothing_refused(subject).await
    }

    async fn nothing_refused(&mut self, subject: &str) -> bool {
        let mark = self.nats.publish(NOBODYS, "".into());
        mark.await.expect("it is handed over");
        let mut passed = true;
        loop {
            let refusal = tokio::time::timeout(wait::LONG, self.refusals.recv()).await;
            let refusal = refusal.expect("the broker answers").expect("connected");
            if refusal.to_lowercase().contains(NOBODYS) {
                return passed;
            }
            let quoted = format!("\"{}\"", subject.to_lowercase());
            assert!(
                refusal.to_lowercase().contains(&quoted),
                "{subject}: {refusal}"
            );
            passed = false;
        }
    }

    pub async fn ask(&self, subject: &str, body: Value) -> Value {
        let answer = wire::request(&self.nats, subject, &body, ANSWER_MAX).await;
        answer.unwrap_or_else(|| panic!("{subject} {body}: no answer"))
    }
}

pub async fn secured_cluster() -> Cluster {
    secured_cluster_with(&[]).await
}

pub async fn secured_cluster_with(flags: &[&str]) -> Cluster {
    let options = Options {
        redis: true,
        secured: Some(Secured::new()),
        ..Options::flags(flags)
    };
    Cluster::start(options).await
}

#[tokio::test]
async fn each_user_may_do_what_the_table_says_and_nothing_else() {
    let cluster = secured_cluster().await;
    let mut users = Vec::new();
    for name in USERS {
        users.push(User::connect(&cluster, name).await);
    }
    let mut table = format!("| | {} |\n|---|", USERS.join(" | "));
    table.push_str(&"---|".repeat(USERS.len()));
    let rows = PUBLISH.map(|row| (true, row)).into_iter();
    for (publishes, (subject, expected)) in rows.chain(SUBSCRIBE.map(|row| (false, row))) {
        let verb = if publishes { "publish" } else { "subscribe" };
        table.push_str(&format!("\n| {verb} `{subject}` |"));
        for ((name, user), letter) in USERS.iter().zip(&mut users).zip(expected.chars()) {
            let may = match publishes {
                true => user.may_publish(subject).await,
                false => user.may_subscribe(subject).await,
            };
            assert_eq!(may, letter != '-', "{name} may {verb} {subject}");
            table.push_str(if may { " yes |" } else { " no |" });
        }
    }
    documented(&table);
}

/// The table stands in the documentation as it came out here.
fn documented(table: &str) {
    const BEGIN: &str = "<!-- tried by tests/integration/permissions.rs -->\n";
    const END: &str = "\n<!-- end -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let text = fs::read_to_string(&path).expect("it is in the repository");
    let (before, rest) = text.split_once(BEGIN).expect("the table begins");
    let (shown, after) = rest.split_once(END).expect("the table ends");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("it is writable");
        return;
    }
    assert_eq!(
        shown, table,
        "docs/security.md is behind: UPDATE_DOCS=1 cargo test --test integration -- permissions\n\
         then read the difference and commit it."
    );
}

/// A user whose names begin with one word: what is in the subject counts.
#[tokio::test]
async fn a_user_with_a_suffix_reaches_its_own_names_and_no_others() {
    let cluster = secured_cluster().await;
    let reports = User::connect(&cluster, "reports").await;
    let acquire = "mufakat.lock.acquire.reports.x";
    let mine = reports.ask(acquire, json!({"owner": "me"})).await;
    assert_eq!(mine["resource"], "reports.x", "{mine}");
    // The subject lets it pass, the body names what is another's.
    for body in [
        json!({"resource": "orders.x"}),
        json!({"resource": "reports"}),
        json!({"resource": "reports.x.y"}),
        json!({"resource": "TEAM_B/reports.x"}),
        json!({"resources": [{"resource": "orders.x"}]}),
        json!({"resource": "reports.x", "resources": [{"resource": "orders.x"}]}),
    ] {
        let refused = reports.ask(acquire, body.clone()).await;
        assert_eq!(wire::code(&refused), "bad_request", "{body}: {refused}");
    }
    let released = reports
        .ask(
            "mufakat.lock.release.reports.x",
            json!({"token": mine["token"]}),
        )
        .await;
    assert_eq!(released["released"], true, "{released}");
    // Redis took the nodes' certificates and password.
    let operator = User::connect(&cluster, "operator").await;
    wait::until("Redis is connected, with TLS and a password", async || {
        let status = operator.ask("mufakat.status", json!({})).await;
        let redis = &status["redis"];
        (redis["connected"] == true && redis["durability"] == "fsync").then_some(())
    })
    .await;
}

/// The same names, used by two teams at once, are not the same locks, topics and keys.
#[tokio::test]
async fn teams_have_names_of_their_own() {
    let cluster = secured_cluster().await;
    let a = User::connect(&cluster, "team_a").await;
    let b = User::connect(&cluster, "team_b").await;
    let operator = User::connect(&cluster, "operator").await;
    let teams = [&a, &b];

    let held = json!({"resource": "orders", "owner": "w", "request_id": "1", "ttl_ms": 600_000});
    let mut tokens = Vec::new();
    for team in teams {
        let granted = team.ask("mufakat.lock.acquire", held.clone()).await;
        assert_eq!(granted["ok"], true, "{granted}");
        assert_eq!([&granted["resource"], &granted["owner"]], ["orders", "w"]);
        tokens.push(granted["token"].clone());
    }
    assert!(
        tokens[0].as_u64() < tokens[1].as_u64(),
        "one order of tokens"
    );
    let refused = a.ask("mufakat.lock.acquire.orders", json!({})).await;
    assert_eq!(wire::code(&refused), "lock_held", "{refused}");
    assert_eq!(refused["error"]["holders"][0]["owner"], "w", "{refused}");
    assert!(!refused.to_string().contains("TEAM_A"), "{refused}");
    // Of one token each, and none of them the other's.
    for (team, (own, other)) in [(&a, (0, 1)), (&b, (1, 0))] {
        let listed = team.ask("mufakat.lock.list", json!({})).await;
        let locks = listed["locks"].as_array().expect("a list");
        assert_eq!(locks.len(), 1, "{listed}");
        assert_eq!(locks[0]["token"], tokens[own], "{listed}");
        let body = json!({"resource": "orders", "token": tokens[other]});
        for verb in ["release", "renew"] {
            let refused = team
                .ask(&format!("mufakat.lock.{verb}"), body.clone())
                .await;
            assert_eq!(wire::code(&refused), "not_holder", "{refused}");
        }
    }
    let seen = operator
        .ask("mufakat.lock.list", json!({"prefix": "TEAM_A/"}))
        .await;
    assert_eq!(seen["locks"][0]["resource"], "TEAM_A/orders", "{seen}");

    // A wait is answered where it was asked, and who hears of its grant keeps it: across accounts, the
    // broker does not say that nobody did.
    let wait = json!({"resource": "orders", "owner": "next", "wait_ms": 30_000});
    let (granted, ()) = tokio::join!(a.ask("mufakat.lock.acquire", wait), async {
        let waits = async || {
            let seen = a.ask("mufakat.lock.get.orders", json!({})).await;
            (seen["waiters"][0]["owner"] == "next").then_some(())
        };
        wait::until("it waits", waits).await;
        let graph = b.ask("mufakat.lock.graph", json!({})).await;
        assert_eq!(graph["edges"], json!([]), "{graph}");
        let graph = a.ask("mufakat.lock.graph", json!({})).await;
        assert_eq!(graph["edges"][0]["waits_for_owner"], "w", "{graph}");
        let body = json!({"resource": "orders", "token": tokens[0]});
        let released = a.ask("mufakat.lock.release", body).await;
        assert_eq!(released["released"], true, "{released}");
    });
    assert_eq!(
        [&granted["resource"], &granted["owner"]],
        ["orders", "next"]
    );
    for _ in 0..20 {
        let body = json!({"resource": "orders", "token": granted["token"]});
        let checked = a.ask("mufakat.lock.check", body).await;
        assert_eq!(checked["valid"], true, "{checked}");
    }

    // A set is released by its token alone, which others can guess.
    let set = json!({"resources": [{"resource": "x"}, {"resource": "y"}]});
    let set = a.ask("mufakat.lock.acquire", set).await;
    let by_token = json!({"token": set["token"]});
    for verb in ["release", "renew"] {
        let refused = b
            .ask(&format!("mufakat.lock.{verb}"), by_token.clone())
            .await;
        assert_eq!(wire::code(&refused), "not_holder", "{refused}");
    }
    let released = a.ask("mufakat.lock.release", by_token).await;
    assert_eq!(released["released"], true, "{released}");

    let session = a
        .ask("mufakat.session.open", json!({"ttl_ms": 600_000}))
        .await;
    let session = session["session"].as_str().expect("an id").to_owned();
    assert!(!session.contains('/'), "{session}");
    let refused = b
        .ask("mufakat.session.close", json!({"session": session}))
        .await;
    assert_eq!(wire::code(&refused), "session_not_found", "{refused}");
    let sessions = b.ask("mufakat.session.list", json!({})).await;
    assert_eq!(sessions["sessions"], json!([]), "{sessions}");
    let sessions = a.ask("mufakat.session.list", json!({})).await;
    assert_eq!(sessions["sessions"][0]["session"], session, "{sessions}");
    let kept = a
        .ask("mufakat.session.keepalive", json!({"session": session}))
        .await;
    assert_eq!(kept["ok"], true, "{kept}");

    for (team, value) in [(&a, "of a"), (&b, "of b")] {
        let pushed = team
            .ask("mufakat.queue.push.jobs", json!({"payload": value}))
            .await;
        assert_eq!(pushed["ok"], true, "{pushed}");
        let set = team
            .ask("mufakat.cache.set.k", json!({"value": value}))
            .await;
        assert_eq!(set["ok"], true, "{set}");
    }
    for (team, value) in [(&a, "of a"), (&b, "of b")] {
        let topics = team.ask("mufakat.queue.list", json!({})).await;
        assert_eq!(topics["topics"][0]["topic"], "jobs", "{topics}");
        assert_eq!(
            topics["topics"].as_array().map(Vec::len),
            Some(1),
            "{topics}"
        );
        let popped = team
            .ask("mufakat.queue.pop.jobs", json!({"consumer": "c", "max": 9}))
            .await;
        let messages = popped["messages"].as_array().expect("a list");
        assert_eq!(messages.len(), 1, "{popped}");
        assert_eq!(messages[0]["payload"], value, "{popped}");
        let found = team.ask("mufakat.cache.get.k", json!({})).await;
        assert_eq!(found["value"], value, "{found}");
    }
    // The broker lets a team pass to nothing else; a node would say so, too.
    let refused = a.ask("mufakat.node.1.metrics", json!({})).await;
    assert_eq!(wire::code(&refused), "forbidden", "{refused}");
    let status = a.ask("mufakat.node.2.status", json!({})).await;
    assert_eq!(status["node"], 2, "{status}");
}

/// What one team asks too much is refused to it alone.
#[tokio::test]
async fn a_team_that_asks_too_much_takes_nothing_from_another() {
    let cluster = secured_cluster_with(&["--tenant-rate", "20"]).await;
    let a = User::connect(&cluster, "team_a").await;
    let b = User::connect(&cluster, "team_b").await;
    // Be it valid or not.
    let bodies = [json!({}), json!({"unknown": 1})];
    let asked = (0..200).map(|n| a.ask("mufakat.node.1.status", bodies[n % 2].clone()));
    let answers = futures_util::future::join_all(asked).await;
    let refused = answers.iter().filter(|answer| answer["ok"] == false);
    let refused = refused.filter(|answer| wire::code(answer) != "bad_request");
    let refused: Vec<&Value> = refused.collect();
    assert!(refused.len() > 150, "{} were refused", refused.len());
    for refusal in refused {
        assert_eq!(wire::code(refusal), "overloaded", "{refusal}");
        assert_eq!(refusal["error"]["limit"], 20, "{refusal}");
    }
    let answer = b.ask("mufakat.node.1.status", json!({})).await;
    assert_eq!(answer["ok"], true, "{answer}");
}

#[tokio::test]
async fn who_has_no_certificate_of_the_authority_gets_nowhere() {
    let cluster = secured_cluster().await;
    let (secured, others) = (cluster.secured(), Secured::new());
    let refused = async |flags: Vec<String>| {
        let words = ["status".to_owned()].into_iter().chain(flags);
        let words: Vec<String> = words.collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = tokio::process::Command::from(command_line::mufakat(&cluster, &words));
        let output = tokio::time::timeout(wait::LONG, command.output()).await;
        let output = output.expect("it ends").expect("it starts");
        assert_eq!(output.status.code(), Some(69), "{words:?}");
        String::from_utf8(output.stderr).expect("it prints text")
    };
    let ca = |of: &Secured| format!("--nats-ca={}", of.file("operator", "ca.pem").display());
    let without = refused(vec![ca(secured)]).await;
    assert!(without.contains("CertificateRequired"), "{without}");
    let of_another = refused(others.flags("operator")).await;
    assert!(of_another.contains("UnknownIssuer"), "{of_another}");
    let mut mixed = others.flags("operator");
    mixed.retain(|flag| !flag.starts_with("--nats-ca"));
    mixed.push(ca(secured));
    let theirs = refused(mixed).await;
    assert!(theirs.contains("UnknownCA"), "{theirs}");
    // A certificate of the authority, but of nobody that the broker knows.
    let stranger = refused(secured.flags("redis")).await;
    assert!(stranger.contains("authorization violation"), "{stranger}");
}

/// A broker of somebody's own, which would join the cluster with the certificate of `who`; and a client of
/// it, as free there as its owner likes.
struct Rogue {
    broker: Process,
    nats: Client,
    _directory: tempfile::TempDir,
}

impl Rogue {
    async fn start(secured: &Secured, who: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (port, route_port) = (programs::free_port(), programs::free_port());
        let text = format!(
            "listen: 127.0.0.1:{port}\nserver_name: rogue\nsystem_account: SYS\n\
             accounts {{ MUFAKAT {{ users: [{{user: me, password: me}}] }}, SYS {{ users: [] }} }}\n\
             cluster {{ name: mufakat, listen: 127.0.0.1:{route_port}, \
             routes: [nats-route://localhost:{}], tls {{ cert_file: $NATS_TLS_CERT, \
             key_file: $NATS_TLS_KEY, ca_file: $NATS_TLS_CA }} }}\n",
            secured.route_port,
        );
        let configuration = directory.path().join("rogue.conf");
        fs::write(&configuration, text).expect("a file can be made");
        let mut command = Command::new(programs::find("nats-server", "MUFAKAT_NATS_SERVER"));
        command.arg("-c").arg(&configuration);
        secured.broker_environment(&mut command, who);
        let log = directory.path().join("rogue.log");
        let broker = Process::start("a rogue broker", &mut command, &log);
        let nats = ConnectOptions::with_user_and_password("me".into(), "me".into())
            .custom_inbox_prefix("_INBOX_operator")
            .retry_on_initial_connect()
            .connect(format!("127.0.0.1:{port}"))
            .await
            .expect("the first connection is made in the background");
        Rogue {
            broker,
            nats,
            _directory: directory,
        }
    }

    async fn ask(&self) -> Option<Value> {
        let limit = Duration::from_secs(1);
        wire::request(&self.nats, "mufakat.status", &json!({}), limit).await
    }
}

#[tokio::test]
async fn a_user_of_the_broker_is_no_broker() {
    let cluster = secured_cluster().await;
    let user = Rogue::start(cluster.secured(), "team_a").await;
    wait::until("the route is refused", async || {
        let refused = user.broker.log().contains("Authorization Violation");
        refused.then_some(())
    })
    .await;
    assert_eq!(user.ask().await, None);
    // With a broker's certificate the same reaches the nodes: nothing else kept the user out.
    let broker = Rogue::start(cluster.secured(), "nats").await;
    wait::until("a broker's certificate makes a route", async || {
        broker.ask().await
    })
    .await;
}
