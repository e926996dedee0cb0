//! What a request lays claim to: one resource or a set of them, each in a mode.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Name;
use super::command::Acquire;
use crate::protocol::Tenant;
use crate::protocol::lock::Mode;

/// How one resource is wanted or held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grip {
    /// Alone.
    Exclusive,
    /// Among others that share it.
    Shared,
    /// So many of the resource's permits, of which there are `limit`.
    Permits { permits: u32, limit: u32 },
}

impl Grip {
    pub fn mode(self) -> Mode {
        match self {
            Grip::Exclusive => Mode::Exclusive,
            Grip::Shared => Mode::Shared,
            Grip::Permits { .. } => Mode::Permit,
        }
    }

    /// How many permits, if it is about permits.
    pub fn permits(self) -> Option<u32> {
        match self {
            Grip::Permits { permits, .. } => Some(permits),
            Grip::Exclusive | Grip::Shared => None,
        }
    }
}

/// One resource and how it is wanted or held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    pub resource: Name,
    pub grip: Grip,
}

/// What one request wants and one token stands for: all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wants {
    One(Want),
    /// Ordered by resource, each once.
    Set(Arc<[Want]>),
}

impl Wants {
    /// One resource in one mode.
    pub fn one(resource: impl Into<Name>, grip: Grip) -> Self {
        let resource = resource.into();
        Wants::One(Want { resource, grip })
    }

    pub fn as_slice(&self) -> &[Want] {
        match self {
            Wants::One(want) => std::slice::from_ref(want),
            Wants::Set(wants) => wants,
        }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Want> {
        self.as_slice().iter()
    }

    pub fn is_set(&self) -> bool {
        matches!(self, Wants::Set(_))
    }

    /// How this resource is wanted.
    pub fn grip_of(&self, resource: &str) -> Option<Grip> {
        self.iter()
            .find(|want| *want.resource == *resource)
            .map(|want| want.grip)
    }
}

/// What a request lays claim to, waiting or holding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) wants: Wants,
    pub(super) owner: Name,
    /// It lasts no longer than this session.
    pub(super) session: Option<Name>,
    /// Length of its own lease; none when it lasts as long as its session.
    pub(super) ttl_ms: Option<u64>,
    pub(super) request_id: Option<Name>,
    pub(super) meta: Option<String>,
    /// Among whose claims it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<Tenant>,
}

impl Claim {
    pub(super) fn of(request: &Acquire) -> Self {
        Claim {
            wants: request.wants.clone(),
            owner: request.owner.clone(),
            session: request.session.clone(),
            ttl_ms: request.ttl_ms,
            request_id: request.request_id.clone(),
            meta: request.meta.clone(),
            tenant: request.tenant.clone(),
        }
    }
}
