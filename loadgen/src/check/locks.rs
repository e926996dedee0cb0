//! Locks: at most one live grant of an exclusive lock, and tokens that rise over all locks.
//!
//! A client surely holds a lock from the instant at which the grant came to the instant at which it sends the release,
//! or until its lease ends, counted from before the acquire was sent. No lease is cut short: a release within it finds
//! the hold.
//!
//! An owner that holds a lock and asks for it again gets the same token. So after a request whose outcome is unknown
//! any later grant of the same resource to the same owner may be an older one.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use mufakat::protocol::lock::Mode;
use tokio::time::Instant;

use super::{History, surely};

/// Tokens that are remembered to notice one that is granted twice; older ones are below what was granted since.
const TOKENS_MAX: usize = 100_000;

/// The code of a release that finds no live hold.
const NOT_HOLDER: &str = "not_holder";

#[derive(Default)]
pub struct LockCheck {
    pub history: History,
    /// The greatest token that a client has heard of.
    newest: u64,
    tokens: BTreeSet<u64>,
    holds: HashMap<String, Vec<Hold>>,
    /// By owner and resource.
    unsure: HashMap<(String, String), Unsure>,
}

struct Hold {
    owner: String,
    token: u64,
    mode: Mode,
    until: Instant,
}

/// What an owner does not know of its hold of a resource.
#[derive(Default)]
struct Unsure {
    /// The newest token when the first acquire was sent that may have been granted.
    floor: Option<u64>,
    /// Tokens whose release may have taken effect, or may yet.
    releases: BTreeSet<u64>,
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
        let unsure = resources.iter().filter_map(|resource| {
            let unsure = self.unsure.get(&(owner.to_owned(), resource.clone()))?;
            unsure.floor
        });
        let floor = unsure.min().unwrap_or(self.newest);
        Asked {
            owner: owner.to_owned(),
            resources,
            mode,
            ttl,
            sent: now,
            floor,
        }
    }

    /// The acquire was granted.
    pub fn granted(&mut self, now: Instant, asked: &Asked, token: u64) {
        let owner = &asked.owner;
        for resource in &asked.resources {
            let text = format!("{owner} got it ({}) with token {token}", asked.mode.name());
            self.history.note(now, resource, text);
        }
        let subject = &asked.resources[0];
        let may_be_released = self.may_be_released(asked, token);
        if !may_be_released {
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
        // An acquire without an answer may arrive at any time later; of releases only that of this very token counts.
        self.learn(asked, |unsure| {
            unsure.releases.retain(|released| *released == token);
        });
        if !may_be_released {
            self.hold(now, asked, token);
        }
    }

    /// Whether a release of the token has an unknown outcome.
    fn may_be_released(&self, asked: &Asked, token: u64) -> bool {
        asked.holds().any(|hold| {
            let unsure = self.unsure.get(&hold);
            unsure.is_some_and(|unsure| unsure.releases.contains(&token))
        })
    }

    /// Changes what the owner does not know of each resource of the request.
    fn learn(&mut self, asked: &Asked, change: impl Fn(&mut Unsure)) {
        for hold in asked.holds() {
            let unsure = self.unsure.entry(hold.clone()).or_default();
            change(unsure);
            if unsure.floor.is_none() && unsure.releases.is_empty() {
                self.unsure.remove(&hold);
            }
        }
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
            self.learn(asked, |unsure| {
                let floor = unsure.floor.unwrap_or(asked.floor);
                unsure.floor = Some(floor.min(asked.floor));
            });
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
        let subject = &asked.resources[0];
        self.history.note(now, subject, text);
        let has_ended = matches!(code, None | Some(NOT_HOLDER));
        let is_live = now < asked.sent + surely(asked.ttl) && !self.may_be_released(asked, token);
        if code == Some(NOT_HOLDER) && is_live {
            let what = format!("the hold with token {token} ended before its lease");
            self.history.violation(subject, what);
        }
        self.learn(asked, |unsure| {
            if has_ended {
                unsure.releases.remove(&token);
            } else {
                unsure.releases.insert(token);
            }
        });
    }
}

impl Asked {
    /// Its owner with each of its resources.
    fn holds(&self) -> impl Iterator<Item = (String, String)> {
        let resources = self.resources.iter();
        resources.map(|resource| (self.owner.clone(), resource.clone()))
    }
}
