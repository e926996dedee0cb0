//! Locks: at most one live grant of an exclusive lock, and tokens that rise over all locks.
//!
//! A client surely holds a lock from the instant at which the grant came to the instant at which it sends the release,
//! or until its lease ends, counted from before the acquire was sent.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use mufakat::protocol::lock::Mode;
use tokio::time::Instant;

use super::{History, surely};

/// Tokens that are remembered to notice one that is granted twice; older ones are below what was granted since.
const TOKENS_MAX: usize = 100_000;

#[derive(Default)]
pub struct LockCheck {
    pub history: History,
    /// The greatest token that a client has heard of.
    newest: u64,
    tokens: BTreeSet<u64>,
    holds: HashMap<String, Vec<Hold>>,
    /// Owners who do not know what came of their last request.
    unsure: HashMap<String, Unsure>,
}

struct Hold {
    owner: String,
    token: u64,
    mode: Mode,
    until: Instant,
}

/// What an earlier request without a known outcome allows the next grant to be.
#[derive(Default)]
struct Unsure {
    /// An acquire was sent when this was the newest token.
    floor: Option<u64>,
    /// This token may not have been released.
    token: Option<u64>,
}

/// An acquire on its way.
pub struct Asked {
    pub owner: String,
    pub resources: Vec<String>,
    pub mode: Mode,
    pub ttl: Duration,
    sent: Instant,
    floor: u64,
}

impl LockCheck {
    /// An acquire is about to be sent.
    pub fn asks(
        &mut self,
        now: Instant,
        owner: &str,
        resources: Vec<String>,
        mode: Mode,
        ttl: Duration,
    ) -> Asked {
        for resource in &resources {
            let text = format!("{owner} asks for it ({})", mode.name());
            self.history.note(now, resource, text);
        }
        let unsure = self.unsure.get(owner).and_then(|unsure| unsure.floor);
        Asked {
            owner: owner.to_owned(),
            resources,
            mode,
            ttl,
            sent: now,
            floor: unsure.unwrap_or(self.newest),
        }
    }

    /// The acquire was granted.
    pub fn granted(&mut self, now: Instant, asked: &Asked, token: u64) {
        let owner = &asked.owner;
        for resource in &asked.resources {
            let text = format!("{owner} got it ({}) with token {token}", asked.mode.name());
            self.history.note(now, resource, text);
        }
        let unsure = self.unsure.remove(owner).unwrap_or_default();
        let subject = &asked.resources[0];
        if unsure.token != Some(token) {
            if !self.tokens.insert(token) {
                let what = format!("token {token} was granted twice");
                self.history.violation(subject, what);
            } else if token <= asked.floor {
                let what = format!(
                    "token {token} is not above {}, which was granted before this one was asked for",
                    asked.floor
                );
                self.history.violation(subject, what);
            }
        }
        if self.tokens.len() > TOKENS_MAX {
            self.tokens.pop_first();
        }
        self.newest = self.newest.max(token);
        self.hold(now, asked, token);
    }

    fn hold(&mut self, now: Instant, asked: &Asked, token: u64) {
        let until = asked.sent + surely(asked.ttl);
        if until <= now {
            return;
        }
        for resource in &asked.resources {
            let holds = self.holds.entry(resource.clone()).or_default();
            holds.retain(|hold| hold.until > now && hold.token != token);
            let together = |hold: &&Hold| (hold.mode, asked.mode) != (Mode::Shared, Mode::Shared);
            if let Some(other) = holds.iter().find(together) {
                let what = format!(
                    "{} ({}, token {}) and {} ({}, token {token}) hold it at the same time",
                    other.owner,
                    other.mode.name(),
                    other.token,
                    asked.owner,
                    asked.mode.name(),
                );
                self.history.violation(resource, what);
            }
            holds.push(Hold {
                owner: asked.owner.clone(),
                token,
                mode: asked.mode,
                until,
            });
        }
    }

    /// The acquire failed, perhaps with an unknown outcome.
    pub fn not_granted(&mut self, now: Instant, asked: &Asked, code: &str, unknown: bool) {
        for resource in &asked.resources {
            let text = format!("{} did not get it: {code}", asked.owner);
            self.history.note(now, resource, text);
        }
        if unknown {
            let unsure = self.unsure.entry(asked.owner.clone()).or_default();
            unsure.floor = Some(unsure.floor.unwrap_or(asked.floor).min(asked.floor));
        }
    }

    /// The release is about to be sent: from here on the client does not count on the lock.
    pub fn releases(&mut self, now: Instant, asked: &Asked, token: u64) {
        for resource in &asked.resources {
            let text = format!("{} gives token {token} back", asked.owner);
            self.history.note(now, resource, text);
            if let Some(holds) = self.holds.get_mut(resource) {
                holds.retain(|hold| hold.token != token);
            }
        }
    }

    /// What came of the release; `None` for success.
    pub fn released(&mut self, now: Instant, asked: &Asked, token: u64, code: Option<&str>) {
        let text = format!(
            "token {token} of {}: {}",
            asked.owner,
            code.unwrap_or("released")
        );
        self.history.note(now, &asked.resources[0], text);
        if code.is_some() {
            let unsure = self.unsure.entry(asked.owner.clone()).or_default();
            unsure.token = Some(token);
        }
    }
}
