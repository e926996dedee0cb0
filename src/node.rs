//! One node: the only place that builds the parts and hands them out.
//!
//! Start: data directory, broker connections, log and state, Raft, then the doors to clients and
//! HTTP. Stop (SIGTERM, Ctrl-C, or removal from the cluster): not ready, leave the view (topics and
//! cached values move to others while this node still answers), hand over leadership, take no more
//! requests, finish what is in flight, end Raft.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::broker::SharedBroker;
use crate::broker::connection::NatsBroker;
use crate::broker::discovery::ServiceInfo;
use crate::broker::dispatch::Dispatch;
use crate::broker::events::Events;
use crate::broker::leaving;
use crate::broker::listen::Listener;
use crate::broker::options::NatsOptions;
use crate::broker::own::OwnRequests;
use crate::broker::relay::Relay;
use crate::broker::reply::Replier;
use crate::broker::tenants::Tenants;
use crate::broker::unheard::Unheard;
use crate::config::Config;
use crate::ids::{BootId, DiskId};
use crate::lock::service::LockService;
use crate::monitor::history::History;
use crate::monitor::http::Monitor;
use crate::monitor::insight::{self, Insight};
use crate::protocol::{Operation, Prefix};
use crate::queue::service::{self, QueueService};
use crate::queue::store::Store;
use crate::raft::backup::Backups;
use crate::raft::bootstrap;
use crate::raft::directory::DataDirectory;
use crate::raft::handle::{Handle, Raft, Timing};
use crate::raft::log::LogStore;
use crate::raft::membership::Membership;
use crate::raft::network::{Identity, Network};
use crate::raft::posts::Posts;
use crate::raft::receiver::{Beats, Receiver};
use crate::raft::snapshot::{SnapshotStore, Snapshots};
use crate::raft::state_machine::StateMachine;
use crate::raft::types::RaftLog;
use crate::stats::{Connection, Stats};
use crate::time::LeaseClock;
use crate::{raft, time};

mod agreement;
mod answering;
mod arrival;
mod caching;
mod departure;
mod links;
mod panicking;

pub use links::check;

/// How long a change of leader prolongs leases: time for holders to reach the new one.
const GRACE: Duration = Duration::from_secs(1);
/// How long a stopping node waits for leadership to move and for answers that are on their way.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// How long of that another node may take to take over: ten times what it takes when there is one.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often a node looks whether Raft had to stop.
const HEALTH_LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a node stands on: the seams between it and the world. Simulated nodes have others.
pub struct Parts<L> {
    pub config: Config,
    pub identity: Identity,
    /// The connection for what nodes say to each other.
    pub raft_broker: SharedBroker,
    /// The connection that answers to clients go out on.
    pub clients: SharedBroker,
    /// The same connection, for what nodes say to each other beside Raft.
    pub posts: SharedBroker,
    pub log: L,
    pub snapshots: Arc<dyn Snapshots>,
    pub redis: Option<Arc<Store>>,
    pub stats: Arc<Stats>,
}

/// A node without its doors to the outside.
pub struct Core {
    pub handle: Handle,
    pub network: Network,
    pub raft: Raft,
    /// Where requests of clients go.
    pub dispatch: Arc<Dispatch>,
    own: OwnRequests,
    clock: LeaseClock,
    config: Config,
    /// Becomes true when this node is to leave the view.
    leaving: watch::Sender<bool>,
}

/// The tasks and connections of a running node, in the order in which they end.
struct Node {
    core: Arc<Core>,
    handle: Handle,
    insight: Arc<Insight>,
    queues: QueueService,
    clients: NatsBroker,
    /// Ends the doors to clients.
    close: watch::Sender<bool>,
    /// Ends everything else.
    stop: watch::Sender<bool>,
    listening: tokio::task::JoinHandle<()>,
    /// Ends once the node was removed from its cluster.
    removed: tokio::task::JoinHandle<()>,
    membership: Membership,
    directory: DataDirectory,
    /// See [`Prefix::fence`].
    fence: String,
}

/// Runs a node until it is told to stop, is removed from its cluster, or can't go on. Told twice, it ends
/// at once.
///
/// # Errors
/// When the data directory, the configuration or the log don't allow to start, and when Raft had
/// to stop: a log that can't be written is final.
pub async fn run(config: Config, nats: NatsOptions) -> Result<()> {
    panicking::end_the_process();
    #[cfg(feature = "otel")]
    crate::trace::export::start(config.id)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut node = tokio::select! {
        started = Node::start(&config, &nats) => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tokio::select! {
        failed = node.watch() => failed?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::select! {
        biased;
        _ = terminate.recv() => bail!("stopped at once by a second signal: some requests were not finished"),
        _ = interrupt.recv() => bail!("stopped at once by a second signal: some requests were not finished"),
        () = node.drain() => {}
    }
    #[cfg(feature = "otel")]
    crate::trace::export::finish();
    Ok(())
}

impl Core {
    /// Builds a node and has it take part in Raft, until `stopped`.
    ///
    /// # Errors
    /// When the configuration or what is stored does not allow to start.
    pub async fn start<L: RaftLog>(
        parts: Parts<L>,
        stopped: watch::Receiver<bool>,
    ) -> Result<Core> {
        let (config, identity, stats) = (parts.config, parts.identity, parts.stats);
        let timing = Timing {
            election_max: config.election_max,
            grace: GRACE,
        };
        let who = (identity.node, identity.boot);
        let link = (parts.raft_broker.clone(), config.prefix.as_str());
        let handle = Handle::new(who, timing, link, stats.clone());
        let known_disk = handle.known_disk();
        let network = Network::new(
            identity,
            parts.raft_broker.clone(),
            config.prefix.clone(),
            known_disk.clone(),
        );
        let machine = StateMachine::new(handle.shared_state(), parts.snapshots, handle.observer());
        let settings = Arc::new(raft::settings::settings(&config)?);
        let silence = raft::settings::probe_every(&config);
        let raft = Raft::build(
            config.id,
            settings,
            network.factory(silence),
            parts.log,
            machine,
        )
        .await?;

        let prefix: Prefix = config.prefix.parse()?;
        let posts = Posts::new(
            identity,
            parts.posts,
            config.prefix.clone(),
            known_disk.clone(),
        );
        let relay = Relay::new(posts.clone(), stats.clone());
        let events = Events::new(
            (identity.node, identity.boot),
            prefix.clone(),
            parts.clients.clone(),
        );
        events.listen(stopped.clone()).await?;
        let unheard = Unheard::new(identity.node, &prefix);
        unheard
            .listen(&parts.clients, handle.clone(), stopped.clone())
            .await?;
        let replier = Replier::new(
            identity.node,
            parts.clients.clone(),
            (events, unheard),
            stats.clone(),
        );
        let answering = network.listen().await?;
        tokio::spawn(answering.run(stopped.clone()));
        let beats = Beats {
            every: config.heartbeat,
            silence_max: config.election_max,
        };
        let receiver = Receiver::listen(network.clone(), raft.clone(), beats).await?;
        let lost = receiver.lost_leader();
        tokio::spawn(receiver.run(stopped.clone()));
        // Only now: who stands for election must be able to hear the answers.
        raft.run();
        handle
            .run(
                (raft.clone(), lost),
                Arc::new(replier.clone()),
                stopped.clone(),
            )
            .await?;
        let founds_with = (!config.join).then(|| config.peers.iter().copied().collect());
        bootstrap::answer_greetings(&network, raft.clone(), &handle, founds_with);
        agreement::tell(&network, &config);
        let membership = Membership::new(handle.clone(), network.clone(), config.election_max);
        membership.run(stopped.clone());

        let queues = QueueService::new(service::Parts {
            me: identity.node,
            prefix: prefix.clone(),
            handle: handle.clone(),
            network: network.clone(),
            relay: relay.clone(),
            redis: parts.redis.clone(),
            answers: Arc::new(replier.clone()),
            stats: stats.clone(),
            tenant_bytes_max: config.tenant_queue_bytes,
        });
        queues.listen(&parts.clients, stopped.clone()).await?;
        let clock = LeaseClock::start();
        let locks = LockService::new(handle.clone(), network.clone(), identity.boot);
        let locks = Arc::new(locks);
        let answers = Arc::new(replier.clone());
        let redis = parts.redis.clone();
        let store = caching::store(&config, identity.node, (redis, handle.clone()))?;
        let cache = caching::service(&config, (posts, clock), (answers, locks.clone()), store);
        cache.run(stopped.clone()).await?;

        let insight = Arc::new(Insight {
            handle: handle.clone(),
            cache: cache.clone(),
            queues: queues.clone(),
            network: network.clone(),
            stats,
            clients: parts.clients,
            raft_broker: parts.raft_broker,
            redis: parts.redis,
            service: service_info(&identity, &prefix),
            started: time::now(),
            history: Mutex::new(History::new(time::now())),
            hashing: tokio::sync::Mutex::default(),
            serving: AtomicBool::new(false),
        });
        let dispatch = Arc::new(Dispatch {
            me: identity.node,
            prefix,
            handle: handle.clone(),
            locks,
            queues,
            cache,
            membership,
            backups: Backups::new(handle.clone()),
            relay: relay.clone(),
            insight,
            replier,
            tenants: Tenants::new(config.tenant_rate),
        });
        let clients = dispatch.insight.clients.clone();
        let own = OwnRequests::listen(dispatch.clone(), &clients, stopped.clone()).await?;
        dispatch.queues.set_road(Arc::new(own.clone()));
        answering::answer_queries(&network, &dispatch);
        answering::answer_about_topics(&network, &dispatch.queues);
        answering::answer_view_reads(&network, &handle);
        answering::answer_dashboards(&network, &dispatch.insight);
        let leaving = watch::Sender::new(false);
        answering::answer_who_stays(&network, leaving.subscribe());
        let taking = dispatch.clone();
        relay
            .listen(move |handed| taking.take_handed(handed), stopped.clone())
            .await?;
        tokio::spawn(dispatch.clone().follow_view(stopped));
        Ok(Core {
            handle,
            network,
            raft,
            dispatch,
            own,
            clock,
            config,
            leaving,
        })
    }
}

impl Node {
    async fn start(config: &Config, nats: &NatsOptions) -> Result<Node> {
        let draw = || DiskId(rand::random());
        let directory = DataDirectory::open(&config.data_dir, config.id, draw)?;
        let identity = Identity {
            node: config.id,
            disk: directory.disk(),
            boot: BootId(rand::random()),
        };
        let stats = Stats::new(insight::operation_labels(), insight::code_labels());
        let (stop, stopped) = watch::channel(false);
        let (close, closed) = watch::channel(false);

        let (log, snapshots) = open_stores(&directory, &stats)?;
        let raft_link = links::connect(nats, config, (&stats, Connection::Raft)).await?;
        let clients = links::connect(nats, config, (&stats, Connection::Clients)).await?;
        let redis = match links::redis_address(config) {
            Some(address) => Some(Arc::new(Store::start(address, stopped.clone())?)),
            None => None,
        };
        let parts = Parts {
            config: config.clone(),
            identity,
            raft_broker: Arc::new(raft_link),
            clients: Arc::new(clients.clone()),
            posts: Arc::new(clients.clone()),
            log,
            snapshots: Arc::new(snapshots),
            redis,
            stats,
        };
        let core = Core::start(parts, stopped.clone()).await?;
        if let Some(address) = config.http {
            let monitor = Monitor::bind(&address.to_string())
                .await
                .with_context(|| format!("HTTP cannot listen on {address} (--http)"))?;
            let board = answering::board(&core, config, stopped.clone());
            let insight = core.dispatch.insight.clone();
            tokio::spawn(monitor.serve(insight, board, stopped.clone()));
        }
        core.join(stopped).await?;

        let core = Arc::new(core);
        let removed = tokio::spawn({
            let core = core.clone();
            async move { core.removed().await }
        });
        let listener = Listener::subscribe(clients.client().clone(), &core.dispatch).await?;
        let insight = core.dispatch.insight.clone();
        let queues = core.dispatch.queues.clone();
        let listening = tokio::spawn(listener.run(core.dispatch.clone(), closed));
        Ok(Node {
            handle: core.handle.clone(),
            fence: core.dispatch.prefix.fence(core.dispatch.me),
            membership: core.dispatch.membership.clone(),
            core,
            removed,
            insight,
            queues,
            clients,
            close,
            stop,
            listening,
            directory,
        })
    }

    /// Returns when Raft can't go on or the node was removed; until then binds the directory to its
    /// cluster once known, and remembers what the node does.
    async fn watch(&mut self) -> Result<()> {
        let mut look = tokio::time::interval(HEALTH_LOOK_EVERY);
        loop {
            tokio::select! {
                biased;
                _ = &mut self.removed => return Ok(()),
                _ = look.tick() => {}
            }
            self.insight.remember();
            if let Some(fatal) = self.handle.fatal() {
                bail!("Raft stopped: {fatal}");
            }
            if let Some(cluster) = self.handle.read(|state, _| state.cluster) {
                self.directory.set_cluster(cluster)?;
            }
        }
    }

    /// Ends service without losing what was accepted.
    async fn drain(self) {
        tracing::info!(
            "stopping: handing over leadership and topics, finishing requests in flight"
        );
        let cache = self.core.dispatch.cache.clone();
        self.insight.serving.store(false, Ordering::Relaxed);
        self.core.leave_view().await;
        let deadline = time::now() + DRAIN_MAX;
        cache.dismiss();
        self.handle
            .hand_over(|| self.core.staying(), time::now() + HAND_OVER_MAX)
            .await;
        let _ = self.close.send(true);
        let _ = tokio::time::timeout_at(deadline, self.listening).await;
        self.queues.dismiss();
        let is_idle = || {
            self.handle.is_idle()
                && self.queues.is_settled()
                && cache.is_settled()
                && self.membership.is_idle()
        };
        while !is_idle() && time::now() < deadline {
            tokio::time::sleep(DRAIN_LOOK_EVERY).await;
        }
        cache.give_up();
        self.membership.give_up();
        // Pops that a call had in hand meanwhile.
        self.queues.dismiss();
        // Nothing comes from other nodes any more once Raft has ended.
        let _ = self.stop.send(true);
        self.handle.shut_down().await;
        // The last answers are the broker's before this process ends: a socket that is closed with
        // something unread in it may take back what it has sent.
        let sent = leaving::round_trip(self.clients.client(), self.fence);
        let _ = tokio::time::timeout_at(deadline, sent).await;
    }
}

/// Opens what is stored, and makes sure that nothing is missing between snapshot and log. A snapshot may reach
/// beyond the end of the log: one that was received is on disk before the log knows of it.
fn open_stores(directory: &DataDirectory, stats: &Arc<Stats>) -> Result<(LogStore, SnapshotStore)> {
    let flushes = stats.clone();
    let on_flush = Arc::new(move |flush: raft::log::Flush| {
        flushes.raft.fsync.observe_duration(flush.duration);
    });
    let site = directory.log_site();
    let log = LogStore::open(&site, on_flush)?;
    let snapshots = SnapshotStore::open(&directory.snapshots_path())?;
    let reached = SnapshotStore::load(&snapshots)?.and_then(|(meta, _)| meta.last_log_id);
    if log.purged()? > reached {
        bail!(
            "the newest snapshot in {} ends before the log in {} begins: a file is missing. Put it \
             back; without it this node can't be started",
            directory.snapshots_path().display(),
            site.dir.display(),
        );
    }
    Ok((log, snapshots))
}

fn service_info(identity: &Identity, prefix: &Prefix) -> ServiceInfo {
    let endpoints = Operation::ALL.iter().map(|operation| {
        (
            *operation as usize,
            operation.name(),
            operation.request_schema(),
        )
    });
    let who = (identity.node, identity.boot);
    ServiceInfo::new(who, prefix.as_str(), endpoints, time::unix_ms())
}
