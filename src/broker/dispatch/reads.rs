//! Linearizable reads of the replicated state, and what needs one before it can be done.

use std::sync::Arc;

use super::Dispatch;
use crate::lock;
use crate::lock::command::Asked;
use crate::lock::service::{Found, Query, Received};
use crate::protocol::lock::{Cancel, Consistency};
use crate::protocol::{Operation, ReplyTo, Request, Tenant};

impl Dispatch {
    /// Reads take a round to a quorum, so each has a task; the service bounds how many wait.
    pub(super) fn find(self: &Arc<Self>, request: Request, to: ReplyTo, received: Received) {
        let timing = (Some(request.operation()), received.at);
        let consistency = match &request {
            Request::LockGet(get) => get.consistency,
            _ => Consistency::Linearizable,
        };
        let dispatch = self.clone();
        let query = query_of(request, to.tenant.clone());
        tokio::spawn(async move {
            let _seat = received.seat;
            let locks = &dispatch.locks;
            let found = match consistency {
                Consistency::Linearizable => {
                    let tenant = to.tenant.as_ref();
                    locks.find_for(tenant, &query, received.deadline).await
                }
                Consistency::Stale => Ok(locks.find_stale(&query)),
            };
            match found {
                Ok(Found::Get(view)) => {
                    dispatch.answer(&to, timing, Ok(&lock::answer::view(view)));
                }
                Ok(Found::Check(check)) => {
                    dispatch.answer(&to, timing, Ok(&lock::answer::checked(check)));
                }
                Ok(Found::List(listing)) => dispatch.answer(&to, timing, Ok(&listing)),
                Ok(Found::Graph(graph)) => dispatch.answer(&to, timing, Ok(&graph)),
                Ok(Found::Deadlocks(recent)) => dispatch.answer(&to, timing, Ok(&recent)),
                Ok(Found::Session(Ok(view))) => dispatch.answer(&to, timing, Ok(&view)),
                Ok(Found::Sessions(listing)) => dispatch.answer(&to, timing, Ok(&listing)),
                Ok(Found::Session(Err(outcome))) => {
                    let refusal = lock::answer::refusal(Asked::default(), *outcome);
                    dispatch.answer::<()>(&to, timing, Err(refusal));
                }
                Ok(Found::NotLeader) => unreachable!("a search ends with an answer or a refusal"),
                Ok(Found::Requesters(_) | Found::IsSetUnder(_) | Found::Unknown) => {
                    unreachable!("no client looks for these")
                }
                Err(refusal) => dispatch.answer::<()>(&to, timing, Err(refusal)),
            }
        });
    }

    /// `lock.cancel`: without an owner it has to be found out whose wait is meant.
    pub(super) fn cancel_wait(self: &Arc<Self>, request: Cancel, to: ReplyTo, received: Received) {
        if request.owner.is_some() {
            return self.locks.cancel(request, to, received);
        }
        let dispatch = self.clone();
        tokio::spawn(async move {
            let locks = &dispatch.locks;
            let tenant = to.tenant.as_ref();
            match locks.whose_wait(&request, tenant, received.deadline).await {
                Ok(owner) => {
                    let owner = Some(owner);
                    locks.cancel(Cancel { owner, ..request }, to, received);
                }
                Err(refusal) => {
                    let timing = (Some(Operation::LockCancel), received.at);
                    dispatch.answer::<()>(&to, timing, Err(refusal));
                }
            }
        });
    }
}

/// What a read looks for.
fn query_of(request: Request, tenant: Option<Tenant>) -> Query {
    match request {
        Request::LockCheck(check) => Query::Check {
            resource: check.resource,
            token: check.token,
        },
        Request::LockGet(get) => Query::Get {
            resource: get.resource,
        },
        Request::LockList(list) => Query::List(list.into()),
        Request::LockGraph(_) => Query::Graph { tenant },
        Request::LockDeadlocks(deadlocks) => Query::Deadlocks {
            tenant,
            limit: deadlocks.limit(),
        },
        Request::SessionGet(one) => Query::Session {
            session: one.session,
        },
        Request::SessionList(list) => Query::Sessions {
            tenant,
            page: list.into(),
        },
        other => unreachable!("{} is no read", other.operation()),
    }
}
