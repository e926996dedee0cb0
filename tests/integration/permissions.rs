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
use crate::{cli, programs, wait, wire};

const USERS: [&str; 5] = ["node", "operator", "monitor", "team_a", "team_b"];
/// No answer takes longer, on however busy a machine.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// What nobody may publish to.
const NOBODYS: &str = "nobodys.subject";

/// What is tried, and by whom it may be done: one letter for each of [`USERS`], `-` for none.
const PUBLISH: [(&str, &str); 19] = [
    ("mufakat.lock.acquire", "-o---"),
    ("mufakat.lock.acquire.team_a.x", "-o-a-"),
    ("mufakat.lock.acquire.team_b.x", "-o--b"),
    ("mufakat.lock.acquire.team_abc.x", "-o---"),
    ("mufakat.queue.push.team_a.x", "-o-a-"),
    ("mufakat.cache.get.team_b.x", "-o--b"),
    ("mufakat.session.open", "-o---"),
    ("mufakat.node.1.lock.get.team_a.x", "-o-a-"),
    ("mufakat.node.1.lock.get.team_b.x", "-o--b"),
    ("mufakat.node.1.lock.get", "-o---"),
    ("mufakat.status", "-omab"),
    ("mufakat.metrics", "-om--"),
    ("mufakat.node.1.status", "-om--"),
    ("mufakat.admin.lock.release", "-o---"),
    ("mufakat.event.lock.granted", "n----"),
    ("mufakat.int.raft.1", "n----"),
    ("mufakat.t.TEAM.lock.acquire", "-----"),
    ("$SRV.INFO", "-om--"),
    ("$SYS.REQ.SERVER.PING", "-----"),
];
const SUBSCRIBE: [(&str, &str); 10] = [
    (">", "-----"),
    ("mufakat.lock.>", "n----"),
    ("mufakat.int.>", "n----"),
    ("mufakat.event.>", "nom--"),
    ("$SRV.>", "n----"),
    ("_INBOX.>", "-----"),
    ("_INBOX_operator.>", "-o---"),
    ("_INBOX_monitor.>", "--m--"),
    ("_INBOX_team_a.>", "---a-"),
    ("_INBOX_team_b.>", "----b"),
];

/// One user's connection, and what the broker refused it.
struct User {
    nats: Client,
    refusals: mpsc::UnboundedReceiver<String>,
}

impl User {
    async fn connect(cluster: &Cluster, name: &str) -> Self {
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

    async fn ask(&self, subject: &str, body: Value) -> Value {
        let answer = wire::request(&self.nats, subject, &body, ANSWER_MAX).await;
        answer.unwrap_or_else(|| panic!("{subject} {body}: no answer"))
    }
}

async fn secured_cluster() -> Cluster {
    let options = Options {
        redis: true,
        secured: Some(Secured::new()),
        ..Options::default()
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

#[tokio::test]
async fn a_team_reaches_its_own_names_and_no_others() {
    let cluster = secured_cluster().await;
    let team_a = User::connect(&cluster, "team_a").await;
    let team_b = User::connect(&cluster, "team_b").await;
    let acquire = "mufakat.lock.acquire.team_a.x";
    let mine = team_a.ask(acquire, json!({"owner": "me"})).await;
    assert_eq!(mine["resource"], "team_a.x", "{mine}");
    // The subject lets it pass, the body names what is another's.
    for body in [
        json!({"resource": "team_b.x"}),
        json!({"resource": "team_a"}),
        json!({"resource": "team_a.x.y"}),
        json!({"resource": "other"}),
        json!({"resources": [{"resource": "team_b.x"}]}),
        json!({"resource": "team_a.x", "resources": [{"resource": "team_b.x"}]}),
    ] {
        let refused = team_a.ask(acquire, body.clone()).await;
        assert_eq!(wire::code(&refused), "bad_request", "{body}: {refused}");
    }
    // Tokens are numbers that can be guessed; the name in the subject has to be theirs.
    let body = json!({"token": mine["token"]});
    let release = "mufakat.lock.release.team_b.x";
    let refused = team_b.ask(release, body.clone()).await;
    assert_eq!(wire::code(&refused), "not_holder", "{refused}");
    let released = team_a.ask("mufakat.lock.release.team_a.x", body).await;
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

#[tokio::test]
async fn who_has_no_certificate_of_the_authority_gets_nowhere() {
    let cluster = secured_cluster().await;
    let (secured, others) = (cluster.secured(), Secured::new());
    let refused = async |flags: Vec<String>| {
        let words = ["status".to_owned()].into_iter().chain(flags);
        let words: Vec<String> = words.collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = tokio::process::Command::from(cli::mufakat(&cluster, &words));
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
