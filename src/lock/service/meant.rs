//! What a request means that names a hold or a wait by something else than what the table knows it by: found
//! out in the state before it becomes a command.

use std::sync::Arc;

use super::{Found, LockService, Query, Received, owner_of};
use crate::ids::Token;
use crate::lock::Name;
use crate::lock::command::Command;
use crate::lock::outcome::Requesters;
use crate::protocol::lock as wire;
use crate::protocol::{ErrorReply, Refusal, ReplyTo, Tenant};
use crate::time::Instant;

impl LockService {
    /// Submits what is done to the hold of a token. A set is known by its token alone; a user of the broker
    /// who may only name a resource in the subject names one that all of the set lies under.
    pub(super) fn submit_of_hold(
        self: &Arc<Self>,
        ((resource, in_subject), token): ((Option<Name>, bool), Token),
        command: impl FnOnce(Option<Name>) -> Command + Send + 'static,
        (to, received): (ReplyTo, Received),
        refuse: impl FnOnce(&ReplyTo, Refusal) + Send + 'static,
    ) {
        let resource = match resource {
            Some(resource) if in_subject => resource,
            named => return self.submit(command(named), to, received),
        };
        let named = |is_set: bool| Some(resource.clone()).filter(|_| !is_set);
        let (is_set, last_token) = self.handle.read(|state, _| {
            let locks = &state.locks;
            (locks.is_set_under(&resource, token), locks.last_token())
        });
        if token <= last_token {
            return self.submit(command(named(is_set)), to, received);
        }
        // This node has not applied the grant yet.
        let service = self.clone();
        tokio::spawn(async move {
            let query = Query::IsSetUnder {
                resource: resource.clone(),
                token,
            };
            let is_set = match service.find(&query, received.deadline).await {
                Ok(found) => matches!(found, Found::IsSetUnder(true)),
                Err(refusal) => return refuse(&to, refusal),
            };
            let named = Some(resource).filter(|_| !is_set);
            service.submit(command(named), to, received);
        });
    }

    /// Whose wait a `lock.cancel` means that names a request id and no owner.
    ///
    /// # Errors
    /// `bad_request` when several owners have such a request; as [`find`](Self::find).
    pub async fn whose_wait(
        &self,
        request: &wire::Cancel,
        tenant: Option<&Tenant>,
        deadline: Instant,
    ) -> Result<String, Refusal> {
        let session = request.session.as_deref().map(Name::from);
        let request_id = request.request_id.as_deref().map(Name::from);
        let request_id = request_id.expect("a request names an owner or an id");
        let own = owner_of(None, tenant, session.as_ref(), Some(&request_id));
        let own = own.expect("an id stands for an owner");
        let query = Query::Requesters {
            resource: request.resource.as_str().into(),
            request_id,
            session,
        };
        let Requesters { waiting, holding } = match self.find(&query, deadline).await? {
            Found::Requesters(requesters) => requesters,
            _ => Requesters::default(),
        };
        let found = if waiting.is_empty() { holding } else { waiting };
        match &found[..] {
            [] => Ok(own.to_string()),
            _ if found.contains(&own) => Ok(own.to_string()),
            [only] => Ok(only.to_string()),
            _ => {
                let message = "`owner` is missing: several have a request with this id";
                Err(ErrorReply::bad_field("owner", message).into())
            }
        }
    }
}
