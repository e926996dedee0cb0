//! The connection to Redis: made in the background, kept under watch, made again.
//!
//! States of the link, as [`RedisLink::status`] shows them:
//!
//! ```text
//!   disconnected --connect, ping, inspect--> connected --ping each second, inspect each minute--+
//!        ^                                      |  ^                                            |
//!        +--error, or PINGS_LOST_MAX lost pings-+  +--------------------------------------------+
//! ```
//!
//! A connected link is silent from the first ping that is lost to the next that is answered: it is shown as not
//! connected, and still used, since commands that are in flight on a link that is given up have an unknown result.
//!
//! The watchdog is our own, since a link that only stopped answering is not noticed by the client
//! library: neither a timeout nor a half-open socket makes it connect again (redis-rs#2277).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError, RedisResult};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::address::{RedisAddress, RedisAddressError};
use super::durability::{Inspection, Level, SETTINGS, Source};
use super::script::Script;

mod calls;

use crate::time;
pub use calls::{CallError, Topics};

/// A try to connect takes at most this long: a live server on a slow network needs less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The same with all that goes before: to ask sentinels for the master.
const CONNECT_MAX: Duration = Duration::from_secs(6);
/// A reply later than this counts as lost; an fsync on a busy disk takes less.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A call whose answer comes later has an unknown result: longer than an fsync that a disk is slow at.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// So many lost pings in a row end the link: one may be a hiccup, and commands in flight on a link
/// that is given up have an unknown result.
const PINGS_LOST_MAX: u32 = 3;
/// Between two inspections: how long a change of settings by hand may go unnoticed.
const INSPECT_INTERVAL: Duration = Duration::from_secs(60);
/// The first wait after a lost link, doubled with each failure up to the second: a server that
/// restarts is back at once, and one that is away is not hammered.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The link to Redis; dropping it ends its task.
pub struct RedisLink {
    status: watch::Receiver<Arc<RedisStatus>>,
    /// Present while connected.
    connection: watch::Receiver<Option<MultiplexedConnection>>,
    /// Counts the connections that were made.
    connects: Arc<AtomicU64>,
    /// Told when the link is of no use, though it answers.
    renew: Arc<Notify>,
    /// Told when the server refuses what it should not, so that its settings are worth a look.
    look: Arc<Notify>,
    /// What Redis calls each script, once it was loaded.
    names: Mutex<[Option<String>; Script::ALL.len()]>,
    task: JoinHandle<()>,
}

/// What is known about Redis at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisStatus {
    /// Whether there is a link: fewer pings in a row were lost than end it.
    pub connected: bool,
    /// Whether the newest ping was lost.
    pub silent: bool,
    /// What an acknowledged write survives; `unknown` while there is no connection.
    pub durability: Level,
    /// Who says so.
    pub source: Source,
    /// The settings that decide; empty where they are not shown.
    pub settings: BTreeMap<String, String>,
    /// For the operator: why durability is less than the best, or why there is no connection.
    pub warnings: Vec<String>,
    /// The server as last inspected on this connection; absent while there is none.
    pub server: Option<Server>,
}

/// Who the server is, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub version: String,
    /// `master` or `slave`.
    pub role: String,
    /// Another one than before means that the server was restarted or replaced.
    pub run_id: String,
    /// Unix time of the inspection, in milliseconds.
    pub checked_at_ms: u64,
}

impl RedisLink {
    /// Starts to connect in the background and returns at once. The link ends when `shutdown`
    /// becomes true or its sender is dropped.
    ///
    /// # Errors
    /// When the address can't be used. A server that is not there is waited for, without end.
    pub fn start(
        address: impl Into<RedisAddress>,
        shutdown: watch::Receiver<bool>,
    ) -> Result<Self, RedisAddressError> {
        let address = address.into();
        address.check()?;
        let (sender, status) = watch::channel(Arc::new(RedisStatus::disconnected(
            "not connected to Redis yet".into(),
        )));
        let (offer, connection) = watch::channel(None);
        let (renew, look) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let connects = Arc::new(AtomicU64::new(0));
        let link = Link {
            address,
            sender,
            offer,
            connects: connects.clone(),
            renew: renew.clone(),
            look: look.clone(),
        };
        let task = tokio::spawn(run_until(shutdown, link));
        Ok(RedisLink {
            status,
            connection,
            connects,
            renew,
            look,
            names: Mutex::default(),
            task,
        })
    }

    /// How many connections were made so far: another number says that this one is new.
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Acquire)
    }

    /// What is known now. Cheap: nothing is asked.
    pub fn status(&self) -> Arc<RedisStatus> {
        self.status.borrow().clone()
    }
}

impl Drop for RedisLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RedisStatus {
    /// Whether the server answers, as far as is known: it did within the last two seconds.
    pub fn answers(&self) -> bool {
        self.connected && !self.silent
    }

    fn disconnected(reason: String) -> Self {
        RedisStatus {
            connected: false,
            silent: false,
            durability: Level::Unknown,
            source: Source::Inspected,
            settings: BTreeMap::new(),
            warnings: vec![reason],
            server: None,
        }
    }

    fn inspected(inspection: &Inspection, asserted: Option<Level>) -> Self {
        let durability = inspection.durability(asserted);
        let text = |value: Option<&str>| value.unwrap_or("unknown").to_owned();
        RedisStatus {
            connected: true,
            silent: false,
            durability: durability.level,
            source: durability.source,
            settings: inspection.config.clone().unwrap_or_default(),
            warnings: durability.warnings,
            server: Some(Server {
                version: text(inspection.version()),
                role: text(inspection.role()),
                run_id: text(inspection.run_id()),
                checked_at_ms: time::unix_ms(),
            }),
        }
    }
}

struct Link {
    address: RedisAddress,
    sender: watch::Sender<Arc<RedisStatus>>,
    offer: watch::Sender<Option<MultiplexedConnection>>,
    connects: Arc<AtomicU64>,
    renew: Arc<Notify>,
    look: Arc<Notify>,
}

async fn run_until(mut shutdown: watch::Receiver<bool>, link: Link) {
    tokio::select! {
        never = link.run() => match never {},
        // Both a signal and a dropped sender mean the end.
        _ = shutdown.wait_for(|&is_over| is_over) => {}
    }
    link.publish(RedisStatus::disconnected("shutting down".into()));
}

impl Link {
    async fn run(&self) -> std::convert::Infallible {
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match self.connect().await {
                Ok(mut connection) => {
                    backoff = BACKOFF_MIN;
                    let mut offered = connection.clone();
                    offered.set_response_timeout(CALL_TIMEOUT);
                    // Before the connection is of use: none is used under the number of another.
                    self.connects.fetch_add(1, Ordering::AcqRel);
                    self.offer.send_replace(Some(offered));
                    self.watch(&mut connection).await
                }
                Err(error) => error,
            };
            self.offer.send_replace(None);
            self.report_lost(&error);
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// A connection on which the server answers, already inspected.
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connecting = self.address.connect(&config);
        let in_time = tokio::time::timeout(CONNECT_MAX, connecting).await;
        let mut connection =
            in_time.map_err(|_| RedisError::from((ErrorKind::Io, "no connection in time")))??;
        // A server that still loads its data takes connections, but answers a ping with an error.
        ping(&mut connection).await?;
        self.inspect(&mut connection).await?;
        Ok(connection)
    }

    /// Returns with the reason when the link is no good any more.
    async fn watch(&self, connection: &mut MultiplexedConnection) -> RedisError {
        let mut inspect_at = time::now() + INSPECT_INTERVAL;
        let mut pings_lost = 0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(PING_INTERVAL) => {}
                () = self.look.notified() => inspect_at = time::now(),
                () = self.renew.notified() => {
                    let reason = "the server takes no writes, which another one may";
                    return RedisError::from((ErrorKind::Io, reason));
                }
            }
            match ping(connection).await {
                Ok(()) => {
                    pings_lost = 0;
                    self.note_silence(false);
                }
                Err(error) if error.is_timeout() && pings_lost + 1 < PINGS_LOST_MAX => {
                    pings_lost += 1;
                    self.note_silence(true);
                    continue;
                }
                Err(error) => return error,
            }
            if time::now() >= inspect_at {
                if let Err(error) = self.inspect(connection).await {
                    return error;
                }
                inspect_at = time::now() + INSPECT_INTERVAL;
            }
        }
    }

    async fn inspect(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let status = RedisStatus::inspected(&inspect(connection).await?, self.address.asserted());
        let before = self.sender.borrow().clone();
        if !before.connected {
            tracing::info!(durability = ?status.durability, "connected to Redis");
        }
        if !status.warnings.is_empty() && status.warnings != before.warnings {
            tracing::warn!(warnings = ?status.warnings, "Redis keeps less than it could");
        }
        self.publish(status);
        Ok(())
    }

    fn note_silence(&self, silent: bool) {
        self.sender.send_if_modified(|status| {
            let news = status.silent != silent;
            if news {
                Arc::make_mut(status).silent = silent;
            }
            news
        });
    }

    fn report_lost(&self, error: &RedisError) {
        let status = RedisStatus::disconnected(format!("not connected to Redis: {error}"));
        // Said once, not at each try.
        if self.sender.borrow().warnings != status.warnings {
            tracing::warn!(%error, "no connection to Redis; trying again");
        }
        self.publish(status);
    }

    fn publish(&self, status: RedisStatus) {
        self.sender.send_replace(Arc::new(status));
    }
}

/// A server that refuses writes since its disk fails refuses pings too, and still answers reads.
async fn ping(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    match redis::cmd("PING").query_async(connection).await {
        Err(error) if calls::is_misconfigured(&error) => Ok(()),
        answer => answer,
    }
}

async fn inspect(connection: &mut MultiplexedConnection) -> RedisResult<Inspection> {
    let info: RedisResult<String> = redis::cmd("INFO").query_async(connection).await;
    Ok(Inspection {
        info: Inspection::parse_info(&unless_refused(info)?.unwrap_or_default()),
        config: inspect_config(connection).await?,
    })
}

/// The settings that decide, asked for one by one, since Redis 6.2 takes one name at a time;
/// none when the server forbids or hides the command.
async fn inspect_config(
    connection: &mut MultiplexedConnection,
) -> RedisResult<Option<BTreeMap<String, String>>> {
    let mut config = BTreeMap::new();
    for setting in SETTINGS {
        let reply: RedisResult<BTreeMap<String, String>> = redis::cmd("CONFIG")
            .arg("GET")
            .arg(setting)
            .query_async(connection)
            .await;
        match unless_refused(reply)? {
            Some(values) => config.extend(values),
            None => return Ok(None),
        }
    }
    Ok(Some(config))
}

/// None when the server refused the command, whatever its words: no permission, renamed, unknown.
fn unless_refused<T>(reply: RedisResult<T>) -> RedisResult<Option<T>> {
    match reply {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Generous, for a busy machine; nothing waits for it unless it fails.
    const PATIENCE: Duration = Duration::from_secs(30);

    struct RedisServer {
        process: Child,
    }

    impl RedisServer {
        fn start(port: u16, dir: &tempfile::TempDir, options: &[&str]) -> Self {
            let process = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--dir"])
                .arg(dir.path())
                .args(options)
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server is on PATH");
            RedisServer { process }
        }

        fn signal(&self, signal: rustix::process::Signal) {
            let pid = rustix::process::Pid::from_child(&self.process);
            rustix::process::kill_process(pid, signal).expect("the server runs");
        }
    }

    impl Drop for RedisServer {
        fn drop(&mut self) {
            self.process.kill().expect("a child can be killed");
            self.process.wait().expect("a child can be waited for");
        }
    }

    fn free_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.local_addr().expect("it is bound").port()
    }

    async fn until(link: &mut RedisLink, connected: bool) -> Arc<RedisStatus> {
        let changed = link.status.wait_for(|status| status.connected == connected);
        let status = tokio::time::timeout(PATIENCE, changed).await;
        let status = status.expect("within the time").expect("the link runs");
        status.clone()
    }

    const SAFE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

    #[tokio::test]
    async fn waits_for_the_server_and_comes_back_after_its_restart() {
        let (port, dir) = (free_port(), tempfile::tempdir().expect("a directory"));
        let (_keep, shutdown) = watch::channel(false);
        let url = format!("redis://127.0.0.1:{port}");
        let mut link = RedisLink::start(url.as_str(), shutdown).expect("a good URL");
        let refused = link.status.wait_for(|s| s.warnings[0].contains("refused"));
        refused.await.expect("the link runs");
        assert!(!link.status().connected);

        let server = RedisServer::start(port, &dir, &SAFE);
        let first = until(&mut link, true).await;
        assert_eq!((first.durability, first.warnings.len()), (Level::Fsync, 0));
        drop(server);
        let lost = until(&mut link, false).await;
        assert_eq!(lost.durability, Level::Unknown);

        let _server = RedisServer::start(port, &dir, &[]);
        let second = until(&mut link, true).await;
        assert_eq!(second.durability, Level::None);
        let run_id = |status: &RedisStatus| status.server.as_ref().map(|s| s.run_id.clone());
        assert!(run_id(&first).is_some() && run_id(&first) != run_id(&second));
    }

    #[tokio::test]
    async fn a_server_that_stops_answering_is_noticed() {
        let (port, dir) = (free_port(), tempfile::tempdir().expect("a directory"));
        let server = RedisServer::start(port, &dir, &SAFE);
        let (_keep, shutdown) = watch::channel(false);
        let url = format!("redis://127.0.0.1:{port}");
        let mut link = RedisLink::start(url.as_str(), shutdown).expect("a good URL");
        until(&mut link, true).await;
        server.signal(rustix::process::Signal::STOP);
        until(&mut link, false).await;
        server.signal(rustix::process::Signal::CONT);
        until(&mut link, true).await;
    }

    #[tokio::test]
    async fn durability_is_unknown_where_the_server_shows_nothing() {
        let renamed = ["--rename-command", "CONFIG", ""];
        let restricted = "--user default on nopass ~* +@all -@dangerous";
        let restricted: Vec<&str> = restricted.split(' ').collect();
        for restriction in [&renamed[..], &restricted] {
            let (port, dir) = (free_port(), tempfile::tempdir().expect("a directory"));
            let _server = RedisServer::start(port, &dir, &[&SAFE[..], restriction].concat());
            let (_keep, shutdown) = watch::channel(false);
            let url = format!("redis://127.0.0.1:{port}");
            let mut link = RedisLink::start(url.as_str(), shutdown).expect("a good URL");
            let status = until(&mut link, true).await;
            assert_eq!(status.durability, Level::Unknown, "{restriction:?}");
            assert!(status.warnings[0].contains("CONFIG"));
        }
    }

    #[tokio::test]
    async fn shutdown_ends_the_task() {
        let (stop, shutdown) = watch::channel(false);
        let mut link = RedisLink::start("redis://127.0.0.1:1", shutdown).expect("a good URL");
        stop.send_replace(true);
        (&mut link.task).await.expect("the task ends in order");
        assert_eq!(link.status().warnings, ["shutting down"]);
    }

    #[tokio::test]
    async fn a_bad_url_is_refused_without_repeating_it() {
        let (_keep, shutdown) = watch::channel(false);
        let error = match RedisLink::start("http://user:secret@host", shutdown) {
            Ok(_) => panic!("not a Redis URL"),
            Err(error) => error.to_string(),
        };
        assert!(!error.contains("secret"), "{error}");
    }
}
