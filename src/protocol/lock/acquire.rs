//! `lock.acquire`: one resource, or several that are granted together.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Serialize;

use super::{
    DeadlockPolicy, META_BYTES_MAX, Mode, PERMITS_MAX, RESOURCES_MAX, TTL_MS_MAX, TTL_MS_MIN,
    WAIT_MS_MAX,
};
use crate::protocol::fields::{Field, Fields, Rule};
use crate::protocol::meta::Meta;
use crate::protocol::request::is_under;
use crate::protocol::{ErrorReply, Refusal, TIMEOUT_MS_FIELD};

/// `lock.acquire`: the request for one lock, or for several together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Acquire {
    /// 1 to 256 bytes; empty when `resources` are there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// At most [`RESOURCES_MAX`], each once: all of them or nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Wanted>,
    pub mode: Mode,
    /// How many permits are taken, 1 when absent; only in mode `permit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permits: Option<u32>,
    /// How many permits there are, 1 to [`PERMITS_MAX`]; required in mode `permit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// One thread of control; the node makes one up when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The hold ends with this session at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Length of the lease, [`TTL_MS_MIN`] to [`TTL_MS_MAX`]; absent: [`TTL_MS_DEFAULT`](super::TTL_MS_DEFAULT), or as long
    /// as the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// 0: try once and never overtake a waiter. Otherwise wait, at most [`WAIT_MS_MAX`] and until shortly before
    /// `timeout_ms`.
    pub wait_ms: u64,
    pub on_deadlock: DeadlockPolicy,
    /// Shown to whoever asks about the lock; at most [`META_BYTES_MAX`] bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<Meta>,
    /// Repeats of a request carry the same id. Kept while waiter or grant lives and 5 minutes after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// How long the asker waits for an answer, 1 to 120000; 5000 + `wait_ms` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// One of several resources that are taken together. What is absent is as the request says for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Wanted {
    pub resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permits: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl Wanted {
    const FIELDS: &[Field] = &[
        Field::new("resource", Rule::Name),
        Field::new("mode", Rule::Choice(Mode::NAMES)),
        Field::new("permits", Rule::Integer(1, PERMITS_MAX)),
        Field::new("limit", Rule::Integer(1, PERMITS_MAX)),
    ];

    fn build(mut given: Fields<'_>) -> Result<Self, Refusal> {
        Ok(Wanted {
            resource: given.required_text("resource")?,
            mode: given.chosen("mode").map(Mode::nth),
            permits: given.integer("permits").map(|n| n as u32),
            limit: given.integer("limit").map(|n| n as u32),
        })
    }
}

impl Acquire {
    pub(in crate::protocol) const FIELDS: &[Field] = &[
        Field::new("resource", Rule::Name),
        Field::new("resources", Rule::List(Wanted::FIELDS, RESOURCES_MAX)),
        Field::new("mode", Rule::Choice(Mode::NAMES)),
        Field::new("permits", Rule::Integer(1, PERMITS_MAX)),
        Field::new("limit", Rule::Integer(1, PERMITS_MAX)),
        Field::new("owner", Rule::Name),
        Field::new("session", Rule::Name),
        Field::new("ttl_ms", Rule::Integer(TTL_MS_MIN, TTL_MS_MAX)),
        Field::new("wait_ms", Rule::Integer(0, WAIT_MS_MAX)),
        Field::new("on_deadlock", Rule::Choice(DeadlockPolicy::NAMES)),
        Field::new("meta", Rule::Object(META_BYTES_MAX)),
        Field::new("request_id", Rule::Name),
        TIMEOUT_MS_FIELD,
    ];

    /// An exclusive try with the default lease.
    pub fn new(resource: impl Into<String>) -> Self {
        Acquire {
            resource: resource.into(),
            ..Acquire::default()
        }
    }

    /// # Errors
    /// `bad_request` without a resource, with a resource twice, and with permits that do not fit.
    pub(in crate::protocol) fn build(
        mut given: Fields<'_>,
        suffix: Option<&str>,
    ) -> Result<Self, Refusal> {
        let resources: Vec<Wanted> = match given.list("resources") {
            Some(items) if items.is_empty() => {
                return Err(refused("resources", "`resources` must name at least one"));
            }
            Some(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| {
                    Wanted::build(item).map_err(|mut inner| {
                        let field = inner.field.unwrap_or_default();
                        inner.field = Some(format!("resources[{index}].{field}"));
                        inner
                    })
                })
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        let resource = match resources.is_empty() {
            true => given.required_text("resource")?,
            false => given.text("resource").unwrap_or_default(),
        };
        let acquire = Acquire {
            resource,
            resources,
            mode: Mode::nth(given.choice("mode")),
            permits: given.integer("permits").map(|n| n as u32),
            limit: given.integer("limit").map(|n| n as u32),
            owner: given.text("owner"),
            session: given.text("session"),
            ttl_ms: given.integer("ttl_ms"),
            wait_ms: given.integer("wait_ms").unwrap_or(0),
            on_deadlock: DeadlockPolicy::nth(given.choice("on_deadlock")),
            meta: given.object("meta"),
            request_id: given.text("request_id"),
            timeout_ms: given.integer("timeout_ms"),
        };
        acquire.check_resources(suffix)?;
        Ok(acquire)
    }

    fn check_resources(&self, suffix: Option<&str>) -> Result<(), Refusal> {
        if self.resources.is_empty() {
            return check_permits((self.mode, self.permits, self.limit)).map(|_| ());
        }
        if !self.resource.is_empty() {
            return Err(refused(
                "resource",
                "either `resource` or `resources`, not both",
            ));
        }
        let mut seen = BTreeSet::new();
        for wanted in &self.resources {
            let name = &wanted.resource;
            if !seen.insert(name) {
                return Err(refused("resources", format!("`{name}` is given twice")));
            }
            if !suffix.is_none_or(|suffix| is_under(name, suffix)) {
                let message = format!("`{name}` is not below the resource in the subject");
                return Err(refused("resources", message));
            }
            check_permits(self.grip_of(wanted))?;
        }
        let any_permit = |wanted: &Wanted| self.grip_of(wanted).0 == Mode::Permit;
        if !self.resources.iter().any(any_permit) {
            check_permits((Mode::Exclusive, self.permits, self.limit))?;
        }
        Ok(())
    }

    /// Mode, permits and limit of one of several resources.
    fn grip_of(&self, wanted: &Wanted) -> (Mode, Option<u32>, Option<u32>) {
        let mode = wanted.mode.unwrap_or(self.mode);
        match mode {
            Mode::Permit => {
                let permits = wanted.permits.or(self.permits);
                (mode, permits, wanted.limit.or(self.limit))
            }
            _ => (mode, wanted.permits, wanted.limit),
        }
    }

    /// Everything that is asked for: resource, mode, permits and limit, which are 0 in other modes.
    pub fn wanted(&self) -> impl Iterator<Item = (&str, Mode, u32, u32)> {
        let one = (!self.resource.is_empty()).then_some((
            self.resource.as_str(),
            (self.mode, self.permits, self.limit),
        ));
        let several = self.resources.iter();
        let several = several.map(|wanted| (wanted.resource.as_str(), self.grip_of(wanted)));
        one.into_iter().chain(several).map(|(resource, grip)| {
            let (permits, limit) = check_permits(grip).unwrap_or_default();
            (resource, grip.0, permits, limit)
        })
    }
}

/// The permits asked for and the limit, both 0 in other modes.
fn check_permits(
    (mode, permits, limit): (Mode, Option<u32>, Option<u32>),
) -> Result<(u32, u32), Refusal> {
    if mode != Mode::Permit {
        return match (permits, limit) {
            (None, None) => Ok((0, 0)),
            (Some(_), _) => Err(refused("permits", "`permits` are for mode \"permit\"")),
            (None, Some(_)) => Err(refused("limit", "`limit` is for mode \"permit\"")),
        };
    }
    let permits = permits.unwrap_or(1);
    match limit {
        None => Err(refused(
            "limit",
            "`limit` is missing: how many permits there are",
        )),
        Some(limit) if permits > limit => Err(refused(
            "permits",
            format!("{permits} permits are more than the limit of {limit}"),
        )),
        Some(limit) => Ok((permits, limit)),
    }
}

fn refused(field: &str, message: impl Into<Cow<'static, str>>) -> Refusal {
    ErrorReply::bad_field(field, message).into()
}
