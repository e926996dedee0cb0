//! A cluster of real processes on this machine, gone when it is dropped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use mufakat::client::{Client, ClientOptions, Target};
use mufakat::protocol::status::{Role, StateHash, Status};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use crate::link::Link;
use crate::process::{Process, show};
use crate::secured::Secured;
use crate::{programs, wait, wire};

/// Clusters at a time: each is four processes, and elections need to be run in time.
static PLACES: Semaphore = Semaphore::const_new(2);

/// How long one request for a status may take.
const STATUS_MAX: Duration = Duration::from_secs(2);
/// A node that is told to stop has five seconds to drain; a busy machine takes its own time.
const STOP_MAX: Duration = Duration::from_secs(20);

/// What a cluster consists of.
pub struct Options {
    /// How many nodes: 1 to this.
    pub nodes: u64,
    /// Whether there is a Redis, and the nodes know it.
    pub redis: bool,
    /// Further flags of every node.
    pub flags: Vec<String>,
    /// Further variables of every node's environment.
    pub environment: Vec<(&'static str, String)>,
    /// Further flags of the broker.
    pub broker_flags: Vec<String>,
    /// Further flags of Redis.
    pub redis_flags: Vec<String>,
    /// TLS and users, for the broker and for Redis; without, everybody may do everything.
    pub secured: Option<Secured>,
}

impl Default for Options {
    /// Three nodes with the default timing, no Redis, no TLS.
    fn default() -> Self {
        Options {
            nodes: 3,
            redis: false,
            flags: Vec::new(),
            environment: Vec::new(),
            broker_flags: Vec::new(),
            redis_flags: Vec::new(),
            secured: None,
        }
    }
}

impl Options {
    pub fn flags(flags: &[&str]) -> Self {
        Options {
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            ..Options::default()
        }
    }
}

/// The processes of one cluster.
pub struct Cluster {
    options: Options,
    nodes: BTreeMap<u64, Process>,
    broker: Option<Process>,
    redis: Option<Process>,
    broker_port: u16,
    /// The ways of nodes that do not reach the broker at once.
    links: BTreeMap<u64, Link>,
    redis_port: u16,
    http_ports: BTreeMap<u64, u16>,
    /// A flag that a node has in place of the list of all others.
    starts: BTreeMap<u64, String>,
    /// For what this type asks by itself.
    asking: OnceCell<async_nats::Client>,
    directory: TempDir,
    _place: SemaphorePermit<'static>,
}

impl Cluster {
    /// Starts everything and waits for a leader whom all nodes follow.
    pub async fn start(options: Options) -> Self {
        let mut cluster = Cluster::prepare(options).await;
        cluster.start_broker().await;
        if cluster.options.redis {
            cluster.start_redis().await;
        }
        cluster.start_all();
        cluster.all_follow().await;
        cluster
    }

    /// Starts nothing yet.
    pub async fn prepare(options: Options) -> Self {
        let place = PLACES.acquire().await.expect("never closed");
        let http_ports = (1..=options.nodes)
            .map(|node| (node, programs::free_port()))
            .collect();
        Cluster {
            options,
            nodes: BTreeMap::new(),
            broker: None,
            redis: None,
            broker_port: programs::free_port(),
            links: BTreeMap::new(),
            redis_port: programs::free_port(),
            http_ports,
            starts: BTreeMap::new(),
            asking: OnceCell::new(),
            directory: TempDir::new().expect("a temporary directory can be made"),
            _place: place,
        }
    }

    /// The ids of all nodes, running or not.
    pub fn ids(&self) -> Vec<u64> {
        (1..=self.options.nodes).collect()
    }

    /// The broker's address.
    pub fn nats_url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.broker_port)
    }

    /// From its next start on each node reaches the broker by a link of its own.
    pub async fn add_links(&mut self) {
        for node in self.ids() {
            self.links.insert(node, Link::to(self.broker_port).await);
        }
    }

    pub fn link(&self, node: u64) -> &Link {
        &self.links[&node]
    }

    pub fn http_port(&self, node: u64) -> u16 {
        self.http_ports[&node]
    }

    pub fn data_dir(&self, node: u64) -> PathBuf {
        self.directory.path().join(format!("node-{node}"))
    }

    /// What TLS and users need, of a cluster that has them.
    pub fn secured(&self) -> &Secured {
        self.options.secured.as_ref().expect("the cluster has TLS")
    }

    /// A connection of its own, which comes back by itself and quickly; an operator's, where there are users.
    pub async fn nats(&self) -> async_nats::Client {
        let options = match &self.options.secured {
            Some(secured) => secured.connect_options("operator"),
            None => async_nats::ConnectOptions::new(),
        };
        options
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .ping_interval(Duration::from_secs(2))
            .connect(self.nats_url())
            .await
            .expect("the first connection is made in the background")
    }

    /// Our own client on a connection of its own.
    pub async fn client(&self, target: Target) -> Client {
        let options = ClientOptions {
            target,
            ..ClientOptions::default()
        };
        let client = Client::new(self.nats().await, options).await;
        client.expect("the connection is not closed")
    }

    async fn asking(&self) -> &async_nats::Client {
        self.asking.get_or_init(|| self.nats()).await
    }

    // Broker and Redis.

    /// Starts the broker, always on the same port, and waits until it takes connections.
    pub async fn start_broker(&mut self) {
        assert!(self.broker.is_none(), "the broker runs");
        let program = programs::find("nats-server", "MUFAKAT_NATS_SERVER");
        let mut command = Command::new(program);
        match &self.options.secured {
            Some(secured) => secured.broker(&mut command, "nats"),
            None => {
                let root = Path::new(env!("CARGO_MANIFEST_DIR"));
                command.arg("-c").arg(root.join("nats/dev.conf"));
            }
        }
        command.args(["-a", "127.0.0.1", "-p", &self.broker_port.to_string()]);
        command.args(&self.options.broker_flags);
        let log = self.directory.path().join("broker.log");
        self.broker = Some(Process::start("the broker", &mut command, &log));
        wait::listens("the broker", self.broker_port).await;
    }

    pub fn kill_broker(&mut self) {
        self.broker.take().expect("the broker runs").kill();
    }

    /// Starts Redis as the queue wants it: every write on disk before it is answered.
    pub async fn start_redis(&mut self) {
        assert!(self.redis.is_none(), "Redis runs");
        let directory = self.redis_dir();
        fs::create_dir_all(&directory).expect("a directory can be made");
        let mut command = Command::new(programs::find("redis-server", "MUFAKAT_REDIS_SERVER"));
        match &self.options.secured {
            Some(secured) => secured.redis(&mut command, self.redis_port),
            None => {
                command.args(["--port", &self.redis_port.to_string()]);
            }
        }
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--dir"])
            .arg(directory)
            .args(&self.options.redis_flags);
        let log = self.directory.path().join("redis.log");
        self.redis = Some(Process::start("Redis", &mut command, &log));
        wait::listens("Redis", self.redis_port).await;
    }

    /// Further flags of Redis, from its next start on.
    pub fn set_redis_flags(&mut self, flags: &[&str]) {
        self.options.redis_flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    }

    /// SIGKILL.
    pub fn kill_redis(&mut self) {
        self.redis.take().expect("Redis runs").kill();
    }

    /// Redis keeps its connections, and answers nothing until [`Self::resume_redis`].
    pub fn pause_redis(&self) {
        let redis = self.redis.as_ref().expect("it runs");
        redis.signal(Signal::STOP);
    }

    pub fn resume_redis(&self) {
        let redis = self.redis.as_ref().expect("it runs");
        redis.signal(Signal::CONT);
    }

    pub fn redis_port(&self) -> u16 {
        self.redis_port
    }

    /// Where Redis keeps its data.
    pub fn redis_dir(&self) -> PathBuf {
        self.directory.path().join("redis")
    }

    /// A connection to Redis, past the nodes.
    pub fn redis(&self) -> redis::Connection {
        let url = format!("redis://127.0.0.1:{}", self.redis_port);
        let client = redis::Client::open(url).expect("a URL");
        client.get_connection().expect("Redis runs")
    }

    // Nodes.

    pub fn start_node(&mut self, node: u64) {
        assert!(!self.nodes.contains_key(&node), "node {node} runs");
        let all: Vec<String> = self.ids().iter().map(u64::to_string).collect();
        let all = format!("--peers={}", all.join(","));
        let broker = self.links.get(&node).map_or(self.broker_port, Link::port);
        let mut command = Command::new(env!("CARGO_BIN_EXE_mufakat"));
        programs::without_settings(&mut command);
        command
            .envs(self.options.environment.iter().cloned())
            .args(["node", "--id", &node.to_string()])
            .args(["--nats", &format!("nats://127.0.0.1:{broker}")])
            .args(["--http", &format!("127.0.0.1:{}", self.http_port(node))])
            .arg("--data-dir")
            .arg(self.data_dir(node))
            .arg(self.starts.get(&node).unwrap_or(&all))
            .args(&self.options.flags);
        let redis_port = self.options.redis.then_some(self.redis_port);
        match (&self.options.secured, redis_port) {
            (Some(secured), port) => secured.node(&mut command, port),
            (None, Some(port)) => {
                command.args(["--redis", &format!("redis://127.0.0.1:{port}")]);
            }
            (None, None) => {}
        }
        let (name, log) = (format!("node {node}"), self.log_path(node));
        let process = Process::start(&name, &mut command, &log);
        self.nodes.insert(node, process);
    }

    /// Flags of nodes besides those of every test, from their next start on.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.options.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    }

    /// Starts a node that waits to be added, under whatever number.
    pub fn start_joining(&mut self, node: u64) {
        self.start_as(node, "--join");
    }

    /// Starts a node, under whatever number, with this flag in place of the list of all others.
    pub fn start_as(&mut self, node: u64, flag: &str) {
        self.starts.insert(node, flag.to_owned());
        let port = programs::free_port();
        self.http_ports.entry(node).or_insert(port);
        self.start_node(node);
    }

    /// Deletes the data directory of a node that does not run.
    pub fn lose_disk(&self, node: u64) {
        assert!(!self.nodes.contains_key(&node), "node {node} runs");
        fs::remove_dir_all(self.data_dir(node)).expect("the node had a disk");
    }

    /// Starts every node that does not run.
    pub fn start_all(&mut self) {
        for node in self.ids() {
            if !self.nodes.contains_key(&node) {
                self.start_node(node);
            }
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self, node: u64) {
        self.nodes.remove(&node).expect("the node runs").kill();
    }

    /// SIGKILL to all that run, before the end of any is waited for.
    pub fn kill_all(&mut self) {
        for process in self.nodes.values() {
            process.signal(Signal::KILL);
        }
        self.nodes.clear();
    }

    /// SIGTERM, and how the node ended.
    pub async fn stop(&mut self, node: u64) -> ExitStatus {
        self.running(node).signal(Signal::TERM);
        let ended = self.running(node).end(STOP_MAX).await;
        self.nodes.remove(&node);
        ended
    }

    /// SIGTERM, without waiting for what comes of it.
    pub fn tell_to_stop(&mut self, node: u64) {
        self.running(node).signal(Signal::TERM);
    }

    /// How a node ended that is expected to end by itself.
    pub async fn end(&mut self, node: u64) -> ExitStatus {
        let ended = self.running(node).end(wait::LONG).await;
        self.nodes.remove(&node);
        ended
    }

    pub fn pause(&mut self, node: u64) {
        self.running(node).signal(Signal::STOP);
    }

    pub fn resume(&mut self, node: u64) {
        self.running(node).signal(Signal::CONT);
    }

    fn running(&mut self, node: u64) -> &mut Process {
        let process = self.nodes.get_mut(&node);
        process.unwrap_or_else(|| panic!("node {node} does not run"))
    }

    /// All that a node printed, since its first start.
    pub fn log(&self, node: u64) -> String {
        fs::read_to_string(self.log_path(node)).unwrap_or_default()
    }

    pub fn log_path(&self, node: u64) -> PathBuf {
        self.directory.path().join(format!("node-{node}.log"))
    }

    // What the cluster says.

    /// A node's status, unless it does not answer.
    pub async fn status(&self, node: u64) -> Option<Status> {
        self.ask_status(node, &json!({})).await
    }

    async fn ask_status(&self, node: u64, body: &Value) -> Option<Status> {
        let subject = format!("mufakat.node.{node}.status");
        let answer = wire::request(self.asking().await, &subject, body, STATUS_MAX).await?;
        Some(serde_json::from_value(answer).expect("a status has its fields"))
    }

    /// Waits for a leader that most nodes know, and returns it.
    pub async fn leader(&mut self) -> u64 {
        wait::until("a leader", async || {
            let followers = self.followers_of_leader().await?;
            (followers.1 * 2 > self.options.nodes as usize).then_some(followers.0)
        })
        .await
    }

    /// Waits for a leader that all running nodes know, and returns it.
    pub async fn all_follow(&mut self) -> u64 {
        wait::until("a leader that all nodes know", async || {
            for process in self.nodes.values_mut() {
                if let Some(status) = process.ended() {
                    panic!("{} ended with {}", process.name, show(status));
                }
            }
            let followers = self.followers_of_leader().await?;
            (followers.1 == self.nodes.len()).then_some(followers.0)
        })
        .await
    }

    /// The leader of the highest term and how many nodes name it for that term, with itself.
    async fn followers_of_leader(&self) -> Option<(u64, usize)> {
        let statuses = self.statuses().await;
        let leads = |status: &&Status| status.role == Role::Leader;
        let leader = statuses.iter().filter(leads).max_by_key(|s| s.term)?;
        let follows = |s: &&Status| (s.leader, s.term) == (Some(leader.node), leader.term);
        Some((leader.node.0, statuses.iter().filter(follows).count()))
    }

    async fn statuses(&self) -> Vec<Status> {
        let asked = self.nodes.keys().map(|node| self.status(*node));
        let statuses = futures_util::future::join_all(asked).await;
        statuses.into_iter().flatten().collect()
    }

    /// A running node that is not the leader.
    pub async fn follower(&mut self) -> u64 {
        let leader = self.all_follow().await;
        let mut others = self.nodes.keys().filter(|node| **node != leader);
        *others.next().expect("there are several nodes")
    }

    /// The state's fingerprint on a node.
    pub async fn state_hash(&self, node: u64) -> Option<StateHash> {
        let body = json!({"state_hash": "include"});
        self.ask_status(node, &body).await?.state_hash
    }

    /// Waits until all running nodes have applied equally much, and demands the same hash then.
    pub async fn state_hashes(&self) -> StateHash {
        wait::until("all nodes have applied equally many batches", async || {
            let asked = self.nodes.keys().map(|node| self.state_hash(*node));
            let hashes = futures_util::future::join_all(asked).await;
            let hashes: Vec<StateHash> = hashes.into_iter().collect::<Option<_>>()?;
            let first = hashes.first().expect("some node runs").clone();
            if hashes.iter().any(|hash| hash.batches != first.batches) {
                return None;
            }
            assert!(
                hashes.iter().all(|hash| hash.hash == first.hash),
                "the nodes' states differ after {} batches: {hashes:?}",
                first.batches
            );
            Some(first)
        })
        .await
    }

    /// The value of a metric without labels, as a node tells it.
    pub async fn metric(&self, node: u64, name: &str) -> Option<f64> {
        let subject = format!("mufakat.node.{node}.metrics");
        let nats = self.asking().await;
        let answer = wire::request(nats, &subject, &json!({}), STATUS_MAX).await?;
        let text = answer["metrics"].as_str().expect("metrics are text");
        let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        text.lines().find_map(value)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in self.http_ports.keys().copied() {
            let log = self.log(node);
            eprintln!("--- node {node} ---\n{log}");
        }
        if let Some(broker) = &self.broker {
            eprintln!("--- broker ---\n{}", broker.log());
        }
    }
}
