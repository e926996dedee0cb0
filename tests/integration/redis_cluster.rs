//! A Redis Cluster of real servers for tests, gone when it is dropped.

use mufakat::queue::slots::{SLOTS, slot_of};

use crate::queue_failures::command;
use crate::redis_server::RedisServer;
use crate::secured::Secured;
use crate::{programs, wait};

/// Masters with a third of the slots each, which fsync every write. One that is away takes only its own slots
/// with it, and is replaced after a second and a half if it has a replica.
pub struct RedisCluster {
    pub masters: Vec<RedisServer>,
    /// By which nodes use it; it names a server of the three alone.
    url: String,
}

/// As many as a cluster needs for a majority without one of them.
const MASTERS: usize = 3;

const FLAGS: [&str; 12] = [
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "1500",
    "--cluster-require-full-coverage",
    "no",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--repl-diskless-sync-delay",
    "0",
];

impl RedisCluster {
    pub async fn start() -> Self {
        RedisCluster::of("redis+cluster://", async |flags| {
            RedisServer::start_with(flags).await
        })
        .await
    }

    /// The same with the password `secret`, and TLS for all but the test itself.
    pub async fn start_secured(secured: &Secured) -> Self {
        RedisCluster::of("rediss+cluster://:secret@", async |flags| {
            let flags = [flags, &["--tls-cluster", "yes"]].concat();
            RedisServer::start_secured(secured, &flags).await
        })
        .await
    }

    async fn of(url: &str, start: impl AsyncFn(&[&str]) -> RedisServer) -> Self {
        let mut masters = Vec::new();
        for n in 0..MASTERS {
            let (master, bus) = member(&start).await;
            let mut asked = master.connection();
            command(&mut asked, &format!("CLUSTER SET-CONFIG-EPOCH {}", n + 1));
            let (first, last) = (share(n), share(n + 1) - 1);
            command(&mut asked, &format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
            masters.push(master);
            if n > 0 {
                meet(&masters[0], &masters[n], bus);
            }
        }
        let url = format!("{url}127.0.0.1:{}", masters[0].node_port());
        let cluster = RedisCluster { masters, url };
        cluster.until_whole().await;
        cluster
    }

    /// Returns when each master sees all of them.
    pub async fn until_whole(&self) {
        for master in &self.masters {
            wait::until("the servers are one cluster", async || {
                let info = info(master);
                let is_whole = info.contains("cluster_state:ok") && info.contains("size:3");
                is_whole.then_some(())
            })
            .await;
        }
    }

    /// The URL by which nodes use it; it names a server of the three alone.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Which of the masters had a key's slot in the beginning.
    pub fn master_of(&self, key: &str) -> usize {
        let slot = slot_of(key);
        (0..MASTERS).find(|n| slot < share(n + 1)).expect("a share")
    }

    /// A topic that one of the masters has, the nth of those.
    pub fn topic_of(&self, master: usize, nth: usize) -> String {
        let mut topics = (0..).map(|n| format!("topic-{n}"));
        let is_there = |topic: &String| self.master_of(topic) == master;
        topics.by_ref().filter(is_there).nth(nth).expect("endless")
    }

    /// How often a master has answered with an error.
    pub fn told(&self, master: usize, error: &str) -> u64 {
        let mut asked = redis::cmd("INFO");
        let asked = asked.arg("errorstats");
        let told: String = asked
            .query(&mut self.masters[master].connection())
            .expect("it answers");
        let start = format!("errorstat_{error}:count=");
        let count = told.lines().find_map(|line| line.strip_prefix(&*start));
        count.map_or(0, |count| count.trim_end().parse().expect("a count"))
    }

    /// Gives a master a replica that has all it has.
    pub async fn add_replica(&self, of: usize) -> RedisServer {
        let start = async |flags: &[&str]| RedisServer::start_with(flags).await;
        let (replica, bus) = member(&start).await;
        meet(&self.masters[0], &replica, bus);
        let id = id(&self.masters[of]);
        wait::until("the replica knows its master", async || {
            let mut replicate = redis::cmd("CLUSTER");
            replicate.arg("REPLICATE").arg(&id);
            replicate.exec(&mut replica.connection()).ok()
        })
        .await;
        wait::until("the replica has what its master has", async || {
            let text: String = redis::cmd("INFO").query(&mut replica.connection()).ok()?;
            text.contains("master_link_status:up").then_some(())
        })
        .await;
        for master in &self.masters {
            wait::until("all know the replica", async || {
                let nodes: String = cluster(master, &["NODES"]);
                nodes.contains(&format!("slave {id}")).then_some(())
            })
            .await;
        }
        replica
    }

    /// Begins to move a slot: neither master serves all of its keys until [`RedisCluster::end_move`].
    pub fn begin_move(&self, slot: u16, (from, to): (usize, usize)) {
        let (from, to) = (&self.masters[from], &self.masters[to]);
        let importing = format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(from));
        command(&mut to.connection(), &importing);
        let migrating = format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(to));
        command(&mut from.connection(), &migrating);
    }

    /// Moves some of the keys of a slot that moves; returns how many.
    pub fn move_keys(&self, slot: u16, (from, to): (usize, usize), most: u64) -> usize {
        let (mut from, to) = (self.masters[from].connection(), &self.masters[to]);
        let mut asked = redis::cmd("CLUSTER");
        asked.arg("GETKEYSINSLOT").arg(slot).arg(most);
        let keys: Vec<String> = asked.query(&mut from).expect("the keys of a slot");
        if keys.is_empty() {
            return 0;
        }
        let mut moved = redis::cmd("MIGRATE");
        moved
            .arg("127.0.0.1")
            .arg(to.port())
            .arg("")
            .arg(0)
            .arg(5_000);
        moved.arg("KEYS").arg(&keys);
        moved.exec(&mut from).expect("the keys move");
        keys.len()
    }

    pub fn end_move(&self, slot: u16, (from, to): (usize, usize)) {
        while self.move_keys(slot, (from, to), 100) > 0 {}
        let now_has = format!("CLUSTER SETSLOT {slot} NODE {}", id(&self.masters[to]));
        command(&mut self.masters[to].connection(), &now_has);
        command(&mut self.masters[from].connection(), &now_has);
    }
}

/// The first slot of a master.
fn share(n: usize) -> u16 {
    (usize::from(SLOTS) * n / MASTERS) as u16
}

/// A server of no cluster yet, and the port by which it talks to others.
async fn member(start: &impl AsyncFn(&[&str]) -> RedisServer) -> (RedisServer, u16) {
    let bus = programs::free_port();
    let bus_text = bus.to_string();
    let flags = [&FLAGS[..], &["--cluster-port", &bus_text]].concat();
    (start(&flags).await, bus)
}

fn meet(one: &RedisServer, other: &RedisServer, bus: u16) {
    let port = other.node_port();
    command(
        &mut one.connection(),
        &format!("CLUSTER MEET 127.0.0.1 {port} {bus}"),
    );
}

fn id(server: &RedisServer) -> String {
    cluster(server, &["MYID"])
}

fn info(server: &RedisServer) -> String {
    cluster(server, &["INFO"])
}

fn cluster(server: &RedisServer, words: &[&str]) -> String {
    let mut asked = redis::cmd("CLUSTER");
    asked.arg(words);
    asked.query(&mut server.connection()).expect("it answers")
}
