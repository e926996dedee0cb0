//! Tenants: accounts of the broker whose requests come under `<prefix>.t.<account>.>`.
//!
//! The broker puts the account's name into the subject, so nobody can speak for another account.
//! Each has names of its own: its lock `orders` is the lock `<account>/orders` inside, and so are its
//! owners, sessions, request ids, topics, keys and tags. A request is [entered](Request::enter) once
//! it is decoded, and a reply shows names [without the account](outward).
//!
//! What watchers are told of such a name goes to the account, too, under `<prefix>.t.<account>.event.>`.
//!
//! Limits: whoever may send requests outside `t.` (operators, and programs in the nodes' own account)
//! sees and names what belongs to tenants, as `<account>/<name>`.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::error::{Code, ErrorReply};
use crate::protocol::{Operation, Refusal, Request, queue};

pub mod outward;
pub mod seat;

/// The longest name of an account, in bytes: that of a public NKey has 56.
pub(super) const ACCOUNT_BYTES_MAX: usize = 64;

/// What stands between an account and a name. No account has it, so that no name of one account
/// begins with another account and this.
const SEPARATOR: char = '/';

/// An account of the broker that is served apart from others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tenant(Arc<str>);

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// By the account's name.
impl Borrow<str> for Tenant {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Tenant {
    /// The tenant with this account's name: 1 to 64 letters, digits, `_` and `-`.
    pub fn of_account(account: &str) -> Option<Self> {
        is_account(account).then(|| Tenant(account.into()))
    }

    /// The tenant whose a name from inside is; none if it is nobody's, or everybody's.
    pub fn of_name(name: &str) -> Option<Self> {
        Tenant::of_account(Tenant::account_in(name)?)
    }

    /// What may be the account in a name from inside.
    pub fn account_in(name: &str) -> Option<&str> {
        name.split_once(SEPARATOR).map(|(account, _)| account)
    }

    /// What a name from inside is without its account; the whole of one that is nobody's.
    pub fn own_part(name: &str) -> &str {
        match name.split_once(SEPARATOR) {
            Some((account, own)) if is_account(account) => own,
            _ => name,
        }
    }

    /// Bytes of the account's name.
    #[expect(clippy::len_without_is_empty, reason = "no account is without a name")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What all names of this tenant begin with.
    pub fn namespace(&self) -> String {
        format!("{}{SEPARATOR}", self.0)
    }

    /// A name of the tenant's as it is kept inside.
    pub fn inside(&self, name: &str) -> String {
        format!("{}{SEPARATOR}{name}", self.0)
    }

    /// A name from inside as the tenant knows it; unchanged if it is not the tenant's.
    pub fn outside<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(&*self.0)
            .and_then(|rest| rest.strip_prefix(SEPARATOR))
            .unwrap_or(name)
    }

    /// Whether a name from inside is the tenant's.
    pub fn has(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&*self.0);
        rest.is_some_and(|rest| rest.starts_with(SEPARATOR))
    }

    fn enter(&self, name: &mut String) {
        name.insert(0, SEPARATOR);
        name.insert_str(0, &self.0);
    }

    fn enter_if_given(&self, name: &mut Option<String>) {
        if let Some(name) = name {
            self.enter(name);
        }
    }

    /// Of a prefix: without one, everything of the tenant's.
    fn enter_prefix(&self, prefix: &mut Option<String>) {
        match prefix {
            Some(prefix) => self.enter(prefix),
            None => *prefix = Some(self.namespace()),
        }
    }
}

fn is_account(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    (1..=ACCOUNT_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

impl Request {
    /// Turns the names in a tenant's request into those inside.
    ///
    /// # Errors
    /// As those of [`may_ask`].
    pub fn enter(&mut self, tenant: &Tenant) -> Result<(), Refusal> {
        may_ask(self.operation())?;
        match self {
            Request::LockAcquire(acquire) => {
                if !acquire.resource.is_empty() {
                    tenant.enter(&mut acquire.resource);
                }
                for wanted in &mut acquire.resources {
                    tenant.enter(&mut wanted.resource);
                }
                tenant.enter_if_given(&mut acquire.owner);
                tenant.enter_if_given(&mut acquire.session);
                tenant.enter_if_given(&mut acquire.request_id);
            }
            Request::LockRelease(release) => tenant.enter_if_given(&mut release.resource),
            Request::LockRenew(renew) => tenant.enter_if_given(&mut renew.resource),
            Request::LockConvert(convert) => tenant.enter(&mut convert.resource),
            Request::LockCheck(check) => tenant.enter(&mut check.resource),
            Request::LockGet(get) => tenant.enter(&mut get.resource),
            Request::LockCancel(cancel) => {
                tenant.enter(&mut cancel.resource);
                tenant.enter_if_given(&mut cancel.owner);
                tenant.enter_if_given(&mut cancel.session);
                tenant.enter_if_given(&mut cancel.request_id);
            }
            Request::LockList(list) => {
                tenant.enter_prefix(&mut list.prefix);
                tenant.enter_if_given(&mut list.cursor);
            }
            // The prefix is one of the names that sessions have, which are no addresses.
            Request::SessionList(list) => tenant.enter_if_given(&mut list.cursor),
            Request::SessionKeepalive(one)
            | Request::SessionClose(one)
            | Request::SessionGet(one) => tenant.enter(&mut one.session),
            Request::Queue(request) => enter_queue(request, tenant),
            Request::CacheGet(get) => tenant.enter(&mut get.key),
            Request::CacheGetMany(get) => {
                get.keys.iter_mut().for_each(|key| tenant.enter(key));
            }
            Request::CacheSet(set) => {
                tenant.enter(&mut set.key);
                set.tags.iter_mut().for_each(|tag| tenant.enter(tag));
                if let Some(fence) = &mut set.fence {
                    tenant.enter(&mut fence.resource);
                }
            }
            Request::CacheDelete(delete) => tenant.enter(&mut delete.key),
            Request::CacheIncrement(increment) => tenant.enter(&mut increment.key),
            Request::CacheTouch(touch) => tenant.enter(&mut touch.key),
            Request::CacheInvalidate(invalidate) => {
                tenant.enter_if_given(&mut invalidate.tag);
                tenant.enter_if_given(&mut invalidate.prefix);
                if std::mem::take(&mut invalidate.all) {
                    invalidate.prefix = Some(tenant.namespace());
                }
            }
            Request::CacheExplain(explain) => tenant.enter(&mut explain.key),
            Request::LockGraph(_)
            | Request::LockDeadlocks(_)
            | Request::SessionOpen(_)
            | Request::Status(_) => {}
            Request::AdminLockRelease(_)
            | Request::AdminSessionClose(_)
            | Request::CacheStats(_)
            | Request::CacheAudit(_)
            | Request::Cluster(_)
            | Request::Backup(_)
            | Request::Metrics(_) => unreachable!("tenants may not ask for it"),
        }
        Ok(())
    }
}

/// Ids, groups and consumers are within a topic already.
fn enter_queue(request: &mut queue::Request, tenant: &Tenant) {
    match request {
        queue::Request::Push(push) => tenant.enter(&mut push.topic),
        queue::Request::Pop(pop) => tenant.enter(&mut pop.topic),
        queue::Request::Receipts(receipts) => tenant.enter(&mut receipts.topic),
        queue::Request::Admin(admin) => match &mut admin.act {
            queue::Act::List { prefix, cursor, .. } => {
                tenant.enter(prefix);
                tenant.enter_if_given(cursor);
            }
            queue::Act::Redrive { to, .. } => {
                tenant.enter_if_given(&mut admin.topic);
                tenant.enter_if_given(to);
            }
            _ => tenant.enter_if_given(&mut admin.topic),
        },
    }
}

/// Whether tenants may ask for this operation at all, before their request is looked at.
///
/// # Errors
/// `forbidden` for what is about the cluster or about everybody.
pub fn may_ask(operation: Operation) -> Result<(), Refusal> {
    let may = match operation {
        Operation::LockAcquire
        | Operation::LockRelease
        | Operation::LockRenew
        | Operation::LockCheck
        | Operation::LockGet
        | Operation::LockConvert
        | Operation::LockCancel
        | Operation::LockList
        | Operation::LockGraph
        | Operation::LockDeadlocks
        | Operation::SessionOpen
        | Operation::SessionKeepalive
        | Operation::SessionClose
        | Operation::SessionGet
        | Operation::SessionList
        | Operation::QueuePush
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
        | Operation::CacheGet
        | Operation::CacheGetMany
        | Operation::CacheSet
        | Operation::CacheDelete
        | Operation::CacheIncrement
        | Operation::CacheTouch
        | Operation::CacheInvalidate
        | Operation::CacheExplain
        | Operation::Status => true,
        Operation::AdminLockRelease
        | Operation::AdminSessionClose
        | Operation::AdminQueuePurge
        | Operation::AdminClusterAdd
        | Operation::AdminClusterRemove
        | Operation::AdminClusterTransfer
        | Operation::AdminClusterBackup
        | Operation::ClusterMembers
        | Operation::CacheStats
        | Operation::CacheAudit
        | Operation::Metrics => false,
    };
    match may {
        true => Ok(()),
        false => Err(forbidden(operation)),
    }
}

/// For an account that cannot be a tenant.
pub fn no_account() -> Refusal {
    Box::new(ErrorReply::new(
        Code::Forbidden,
        format!(
            "a tenant's account has 1 to {ACCOUNT_BYTES_MAX} letters, digits, `_` and `-`: others \
             are not served"
        ),
    ))
}

fn forbidden(operation: Operation) -> Refusal {
    Box::new(ErrorReply::new(
        Code::Forbidden,
        format!("{operation} is not available to tenants"),
    ))
}

#[cfg(test)]
mod tests;
