//! Asking for locks, and giving up what was asked for.

use std::time::Duration;

use tokio::runtime::Handle;

use crate::client::call::{Before, Call};
use crate::client::error::is_blind;
use crate::client::{Client, ClientError};
use crate::protocol::Operation;
use crate::protocol::lock::{Acquire, Acquired, Cancel, Release, WAIT_MS_MAX};
use crate::time;

/// How soon a wait longer than one request's is attached again: before that request's wait ends, with
/// time left for a change of leader.
const ATTACH_AGAIN: Duration = Duration::from_secs(45);

/// How long giving up may take; what is granted all the same ends with its lease.
const ABANDON_MS: u64 = 1_000;

impl Client {
    /// Asks for a lock, waiting for it as long as `wait_ms` says. A wait that has no `request_id`
    /// gets one, so that asking again after a failure attaches to the same place; so does a wait longer
    /// than a node takes ([`WAIT_MS_MAX`]), which is made of several. A try without one
    /// is asked again only when it is known not to have taken effect: the nodes keep each id for
    /// minutes, which tries by the thousand would use up.
    ///
    /// May be dropped, as by a timeout: a wait whose id was made here is abandoned in the background. One
    /// whose id the caller chose keeps its place and what it is granted, for the same request to attach to;
    /// [`Client::abandon`] gives that up.
    ///
    /// # Errors
    /// `lock_held`, `wait_timeout`, `deadlock` and the other errors of `docs/protocol.md`. With an
    /// unknown outcome the lock may have been granted; it then ends with its lease.
    pub async fn acquire(&self, request: &Acquire) -> Result<Acquired, ClientError> {
        match request.wait_ms {
            0 => self.acquire_within_one_wait(request.clone()).await,
            _ => self.acquire_by_id(request).await,
        }
    }

    /// Gives up what was asked for with this `request_id`: ends the wait, or gives the lock back if it was
    /// granted meanwhile. Of an owner with a name only the wait for one resource is ended: what such an owner
    /// holds it may hold by another request, too. Nothing is given up without an id.
    ///
    /// # Errors
    /// When it is not known to be given up; what is granted then ends with its lease.
    pub async fn abandon(&self, request: &Acquire) -> Result<(), ClientError> {
        if request.request_id.is_none() {
            return Ok(());
        }
        if request.owner.is_some() {
            return self.cancel_wait_of(request).await;
        }
        // The same request without a wait ends the wait, or tells what was granted.
        let last = Acquire {
            wait_ms: 0,
            timeout_ms: Some(ABANDON_MS),
            ..request.clone()
        };
        match self.acquire_within_one_wait(last).await {
            Ok(granted) => self.release(&Release::of(&granted)).await.map(drop),
            Err(ClientError::Refused(error)) if !is_blind(error.code) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn cancel_wait_of(&self, request: &Acquire) -> Result<(), ClientError> {
        if request.wait_ms == 0 || !request.resources.is_empty() {
            return Ok(());
        }
        let cancel = Cancel {
            resource: request.resource.clone(),
            owner: request.owner.clone(),
            session: request.session.clone(),
            request_id: request.request_id.clone(),
            timeout_ms: Some(ABANDON_MS),
        };
        self.cancel(&cancel).await.map(drop)
    }

    /// As [`Client::acquire`]; a try gets an id, too.
    pub(super) async fn acquire_by_id(&self, request: &Acquire) -> Result<Acquired, ClientError> {
        if request.request_id.is_some() {
            return self.acquire_in_parts(request.clone()).await;
        }
        let mut asked = Asked {
            client: self,
            request: Acquire {
                request_id: Some(self.new_request_id()),
                ..request.clone()
            },
            is_answered: false,
        };
        let answer = self.acquire_in_parts(asked.request.clone()).await;
        asked.is_answered = true;
        answer
    }

    async fn acquire_in_parts(&self, mut request: Acquire) -> Result<Acquired, ClientError> {
        let started = time::now();
        let asked_wait_ms = request.wait_ms;
        while request.wait_ms > WAIT_MS_MAX {
            let part = Acquire {
                wait_ms: WAIT_MS_MAX,
                timeout_ms: None,
                ..request.clone()
            };
            // Attached again before this part ends, the wait keeps its place in the queue.
            let answer = self.acquire_within_one_wait(part);
            if let Ok(answer) = tokio::time::timeout(ATTACH_AGAIN, answer).await {
                return answer;
            }
            let waited_ms = started.elapsed().as_millis() as u64;
            request.wait_ms = asked_wait_ms.saturating_sub(waited_ms).max(1);
        }
        self.acquire_within_one_wait(request).await
    }

    async fn acquire_within_one_wait(&self, mut request: Acquire) -> Result<Acquired, ClientError> {
        let call = Call {
            repeatable: request.request_id.is_some(),
            ..Call::new(Operation::LockAcquire, request.timeout_ms, request.wait_ms)
        };
        let body = |before: Before| {
            before.cut(&mut request.wait_ms, &mut request.timeout_ms);
            self.encode(&request)
        };
        Ok(self.call_until_answered(call, body).await?)
    }
}

/// What was asked for under an id that nobody else knows. Dropped without an answer, it is abandoned.
struct Asked<'a> {
    client: &'a Client,
    request: Acquire,
    is_answered: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        // Where no runtime is left nothing can be sent any more.
        if let Ok(runtime) = Handle::try_current() {
            let client = self.client.clone();
            let request = self.request.clone();
            runtime.spawn(async move {
                if let Err(error) = client.abandon(&request).await {
                    tracing::debug!(%error, "a wait that nobody waits for was not ended");
                }
            });
        }
    }
}
