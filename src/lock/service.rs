//! Locks for clients: requests become commands in the log or linearizable reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::ids::{BootId, NodeId};
use crate::lock::Name;
use crate::lock::claim::{Grip, Want, Wants};
use crate::lock::command;
use crate::lock::keepalives::Keepalives;
use crate::protocol::lock as wire;
use crate::protocol::tenant::seat::Seat;
use crate::protocol::{Code, ErrorReply, Outcome, Refusal, ReplyTo, Tenant, admin, session};
use crate::raft::command::Command;
use crate::raft::handle::{Handle, ReadError};
use crate::raft::message::Refusal::UnknownCall;
use crate::raft::network::{CallError, Network};
use crate::raft::proposals::{self, Submission, Ticket};
use crate::time::{self, Instant};

mod meant;
mod query;
mod turns;

pub use query::{Found, Query};
use turns::{Turn, Turns};

/// The kind of call that carries a [`Query`] to the leader.
pub const QUERY: &str = "lock.query";

/// Reads of this node's clients that may wait at once, above all for a leader; further ones are
/// refused. Each is a task of about a kilobyte.
const READS_MAX: usize = 65_536;

/// How soon a read looks again for a leader when there is none.
const LEADER_RETRY: Duration = Duration::from_millis(25);

/// How long a leader has to answer one query. A leader that stalls is replaced about then, so the
/// read looks again for whoever leads; a read changes nothing by being asked twice.
const ASK_MAX: Duration = Duration::from_millis(500);

/// Locks, as one node offers them.
pub struct LockService {
    handle: Handle,
    network: Network,
    boot: BootId,
    /// Counts the owners that this boot has made up.
    owners: AtomicU64,
    keepalives: Keepalives,
    /// Places for reads that look for an answer.
    reads: Semaphore,
    /// Turns for those of them that list what may be much.
    turns: Turns,
}

/// When a request came, and how long its client waits.
#[derive(Clone, Debug)]
pub struct Received {
    pub at: Instant,
    pub deadline: Instant,
    /// Held until it is answered.
    pub seat: Seat,
}

impl LockService {
    pub fn new(handle: Handle, network: Network, boot: BootId) -> Self {
        LockService {
            keepalives: Keepalives::new(handle.clone()),
            handle,
            network,
            boot,
            owners: AtomicU64::new(0),
            reads: Semaphore::new(READS_MAX),
            turns: Turns::new(),
        }
    }

    /// `lock.acquire`; answered when the log has decided, or when the wait ends.
    pub fn acquire(&self, request: wire::Acquire, to: ReplyTo, received: Received) {
        let wants = wants_of(&request);
        let session = request.session.map(Name::from);
        let id = request.request_id.map(Name::from);
        let tenant = to.tenant.as_ref();
        let owner = owner_of(request.owner, tenant, session.as_ref(), id.as_ref());
        // Only the repeat of a request may end a wait, and only what has an id is one.
        let waits = request.wait_ms > 0 || id.is_some();
        let ttl_ms = match session {
            Some(_) => request.ttl_ms,
            None => request.ttl_ms.or(Some(wire::TTL_MS_DEFAULT)),
        };
        let acquire = command::Acquire {
            wants,
            owner: owner.unwrap_or_else(|| self.make_up_owner(tenant)),
            request_id: id,
            session,
            ttl_ms,
            wait: waits.then(|| wait_of(request.wait_ms, &to)),
            on_deadlock: request.on_deadlock,
            meta: request.meta.map(|meta| meta.as_json().to_owned()),
            tenant: tenant.cloned(),
        };
        self.submit(command::Command::Acquire(acquire), to, received);
    }

    /// `lock.release`; `refuse` answers where it cannot be found out what is meant.
    pub fn release(
        self: &Arc<Self>,
        request: wire::Release,
        (to, received): (ReplyTo, Received),
        refuse: impl FnOnce(&ReplyTo, Refusal) + Send + 'static,
    ) {
        let (token, tenant) = (request.token, to.tenant.clone());
        let named = (request.resource.map(Name::from), request.in_subject);
        let release = move |resource| command::Command::Release {
            resource,
            token,
            tenant,
        };
        self.submit_of_hold((named, token), release, (to, received), refuse);
    }

    /// `lock.renew`; `refuse` as for a release.
    pub fn renew(
        self: &Arc<Self>,
        request: wire::Renew,
        (to, received): (ReplyTo, Received),
        refuse: impl FnOnce(&ReplyTo, Refusal) + Send + 'static,
    ) {
        let (token, tenant, ttl_ms) = (request.token, to.tenant.clone(), request.ttl_ms);
        let named = (request.resource.map(Name::from), request.in_subject);
        let renew = move |resource| command::Command::Renew {
            resource,
            token,
            tenant,
            ttl_ms,
        };
        self.submit_of_hold((named, token), renew, (to, received), refuse);
    }

    /// `lock.convert`; answered like an acquire.
    pub fn convert(&self, request: wire::Convert, to: ReplyTo, received: Received) {
        let convert = command::Convert {
            resource: request.resource.into(),
            token: request.token,
            to: grip_of(request.mode, (0, 0)),
            wait: Some(wait_of(request.wait_ms, &to)),
        };
        self.submit(command::Command::Convert(Box::new(convert)), to, received);
    }

    /// `lock.cancel`. Without an owner it means the one that the id stands for; whom else it may mean,
    /// [`whose_wait`](Self::whose_wait) finds out.
    pub fn cancel(&self, request: wire::Cancel, to: ReplyTo, received: Received) {
        let session = request.session.map(Name::from);
        let request_id = request.request_id.map(Name::from);
        let tenant = to.tenant.as_ref();
        let owner = owner_of(request.owner, tenant, session.as_ref(), request_id.as_ref());
        let cancel = command::Command::Cancel {
            resource: request.resource.into(),
            owner: owner.expect("a request names an owner or an id"),
            request_id,
            session,
        };
        self.submit(cancel, to, received);
    }

    /// `session.open`.
    pub fn open_session(&self, request: session::Open, to: ReplyTo, received: Received) {
        // Whoever knows it can use it.
        let session = format!("{:032x}", rand::random::<u128>());
        let open = command::OpenSession {
            session: inside(to.tenant.as_ref(), session),
            name: request.name.map(Name::from),
            ttl_ms: request.ttl_ms,
            lock_delay_ms: request.lock_delay_ms,
            meta: request.meta.map(|meta| meta.as_json().to_owned()),
            tenant: to.tenant.clone(),
        };
        self.submit(command::Command::OpenSession(Box::new(open)), to, received);
    }

    /// `session.close`, and `admin.session.close` with a reason.
    pub fn close_session(
        &self,
        (session, reason): (String, Option<String>),
        to: ReplyTo,
        received: Received,
    ) {
        let close = command::Command::CloseSession {
            session: session.into(),
            reason: reason.map(Name::from),
        };
        self.submit(close, to, received);
    }

    /// `session.keepalive`; answered when the log has it.
    ///
    /// # Errors
    /// When the session is over or was never there, and when the log did not decide in time.
    pub async fn keep_alive(
        &self,
        session: String,
        deadline: Instant,
    ) -> Result<session::KeptAlive, Refusal> {
        self.keepalives.keep(session, deadline).await
    }

    /// `admin.lock.release`.
    pub fn force_release(&self, request: admin::ReleaseLock, to: ReplyTo, received: Received) {
        let release = command::Command::ForceRelease {
            resource: request.resource.into(),
            token: request.token,
            reason: request.reason.into(),
        };
        self.submit(release, to, received);
    }

    fn submit(&self, command: command::Command, to: ReplyTo, received: Received) {
        self.handle.submit(Submission {
            command: Command::Lock(command),
            ticket: Ticket::Client {
                to,
                received: received.at,
                seat: received.seat,
            },
            deadline: received.deadline,
        });
    }

    /// An owner that no other request has: this boot's number is random, and the count goes up.
    fn make_up_owner(&self, tenant: Option<&Tenant>) -> Name {
        let count = self.owners.fetch_add(1, Ordering::Relaxed);
        inside(tenant, format!("anon-{:x}-{count}", self.boot.0))
    }

    /// A read for a client of this node. One that lists what may be much waits for its turn.
    ///
    /// # Errors
    /// Those of [`LockService::find`]; `overloaded` and `timeout` of a list whose turn does not come.
    pub async fn find_for(
        &self,
        tenant: Option<&Tenant>,
        query: &Query,
        deadline: Instant,
    ) -> Result<Found, Refusal> {
        let _place = self.place_of_read()?;
        let _turn = match query.lists() {
            true => Some(self.turn(tenant, deadline).await?),
            false => None,
        };
        self.look(query, deadline).await
    }

    fn place_of_read(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.reads.try_acquire().map_err(|_| too_many_reads())
    }

    async fn turn(&self, tenant: Option<&Tenant>, deadline: Instant) -> Result<Turn<'_>, Refusal> {
        let turn = self.turns.take(tenant, deadline).await;
        turn.map_err(|refusal| match refusal.code {
            // Those that had their turn were waiting for one.
            Code::Timeout if self.handle.leader().is_none() => no_leader(),
            _ => refusal,
        })
    }

    /// A read at the leader's lease time, from here if this node leads, else asked of the leader.
    ///
    /// # Errors
    /// `no_leader` when none answered until the deadline, `overloaded`.
    pub async fn find(&self, query: &Query, deadline: Instant) -> Result<Found, Refusal> {
        let _place = self.place_of_read()?;
        self.look(query, deadline).await
    }

    async fn look(&self, query: &Query, deadline: Instant) -> Result<Found, Refusal> {
        loop {
            let here = tokio::time::timeout_at(deadline, self.find_here(query)).await;
            let found = match here.unwrap_or(Err(ReadError::NotLeader)) {
                Err(ReadError::NotLeader) => self.ask_leader(query, deadline).await,
                Err(ReadError::Overloaded) => {
                    return Err(too_many_reads());
                }
                Ok(found) => Some(found),
            };
            match found {
                Some(Found::NotLeader) | None if time::now() + LEADER_RETRY >= deadline => {
                    return Err(no_leader());
                }
                Some(Found::NotLeader) | None => tokio::time::sleep(LEADER_RETRY).await,
                Some(found) => return Ok(found),
            }
        }
    }

    /// The same from this node's own copy, which may be behind.
    pub fn find_stale(&self, query: &Query) -> Found {
        self.handle.read(|state, now_ms| {
            let locks = &state.locks;
            match query {
                Query::Check { resource, token } => {
                    Found::Check(locks.check(resource, *token, now_ms))
                }
                Query::Get { resource } => Found::Get(locks.get(resource, now_ms)),
                Query::List(page) => Found::List(locks.list(page, now_ms)),
                Query::Graph { tenant } => Found::Graph(locks.graph(tenant.as_ref(), now_ms)),
                Query::Deadlocks { limit, tenant } => {
                    let asked = (*limit, tenant.as_ref());
                    Found::Deadlocks(locks.recent_deadlocks(asked, now_ms))
                }
                Query::Session { session } => Found::Session(
                    locks
                        .session(session, now_ms)
                        .map(Box::new)
                        .map_err(Box::new),
                ),
                Query::Sessions { page, tenant } => {
                    Found::Sessions(locks.list_sessions(page, tenant.as_ref(), now_ms))
                }
                Query::Requesters {
                    resource,
                    request_id,
                    session,
                } => {
                    let request = (request_id, session.as_ref());
                    Found::Requesters(locks.requesters(resource, request, now_ms))
                }
                Query::IsSetUnder { resource, token } => {
                    Found::IsSetUnder(locks.is_set_under(resource, *token))
                }
            }
        })
    }

    async fn find_here(&self, query: &Query) -> Result<Found, ReadError> {
        self.handle.read_barrier().await?;
        Ok(self.find_stale(query))
    }

    async fn ask_leader(&self, query: &Query, deadline: Instant) -> Option<Found> {
        let leader: NodeId = self.handle.leader()?;
        let body = rmp_serde::to_vec(query).expect("queries always encode");
        let left = deadline.saturating_duration_since(time::now());
        let timeout = left.min(ASK_MAX);
        match self.network.call(leader, QUERY, body.into(), timeout).await {
            Ok(answer) => rmp_serde::from_slice(&answer).ok(),
            Err(CallError::Refused(UnknownCall)) if query.is_new() => Some(Found::Unknown),
            Err(_) => None,
        }
    }

    /// Answers another node's query; silence if it makes no sense.
    pub async fn answer_query(&self, body: Bytes) -> Option<Bytes> {
        let query: Query = rmp_serde::from_slice(&body).ok()?;
        let found = self.find_here(&query).await.unwrap_or(Found::NotLeader);
        Some(
            // By name, since answers leave fields out.
            rmp_serde::to_vec_named(&found)
                .expect("answers always encode")
                .into(),
        )
    }
}

/// The owner that a request names, or the one that its id stands for: repeats carry the same id, so
/// they derive the same owner.
fn owner_of(
    owner: Option<String>,
    tenant: Option<&Tenant>,
    session: Option<&Name>,
    id: Option<&Name>,
) -> Option<Name> {
    let outside = |name| tenant.map_or(name, |tenant| tenant.outside(name));
    let derived = match (owner, session, id) {
        (Some(owner), ..) => return Some(owner.into()),
        (None, Some(session), Some(id)) => {
            format!("session:{}:{}", outside(session), outside(id))
        }
        (None, None, Some(id)) => format!("request:{}", outside(id)),
        (None, _, None) => return None,
    };
    Some(inside(tenant, derived))
}

/// A name that this node made up, as one of the tenant's.
fn inside(tenant: Option<&Tenant>, name: String) -> Name {
    match tenant {
        None => name.into(),
        Some(tenant) => tenant.inside(&name).into(),
    }
}

fn wants_of(request: &wire::Acquire) -> Wants {
    let mut wants = request
        .wanted()
        .map(|(resource, mode, permits, limit)| Want {
            resource: resource.into(),
            grip: grip_of(mode, (permits, limit)),
        });
    if request.resources.is_empty() {
        return Wants::One(wants.next().expect("a request wants something"));
    }
    let mut wants: Vec<Want> = wants.collect();
    wants.sort_by(|a, b| a.resource.cmp(&b.resource));
    Wants::Set(wants.into())
}

/// How long a request stands in the queue, if it goes into the log at once: else its wait is cut on the way.
/// A try says whom it answers, since as a repeat it ends a wait, which may be another's to hear of.
fn wait_of(wait_ms: u64, to: &ReplyTo) -> command::Wait {
    command::Wait {
        wait_ms,
        reply: to.untraced(),
    }
}

fn grip_of(mode: wire::Mode, (permits, limit): (u32, u32)) -> Grip {
    match mode {
        wire::Mode::Exclusive => Grip::Exclusive,
        wire::Mode::Shared => Grip::Shared,
        wire::Mode::Permit => Grip::Permits { permits, limit },
    }
}

fn too_many_reads() -> Refusal {
    Box::new(ErrorReply::overloaded("waiting reads", READS_MAX as u64))
}

fn no_leader() -> Refusal {
    Box::new(
        ErrorReply::new(
            Code::NoLeader,
            "no node could prove before the deadline that it leads",
        )
        .with_outcome(Outcome::NotApplied),
    )
}

/// The error for a command that the log did not decide in time.
pub fn not_decided(refusal: proposals::Refusal) -> Refusal {
    let (code, message) = match refusal {
        proposals::Refusal::NoLeader => (Code::NoLeader, "there was no leader before the deadline"),
        proposals::Refusal::Timeout => (Code::Timeout, "the log had no room before the deadline"),
        proposals::Refusal::Indeterminate => (
            Code::Indeterminate,
            "not known to be committed at the deadline; it may still take effect",
        ),
        proposals::Refusal::Overloaded => {
            return Box::new(ErrorReply::overloaded(
                "commands waiting for the log",
                proposals::QUEUE_MAX as u64,
            ));
        }
        proposals::Refusal::ShuttingDown => (Code::ShuttingDown, "this node is stopping"),
    };
    Box::new(ErrorReply::new(code, message))
}
