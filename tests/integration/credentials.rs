//! Ways to say who one is, against real brokers: NKeys, credentials files, and certificates that change
//! while nodes run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use mufakat::broker::options::NatsOptions;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Cluster, Options};
use crate::process::Process;
use crate::queue::Queue;
use crate::redis_cluster::RedisCluster;
use crate::redis_server::RedisServer;
use crate::secured::Secured;
use crate::{locks, programs, wait, wire};

/// A broker with a configuration of the test's own.
struct Broker {
    url: String,
    directory: TempDir,
    _process: Process,
}

impl Broker {
    async fn start(configuration: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let port = programs::free_port();
        let file = directory.path().join("broker.conf");
        fs::write(&file, configuration).expect("a file can be made");
        let mut command = Command::new(programs::find("nats-server", "MUFAKAT_NATS_SERVER"));
        command.arg("-c").arg(&file);
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
        let process = Process::start("the broker", &mut command, &directory.path().join("log"));
        wait::until("the broker listens", async || {
            let connection = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            connection.ok().map(drop)
        })
        .await;
        Broker {
            url: format!("nats://127.0.0.1:{port}"),
            directory,
            _process: process,
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("a file can be made");
        path
    }

    /// What comes of connecting with these options.
    async fn connect(&self, options: NatsOptions) -> Result<(), String> {
        let options = NatsOptions {
            url: Some(self.url.clone()),
            ..options
        };
        let resolved = options.resolve().map_err(|error| error.to_string())?;
        let connected = resolved.options.connect(resolved.servers).await;
        connected.map(drop).map_err(|error| error.to_string())
    }
}

fn with_nkey(file: &Path) -> NatsOptions {
    NatsOptions {
        nkey: Some(file.to_owned()),
        ..NatsOptions::default()
    }
}

fn with_creds(file: &Path) -> NatsOptions {
    NatsOptions {
        creds: Some(file.to_owned()),
        ..NatsOptions::default()
    }
}

#[tokio::test]
async fn an_nkey_opens_and_another_does_not() {
    let (known, unknown) = (KeyPair::new_user(), KeyPair::new_user());
    let users = format!(
        "authorization {{ users: [{{ nkey: {} }}] }}",
        known.public_key()
    );
    let broker = Broker::start(&users).await;
    let file = |name: &str, key: &KeyPair| {
        // An editor ends the line.
        broker.file(name, &format!("{}\n", key.seed().expect("it has a seed")))
    };
    let opened = broker.connect(with_nkey(&file("known", &known))).await;
    assert_eq!(opened, Ok(()));
    let refused = broker.connect(with_nkey(&file("unknown", &unknown))).await;
    let error = refused.expect_err("nobody knows it");
    assert!(error.starts_with("authorization violation"), "{error}");
    let absent = broker.connect(with_nkey(Path::new("/nowhere"))).await;
    let error = absent.expect_err("there is no file");
    assert!(
        error.starts_with("cannot read the NKey seed from /nowhere"),
        "{error}"
    );
}

/// A JWT as NATS has them: who says it, about whom, and what.
fn claims(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let body = json!({
        "iss": issuer.public_key(), "sub": subject.public_key(), "iat": 1, "name": "test", "nats": nats,
    });
    let [header, body] = [header, body].map(|part| {
        let text = serde_json::to_vec(&part).expect("JSON encodes");
        BASE64_URL_SAFE_NO_PAD.encode(text)
    });
    let signed = format!("{header}.{body}");
    let signature = issuer.sign(signed.as_bytes()).expect("it has a seed");
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// A credentials file of `user`, as whoever has the account's key makes it.
fn creds(account: &KeyPair, user: &KeyPair) -> String {
    let nats = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        claims(account, user, nats),
        user.seed().expect("it has a seed"),
    )
}

#[tokio::test]
async fn a_credentials_file_opens_and_one_of_another_account_does_not() {
    let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1,
    });
    let of_operator = json!({"type": "operator", "version": 2});
    let of_account = json!({"type": "account", "version": 2, "limits": limits});
    let configuration = format!(
        "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {} }}\n",
        claims(&operator, &operator, of_operator),
        account.public_key(),
        claims(&operator, &account, of_account),
    );
    let broker = Broker::start(&configuration).await;
    let known = broker.file("known.creds", &creds(&account, &KeyPair::new_user()));
    assert_eq!(broker.connect(with_creds(&known)).await, Ok(()));
    let forged = creds(&KeyPair::new_account(), &KeyPair::new_user());
    let forged = broker.file("forged.creds", &forged);
    let refused = broker.connect(with_creds(&forged)).await;
    let error = refused.expect_err("nobody knows it");
    assert!(error.starts_with("authorization violation"), "{error}");
}

#[tokio::test]
async fn nodes_take_up_new_certificates_without_a_restart() {
    let options = Options {
        secured: Some(Secured::new()),
        ..Options::default()
    };
    let mut cluster = Cluster::start(options).await;
    let nats = cluster.nats().await;
    locks::acquire(&nats, "kept", "holder", 600_000).await;
    // Even the authority is another one: nothing that was read before would be of use.
    cluster.secured().replace_authority();
    cluster.kill_broker();
    cluster.start_broker().await;
    cluster.all_follow().await;
    let nats = cluster.nats().await;
    let holders = locks::get(&nats, "kept").await.holders;
    assert_eq!(holders.len(), 1, "{holders:?}");
}

/// Redis carries out its file as the user `default`, who may not log in: what a script wrote has to be there
/// after a restart all the same, also where the certificates' script finds a list of users of an earlier one.
#[tokio::test]
async fn a_redis_with_users_keeps_what_was_pushed_over_a_restart() {
    for earlier in [None, Some("user default off")] {
        let secured = Secured::new();
        if let Some(line) = earlier {
            secured.replace_first_user(line);
            secured.renew();
        }
        let mut cluster = Cluster::start(Options {
            nodes: 1,
            redis: true,
            secured: Some(secured),
            ..Options::default()
        })
        .await;
        let queue = Queue::of(&cluster).await;
        let body = json!({"topic": "mails", "payload": "hello", "id": "1"});
        wire::request_until_ok(&queue.nats, "mufakat.queue.push", &body).await;
        cluster.kill_redis();
        cluster.start_redis().await;
        let body = json!({"topic": "mails", "consumer": "c"});
        let popped = wire::request_until_ok(&queue.nats, "mufakat.queue.pop", &body).await;
        assert_eq!(popped["messages"][0]["payload"], "hello", "{popped}");
    }
}

/// The script changes that line alone, and none that somebody wrote instead.
#[test]
fn users_of_redis_are_their_owners() {
    let secured = Secured::new();
    let made = secured.redis_users();
    for (line, is_kept) in [
        ("user default off", false),
        ("user default off ~own:* +get", true),
        ("user default on >secret ~* &* +@all", true),
    ] {
        secured.replace_first_user(line);
        let before = secured.redis_users();
        secured.renew();
        let expected = if is_kept { &before } else { &made };
        assert_eq!(&secured.redis_users(), expected, "{line}");
    }
}

/// The servers of a Redis Cluster tell a client that came by TLS where the others take it: each is connected
/// to with the password and the certificates of the one that the URL names, also when it comes back.
#[tokio::test]
async fn the_servers_of_a_redis_cluster_are_all_used_by_tls() {
    let secured = Secured::new();
    let mut redis = RedisCluster::start_secured(&secured).await;
    let (_cluster, queue) = with_redis(&secured, &redis.url()).await;
    for master in 0..3 {
        let topic = redis.topic_of(master, 0);
        exchange(&queue, &topic, "before").await;
        redis.masters[master].kill();
        redis.masters[master].start_again().await;
        exchange(&queue, &topic, "after").await;
    }
}

/// Sentinels have a password of their own, and take TLS as the server does which they name.
#[tokio::test]
async fn the_server_that_sentinels_name_is_used_by_tls() {
    let secured = Secured::new();
    let master = RedisServer::start_secured(&secured, &[]).await;
    let sentinel = RedisServer::secured_sentinel_of(&master, "other", &secured).await;
    let port = sentinel.node_port();
    let url =
        format!("rediss+sentinel://:secret@127.0.0.1:{port}/mymaster?sentinel_password=other");
    let (_cluster, queue) = with_redis(&secured, &url).await;
    exchange(&queue, "mails", "hello").await;
}

/// One node, with this Redis and the certificates by which it is a node there.
async fn with_redis(secured: &Secured, url: &str) -> (Cluster, Queue) {
    let mut flags = secured.node_redis_tls();
    flags.push(format!("--redis={url}"));
    let cluster = Cluster::start(Options {
        nodes: 1,
        flags,
        ..Options::default()
    })
    .await;
    let queue = Queue::of(&cluster).await;
    (cluster, queue)
}

/// Pushes a message and takes it.
async fn exchange(queue: &Queue, topic: &str, payload: &str) {
    let body = json!({"topic": topic, "payload": payload, "id": payload});
    wire::request_until_ok(&queue.nats, "mufakat.queue.push", &body).await;
    let popped = queue.pop(topic, 2).await;
    assert_eq!(popped.len(), 1);
    assert_eq!(popped[0]["payload"], payload);
    assert_eq!(queue.ack(topic, &popped[0]["receipt"]).await, "acked");
}
