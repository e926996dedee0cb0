//! From a message to a request that is valid: the one list of what each operation decodes to.

use crate::protocol::cache;
use crate::protocol::cluster;
use crate::protocol::encoding::CONTENT_TYPE;
use crate::protocol::error::{Code, ErrorReply};
use crate::protocol::fields::{Field, Fields, Names, Rule, map_schema};
use crate::protocol::lock::{
    Acquire, Cancel, Check, Convert, Deadlocks, Get, Graph, List, Release, Renew,
};
use crate::protocol::status::{Ask, MetricsFormat, StateHashChoice};
use crate::protocol::{
    Encoding, Operation, Refusal, TIMEOUT_MS_DEFAULT, TIMEOUT_MS_FIELD, admin, backup, queue,
    session,
};

/// The header that may carry the `request_id` of operations that have one.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";

/// A valid request, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    LockAcquire(Acquire),
    LockRelease(Release),
    LockRenew(Renew),
    LockCheck(Check),
    LockGet(Get),
    Queue(Box<queue::Request>),
    LockConvert(Convert),
    LockCancel(Cancel),
    LockList(List),
    LockGraph(Graph),
    LockDeadlocks(Deadlocks),
    SessionOpen(session::Open),
    SessionKeepalive(session::One),
    SessionClose(session::One),
    SessionGet(session::One),
    SessionList(List),
    AdminLockRelease(admin::ReleaseLock),
    AdminSessionClose(admin::CloseSession),
    CacheGet(cache::Get),
    CacheGetMany(cache::GetMany),
    CacheSet(cache::Set),
    CacheDelete(cache::Delete),
    CacheIncrement(cache::Increment),
    CacheTouch(cache::Touch),
    CacheInvalidate(cache::Invalidate),
    CacheAudit(cache::Audit),
    CacheExplain(cache::Explain),
    CacheStats(cache::AskStats),
    Cluster(cluster::Request),
    Backup(backup::Request),
    Status(Ask),
    Metrics(Ask),
}

/// What a message says beside its body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Envelope<'a> {
    /// The tokens of the subject after the operation.
    pub suffix: Option<&'a str>,
    /// The header [`CONTENT_TYPE`].
    pub content_type: Option<&'a str>,
    /// The header [`MESSAGE_ID`].
    pub message_id: Option<&'a str>,
    /// Whether the names in it are a tenant's, to be entered. Other clients may name what is a
    /// tenant's, which is longer by the account.
    pub of_tenant: bool,
}

impl Request {
    /// Decodes the body of a message for `operation`; none is one that does not exist. The
    /// encoding is that of the answer, also when the request is refused.
    ///
    /// # Errors
    /// Whatever is wrong with the request, ready to be sent.
    pub fn decode(
        operation: Option<Operation>,
        envelope: Envelope<'_>,
        body: &[u8],
    ) -> (Encoding, Result<Request, Refusal>) {
        let encoding = match Encoding::of_request(envelope.content_type, body) {
            Ok(encoding) => encoding,
            Err(refusal) => return (Encoding::Json, Err(refusal)),
        };
        let request = match operation {
            Some(operation) => Request::decode_as(operation, encoding, envelope, body),
            None => Err(unknown_operation()),
        };
        (encoding, request)
    }

    fn decode_as(
        operation: Operation,
        encoding: Encoding,
        envelope: Envelope<'_>,
        body: &[u8],
    ) -> Result<Request, Refusal> {
        let schema = schema(operation);
        let names = match envelope.of_tenant {
            true => Names::OfTenant,
            false => Names::FromOutside,
        };
        let mut fields = Fields::decode((operation.name(), schema), names, encoding, body)?;
        if let Some(suffix) = envelope.suffix {
            fill_suffix(operation, &mut fields, suffix)?;
        }
        if let Some(id) = envelope.message_id {
            fill_message_id(operation, &mut fields, id)?;
        }
        Ok(match operation {
            Operation::LockAcquire => {
                Request::LockAcquire(Acquire::build(fields, envelope.suffix)?)
            }
            Operation::LockRelease => {
                Request::LockRelease(Release::build(fields, envelope.suffix)?)
            }
            Operation::LockRenew => Request::LockRenew(Renew::build(fields, envelope.suffix)?),
            Operation::LockCheck => Request::LockCheck(Check::build(fields)?),
            Operation::LockGet => Request::LockGet(Get::build(fields)?),
            Operation::LockConvert => Request::LockConvert(Convert::build(fields)?),
            Operation::LockCancel => Request::LockCancel(Cancel::build(fields)?),
            Operation::LockList => Request::LockList(List::build(fields)),
            Operation::LockGraph => Request::LockGraph(Graph::build(fields)),
            Operation::LockDeadlocks => Request::LockDeadlocks(Deadlocks::build(fields)),
            Operation::SessionOpen => Request::SessionOpen(session::Open::build(fields)?),
            Operation::SessionKeepalive => Request::SessionKeepalive(session::One::build(fields)?),
            Operation::SessionClose => Request::SessionClose(session::One::build(fields)?),
            Operation::SessionGet => Request::SessionGet(session::One::build(fields)?),
            Operation::SessionList => Request::SessionList(List::build(fields)),
            Operation::AdminLockRelease => {
                Request::AdminLockRelease(admin::ReleaseLock::build(fields)?)
            }
            Operation::AdminSessionClose => {
                Request::AdminSessionClose(admin::CloseSession::build(fields)?)
            }
            Operation::CacheGet => Request::CacheGet(cache::Get::build(fields)?),
            Operation::CacheGetMany => Request::CacheGetMany(cache::GetMany::build(fields)?),
            Operation::CacheSet => Request::CacheSet(cache::Set::build(fields, envelope.suffix)?),
            Operation::CacheDelete => Request::CacheDelete(cache::Delete::build(fields)?),
            Operation::CacheIncrement => Request::CacheIncrement(cache::Increment::build(fields)?),
            Operation::CacheTouch => Request::CacheTouch(cache::Touch::build(fields)?),
            Operation::CacheInvalidate => {
                Request::CacheInvalidate(cache::Invalidate::build(fields)?)
            }
            Operation::CacheAudit => Request::CacheAudit(cache::Audit::build(fields)),
            Operation::CacheExplain => Request::CacheExplain(cache::Explain::build(fields)?),
            Operation::CacheStats => Request::CacheStats(cache::AskStats::build(fields)),
            Operation::ClusterMembers
            | Operation::AdminClusterAdd
            | Operation::AdminClusterRemove
            | Operation::AdminClusterTransfer => {
                Request::Cluster(cluster::Request::build(operation, fields)?)
            }
            Operation::AdminClusterBackup => Request::Backup(backup::Request::build(fields)),
            Operation::Status => Request::Status(Ask::build(fields)),
            Operation::Metrics => Request::Metrics(Ask::build(fields)),
            Operation::QueuePush
            | Operation::QueuePop
            | Operation::QueueAck
            | Operation::QueueNack
            | Operation::QueueExtend
            | Operation::QueuePeek
            | Operation::QueueCancel
            | Operation::QueueConfigure
            | Operation::QueueStats
            | Operation::QueueList
            | Operation::QueueRedrive
            | Operation::QueuePause
            | Operation::QueueResume
            | Operation::AdminQueuePurge => {
                let suffix = envelope.suffix;
                Request::Queue(Box::new(queue::Request::build(operation, fields, suffix)?))
            }
        })
    }

    /// What its client knows it by, if it has an id of its own.
    pub fn id(&self) -> Option<&str> {
        match self {
            Request::LockAcquire(acquire) => acquire.request_id.as_deref(),
            Request::LockCancel(cancel) => cancel.request_id.as_deref(),
            Request::CacheSet(set) => set.repeat.request_id.as_deref(),
            Request::CacheDelete(delete) => delete.repeat.request_id.as_deref(),
            Request::CacheIncrement(increment) => increment.repeat.request_id.as_deref(),
            Request::CacheTouch(touch) => touch.repeat.request_id.as_deref(),
            Request::Queue(request) => request.id(),
            _ => None,
        }
    }

    pub fn operation(&self) -> Operation {
        match self {
            Request::LockAcquire(_) => Operation::LockAcquire,
            Request::LockRelease(_) => Operation::LockRelease,
            Request::LockRenew(_) => Operation::LockRenew,
            Request::LockCheck(_) => Operation::LockCheck,
            Request::LockGet(_) => Operation::LockGet,
            Request::Queue(request) => request.operation(),
            Request::LockConvert(_) => Operation::LockConvert,
            Request::LockCancel(_) => Operation::LockCancel,
            Request::LockList(_) => Operation::LockList,
            Request::LockGraph(_) => Operation::LockGraph,
            Request::LockDeadlocks(_) => Operation::LockDeadlocks,
            Request::SessionOpen(_) => Operation::SessionOpen,
            Request::SessionKeepalive(_) => Operation::SessionKeepalive,
            Request::SessionClose(_) => Operation::SessionClose,
            Request::SessionGet(_) => Operation::SessionGet,
            Request::SessionList(_) => Operation::SessionList,
            Request::AdminLockRelease(_) => Operation::AdminLockRelease,
            Request::AdminSessionClose(_) => Operation::AdminSessionClose,
            Request::CacheGet(_) => Operation::CacheGet,
            Request::CacheGetMany(_) => Operation::CacheGetMany,
            Request::CacheSet(_) => Operation::CacheSet,
            Request::CacheDelete(_) => Operation::CacheDelete,
            Request::CacheIncrement(_) => Operation::CacheIncrement,
            Request::CacheTouch(_) => Operation::CacheTouch,
            Request::CacheInvalidate(_) => Operation::CacheInvalidate,
            Request::CacheAudit(_) => Operation::CacheAudit,
            Request::CacheExplain(_) => Operation::CacheExplain,
            Request::CacheStats(_) => Operation::CacheStats,
            Request::Cluster(request) => request.operation(),
            Request::Backup(_) => Operation::AdminClusterBackup,
            Request::Status(_) => Operation::Status,
            Request::Metrics(_) => Operation::Metrics,
        }
    }

    /// How long the asker waits for an answer, in milliseconds: 5000 plus the wait unless it says.
    pub fn timeout_ms(&self) -> u64 {
        let (given, wait_ms) = match self {
            Request::LockAcquire(acquire) => (acquire.timeout_ms, acquire.wait_ms),
            Request::LockRelease(release) => (release.timeout_ms, 0),
            Request::LockRenew(renew) => (renew.timeout_ms, 0),
            Request::LockCheck(check) => (check.timeout_ms, 0),
            Request::LockGet(get) => (get.timeout_ms, 0),
            Request::Queue(request) => request.timeout_and_wait(),
            Request::LockConvert(convert) => (convert.timeout_ms, convert.wait_ms),
            Request::LockCancel(cancel) => (cancel.timeout_ms, 0),
            Request::LockList(list) | Request::SessionList(list) => (list.timeout_ms, 0),
            Request::LockGraph(graph) => (graph.timeout_ms, 0),
            Request::LockDeadlocks(deadlocks) => (deadlocks.timeout_ms, 0),
            Request::SessionOpen(open) => (open.timeout_ms, 0),
            Request::SessionKeepalive(one)
            | Request::SessionClose(one)
            | Request::SessionGet(one) => (one.timeout_ms, 0),
            Request::AdminLockRelease(release) => (release.timeout_ms, 0),
            Request::AdminSessionClose(close) => (close.timeout_ms, 0),
            Request::CacheGet(get) => (get.timeout_ms, get.wait_ms),
            Request::CacheGetMany(get) => (get.timeout_ms, 0),
            Request::CacheSet(set) => (set.timeout_ms, 0),
            Request::CacheDelete(delete) => (delete.timeout_ms, 0),
            Request::CacheIncrement(increment) => (increment.timeout_ms, 0),
            Request::CacheTouch(touch) => (touch.timeout_ms, 0),
            Request::CacheInvalidate(invalidate) => (invalidate.timeout_ms, 0),
            Request::CacheAudit(audit) => (audit.timeout_ms, 0),
            Request::CacheExplain(explain) => (explain.timeout_ms, 0),
            Request::CacheStats(stats) => (stats.timeout_ms, 0),
            Request::Cluster(request) => (request.timeout_ms, 0),
            Request::Backup(request) => (request.timeout_ms, 0),
            Request::Status(ask) | Request::Metrics(ask) => (ask.timeout_ms, 0),
        };
        given.unwrap_or(TIMEOUT_MS_DEFAULT + wait_ms)
    }
}

impl Ask {
    const STATUS_FIELDS: &[Field] = &[
        Field::new("state_hash", Rule::Choice(StateHashChoice::NAMES)),
        TIMEOUT_MS_FIELD,
    ];
    const METRICS_FIELDS: &[Field] = &[
        Field::new("format", Rule::Choice(MetricsFormat::NAMES)),
        TIMEOUT_MS_FIELD,
    ];

    fn build(mut given: Fields<'_>) -> Ask {
        Ask {
            state_hash: match given.has_field("state_hash") {
                true => StateHashChoice::nth(given.choice("state_hash")),
                false => StateHashChoice::default(),
            },
            format: match given.has_field("format") {
                true => MetricsFormat::nth(given.choice("format")),
                false => MetricsFormat::default(),
            },
            timeout_ms: given.integer("timeout_ms"),
        }
    }
}

pub(super) fn schema(operation: Operation) -> &'static [Field] {
    match operation {
        Operation::LockAcquire => Acquire::FIELDS,
        Operation::LockRelease => Release::FIELDS,
        Operation::LockRenew => Renew::FIELDS,
        Operation::LockCheck => Check::FIELDS,
        Operation::LockGet => Get::FIELDS,
        Operation::QueuePush => queue::Push::FIELDS,
        Operation::QueuePop => queue::Pop::FIELDS,
        Operation::QueueAck => queue::Receipts::ACK_FIELDS,
        Operation::QueueNack => queue::Receipts::NACK_FIELDS,
        Operation::QueueExtend => queue::Receipts::EXTEND_FIELDS,
        Operation::QueuePeek => queue::Admin::PEEK_FIELDS,
        Operation::QueueCancel => queue::Admin::CANCEL_FIELDS,
        Operation::QueueConfigure => queue::Admin::CONFIGURE_FIELDS,
        Operation::QueueList => queue::Admin::LIST_FIELDS,
        Operation::QueueRedrive => queue::Admin::REDRIVE_FIELDS,
        Operation::QueueStats | Operation::QueuePause | Operation::QueueResume => {
            queue::Admin::TOPIC_FIELDS
        }
        Operation::AdminQueuePurge => queue::Admin::PURGE_FIELDS,
        Operation::LockConvert => Convert::FIELDS,
        Operation::LockCancel => Cancel::FIELDS,
        Operation::LockList | Operation::SessionList => List::FIELDS,
        Operation::LockGraph => Graph::FIELDS,
        Operation::LockDeadlocks => Deadlocks::FIELDS,
        Operation::SessionOpen => session::Open::FIELDS,
        Operation::SessionKeepalive | Operation::SessionClose | Operation::SessionGet => {
            session::One::FIELDS
        }
        Operation::AdminLockRelease => admin::ReleaseLock::FIELDS,
        Operation::AdminSessionClose => admin::CloseSession::FIELDS,
        Operation::CacheGet => cache::Get::FIELDS,
        Operation::CacheGetMany => cache::GetMany::FIELDS,
        Operation::CacheSet => cache::Set::FIELDS,
        Operation::CacheDelete => cache::Delete::FIELDS,
        Operation::CacheIncrement => cache::Increment::FIELDS,
        Operation::CacheTouch => cache::Touch::FIELDS,
        Operation::CacheInvalidate => cache::Invalidate::FIELDS,
        Operation::CacheAudit => cache::Audit::FIELDS,
        Operation::CacheExplain => cache::Explain::FIELDS,
        Operation::CacheStats => cache::AskStats::FIELDS,
        Operation::ClusterMembers => cluster::Request::MEMBERS_FIELDS,
        Operation::AdminClusterAdd
        | Operation::AdminClusterRemove
        | Operation::AdminClusterTransfer => cluster::Request::CHANGE_FIELDS,
        Operation::AdminClusterBackup => backup::Request::FIELDS,
        Operation::Status => Ask::STATUS_FIELDS,
        Operation::Metrics => Ask::METRICS_FIELDS,
    }
}

impl Operation {
    /// What a request's body may have, in JSON Schema.
    pub fn request_schema(self) -> String {
        map_schema(schema(self)).to_string()
    }
}

fn unknown_operation() -> Refusal {
    let names: Vec<_> = Operation::ALL.iter().map(|o| o.name()).collect();
    Box::new(ErrorReply::new(
        Code::UnknownOperation,
        format!("no such operation; the operations are {}", names.join(", ")),
    ))
}

/// The field of an operation that the tokens behind it in the subject fill.
pub(super) fn suffix_field(schema: &[Field]) -> Option<&'static str> {
    let names = ["resource", "topic", "key"];
    names
        .into_iter()
        .find(|name| schema.iter().any(|field| field.name == *name))
}

fn fill_suffix(operation: Operation, fields: &mut Fields<'_>, suffix: &str) -> Result<(), Refusal> {
    let Some(name) = suffix_field(schema(operation)) else {
        return Err(Box::new(ErrorReply::new(
            Code::BadRequest,
            format!("{operation} takes no name in its subject"),
        )));
    };
    let literal = !suffix.bytes().any(|b| matches!(b, b'*' | b'>' | b' '))
        && !suffix.split('.').any(str::is_empty);
    if !literal {
        let message = format!(
            "a {name} with spaces, `*`, `>` or empty tokens goes into the body, not the subject"
        );
        return Err(ErrorReply::bad_field(name, message).into());
    }
    if fields.has_field("resources") && fields.is_given("resources") {
        return Ok(()); // They have to lie under the suffix, which is the request's own rule.
    }
    fields.fill(name, "subject", suffix)
}

/// The field of an operation that says which requests are the same.
pub(super) fn id_field(operation: Operation) -> Option<&'static str> {
    match operation {
        Operation::QueuePush => Some("id"),
        _ => {
            let has = schema(operation)
                .iter()
                .any(|field| field.name == "request_id");
            has.then_some("request_id")
        }
    }
}

/// Whether a name in the body is one that the name in the subject allows: the same, or one of its own
/// followed by a dot and more.
pub fn is_under(name: &str, suffix: &str) -> bool {
    let rest = name.strip_prefix(suffix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn fill_message_id(operation: Operation, fields: &mut Fields<'_>, id: &str) -> Result<(), Refusal> {
    let Some(name) = id_field(operation) else {
        return Err(ErrorReply::bad_field(
            MESSAGE_ID,
            format!("{operation} takes no {MESSAGE_ID} header: its results are not kept"),
        )
        .into());
    };
    if operation == Operation::QueuePush && fields.is_given("messages") {
        let message = format!(
            "the {MESSAGE_ID} header is the id of one message: each of `messages` has its own `id`"
        );
        return Err(ErrorReply::bad_field(MESSAGE_ID, message).into());
    }
    fields.fill(name, MESSAGE_ID, id)
}

/// The names of the headers that [`Envelope`] is made of.
pub const HEADERS: [&str; 2] = [CONTENT_TYPE, MESSAGE_ID];

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
