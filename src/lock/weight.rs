//! How much what is in the table counts for.
//!
//! Bytes are those of a snapshot, never fewer than it takes: a number counts as long as the longest, and what
//! is written of a claim in the records of its resources and its owner counts with the claim. A test compares
//! them with what is written.

use std::ops::{Add, AddAssign, SubAssign};

use super::Name;
use super::claim::{Claim, Wants};
use super::holding::Hold;
use super::requests::Remembered;
use super::sessions::Session;
use super::waiting::{Place, Waiter};
use super::weighed::Weigh;
use crate::ids::Token;
use crate::protocol::{ReplyTo, Tenant};

/// What limits count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// One for each resource that is held or waited for.
    pub(super) claims: u64,
    pub(super) bytes: u64,
}

/// How many bytes precede those of a text.
const TEXT: u64 = 3;
/// One resource of a claim beside its names: how it is wanted, the resource's own record, and the entries there
/// and in the owner's.
const WANT: u64 = 112;
/// A claim beside its names and resources: times, tokens, what has it in its order, and the owner's record.
const CLAIM: u64 = 170;
/// One resource of a remembered request beside its name.
const REMEMBERED_WANT: u64 = 21;
/// A remembered request beside its names and resources, with the owner's record.
const REMEMBERED: u64 = 90;
/// A session beside its names.
const SESSION: u64 = 150;
/// A reply subject's encoding, and what holds both together.
const REPLY: u64 = 20;

/// What a resource takes that is closed for a while, whatever its name.
pub(super) const CLOSED_BYTES: u64 = 750;

impl Add for Weight {
    type Output = Weight;

    fn add(mut self, other: Weight) -> Weight {
        self += other;
        self
    }
}

impl AddAssign for Weight {
    fn add_assign(&mut self, other: Weight) {
        self.claims += other.claims;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Weight {
    fn sub_assign(&mut self, other: Weight) {
        self.claims -= other.claims;
        self.bytes -= other.bytes;
    }
}

impl Claim {
    /// As a hold; a wait weighs as much and its reply subject, so that a grant never has to fail. What is
    /// remembered of its request counts apart.
    pub(super) fn weight(&self) -> Weight {
        let wants = self.wants.iter();
        let resources: u64 = wants.map(|want| WANT + 3 * text(&want.resource)).sum();
        let texts = 2 * text(&self.owner)
            + optional(self.session.as_deref())
            + optional(self.meta.as_deref())
            + of_tenant(self.tenant.as_ref());
        Weight {
            claims: self.wants.as_slice().len() as u64,
            bytes: CLAIM + resources + texts,
        }
    }
}

impl Weigh<Token> for Hold {
    fn weight(&self, _: &Token) -> Weight {
        self.claim.weight()
    }

    fn tenant(&self) -> Option<&Tenant> {
        self.claim.tenant.as_ref()
    }

    fn session(&self) -> Option<&Name> {
        self.claim.session.as_ref()
    }
}

impl Weigh<Place> for Waiter {
    fn weight(&self, _: &Place) -> Weight {
        let mut weight = self.claim.weight();
        weight.bytes += bytes_of_reply(&self.reply);
        weight
    }

    fn tenant(&self) -> Option<&Tenant> {
        self.claim.tenant.as_ref()
    }

    fn session(&self) -> Option<&Name> {
        self.claim.session.as_ref()
    }
}

impl Weigh<(Name, Name)> for Remembered {
    fn weight(&self, (owner, id): &(Name, Name)) -> Weight {
        Weight {
            claims: 0,
            bytes: bytes_of_request(owner, id, &self.wants, self.tenant.as_ref()),
        }
    }

    fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }
}

impl Weigh<Name> for Session {
    fn weight(&self, id: &Name) -> Weight {
        let name = optional(self.name.as_deref());
        let meta = optional(self.meta.as_deref());
        let tenant = of_tenant(self.tenant.as_ref());
        Weight {
            claims: 0,
            bytes: SESSION + 2 * text(id) + name + meta + tenant,
        }
    }

    fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }
}

/// What is remembered of a request, until long after its grant has ended.
pub(super) fn bytes_of_request(
    owner: &str,
    id: &str,
    wants: &Wants,
    tenant: Option<&Tenant>,
) -> u64 {
    let wants = wants.iter();
    let resources: u64 = wants
        .map(|want| REMEMBERED_WANT + text(&want.resource))
        .sum();
    // The id stands with the grant, too.
    REMEMBERED + resources + 3 * text(owner) + 3 * text(id) + of_tenant(tenant)
}

pub(super) fn bytes_of_reply(reply: &ReplyTo) -> u64 {
    REPLY + text(&reply.subject) + of_tenant(reply.tenant.as_ref())
}

fn text(text: &str) -> u64 {
    TEXT + text.len() as u64
}

fn optional(given: Option<&str>) -> u64 {
    given.map_or(1, text)
}

fn of_tenant(tenant: Option<&Tenant>) -> u64 {
    tenant.map_or(1, |tenant| TEXT + tenant.len() as u64)
}
