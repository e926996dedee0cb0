//! Error codes: the one file that maps a code to its status, its outcome and whether to retry.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Token;
use crate::protocol::lock::{CycleEdge, DeadlockPolicy, Holder, Mode};

/// Whether the request that an error answers took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It changed nothing and never will: it may be sent again as it is.
    NotApplied,
    /// It took effect, but the reply cannot say so as asked: the write is less durable than required,
    /// or its answer is too large to send.
    Applied,
    /// It may have taken effect or may yet; a repeat needs the request's id.
    Unknown,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $status:literal $retry:ident $outcome:ident,)*) => {
        /// Every error code that a reply can carry, as listed in `docs/protocol.md`.
        ///
        /// A code that this version does not know is read as [`Code::Internal`]; outcome and
        /// message of such a reply are still those that were sent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
            /// A defect in the node that answered.
            #[serde(rename = "internal", other)]
            Internal,
        }

        impl Code {
            /// All codes, in the order of that list.
            pub const ALL: &[Code] = &[$(Code::$variant,)* Code::Internal];

            /// The code as it stands in a reply.
            pub fn name(self) -> &'static str {
                match self {
                    $(Code::$variant => $name,)*
                    Code::Internal => "internal",
                }
            }

            /// The status number, with the meaning that HTTP gives it.
            pub fn status(self) -> u16 {
                match self {
                    $(Code::$variant => $status,)*
                    Code::Internal => 500,
                }
            }

            /// Whether the same request may succeed later without anyone correcting it.
            pub fn retryable(self) -> bool {
                match self {
                    $(Code::$variant => codes!(@retry $retry),)*
                    Code::Internal => false,
                }
            }

            /// The outcome when a reply does not know better.
            pub fn outcome(self) -> Outcome {
                match self {
                    $(Code::$variant => Outcome::$outcome,)*
                    Code::Internal => Outcome::Unknown,
                }
            }
        }
    };
    (@retry retry) => { true };
    (@retry final) => { false };
}

codes! {
    /// The request is not what the operation takes; `field` says where.
    BadRequest "bad_request" 400 final NotApplied,
    /// No such operation.
    UnknownOperation "unknown_operation" 400 final NotApplied,
    Forbidden "forbidden" 403 final NotApplied,
    /// What is to be ended does not exist.
    NotFound "not_found" 404 final NotApplied,
    /// No session has this id, or it ended long ago.
    SessionNotFound "session_not_found" 404 final NotApplied,
    /// The wait ended without a grant.
    WaitTimeout "wait_timeout" 408 retry NotApplied,
    /// Somebody holds the lock or waits for it; `holders` says who.
    LockHeld "lock_held" 409 retry NotApplied,
    /// The owner waits already; an owner has one blocked request at most.
    AlreadyWaiting "already_waiting" 409 final NotApplied,
    /// The token is not that of a live hold.
    NotHolder "not_holder" 409 final NotApplied,
    /// Waiting would never end; `cycle` says why.
    Deadlock "deadlock" 409 retry NotApplied,
    /// The owner holds the resource in another mode.
    ModeConflict "mode_conflict" 409 final NotApplied,
    WrongType "wrong_type" 409 final NotApplied,
    /// Others agreed on another number of permits; `limit` says which.
    LimitMismatch "limit_mismatch" 409 final NotApplied,
    VersionMismatch "version_mismatch" 409 final NotApplied,
    AlreadyExists "already_exists" 409 final NotApplied,
    StaleToken "stale_token" 409 final NotApplied,
    StaleReceipt "stale_receipt" 409 final NotApplied,
    /// The request id was used with other arguments.
    RequestMismatch "request_mismatch" 409 final NotApplied,
    /// The session is over.
    SessionExpired "session_expired" 410 final NotApplied,
    PayloadTooLarge "payload_too_large" 413 final NotApplied,
    TooManyItems "too_many_items" 413 final NotApplied,
    TopicPaused "topic_paused" 423 retry NotApplied,
    /// A bound is reached; `limit` names its value.
    Overloaded "overloaded" 429 retry NotApplied,
    QueueFull "queue_full" 429 retry NotApplied,
    /// No node leads, as far as the one that answers knows.
    NoLeader "no_leader" 503 retry NotApplied,
    StoreUnavailable "store_unavailable" 503 retry NotApplied,
    DurabilityUnavailable "durability_unavailable" 503 retry NotApplied,
    DataLossDetected "data_loss_detected" 503 final NotApplied,
    NoLease "no_lease" 503 retry NotApplied,
    Reconfiguring "reconfiguring" 503 retry NotApplied,
    ShuttingDown "shutting_down" 503 retry NotApplied,
    /// The deadline passed and the request is known not to have taken effect.
    Timeout "timeout" 504 retry NotApplied,
    /// The deadline passed and the request may have taken effect.
    Indeterminate "indeterminate" 504 retry Unknown,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What stands under `error` in a reply: why a request was refused or failed.
///
/// `code`, `status`, `message`, `retryable` and `outcome` are always there, the rest where it helps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    pub code: Code,
    pub status: u16,
    /// For people; programs use `code`.
    pub message: Cow<'static, str>,
    pub retryable: bool,
    pub outcome: Outcome,
    /// The request's field that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The fields that the operation has, when one was sent that it has not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Cow<'static, str>>,
    /// The resource in question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Who holds the lock; present, if possibly empty, in `lock_held` and `wait_timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<Vec<Holder>>,
    /// How many requests wait for the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_length: Option<u64>,
    /// What is left of the lock delay of a session that lost the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The cycle of a deadlock, each owner once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cycle: Vec<CycleEdge>,
    /// How many owners the cycle has, if a reply cannot hold them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle_length: Option<u64>,
    /// The owner whose request gives way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub victim: Option<String>,
    /// How the victim was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<DeadlockPolicy>,
    /// The mode in which the owner holds the resource already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The token that goes with `mode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The bound that is reached, or the number of permits that others agreed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl ErrorReply {
    /// An error with the status, outcome and advice that its code has by default.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        ErrorReply {
            code,
            status: code.status(),
            message: message.into(),
            retryable: code.retryable(),
            outcome: code.outcome(),
            field: None,
            fields: Vec::new(),
            resource: None,
            holders: None,
            queue_length: None,
            delay_ms: None,
            cycle: Vec::new(),
            cycle_length: None,
            victim: None,
            policy: None,
            mode: None,
            token: None,
            limit: None,
        }
    }

    /// A `bad_request` about one field of the request.
    pub fn bad_field(field: impl Into<String>, message: impl Into<Cow<'static, str>>) -> Self {
        ErrorReply {
            field: Some(field.into()),
            ..ErrorReply::new(Code::BadRequest, message)
        }
    }

    /// A bound was reached; nothing was changed.
    pub fn overloaded(what: &str, limit: u64) -> Self {
        ErrorReply {
            limit: Some(limit),
            ..ErrorReply::new(
                Code::Overloaded,
                format!("the limit of {limit} {what} is reached; try again later"),
            )
        }
    }

    /// The same error with an outcome that is known better than by the code alone.
    pub fn with_outcome(self, outcome: Outcome) -> Self {
        ErrorReply { outcome, ..self }
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ErrorReply {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_its_name() {
        for code in Code::ALL {
            let text = format!("\"{}\"", code.name());
            assert_eq!(serde_json::to_string(code).unwrap(), text);
            assert_eq!(serde_json::from_str::<Code>(&text).unwrap(), *code);
        }
    }

    #[test]
    fn a_code_of_a_later_version_is_read_as_internal() {
        let code: Code = serde_json::from_str("\"invented_tomorrow\"").unwrap();
        assert_eq!(code, Code::Internal);
    }

    #[test]
    fn only_an_unknown_outcome_needs_a_request_id() {
        let unknown: Vec<_> = Code::ALL
            .iter()
            .filter(|code| code.outcome() == Outcome::Unknown)
            .collect();
        assert_eq!(unknown, [&Code::Indeterminate, &Code::Internal]);
    }
}
