//! How much a lock table may hold. Part of the replicated state: every node has the same limits.

use serde::{Deserialize, Serialize};

/// The bounds of a table. At each of them the request that would pass it is refused with
/// [`Outcome::Overloaded`](super::outcome::Outcome::Overloaded), which names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Waiters over all resources.
    pub waiters: u64,
    /// Waiters of one tenant, so that one leaves room for others.
    pub waiters_per_tenant: u64,
    /// Waiters for one resource. It also bounds what one release can set in motion.
    pub waiters_per_resource: u64,
    /// Holders and waiters together, over all resources: each waiter may become a holder, so
    /// that a grant never has to fail. A set counts as many as it has resources, here and below.
    pub claims: u64,
    /// Holders and waiters of one resource together: what one visit to a resource can cost.
    pub claims_per_resource: u64,
    /// Holds and waits of one session: what closing it can cost.
    pub claims_per_session: u64,
    /// Sessions that are not gone.
    pub sessions: u64,
    /// Remembered request ids; at about 350 bytes each.
    pub request_ids: u64,
    /// Endings of waits kept for a new leader, weighed by the holders or owners that they name.
    /// When it is full the oldest go: they are the likeliest to have been published.
    pub recent_endings: u64,
    /// Leases, waits and the like that one call of [`expire`](super::table::Table::expire) ends, and ids
    /// that it forgets, so that a mass expiry does not hold up the entries behind it.
    pub endings_per_entry: u64,
    /// Holders and waiters of one tenant together.
    #[serde(default = "quarter_of_claims")]
    pub claims_per_tenant: u64,
    /// Sessions of one tenant that are not gone.
    #[serde(default = "quarter_of_sessions")]
    pub sessions_per_tenant: u64,
    /// Remembered request ids of one tenant.
    #[serde(default = "quarter_of_request_ids")]
    pub request_ids_per_tenant: u64,
    /// What holds, waits, remembered ids, sessions and lock delays take in a snapshot, as far as a [bound on
    /// it](super::weight) says. A snapshot that is too large for a transfer would leave nodes behind for ever.
    #[serde(default = "bytes")]
    pub bytes: u64,
    /// The same of one tenant, but for lock delays.
    #[serde(default = "quarter_of_bytes")]
    pub bytes_per_tenant: u64,
    /// Whether bytes count, and each resource of a set: from the first term on of a leader that knows of them. What
    /// is in the log from before is applied as it was then, on whichever node and however late.
    #[serde(default)]
    pub by_weight: bool,
}

const CLAIMS: u64 = 1_000_000;
const SESSIONS: u64 = 100_000;
const REQUEST_IDS: u64 = 1_000_000;
/// Half of the largest snapshot that is transferred: what has other bounds (ended waits and sessions, deadlocks, marks
/// of topics) takes less than the rest.
pub const BYTES: u64 = 256 * 1024 * 1024;

// A state of a time without these bounds is read with the defaults.
fn quarter_of_claims() -> u64 {
    CLAIMS / 4
}

fn quarter_of_sessions() -> u64 {
    SESSIONS / 4
}

fn quarter_of_request_ids() -> u64 {
    REQUEST_IDS / 4
}

fn bytes() -> u64 {
    BYTES
}

fn quarter_of_bytes() -> u64 {
    BYTES / 4
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            waiters: 100_000,
            waiters_per_tenant: 10_000,
            waiters_per_resource: 10_000,
            claims: CLAIMS,
            claims_per_resource: 100_000,
            claims_per_session: 10_000,
            sessions: SESSIONS,
            request_ids: REQUEST_IDS,
            recent_endings: 10_000,
            endings_per_entry: 1_000,
            claims_per_tenant: quarter_of_claims(),
            sessions_per_tenant: quarter_of_sessions(),
            request_ids_per_tenant: quarter_of_request_ids(),
            bytes: bytes(),
            bytes_per_tenant: quarter_of_bytes(),
            by_weight: false,
        }
    }
}
