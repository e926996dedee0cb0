//! Why a call of the client failed, and what that says about its effect.

use crate::client::requester::RequestError;
use crate::protocol::{Code, ErrorReply, Outcome, Refusal};

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// A node's answer; details are in it.
    #[error(transparent)]
    Refused(Refusal),
    /// There is no answer.
    #[error("{error}")]
    Unanswered {
        error: RequestError,
        /// Whether a node may have got the request, at this or an earlier attempt.
        maybe_sent: bool,
    },
    /// There is an answer, which this version cannot read.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

impl ClientError {
    /// The code of a node's answer, or what the broker's comes to.
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Unanswered {
                error: RequestError::Forbidden(_) | RequestError::Unheard(_),
                ..
            } => Some(Code::Forbidden),
            _ => self.details().map(|error| error.code),
        }
    }

    /// The status of that code.
    pub fn status(&self) -> Option<u16> {
        match self.details() {
            Some(error) => Some(error.status),
            None => self.code().map(Code::status),
        }
    }

    /// A node's answer in full.
    pub fn details(&self) -> Option<&ErrorReply> {
        match self {
            ClientError::Refused(error) => Some(error),
            _ => None,
        }
    }

    /// What is known about the request's effect.
    pub fn outcome(&self) -> Outcome {
        match self {
            ClientError::Refused(error) => error.outcome,
            ClientError::Unanswered {
                maybe_sent: false, ..
            } => Outcome::NotApplied,
            ClientError::Unanswered { .. } | ClientError::Unreadable(_) => Outcome::Unknown,
        }
    }

    /// Whether the same may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            ClientError::Refused(error) => error.retryable,
            ClientError::Unanswered { error, .. } => !matches!(
                error,
                RequestError::Unsendable(_)
                    | RequestError::Forbidden(_)
                    | RequestError::Unheard(_)
                    | RequestError::Closed
            ),
            ClientError::Unreadable(_) => false,
        }
    }

    /// Whether the cluster knows that what was to be renewed or ended is over.
    pub(super) fn is_over(&self) -> bool {
        matches!(
            self.code(),
            Some(Code::NotHolder | Code::NotFound | Code::SessionExpired | Code::SessionNotFound)
        )
    }

    /// Whether asking again within the same call can help: the cluster was not ready for the
    /// request, as opposed to an answer that the caller must judge.
    pub(super) fn passes_by_itself(&self) -> bool {
        match self {
            ClientError::Refused(error) => answer_is_passing(error.code),
            ClientError::Unanswered { error, .. } => matches!(
                error,
                RequestError::Disconnected
                    | RequestError::ConnectionLost
                    | RequestError::NodeGone
                    | RequestError::NoResponders
                    | RequestError::TimedOut
            ),
            ClientError::Unreadable(_) => false,
        }
    }
}

/// Whether a refusal with this code says nothing of attempts before: nobody looked at what they did. Other
/// refusals were decided on the state that those have made.
pub(super) fn is_blind(code: Code) -> bool {
    answer_is_passing(code)
        || matches!(
            code,
            Code::Timeout
                | Code::Overloaded
                | Code::QueueFull
                | Code::TopicPaused
                | Code::NoLease
                | Code::StoreUnavailable
                | Code::DurabilityUnavailable
                | Code::DataLossDetected
        )
}

/// Whether a code says that the cluster was not ready for the request, whatever it was.
fn answer_is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::NoLeader | Code::ShuttingDown | Code::Reconfiguring | Code::Indeterminate
    )
}

impl From<RequestError> for ClientError {
    fn from(error: RequestError) -> Self {
        let maybe_sent = !error.not_sent();
        ClientError::Unanswered { error, maybe_sent }
    }
}
