//! What each tenant has of the table, so that one leaves room for others.
//!
//! Waits are counted apart, in [`Table`](super::table::Table): by who is told of their end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::protocol::Tenant;

/// What one tenant has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owned {
    /// Tokens that have not ended: what limits count until they go [by weight](super::limits::Limits::by_weight).
    pub(super) holds: u64,
    /// Sessions that are not gone.
    pub(super) sessions: u64,
    /// Remembered request ids.
    pub(super) request_ids: u64,
}

/// The tenants that have anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tenants(BTreeMap<Tenant, Owned>);

impl Tenants {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn owned_by(&self, tenant: &Tenant) -> Owned {
        self.0.get(tenant).copied().unwrap_or_default()
    }

    /// Changes what a tenant has; of a client outside all tenants nothing is counted.
    pub(super) fn count(&mut self, tenant: Option<&Tenant>, change: impl FnOnce(&mut Owned)) {
        let Some(tenant) = tenant else { return };
        let owned = self.0.entry(tenant.clone()).or_default();
        change(owned);
        if *owned == Owned::default() {
            self.0.remove(tenant);
        }
    }
}
