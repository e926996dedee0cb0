//! The connection to one server: made in the background, kept under watch, made again.
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
//! Beside the ping it looks whether role and replicas are as before; if not, it inspects at once. While
//! replicas are behind it asks them each second.
//!
//! The watchdog is our own, since a link that only stopped answering is not noticed by the client
//! library: neither a timeout nor a half-open socket makes it connect again (redis-rs#2277).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError, RedisResult};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::copies::Asker;
use crate::queue::address::{RedisAddress, RedisAddressError};
use crate::queue::durability::{Copies, Inspection, Level, Replicas, SETTINGS, Source};
use crate::queue::script::Script;
use crate::time;

#[cfg(test)]
mod tests;

/// A try to connect takes at most this long: a live server on a slow network needs less.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The same with all that goes before: to ask sentinels for the master.
const CONNECT_MAX: Duration = Duration::from_secs(6);
/// A reply later than this counts as lost; an fsync on a busy disk takes less.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection keeps a place for the answer to a call: that of a server that was stopped may come late, and
/// on this connection alone.
const ANSWER_MAX: Duration = Duration::from_secs(60);
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
/// A connection that ends sooner is no better than one that failed, for example to a server that takes no writes.
const LASTING: Duration = Duration::from_secs(1);
/// Between two inspections: under load each call that fails asks for one.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// The link to one server; dropping it ends its task.
pub(super) struct RedisLink {
    status: watch::Receiver<Arc<RedisStatus>>,
    /// Present while connected.
    connected: watch::Receiver<Option<Connected>>,
    /// Told when the link is of no use, though it answers.
    renew: Arc<Notify>,
    /// Told when the server refuses what it should not, so that its settings are worth a look.
    look: Arc<Notify>,
    /// What Redis calls each script, once it was loaded.
    names: Mutex<[Option<String>; Script::ALL.len()]>,
    task: JoinHandle<()>,
}

/// A connection that is of use, with what belongs to it.
#[derive(Clone)]
pub(super) struct Connected {
    pub connection: MultiplexedConnection,
    /// Asks what replicas have of what this connection wrote.
    pub asker: Asker,
    /// Which change of the [`Counts`] it was.
    pub number: u64,
}

/// What all links of a node count together.
#[derive(Default)]
pub(super) struct Counts {
    changes: AtomicU64,
    reconnects: AtomicU64,
}

impl Counts {
    /// Another connection was made, or a slot has another master: returns the number of this change.
    pub fn change(&self) -> u64 {
        self.changes.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }
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
    /// How many replicas have to have a push before it is as durable as that; 0 where it is no matter of
    /// replicas.
    pub replicas: u64,
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
    /// How many replicas were connected.
    pub replicas: u64,
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
        address: RedisAddress,
        counts: Arc<Counts>,
        shutdown: watch::Receiver<bool>,
    ) -> Result<Self, RedisAddressError> {
        address.check()?;
        let (sender, status) = watch::channel(Arc::new(RedisStatus::disconnected(
            "not connected to Redis yet".into(),
        )));
        let (offer, connected) = watch::channel(None);
        let (renew, look) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let link = Link {
            address,
            sender,
            offer,
            replicas_most: AtomicU64::new(0),
            are_behind: AtomicBool::new(false),
            counts,
            renew: renew.clone(),
            look: look.clone(),
        };
        let task = tokio::spawn(run_until(shutdown, link));
        Ok(RedisLink {
            status,
            connected,
            renew,
            look,
            names: Mutex::default(),
            task,
        })
    }

    /// The connection, if there is one now.
    pub fn connected(&self) -> Option<Connected> {
        self.connected.borrow().clone()
    }

    /// Makes the link connect anew, though the server answers.
    pub fn renew(&self) {
        self.renew.notify_one();
    }

    /// Makes the link look at the server's settings at once.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// What the server calls a script, if it was loaded.
    pub fn name(&self, script: Script) -> Option<String> {
        self.names.lock().expect("no holder panics")[script as usize].clone()
    }

    pub fn set_name(&self, script: Script, name: String) {
        self.names.lock().expect("no holder panics")[script as usize] = Some(name);
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

    pub(super) fn disconnected(reason: String) -> Self {
        RedisStatus {
            connected: false,
            silent: false,
            durability: Level::Unknown,
            source: Source::Inspected,
            settings: BTreeMap::new(),
            replicas: 0,
            warnings: vec![reason],
            server: None,
        }
    }

    fn inspected(inspection: &Inspection, asserted: Option<Level>, replicas: Replicas) -> Self {
        let durability = inspection.durability(asserted, replicas);
        let text = |value: Option<&str>| value.unwrap_or("unknown").to_owned();
        RedisStatus {
            connected: true,
            silent: false,
            durability: durability.level,
            source: durability.source,
            settings: inspection.config.clone().unwrap_or_default(),
            replicas: match durability.source {
                Source::Confirmed => replicas.most,
                Source::Inspected | Source::Asserted => 0,
            },
            warnings: durability.warnings,
            server: Some(Server {
                version: text(inspection.version()),
                role: text(inspection.role()),
                replicas: inspection.replicas(),
                run_id: text(inspection.run_id()),
                checked_at_ms: time::unix_ms(),
            }),
        }
    }
}

struct Link {
    address: RedisAddress,
    sender: watch::Sender<Arc<RedisStatus>>,
    offer: watch::Sender<Option<Connected>>,
    /// The most replicas that were ever connected at a time.
    replicas_most: AtomicU64,
    /// Not all replicas had what they were asked for last.
    are_behind: AtomicBool,
    counts: Arc<Counts>,
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
        let mut was_connected = false;
        loop {
            let error = match self.connect().await {
                Ok((mut connection, asker)) => {
                    let connected_at = time::now();
                    let reconnects = u64::from(std::mem::replace(&mut was_connected, true));
                    self.counts
                        .reconnects
                        .fetch_add(reconnects, Ordering::Relaxed);
                    let mut offered = Connected {
                        connection: connection.clone(),
                        asker: asker.clone(),
                        number: self.counts.change(),
                    };
                    offered.connection.set_response_timeout(ANSWER_MAX);
                    self.offer.send_replace(Some(offered));
                    let error = self.watch(&mut connection, &asker).await;
                    if connected_at.elapsed() >= LASTING {
                        backoff = BACKOFF_MIN;
                    }
                    error
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
    async fn connect(&self) -> RedisResult<(MultiplexedConnection, Asker)> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connecting = self.address.connect(&config);
        let in_time = tokio::time::timeout(CONNECT_MAX, connecting).await;
        let mut connection =
            in_time.map_err(|_| RedisError::from((ErrorKind::Io, "no connection in time")))??;
        // A server that still loads its data takes connections, but answers a ping with an error.
        ping(&mut connection).await?;
        let inspection = inspect(&mut connection).await?;
        let run_id = inspection.run_id().map(str::to_owned);
        let asker = Asker::start(&self.address, run_id);
        self.judge(&inspection, &asker).await;
        Ok((connection, asker))
    }

    /// Returns with the reason when the link is no good any more.
    async fn watch(&self, connection: &mut MultiplexedConnection, asker: &Asker) -> RedisError {
        let mut inspect_at = time::now() + INSPECT_INTERVAL;
        let mut pings_lost = 0;
        // What calls over an earlier connection asked for is done.
        let _ = self.renew.notified().now_or_never();
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
            if time::now() >= inspect_at || !self.is_as_before(connection).await {
                match inspect(connection).await {
                    Ok(inspection) => self.judge(&inspection, asker).await,
                    Err(error) => return error,
                }
                inspect_at = time::now() + INSPECT_INTERVAL;
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        }
    }

    /// Whether the server's role and replicas are those of the last inspection, as far as it says, and
    /// no replicas were behind.
    async fn is_as_before(&self, connection: &mut MultiplexedConnection) -> bool {
        if self.are_behind.load(Ordering::Relaxed) {
            return false;
        }
        let mut asked = redis::cmd("INFO");
        let info: RedisResult<String> = asked.arg("replication").query_async(connection).await;
        let before = self.sender.borrow().clone();
        let (Ok(info), Some(server)) = (&info, &before.server) else {
            self.note_silence(info.is_err_and(|error| error.is_timeout()));
            return true;
        };
        let now = Inspection {
            info: Inspection::parse_info(info),
            config: None,
        };
        now.replicas() == server.replicas && now.role() == Some(&server.role)
    }

    /// What the server's settings amount to; asks its replicas where it is a matter of them.
    async fn judge(&self, inspection: &Inspection, asker: &Asker) {
        let connected = inspection.replicas();
        let most = self
            .replicas_most
            .fetch_max(connected, Ordering::AcqRel)
            .max(connected);
        let copies = match inspection.depends_on_copies(most) {
            true => asker.ask(most).await,
            false => Copies::Untold,
        };
        self.are_behind
            .store(copies == Copies::Behind, Ordering::Relaxed);
        let replicas = Replicas { most, copies };
        let status = RedisStatus::inspected(inspection, self.address.asserted(), replicas);
        let before = self.sender.borrow().clone();
        if !before.connected {
            let server = &self.address;
            tracing::info!(%server, durability = ?status.durability, "connected to Redis");
        }
        if !status.warnings.is_empty() && status.warnings != before.warnings {
            let (server, warnings) = (&self.address, &status.warnings);
            tracing::warn!(%server, ?warnings, "Redis is not set up for full durability");
        }
        self.publish(status);
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
            tracing::warn!(server = %self.address, %error, "no connection to Redis; trying again");
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
        Err(error) if super::calls::is_misconfigured(&error) => Ok(()),
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
pub(super) fn unless_refused<T>(reply: RedisResult<T>) -> RedisResult<Option<T>> {
    match reply {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
