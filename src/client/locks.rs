//! Beyond taking and giving back: one method for each further operation on locks and sessions, as
//! [`Session`](super::Session) and the command line use them.

use crate::client::call::{Answers, Before, Call};
use crate::client::{Client, ClientError};
use crate::protocol::Operation;
use crate::protocol::admin::{CloseSession, LockReleased, ReleaseLock};
use crate::protocol::lock::{
    Acquired, Cancel, Cancelled, Convert, Deadlocks, Graph, List, Listing, RecentDeadlocks,
    WaitGraph,
};
use crate::protocol::session::{self, Closed, KeptAlive, One, Open, Opened};

impl Client {
    /// Changes the mode of a hold in one step, waiting for it as long as `wait_ms` says; a new token
    /// takes the place of the old one. Asked once, since a repetition would come with a token that the
    /// first attempt may have ended.
    ///
    /// # Errors
    /// `lock_held`, `wait_timeout` and `deadlock` leave the hold as it was; `not_holder` when the token
    /// is not that of a live hold. With an unknown outcome [`Client::get`] tells the token.
    pub async fn convert(&self, request: &Convert) -> Result<Acquired, ClientError> {
        let call = Call {
            repeatable: false,
            ..Call::new(Operation::LockConvert, request.timeout_ms, request.wait_ms)
        };
        let mut asked = request.clone();
        let body = |before: Before| {
            before.cut(&mut asked.wait_ms, &mut asked.timeout_ms);
            self.encode(&asked)
        };
        Ok(self.call_until_answered(call, body).await?)
    }

    /// Ends a wait, whoever asked for it; its asker is told `wait_timeout`. Asked once, since a repetition
    /// would not find the wait that the first attempt may have ended.
    ///
    /// # Errors
    /// Only when the cluster does not answer: whether there was a wait is in the answer.
    pub async fn cancel(&self, request: &Cancel) -> Result<Cancelled, ClientError> {
        let call = Call {
            repeatable: false,
            ..Call::new(Operation::LockCancel, request.timeout_ms, 0)
        };
        let body = self.encode(request);
        Ok(self.call_until_answered(call, |_| body.clone()).await?)
    }

    /// The locks that are held or waited for, by name and page by page.
    ///
    /// # Errors
    /// Only when the cluster does not answer.
    pub async fn list(&self, request: &List) -> Result<Listing, ClientError> {
        self.repeat(Operation::LockList, request.timeout_ms, request)
            .await
    }

    /// Who waits for whom.
    ///
    /// # Errors
    /// Only when the cluster does not answer.
    pub async fn graph(&self, request: &Graph) -> Result<WaitGraph, ClientError> {
        self.repeat(Operation::LockGraph, request.timeout_ms, request)
            .await
    }

    /// The deadlocks found lately, newest first.
    ///
    /// # Errors
    /// Only when the cluster does not answer.
    pub async fn deadlocks(&self, request: &Deadlocks) -> Result<RecentDeadlocks, ClientError> {
        self.repeat(Operation::LockDeadlocks, request.timeout_ms, request)
            .await
    }

    /// Opens a session, which ends by itself unless it is kept alive: [`Client::open_session`] does.
    ///
    /// # Errors
    /// Only when the cluster does not answer, or has too many sessions.
    pub async fn session_open(&self, request: &Open) -> Result<Opened, ClientError> {
        self.repeat(Operation::SessionOpen, request.timeout_ms, request)
            .await
    }

    /// Lets a session begin anew.
    ///
    /// # Errors
    /// `session_expired` and `session_not_found` when it is over.
    pub async fn session_keepalive(&self, request: &One) -> Result<KeptAlive, ClientError> {
        self.of_session(Operation::SessionKeepalive, request).await
    }

    /// Ends a session with all that it holds and waits for. When an earlier attempt of the same call went
    /// unanswered and the session is over, it counts as closed; what it held is not told then.
    ///
    /// # Errors
    /// `session_expired` and `session_not_found` when it is over.
    pub async fn session_close(&self, request: &One) -> Result<Closed, ClientError> {
        let call = Call::new(Operation::SessionClose, request.timeout_ms, 0);
        self.end(call, request, Closed::default()).await
    }

    /// What a session holds and waits for.
    ///
    /// # Errors
    /// `session_expired` and `session_not_found` when it is over.
    pub async fn session_get(&self, request: &One) -> Result<session::View, ClientError> {
        self.of_session(Operation::SessionGet, request).await
    }

    async fn of_session<T: Answers>(
        &self,
        operation: Operation,
        request: &One,
    ) -> Result<T, ClientError> {
        self.repeat(operation, request.timeout_ms, request).await
    }

    /// The sessions, by id and page by page.
    ///
    /// # Errors
    /// Only when the cluster does not answer.
    pub async fn session_list(&self, request: &List) -> Result<session::Listing, ClientError> {
        self.repeat(Operation::SessionList, request.timeout_ms, request)
            .await
    }

    /// As an operator, takes a lock from whoever holds it. Without a token it is asked once, since a
    /// repetition would take the lock from the next holder, too. With one it is repeated as
    /// [`Client::release`]; the former holder may then not be told.
    ///
    /// # Errors
    /// `not_found` when nobody holds it, `not_holder` when the token is not that of a live hold.
    pub async fn admin_lock_release(
        &self,
        request: &ReleaseLock,
    ) -> Result<LockReleased, ClientError> {
        let call = Call {
            repeatable: request.token.is_some(),
            ..Call::new(Operation::AdminLockRelease, request.timeout_ms, 0)
        };
        self.end(call, request, LockReleased::default()).await
    }

    /// As an operator, ends a session; repeated as [`Client::session_close`].
    ///
    /// # Errors
    /// `session_expired` and `session_not_found` when it is over.
    pub async fn admin_session_close(&self, request: &CloseSession) -> Result<Closed, ClientError> {
        let call = Call::new(Operation::AdminSessionClose, request.timeout_ms, 0);
        self.end(call, request, Closed::default()).await
    }
}
