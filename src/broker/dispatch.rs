//! One exhaustive list of what clients can ask, and who answers it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::broker::relay::kept::Kept;
use crate::broker::relay::{self, Handed, Incoming, Keep, Relay, Way};
use crate::broker::reply::Replier;
use crate::broker::tenants::Tenants;
use crate::cache;
use crate::cache::service::{Ask, CacheService};
use crate::ids::NodeId;
use crate::lock::service::{LockService, Received};
use crate::monitor::insight::Insight;
use crate::protocol::request::Envelope;
use crate::protocol::status::StateHashChoice;
use crate::protocol::subject::Address;
use crate::protocol::tenant::seat::Seat;
use crate::protocol::{
    self, Code, Encoding, ErrorReply, Operation, Prefix, Refusal, ReplyTo, Request, tenant,
};
use crate::queue::service::{Origin, QueueService};
use crate::raft::backup::Backups;
use crate::raft::handle::Handle;
use crate::raft::membership::Membership;
use crate::time::{self, Instant};
use crate::trace::Traced;
use crate::view::tenure::Stay;

mod early;
mod operators;
mod reads;

/// The new executor of a request may learn of the view that says so a moment later than this node
/// did, and would refuse what comes before that.
const AGAIN_DELAY: Duration = Duration::from_millis(300);

/// What a wait that was interrupted still gets: time for one look, so that it ends with an answer.
const LOOK_MIN: Duration = Duration::from_millis(500);

/// How a request came to this node.
enum Came {
    /// From its client.
    Directly,
    /// From this node itself.
    Own,
    /// From the node that its client asked.
    Handed(Way),
    /// From its client, some time ago, and has waited at a node that is gone.
    Again(Instant),
}

/// Sends each request on its road.
pub struct Dispatch {
    pub me: NodeId,
    pub prefix: Prefix,
    pub handle: Handle,
    pub locks: Arc<LockService>,
    pub queues: QueueService,
    pub cache: CacheService,
    pub membership: Membership,
    pub backups: Backups,
    pub relay: Relay,
    pub insight: Arc<Insight>,
    pub replier: Replier,
    pub tenants: Tenants,
}

impl Dispatch {
    /// Takes one message. Whatever is in it, the client gets an answer and the node goes on; a
    /// message without a (permitted) reply subject is dropped, since nobody would hear of it.
    pub fn take(self: &Arc<Self>, incoming: Incoming<'_>) {
        self.decode(&incoming, Came::Directly);
    }

    /// Takes a request of this node itself, whose reply subject may be under the prefix.
    pub fn take_own(self: &Arc<Self>, incoming: Incoming<'_>) {
        self.decode(&incoming, Came::Own);
    }

    /// Takes what the relay has for this node: a request of another node's client, or the news that
    /// one of this node's found nobody.
    pub fn take_handed(self: &Arc<Self>, handed: Handed<'_>) {
        match handed {
            Handed::Request(incoming, way) => self.decode(&incoming, Came::Handed(way)),
            Handed::Refused(to, refusal) => {
                let from = self.replier.from(None);
                self.replier.send_refusal(&to, from, &refusal);
            }
        }
    }

    /// Hands on again what waits at nodes that are gone, until `stopped`.
    pub async fn follow_view(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut changed = self.handle.view_changes();
        loop {
            tokio::select! {
                biased;
                _ = stopped.changed() => return,
                _ = changed.changed() => {}
            }
            tokio::time::sleep(AGAIN_DELAY).await;
            let view = self.handle.read(|state, _| state.view.clone());
            let stays = |stay: Stay| {
                let member = view.latest_member(stay.node);
                member.map(|member| member.incarnation) == Some(stay.incarnation)
            };
            for kept in self.relay.take_orphans(stays) {
                self.take_again(&kept);
            }
        }
    }

    fn take_again(self: &Arc<Self>, kept: &Kept) {
        let traceparent = kept.reply.trace.onward();
        let letter = &kept.letter;
        let incoming = letter.incoming(&kept.reply.subject, traceparent.as_deref());
        let look_until = kept.wait_until.max(time::now() + LOOK_MIN);
        self.decode(&incoming, Came::Again(look_until.min(kept.deadline)));
    }

    fn decode(self: &Arc<Self>, incoming: &Incoming<'_>, came: Came) {
        let may_reply = |to: &&str| match came {
            Came::Directly => self.prefix.may_reply_to(to),
            // Of this node, or looked at by the node that it came to.
            Came::Own | Came::Handed(_) | Came::Again(_) => true,
        };
        let Some(subject) = incoming.reply.filter(may_reply) else {
            return;
        };
        let Some(Address {
            account,
            operation,
            suffix,
            ..
        }) = self.prefix.parse(incoming.subject)
        else {
            return;
        };
        let received_at = match &came {
            // It may have waited here for its view.
            Came::Handed(way) => way.taken_at,
            Came::Directly | Came::Own | Came::Again(_) => time::now(),
        };
        let counts = matches!(came, Came::Directly);
        let guest = self.tenants.whose(account, counts, received_at);
        let envelope = Envelope {
            suffix,
            content_type: incoming.content_type,
            message_id: incoming.message_id,
            of_tenant: account.is_some(),
        };
        let trace = operation.map_or_else(Traced::default, |operation| {
            Traced::begin(operation.name(), self.me, incoming.traceparent)
        });
        // What is refused anyway costs as little as can be: the body is not looked at.
        let decoded = guest.map(|guest| {
            let (encoding, request) = Request::decode(operation, envelope, incoming.payload);
            (encoding, request, guest)
        });
        let (encoding, tenant) = match &decoded {
            Ok((encoding, request, guest)) => {
                trace.note_id(request.as_ref().ok().and_then(Request::id));
                let tenant = guest.as_ref().map(|(tenant, _)| tenant.clone());
                (*encoding, tenant)
            }
            Err(_) => {
                let encoding = Encoding::of_request(incoming.content_type, incoming.payload);
                (encoding.unwrap_or_default(), None)
            }
        };
        let to = ReplyTo {
            tenant,
            handed: matches!(came, Came::Handed(_)),
            trace: trace.clone(),
            ..ReplyTo::new(subject, encoding)
        };
        let entered = decoded.and_then(|(_, request, guest)| {
            let Some((tenant, seat)) = guest else {
                return Ok((request?, Seat::default()));
            };
            operation.map_or(Ok(()), tenant::may_ask)?;
            let mut request = request?;
            request.enter(&tenant)?;
            Ok((request, seat))
        });
        trace.in_scope(|| match entered {
            Ok((request, seat)) => {
                let own = || received_at + Duration::from_millis(request.timeout_ms());
                let received = Received {
                    at: received_at,
                    deadline: match &came {
                        Came::Directly | Came::Own => own(),
                        Came::Handed(way) => way.until,
                        Came::Again(deadline) => *deadline,
                    },
                    seat,
                };
                match self.executor(&request) {
                    Some(node) if node != self.me => {
                        self.hand_on(node, incoming, (&request, to), (received, came));
                    }
                    _ => self.route(request, to, received, (incoming, came)),
                }
            }
            Err(refusal) => self.answer::<()>(&to, (operation, received_at), Err(refusal)),
        });
    }

    /// The node that has to execute a request; none if any can, or if it is not known now.
    fn executor(&self, request: &Request) -> Option<NodeId> {
        match request {
            Request::LockAcquire(_)
            | Request::LockRelease(_)
            | Request::LockRenew(_)
            | Request::LockCheck(_)
            | Request::LockGet(_)
            | Request::LockConvert(_)
            | Request::LockCancel(_)
            | Request::LockList(_)
            | Request::LockGraph(_)
            | Request::LockDeadlocks(_)
            | Request::SessionOpen(_)
            | Request::SessionKeepalive(_)
            | Request::SessionClose(_)
            | Request::SessionGet(_)
            | Request::SessionList(_)
            | Request::AdminLockRelease(_)
            | Request::AdminSessionClose(_)
            | Request::CacheGet(_)
            | Request::CacheGetMany(_)
            | Request::CacheInvalidate(_)
            | Request::CacheAudit(_)
            | Request::CacheExplain(_)
            | Request::CacheStats(_)
            | Request::Cluster(_)
            | Request::Backup(_)
            | Request::Status(_)
            | Request::Metrics(_) => None,
            Request::CacheSet(set) => self.cache.home(&set.key),
            Request::CacheDelete(delete) => self.cache.home(&delete.key),
            Request::CacheIncrement(increment) => self.cache.home(&increment.key),
            Request::CacheTouch(touch) => self.cache.home(&touch.key),
            Request::Queue(request) => self.queues.home(request.topic()?),
        }
    }

    /// The other node answers, unless the request does not get there.
    fn hand_on(
        self: &Arc<Self>,
        node: NodeId,
        incoming: &Incoming<'_>,
        (request, to): (&Request, ReplyTo),
        (received, came): (Received, Came),
    ) {
        let way = (&to, received.deadline);
        let sent = match came {
            Came::Handed(way) => match Self::early_until(request, &way) {
                Some(until) => return self.look_again(incoming, to, (way, until)),
                None => Err(relay::handed_on_twice()),
            },
            Came::Directly | Came::Own | Came::Again(_) => match self.keep(node, request, &came) {
                Some(keep) => self.relay.send_kept(keep, incoming, way),
                None => self.relay.send(node, incoming, way),
            },
        };
        let Err(refusal) = sent else {
            return to.trace.goes_to(node);
        };
        self.answer::<()>(&to, (Some(request.operation()), received.at), Err(refusal));
        if let Came::Handed(Way {
            keeper: Some(keeper),
            ..
        }) = came
        {
            self.relay.ended(keeper);
        }
    }

    /// How a request that may wait is handed on; none for others.
    fn keep(&self, node: NodeId, request: &Request, came: &Came) -> Option<Keep> {
        let Request::Queue(queue) = request else {
            return None;
        };
        let wait = Duration::from_millis(Some(queue.wait_ms()).filter(|&ms| ms > 0)?);
        let member = self
            .handle
            .read(|state, _| state.view.latest_member(node))?;
        Some(Keep {
            executor: Stay {
                node,
                incarnation: member.incarnation,
            },
            wait_until: match came {
                Came::Again(deadline) => *deadline,
                Came::Directly | Came::Own | Came::Handed(_) => time::now() + wait,
            },
            again: matches!(came, Came::Again(_)),
        })
    }

    fn route(
        self: &Arc<Self>,
        request: Request,
        to: ReplyTo,
        received: Received,
        (incoming, came): (&Incoming<'_>, Came),
    ) {
        let asked = request.operation();
        match request {
            Request::LockAcquire(request) => self.locks.acquire(request, to, received),
            Request::LockRelease(request) => {
                let refuse = self.refusing(asked, received.at);
                self.locks.release(request, (to, received), refuse);
            }
            Request::LockRenew(request) => {
                let refuse = self.refusing(asked, received.at);
                self.locks.renew(request, (to, received), refuse);
            }
            Request::LockConvert(request) => self.locks.convert(request, to, received),
            Request::LockCancel(request) => self.cancel_wait(request, to, received),
            Request::SessionOpen(request) => self.locks.open_session(request, to, received),
            Request::SessionKeepalive(request) => self.keep_alive(request.session, to, received),
            Request::SessionClose(request) => {
                self.locks
                    .close_session((request.session, None), to, received);
            }
            Request::AdminLockRelease(request) => self.locks.force_release(request, to, received),
            Request::AdminSessionClose(request) => {
                let closed = (request.session, Some(request.reason));
                self.locks.close_session(closed, to, received);
            }
            Request::Queue(request) => {
                let origin = Origin {
                    to,
                    received_at: received.at,
                    deadline: received.deadline,
                    incoming,
                    keeper: match came {
                        Came::Handed(way) => way.keeper,
                        Came::Directly | Came::Own | Came::Again(_) => None,
                    },
                    again: match came {
                        Came::Directly | Came::Own => false,
                        Came::Handed(way) => way.again,
                        Came::Again(_) => true,
                    },
                };
                self.queues.take(*request, origin);
            }
            Request::LockCheck(_)
            | Request::LockGet(_)
            | Request::LockList(_)
            | Request::LockGraph(_)
            | Request::LockDeadlocks(_)
            | Request::SessionGet(_)
            | Request::SessionList(_) => self.find(request, to, received),
            request @ (Request::CacheGet(_)
            | Request::CacheGetMany(_)
            | Request::CacheSet(_)
            | Request::CacheDelete(_)
            | Request::CacheIncrement(_)
            | Request::CacheTouch(_)
            | Request::CacheInvalidate(_)
            | Request::CacheAudit(_)) => self.of_cache(request, to, received),
            Request::CacheExplain(explain) => {
                let explained = cache::answer::explained(self.cache.explain(&explain.key));
                self.answer(&to, (Some(asked), received.at), Ok(&explained));
            }
            Request::CacheStats(_) => {
                let stats = self.cache.stats();
                self.answer(&to, (Some(asked), received.at), Ok(&stats));
            }
            Request::Cluster(request) => self.wish(request.wish, (asked, to), received),
            Request::Backup(request) => self.back_up(request, to, received),
            Request::Status(ask) if ask.state_hash == StateHashChoice::Include => {
                self.hash_state(to, received);
            }
            Request::Status(_) => {
                let status = self.insight.status();
                self.answer(&to, (Some(asked), received.at), Ok(&status));
            }
            Request::Metrics(ask) => {
                let metrics = self.insight.metrics_as(ask.format);
                self.answer(&to, (Some(asked), received.at), Ok(&metrics));
            }
        }
    }

    /// Requests that the cache answers now or later.
    fn of_cache(&self, request: Request, to: ReplyTo, received: Received) {
        let operation = request.operation();
        let asked = (Some(operation), received.at);
        let ask = Ask {
            to,
            operation,
            received: received.at,
            deadline: received.deadline,
            seat: received.seat,
        };
        let any = |consistency| consistency == protocol::cache::Consistency::Any;
        match request {
            Request::CacheGet(get) => self.cache.get(&get, ask),
            Request::CacheGetMany(get) => {
                self.cache.get_many(&get.keys, any(get.consistency), ask);
            }
            Request::CacheAudit(asked) => self.cache.audit(asked.sample, ask),
            Request::CacheInvalidate(asked) => {
                self.cache.invalidate(cache::change::matching(asked), ask);
            }
            change => match cache::change::of(change) {
                Ok((key, operation)) => self.cache.write(&key, operation, ask),
                Err(refusal) => self.answer::<()>(&ask.to, asked, Err(refusal)),
            },
        }
    }

    fn hash_state(self: &Arc<Self>, to: ReplyTo, received: Received) {
        let dispatch = self.clone();
        tokio::spawn(async move {
            let _seat = received.seat;
            let status = dispatch.insight.hashed_status(received.deadline).await;
            let status = status.ok_or_else(|| {
                let message = "other hashes of the state were made until the deadline";
                ErrorReply::new(Code::Timeout, message).into()
            });
            let timing = (Some(Operation::Status), received.at);
            match status {
                Ok(status) => dispatch.answer(&to, timing, Ok(&status)),
                Err(late) => dispatch.answer::<()>(&to, timing, Err(late)),
            }
        });
    }

    /// Keepalives travel together, so each waits for its own answer.
    fn keep_alive(self: &Arc<Self>, session: String, to: ReplyTo, received: Received) {
        let dispatch = self.clone();
        tokio::spawn(async move {
            let _seat = received.seat;
            let kept = dispatch.locks.keep_alive(session, received.deadline).await;
            let timing = (Some(Operation::SessionKeepalive), received.at);
            match kept {
                Ok(kept) => dispatch.answer(&to, timing, Ok(&kept)),
                Err(refusal) => dispatch.answer::<()>(&to, timing, Err(refusal)),
            }
        });
    }

    /// Answers later that a request is refused.
    fn refusing(
        self: &Arc<Self>,
        operation: Operation,
        received: Instant,
    ) -> impl FnOnce(&ReplyTo, Refusal) + Send + use<> {
        let dispatch = self.clone();
        move |to, refusal| dispatch.answer::<()>(to, (Some(operation), received), Err(refusal))
    }

    fn answer<T: serde::Serialize>(
        &self,
        to: &ReplyTo,
        timing: (Option<Operation>, Instant),
        result: Result<&T, Refusal>,
    ) {
        let asks_leader = timing.0.is_some_and(is_read_of_leader);
        let other_leader = || self.handle.leader().filter(|leader| *leader != self.me);
        let from = match asks_leader {
            true => self.replier.from(other_leader()),
            false => self.replier.as_asked(to),
        };
        let result: Result<&T, &ErrorReply> = match &result {
            Ok(body) => Ok(*body),
            Err(refusal) => Err(refusal),
        };
        self.replier.send(to, from, timing, result);
    }
}

/// Whether the leader answers it, whoever is asked.
fn is_read_of_leader(operation: Operation) -> bool {
    let is_of = |service| operation.name().starts_with(service);
    operation.only_reads() && (is_of("lock.") || is_of("session."))
}
