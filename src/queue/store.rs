//! Redis, as the queue uses it: one server, or the masters of a Redis Cluster, each over a link of its own.
//!
//! A [`Route`] is the connection to the server that has a topic, as it is at one moment. Calls go over it,
//! and what it says of durability is of that server. When the slot of the topic moves, a call says
//! [`CallError::Moved`], has changed nothing, and is made again over another route.
//!
//! - [`link`]: the connection to one server, under watch.
//! - [`masters`]: which servers have which slots, and links to them.
//! - [`calls`]: scripts and what else is asked over a route.
//! - [`copies`]: what replicas have on their disks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::address::{RedisAddress, RedisAddressError};
use super::durability::Copies;
use super::slots;
use crate::time;

mod calls;
mod copies;
mod link;
mod masters;

pub use calls::{CallError, Late};
use link::{Connected, Counts, RedisLink};
pub use link::{RedisStatus, Server};
use masters::{Look, Masters};

/// Between two tries of a call whose slot moves, unless it is known earlier where it went.
const MOVE_PAUSE: Duration = Duration::from_millis(50);
/// How long a call waits for a slot that moves: less than a request has by default.
const MOVE_MAX: Duration = Duration::from_secs(3);

/// All of Redis that a node knows. Dropping it ends its tasks.
pub struct Store {
    servers: Servers,
    counts: Arc<Counts>,
}

enum Servers {
    One(Arc<RedisLink>),
    Cluster(Masters),
}

/// The connection to the server that has a key.
#[derive(Clone)]
pub struct Route {
    link: Arc<RedisLink>,
    connected: Connected,
    number: u64,
    /// Whom to tell that slots move; none where one server has everything.
    masters: Option<Look>,
}

impl Store {
    /// Starts to connect in the background and returns at once. Connections end when `shutdown` becomes
    /// true or its sender is dropped.
    ///
    /// # Errors
    /// When the address can't be used. Servers that are not there are waited for, without end.
    pub fn start(
        address: impl Into<RedisAddress>,
        shutdown: watch::Receiver<bool>,
    ) -> Result<Self, RedisAddressError> {
        let (address, counts) = (address.into(), Arc::<Counts>::default());
        let servers = match address.seeds()? {
            Some(seeds) => {
                address.check()?;
                Servers::Cluster(Masters::start(address, seeds, counts.clone(), shutdown))
            }
            None => Servers::One(Arc::new(RedisLink::start(
                address,
                counts.clone(),
                shutdown,
            )?)),
        };
        Ok(Store { servers, counts })
    }

    /// The way to the server that has a key now.
    ///
    /// # Errors
    /// [`CallError::Disconnected`] and [`CallError::Unserved`].
    pub fn route(&self, key: &str) -> Result<Route, CallError> {
        match &self.servers {
            Servers::One(link) => Route::over(link, 0, None),
            Servers::Cluster(masters) => {
                let (slot, layout) = (slots::slot_of(key), masters.layout());
                let link = layout.link(slot).ok_or(CallError::Unserved(slot))?;
                Route::over(link, layout.number(), Some(masters.look()))
            }
        }
    }

    /// What is known now, of a Redis Cluster the least that holds for any topic. Cheap: nothing is asked.
    pub fn status(&self) -> Arc<RedisStatus> {
        match &self.servers {
            Servers::One(link) => link.status(),
            Servers::Cluster(masters) => masters.layout().weakest(),
        }
    }

    /// The same of the server that has a key.
    pub fn status_for(&self, key: &str) -> Arc<RedisStatus> {
        match &self.servers {
            Servers::One(link) => link.status(),
            Servers::Cluster(masters) => {
                let (slot, layout) = (slots::slot_of(key), masters.layout());
                match layout.link(slot) {
                    Some(link) => link.status(),
                    None => Arc::new(RedisStatus::disconnected(
                        CallError::Unserved(slot).to_string(),
                    )),
                }
            }
        }
    }

    /// Notes that a topic exists.
    ///
    /// # Errors
    /// Each of [`CallError`].
    pub async fn note_topic(&self, set: &str, topic: &str) -> Result<(), CallError> {
        let began = time::now();
        loop {
            match self.route(set)?.note_topic(set, topic).await {
                Err(CallError::Moved) if self.settle(began).await => {}
                noted => return noted,
            }
        }
    }

    /// The topics whose names begin with a prefix; no more are read once there are `most`.
    ///
    /// # Errors
    /// Each of [`CallError`].
    pub async fn topics(
        &self,
        set: &str,
        prefix: &str,
        most: usize,
    ) -> Result<BTreeSet<String>, CallError> {
        let began = time::now();
        loop {
            // From one server: where another one would go on is not known.
            match self.route(set)?.topics(set, prefix, most).await {
                Err(CallError::Moved) if self.settle(began).await => {}
                topics => return topics,
            }
        }
    }

    /// Counts the connections that were made, and the changes of who has which slot.
    pub fn changes(&self) -> u64 {
        self.counts.changes()
    }

    /// Counts the connections that took the place of one before.
    pub fn reconnects(&self) -> u64 {
        self.counts.reconnects()
    }

    /// After [`CallError::Moved`]: waits a moment, or until it is known where slots are. Returns whether
    /// to try again, for a call that was first made at `since`.
    pub async fn settle(&self, since: time::Instant) -> bool {
        let Servers::Cluster(masters) = &self.servers else {
            return false;
        };
        let _ = tokio::time::timeout(MOVE_PAUSE, masters.changed()).await;
        since.elapsed() < MOVE_MAX
    }
}

impl Route {
    fn over(link: &Arc<RedisLink>, layout: u64, masters: Option<Look>) -> Result<Self, CallError> {
        let connected = link.connected().ok_or(CallError::Disconnected)?;
        Ok(Route {
            link: link.clone(),
            number: connected.number.max(layout),
            connected,
            masters,
        })
    }

    /// The newest of the [`Store::changes`] that this way came about by.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What is known of the server now.
    pub fn status(&self) -> Arc<RedisStatus> {
        self.link.status()
    }

    /// Whether the server and so many replicas have fsynced what was answered over this way before this
    /// is asked. Takes a second at most, and what the network adds.
    pub async fn copies(&self, replicas: u64) -> Copies {
        let copies = self.connected.asker.ask(replicas).await;
        if copies != Copies::Fsynced {
            // So that pushes that demand more hear of it before they are made.
            self.link.look();
        }
        copies
    }
}
