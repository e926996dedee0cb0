//! Linearizable reads of the lock table.

use serde::{Deserialize, Serialize};

use crate::ids::Token;
use crate::lock::Name;
use crate::lock::listing::Page;
use crate::lock::outcome::{self, Check, LockView, Requesters};
use crate::protocol::lock as wire;
use crate::protocol::{Tenant, session};

/// A linearizable read, as it travels to the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Query {
    Check {
        resource: String,
        token: Token,
    },
    Get {
        resource: String,
    },
    List(Page),
    Graph {
        tenant: Option<Tenant>,
    },
    Deadlocks {
        limit: usize,
        tenant: Option<Tenant>,
    },
    Session {
        session: String,
    },
    Sessions {
        page: Page,
        tenant: Option<Tenant>,
    },
    /// Whose requests with this id wait for the resource, or hold it.
    Requesters {
        resource: Name,
        request_id: Name,
        session: Option<Name>,
    },
    /// Whether the token is that of a set all of which lies under the resource.
    IsSetUnder {
        resource: Name,
        token: Token,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Found {
    Check(Check),
    Get(LockView),
    List(wire::Listing),
    Graph(wire::WaitGraph),
    Deadlocks(wire::RecentDeadlocks),
    Session(Result<Box<session::View>, Box<outcome::Outcome>>),
    Sessions(session::Listing),
    /// Ask whoever leads now.
    NotLeader,
    Requesters(Requesters),
    IsSetUnder(bool),
    /// The leader is of an earlier version, which does not know the query.
    Unknown,
}

impl Query {
    /// Whether its answer may be a hundred times that of others, and cost as much.
    pub(super) fn lists(&self) -> bool {
        match self {
            Query::List(_) | Query::Graph { .. } | Query::Deadlocks { .. } => true,
            Query::Sessions { .. } => true,
            Query::Check { .. } | Query::Get { .. } | Query::Session { .. } => false,
            Query::Requesters { .. } | Query::IsSetUnder { .. } => false,
        }
    }

    /// Whether leaders of earlier versions do not know it.
    pub(super) fn is_new(&self) -> bool {
        matches!(self, Query::Requesters { .. } | Query::IsSetUnder { .. })
    }
}
