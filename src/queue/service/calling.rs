//! Calls of scripts, on whichever server has the topic.

use std::sync::Arc;

use bytes::Bytes;

use super::running::refusal_of;
use super::{Shared, lock, reconfiguring};
use crate::protocol::Refusal;
use crate::protocol::error::{Code, ErrorReply};
use crate::queue::script::{Caller, Reply, Script};
use crate::queue::store::{CallError, Late, Route, Store};
use crate::time;

impl Shared {
    pub(super) fn store(&self) -> Result<&Arc<Store>, Refusal> {
        self.parts.redis.as_ref().ok_or_else(|| {
            let message = "queues need Redis, and this node runs without --redis";
            ErrorReply::new(Code::StoreUnavailable, message).into()
        })
    }

    /// The way to the server that has a topic.
    pub(super) fn route(&self, topic: &str) -> Result<Route, Refusal> {
        let keyspace = self.keyspace().ok_or_else(reconfiguring)?;
        let route = self.store()?.route(&keyspace.of_topic(topic)[0]);
        Ok(route.map_err(|error| refusal_of(&error))?)
    }

    /// Runs a script on a topic's keys, with arguments that begin with those of `caller`, and returns the
    /// way that it took. While the topic's slot moves, the call is made again. An answer that comes too late goes to
    /// `late`.
    pub(super) async fn call(
        &self,
        (topic, keys): (&str, &[String]),
        caller: Caller,
        (script, args): (Script, &[Bytes]),
        late: Option<&Late>,
    ) -> Result<(Reply, Route), CallError> {
        let store = self.parts.redis.as_ref().ok_or(CallError::Disconnected)?;
        let began = time::now();
        loop {
            let route = store.route(&keys[0])?;
            if caller != Caller::READER {
                let asked = self.claim(store, route.number()).await?;
                if asked && self.placement().home(topic.as_bytes()) != Some(self.parts.me) {
                    // The log said that the topic is another node's.
                    return Err(CallError::Unclaimed);
                }
            }
            match route.run(script, keys, args, late).await {
                Err(CallError::Moved) if store.settle(began).await => {}
                result => return result.map(|reply| (reply, route)),
            }
        }
    }

    /// Makes sure that a topic is in the list of topics, unless the server that has the list is away or
    /// refuses: topics are served without it, and it is tried again with the next call.
    ///
    /// # Errors
    /// [`CallError::Unknown`], so that a call waits for one answer that does not come, not for two.
    pub(super) async fn note_topic(&self, name: &Arc<str>) -> Result<(), CallError> {
        let is_noted = lock(&self.known).get(name).is_some_and(|k| k.is_noted);
        let (Some(keyspace), Some(store)) = (self.keyspace(), &self.parts.redis) else {
            return Ok(());
        };
        let set = keyspace.topics();
        if is_noted || !store.status_for(&set).answers() {
            return Ok(());
        }
        match store.note_topic(&set, name).await {
            Ok(()) => self.note(name, |known| {
                known.is_noted = true;
                false
            }),
            Err(error @ CallError::Unknown(_)) => return Err(error),
            Err(error) => tracing::debug!(topic = %name, %error, "not in the list of topics"),
        }
        Ok(())
    }
}
