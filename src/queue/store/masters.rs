//! The masters of a Redis Cluster: a link to each, and which slots it has.
//!
//! Each second, and at once when a server says that a slot is elsewhere, one server of the cluster is
//! asked who has which slots: one that is connected, or else those that the URL names. A server that does
//! not reach a majority of the masters is believed only when nobody else answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::calls::reply;
use super::link::{Counts, RedisLink, RedisStatus};
use crate::queue::address::{RedisAddress, RedisAddressError};
use crate::queue::slots::{Account, Place, Slots};

/// Between two questions while nothing is known to have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two questions in any case.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How long one server may take to answer, or to take a connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Links to all masters; dropping it ends their tasks.
pub(super) struct Masters {
    layout: watch::Receiver<Arc<Layout>>,
    look: Look,
    task: JoinHandle<()>,
}

/// Who has what, as far as is known.
#[derive(Default)]
pub(super) struct Layout {
    /// Which change of the counts it was.
    number: u64,
    slots: Slots,
    links: BTreeMap<Place, Master>,
    /// Why it is not known, or not any more.
    trouble: Option<String>,
}

#[derive(Clone)]
struct Master {
    link: Arc<RedisLink>,
    /// A slot of this master, in which its replicas are asked.
    slot: u16,
}

/// Asks for a look at who has which slots.
#[derive(Clone, Default)]
pub(super) struct Look(Arc<(Notify, Mutex<Option<Place>>)>);

impl Look {
    /// A slot is elsewhere, at `there` if that is known.
    pub fn moved(&self, there: Option<Place>) {
        *self.0.1.lock().expect("no holder panics") = there;
        self.0.0.notify_one();
    }
}

impl Masters {
    pub fn start(
        address: RedisAddress,
        seeds: Vec<Place>,
        counts: Arc<Counts>,
        mut shutdown: watch::Receiver<bool>,
    ) -> Self {
        let (sender, layout) = watch::channel(Arc::new(Layout {
            trouble: Some("not connected to the Redis Cluster yet".to_owned()),
            ..Layout::default()
        }));
        let look = Look::default();
        let follower = Follower {
            address,
            seeds,
            counts,
            shutdown: shutdown.clone(),
            sender,
            look: look.clone(),
            asked: None,
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                never = follower.run() => match never {},
                _ = shutdown.wait_for(|&is_over| is_over) => {}
            }
        });
        Masters { layout, look, task }
    }

    pub fn layout(&self) -> Arc<Layout> {
        self.layout.borrow().clone()
    }

    pub fn look(&self) -> Look {
        self.look.clone()
    }

    /// Waits until something else is known than now.
    pub async fn changed(&self) {
        let mut layout = self.layout.clone();
        // Else the first layout of all would count as a change for ever.
        layout.mark_unchanged();
        // Without a sender nothing changes any more.
        if layout.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Masters {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Layout {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The link to the master of a slot.
    pub fn link(&self, slot: u16) -> Option<&Arc<RedisLink>> {
        let master = self.links.get(self.slots.master(slot)?)?;
        Some(&master.link)
    }

    /// What holds for every topic, whichever master has it. Each warning names its master.
    pub fn weakest(&self) -> Arc<RedisStatus> {
        let all: Vec<_> = self
            .links
            .iter()
            .map(|(p, m)| (p, m.link.status()))
            .collect();
        let weakest = all
            .iter()
            .min_by_key(|(_, s)| (s.connected, s.durability.rank()));
        let Some((_, weakest)) = weakest else {
            let trouble = self.trouble.clone();
            let trouble =
                trouble.unwrap_or_else(|| "no server of the Redis Cluster has a slot".to_owned());
            return Arc::new(RedisStatus::disconnected(trouble));
        };
        let mut status = RedisStatus::clone(weakest);
        status.silent = all.iter().any(|(_, status)| status.silent);
        let named = |(place, status): &(&Place, Arc<RedisStatus>)| {
            let each = status.warnings.iter();
            each.map(|warning| format!("{place}: {warning}"))
                .collect::<Vec<_>>()
        };
        status.warnings = all.iter().flat_map(named).collect();
        let uncovered = self.slots.uncovered();
        if uncovered > 0 {
            let warning = format!(
                "{uncovered} slots of the Redis Cluster have no master: their topics are not served"
            );
            status.warnings.push(warning);
        }
        status.warnings.extend(self.trouble.clone());
        Arc::new(status)
    }
}

/// Keeps the layout true.
struct Follower {
    address: RedisAddress,
    seeds: Vec<Place>,
    counts: Arc<Counts>,
    shutdown: watch::Receiver<bool>,
    sender: watch::Sender<Arc<Layout>>,
    look: Look,
    /// Who answered last.
    asked: Option<Place>,
}

impl Follower {
    async fn run(mut self) -> std::convert::Infallible {
        loop {
            let there = self.look.0.1.lock().expect("no holder panics").take();
            self.asked = there.or(self.asked.take());
            let told = self.ask().await;
            let taken = told.and_then(|account| {
                let taken = self.take(account.slots);
                taken.map_err(|error| error.to_string())
            });
            if let Err(reason) = taken {
                self.report(reason);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.look.0.0.notified() => {}
            }
        }
    }

    /// The best account that any server gives; the error is why there is none.
    async fn ask(&mut self) -> Result<Account, String> {
        let layout = self.sender.borrow().clone();
        let mut connected: Vec<_> = layout
            .links
            .iter()
            .filter(|(_, master)| master.link.status().answers())
            .filter_map(|(place, master)| Some((place, master.link.connected()?.connection)))
            .collect();
        connected.sort_by_key(|(place, _)| Some(*place) != self.asked.as_ref());
        let mut best: Option<Account> = None;
        let mut reason = "no server of the Redis Cluster is connected".to_owned();
        let mut weigh = |place: &Place, told: RedisResult<Option<Account>>| match told {
            Ok(Some(account)) => {
                if best
                    .as_ref()
                    .is_none_or(|best| account.is_better_than(best))
                {
                    self.asked = Some(place.clone());
                    best = Some(account);
                }
                best.as_ref().is_some_and(|best| best.is_sure)
            }
            Ok(None) => {
                reason = format!("{place} does not say who has which slots (CLUSTER SLOTS)");
                false
            }
            Err(error) => {
                reason = format!("{place}: {error}");
                false
            }
        };
        let mut is_sure = false;
        for (place, connection) in connected {
            is_sure = weigh(place, account(connection, place).await);
            if is_sure {
                break;
            }
        }
        if !is_sure {
            let address = &self.address;
            let asked = self.seeds.iter().map(async |place| {
                let told = tokio::time::timeout(ANSWER_TIMEOUT, first_account(address, place));
                let late = (redis::ErrorKind::Io, "no connection in time");
                (place, told.await.unwrap_or_else(|_| Err(late.into())))
            });
            for (place, told) in join_all(asked).await {
                weigh(place, told);
            }
        }
        best.ok_or_else(|| format!("not connected to the Redis Cluster: {reason}"))
    }

    /// Keeps links to masters that still are, and starts those to others.
    fn take(&self, slots: Slots) -> Result<(), RedisAddressError> {
        let before = self.sender.borrow().clone();
        if slots == before.slots && before.trouble.is_none() {
            return Ok(());
        }
        let mut links = BTreeMap::new();
        for (place, slot) in slots.masters() {
            let kept = before.links.get(place);
            let kept = kept.filter(|master| slots.master(master.slot) == Some(place));
            let master = match kept {
                Some(master) => master.clone(),
                None => {
                    let address = self.address.of_master(place, slot);
                    let (counts, shutdown) = (self.counts.clone(), self.shutdown.clone());
                    let link = Arc::new(RedisLink::start(address, counts, shutdown)?);
                    Master { link, slot }
                }
            };
            links.insert(place.clone(), master);
        }
        let masters: Vec<String> = links.keys().map(Place::to_string).collect();
        tracing::info!(?masters, "read the slots of the Redis Cluster");
        self.sender.send_replace(Arc::new(Layout {
            // Before it is of use: what went by the layout before is not mistaken for this one.
            number: self.counts.change(),
            slots,
            links,
            trouble: None,
        }));
        Ok(())
    }

    /// What was known is used further, and said to be old.
    fn report(&self, reason: String) {
        let before = self.sender.borrow().clone();
        if before.trouble.as_ref() == Some(&reason) {
            return;
        }
        tracing::warn!(%reason, "cannot read the slots of the Redis Cluster; trying again");
        self.sender.send_replace(Arc::new(Layout {
            number: before.number,
            slots: before.slots.clone(),
            links: before.links.clone(),
            trouble: Some(reason),
        }));
    }
}

async fn first_account(address: &RedisAddress, place: &Place) -> RedisResult<Option<Account>> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER_TIMEOUT));
    let connection = address.of_master(place, 0).connect(&config).await?;
    account(connection, place).await
}

async fn account(
    mut connection: MultiplexedConnection,
    place: &Place,
) -> RedisResult<Option<Account>> {
    connection.set_response_timeout(ANSWER_TIMEOUT);
    let mut asked = redis::pipe();
    asked.cmd("CLUSTER").arg("INFO");
    asked.cmd("CLUSTER").arg("SLOTS");
    let (info, slots): (String, Value) = asked.query_async(&mut connection).await?;
    Ok(Account::read(&info, reply(slots), place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_known_for_long_is_no_change() {
        let (_keep, shutdown) = watch::channel(false);
        let masters = Masters::start(
            "redis://127.0.0.1:1".into(),
            Vec::new(),
            Arc::default(),
            shutdown,
        );
        let mut layout = masters.layout.clone();
        // Without a server to ask it says why it knows nothing, once.
        let said = tokio::time::timeout(ANSWER_TIMEOUT, layout.changed()).await;
        said.expect("it says so").expect("it runs");
        let changed = tokio::time::timeout(LOOK_EVERY * 3, masters.changed()).await;
        changed.expect_err("nothing else is known");
    }
}
