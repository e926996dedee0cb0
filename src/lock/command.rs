//! What is replicated for locks and sessions: plain values, no behaviour. What comes out is
//! [`outcome`](super::outcome).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Name;
use super::claim::{Grip, Wants};
use crate::ids::Token;
pub use crate::protocol::lock::DeadlockPolicy;
use crate::protocol::{ReplyTo, Tenant, WAIT_ENDS_BEFORE};

/// A command of the replicated lock table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Acquire(Acquire),
    /// `resource` absent: all that the token stands for, be it one resource or a set. Tokens can be
    /// guessed: a tenant's names only what is the tenant's.
    Release {
        resource: Option<Name>,
        token: Token,
        tenant: Option<Tenant>,
    },
    /// `ttl_ms` absent: the lease's length stays as it was.
    Renew {
        resource: Option<Name>,
        token: Token,
        tenant: Option<Tenant>,
        ttl_ms: Option<u64>,
    },
    Convert(Box<Convert>),
    /// The wait of this owner for the resource is not wanted any more.
    Cancel {
        resource: Name,
        owner: Name,
        /// Only the wait of this very request.
        request_id: Option<Name>,
        /// Only a wait with this session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<Name>,
    },
    /// The broker said that nobody heard of the grant of a wait.
    GiveBack {
        token: Token,
    },
    OpenSession(Box<OpenSession>),
    /// Of many sessions at once, so that many clients cost few commands.
    KeepAlive {
        sessions: Vec<Name>,
    },
    /// `reason`: an operator closes it.
    CloseSession {
        session: Name,
        reason: Option<Name>,
    },
    /// An operator ends the hold of this token, or all holds of the resource.
    ForceRelease {
        resource: Name,
        token: Option<Token>,
        reason: Name,
    },
}

/// What a leader grants to holders at the beginning of its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// No lease ends within this time.
    pub ms: u64,
    /// Whether leases that are over, but whose turn to be ended has not come, stay over.
    pub keeps_over: bool,
}

/// What a refusal says of its request, beside the outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// How it was to be held, if it is one resource and that is known.
    pub grip: Option<Grip>,
    /// The hold that was to be converted: its owner is not in its own way.
    pub converts: Option<Token>,
}

impl Command {
    /// What a refusal is to say of it.
    pub fn asked(&self) -> Asked {
        let (grip, converts) = match self {
            Command::Acquire(acquire) => match &acquire.wants {
                Wants::One(want) => (Some(want.grip), None),
                Wants::Set(_) => (None, None),
            },
            Command::Convert(convert) => (Some(convert.to), Some(convert.token)),
            _ => (None, None),
        };
        Asked { grip, converts }
    }

    /// Lets it wait no longer than its client, who has so much time `left`, waits for the answer that says
    /// how the wait ended. A wait of no time is a try.
    pub fn cut_wait(&mut self, left: Duration) {
        let wait = match self {
            Command::Acquire(acquire) => acquire.wait.as_mut(),
            Command::Convert(convert) => convert.wait.as_mut(),
            _ => None,
        };
        if let Some(wait) = wait {
            let left_ms = left.saturating_sub(WAIT_ENDS_BEFORE).as_millis() as u64;
            wait.wait_ms = wait.wait_ms.min(left_ms);
        }
    }

    /// About how many bytes its names take in the log.
    pub fn size_hint(&self) -> usize {
        /// What a name costs beside its bytes.
        const NAME: usize = 8;
        let optional = |text: &Option<Name>| text.as_ref().map_or(0, |text| text.len());
        match self {
            Command::Acquire(acquire) => {
                let wants = acquire.wants.iter();
                let resources: usize = wants.map(|want| want.resource.len() + 2 * NAME).sum();
                let wait = acquire.wait.as_ref();
                resources
                    + acquire.owner.len()
                    + optional(&acquire.request_id)
                    + optional(&acquire.session)
                    + acquire.meta.as_ref().map_or(0, String::len)
                    + acquire.tenant.as_ref().map_or(0, Tenant::len)
                    + wait.map_or(0, |wait| wait.reply.subject.len())
            }
            Command::Release { resource, .. } | Command::Renew { resource, .. } => {
                optional(resource)
            }
            Command::Convert(convert) => {
                let wait = convert.wait.as_ref();
                convert.resource.len() + wait.map_or(0, |wait| wait.reply.subject.len())
            }
            Command::Cancel {
                resource,
                owner,
                request_id,
                session,
            } => resource.len() + owner.len() + optional(request_id) + optional(session),
            Command::GiveBack { .. } => 0,
            Command::OpenSession(open) => {
                let meta = open.meta.as_ref().map_or(0, String::len);
                let tenant = open.tenant.as_ref().map_or(0, Tenant::len);
                open.session.len() + optional(&open.name) + meta + tenant
            }
            Command::KeepAlive { sessions } => {
                sessions.iter().map(|session| session.len() + NAME).sum()
            }
            Command::CloseSession { session, reason } => session.len() + optional(reason),
            Command::ForceRelease {
                resource, reason, ..
            } => resource.len() + reason.len(),
        }
    }
}

/// A request for a lock or a set of them, complete: the accepting node has filled in the defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    pub wants: Wants,
    /// One thread of control. Made up by the accepting node when the client named none
    /// (derived from the request id if there is one).
    pub owner: Name,
    /// Repeats of a request carry the same id; its scope is the owner.
    pub request_id: Option<Name>,
    /// The hold lasts no longer than this session.
    pub session: Option<Name>,
    /// Length of the lease; absent only with a session, then it lasts as long as that.
    pub ttl_ms: Option<u64>,
    /// Absent, or of no time: try once. Else: wait in the queue.
    pub wait: Option<Wait>,
    pub on_deadlock: DeadlockPolicy,
    /// A JSON object as text, shown to whoever asks about the lock.
    pub meta: Option<String>,
    /// Among whose holds it counts; none for a client outside all tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
}

/// A change of the mode in which one resource is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Convert {
    pub resource: Name,
    pub token: Token,
    /// Exclusive or shared.
    pub to: Grip,
    /// Absent, or of no time: try once.
    pub wait: Option<Wait>,
}

/// A new session; its id is made up by the accepting node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    pub session: Name,
    pub name: Option<Name>,
    pub ttl_ms: u64,
    /// How long nobody else gets what the session loses otherwise than by its own will.
    pub lock_delay_ms: u64,
    pub meta: Option<String>,
    /// Among whose sessions it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
}

/// How long to stand in the queue, and whom to tell at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    pub wait_ms: u64,
    pub reply: ReplyTo,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of the time before waits were cancelled by session is read, and what names none is written as
    /// it was then.
    #[test]
    fn a_cancel_without_a_session_is_what_it_was_before_there_were_any() {
        let before = std::collections::BTreeMap::from([("Cancel", ("r", "o", Some("id")))]);
        let before = rmp_serde::to_vec(&before).expect("it encodes");
        let cancel = Command::Cancel {
            resource: "r".into(),
            owner: "o".into(),
            request_id: Some("id".into()),
            session: None,
        };
        assert_eq!(rmp_serde::to_vec(&cancel).expect("it encodes"), before);
        let read: Command = rmp_serde::from_slice(&before).expect("it decodes");
        assert_eq!(read, cancel);
    }
}
