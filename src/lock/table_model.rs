//! A naive lock table to compare the real one with: plain lists, every question answered by looking
//! at everything, and the wait-for graph ([`super::table_oracle`]) built from all pairs.

use std::collections::{BTreeMap, BTreeSet};

use super::command::*;
use super::requests::REMEMBERED_MS;
use crate::ids::Token;
use crate::protocol::ReplyTo;

#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) request: Acquire,
    token: Token,
    deadline_ms: u64,
    granted_ms: u64,
    waited_ms: u64,
    ttl_ms: u64,
    ids: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) request: Acquire,
    pub(super) reply: ReplyTo,
    pub(super) since_ms: u64,
    deadline_ms: u64,
}

/// A request id whose grant has ended: the request, and when it is forgotten.
type Ended = (Acquire, String, u64);

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    now_ms: u64,
    floor_ms: u64,
    last_token: u64,
    pub(super) holds: Vec<Hold>,
    /// In the order in which the waits started.
    pub(super) waits: Vec<Waiter>,
    ended: Vec<Ended>,
    seen: u64,
    pub(super) ages: BTreeMap<String, u64>,
    pub(super) effects: Vec<Effect>,
}

impl Model {
    /// The live tokens with their resources, oldest first.
    pub(super) fn tokens(&self) -> Vec<(String, Token)> {
        let tokens = self.holds.iter();
        tokens
            .map(|hold| (hold.request.resource.clone(), hold.token))
            .collect()
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn start_term(&mut self, grace_ms: u64) {
        self.floor_ms = self.floor_ms.max(self.now_ms + grace_ms);
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let leases = self.holds.iter().map(|hold| self.end_of(hold));
        leases
            .chain(self.waits.iter().map(|waiter| waiter.deadline_ms))
            .min()
    }

    pub(super) fn expire(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        while let Some(deadline_ms) = self.next_deadline().filter(|at| *at <= now_ms) {
            if let Some(at) = self.waits.iter().position(|w| w.deadline_ms == deadline_ms) {
                self.time_out(at);
            } else {
                let leases = self.holds.iter().enumerate();
                let first = leases
                    .filter(|(_, hold)| self.end_of(hold) == deadline_ms)
                    .min_by_key(|(_, hold)| (hold.deadline_ms, hold.token));
                let (at, _) = first.expect("something is over");
                self.end_hold(at, false);
            }
        }
        self.ended.retain(|(_, _, until_ms)| *until_ms > now_ms);
        self.forget_idle_owners();
    }

    /// `reported`: the deadlocks that the real table found in this step; the model checks each and
    /// then follows, since more than one cycle may be there to choose from.
    pub(super) fn apply(&mut self, command: &Command, reported: &[Deadlock]) -> Outcome {
        let outcome = match command {
            Command::Acquire(request) => self.acquire(request, reported),
            Command::Release { resource, token } => match self.held(resource, *token) {
                Some(at) => {
                    self.end_hold(at, true);
                    Outcome::Released
                }
                None => Outcome::NotHolder,
            },
            Command::Renew {
                resource,
                token,
                ttl_ms,
            } => match self.held(resource, *token) {
                Some(at) => {
                    let ttl_ms = ttl_ms.unwrap_or(self.holds[at].ttl_ms);
                    self.holds[at].ttl_ms = ttl_ms;
                    self.holds[at].deadline_ms = self.now_ms + ttl_ms;
                    let expires_in_ms = self.end_of(&self.holds[at]) - self.now_ms;
                    Outcome::Renewed { expires_in_ms }
                }
                None => Outcome::NotHolder,
            },
        };
        self.forget_idle_owners();
        outcome
    }

    pub(super) fn get(&self, resource: &str) -> LockView {
        let waits = self.waits.iter().filter(|w| w.request.resource == resource);
        LockView {
            holders: self.holders(resource),
            waiters: waits
                .map(|w| WaiterView {
                    owner: w.request.owner.clone(),
                    mode: w.request.mode,
                    waited_ms: self.now_ms - w.since_ms,
                    request_id: w.request.request_id.clone(),
                })
                .collect(),
        }
    }

    fn acquire(&mut self, request: &Acquire, reported: &[Deadlock]) -> Outcome {
        if let Some(answer) = self.repeat(request) {
            return answer;
        }
        let mine = |hold: &Hold| {
            hold.request.owner == request.owner && hold.request.resource == request.resource
        };
        if let Some(at) = self.holds.iter().position(mine) {
            return self.acquire_again(at, request);
        }
        let queued = self
            .waits
            .iter()
            .any(|w| w.request.resource == request.resource);
        if !queued && self.admits(request) {
            return Outcome::Acquired(self.grant(request.clone(), 0));
        }
        let Some(wait) = &request.wait else {
            return Outcome::Held(self.contention(&request.resource));
        };
        let mine = self.waits.iter().find(|w| w.request.owner == request.owner);
        if let Some(waiter) = mine {
            let resource = waiter.request.resource.clone();
            return Outcome::AlreadyWaiting { resource };
        }
        self.note_owner(&request.owner);
        self.waits.push(Waiter {
            request: request.clone(),
            reply: wait.reply.clone(),
            since_ms: self.now_ms,
            deadline_ms: self.now_ms + wait.wait_ms,
        });
        self.break_cycles(request, reported)
    }

    fn repeat(&mut self, request: &Acquire) -> Option<Outcome> {
        let id = request.request_id.as_ref()?;
        let same = |of: &Acquire, known: &String| of.owner == request.owner && known == id;
        let holding = self
            .holds
            .iter()
            .position(|h| h.ids.iter().any(|k| same(&h.request, k)));
        let waiting = self.waits.iter().position(|w| {
            w.request
                .request_id
                .as_ref()
                .is_some_and(|known| same(&w.request, known))
        });
        let ended = self.ended.iter().find(|(of, known, _)| same(of, known));
        let of = match (holding, waiting, ended) {
            (Some(at), None, None) => &self.holds[at].request,
            (None, Some(at), None) => &self.waits[at].request,
            (None, None, Some((of, ..))) => of,
            (None, None, None) => return None,
            _ => panic!("an id means two things"),
        };
        let mismatch = |field: &str| {
            Some(Outcome::RequestMismatch {
                field: field.into(),
            })
        };
        if of.resource != request.resource {
            return mismatch("resource");
        }
        if of.mode != request.mode {
            return mismatch("mode");
        }
        Some(match (holding, waiting, &request.wait) {
            (Some(at), ..) => Outcome::Acquired(self.acquired(&self.holds[at])),
            (_, Some(at), Some(wait)) => {
                self.waits[at].reply = wait.reply.clone();
                self.waits[at].deadline_ms = self.now_ms + wait.wait_ms;
                Outcome::Waiting
            }
            (_, Some(at), None) => {
                self.waits.remove(at);
                let contention = self.contention(&request.resource);
                self.let_through(&request.resource);
                Outcome::Held(contention)
            }
            _ => Outcome::NotHolder,
        })
    }

    fn acquire_again(&mut self, at: usize, request: &Acquire) -> Outcome {
        let (now_ms, hold) = (self.now_ms, &mut self.holds[at]);
        if hold.request.mode != request.mode {
            return Outcome::ModeConflict {
                held: hold.request.mode,
                token: hold.token,
            };
        }
        hold.ttl_ms = hold.ttl_ms.max(request.ttl_ms);
        hold.deadline_ms = hold.deadline_ms.max(now_ms + hold.ttl_ms);
        hold.ids.extend(request.request_id.clone());
        let acquired = self.acquired(&self.holds[at]);
        Outcome::Acquired(Acquired {
            waited_ms: 0,
            ..acquired
        })
    }

    fn grant(&mut self, request: Acquire, waited_ms: u64) -> Acquired {
        self.note_owner(&request.owner);
        self.last_token += 1;
        let token = Token(self.last_token);
        self.effects.push(Effect::Event(Event::Granted {
            resource: request.resource.clone(),
            owner: request.owner.clone(),
            token,
            mode: request.mode,
            waited_ms,
        }));
        let hold = Hold {
            token,
            deadline_ms: self.now_ms + request.ttl_ms,
            granted_ms: self.now_ms,
            waited_ms,
            ttl_ms: request.ttl_ms,
            ids: request.request_id.iter().cloned().collect(),
            request,
        };
        let acquired = self.acquired(&hold);
        self.holds.push(hold);
        acquired
    }

    fn end_hold(&mut self, at: usize, released: bool) {
        let hold = self.holds.remove(at);
        let (resource, owner) = (hold.request.resource.clone(), hold.request.owner.clone());
        let (token, held_ms) = (hold.token, self.now_ms - hold.granted_ms);
        self.effects.push(Effect::Event(match released {
            true => Event::Released {
                resource,
                owner,
                token,
                held_ms,
            },
            false => Event::Expired {
                resource,
                owner,
                token,
                held_ms,
            },
        }));
        let until_ms = self.now_ms + REMEMBERED_MS;
        let ids = hold.ids.into_iter();
        self.ended
            .extend(ids.map(|id| (hold.request.clone(), id, until_ms)));
        self.let_through(&hold.request.resource);
    }

    fn time_out(&mut self, at: usize) {
        let waiter = self.waits.remove(at);
        let contention = self.contention(&waiter.request.resource);
        self.tell(
            (waiter.reply, waiter.since_ms),
            Outcome::WaitTimeout(contention),
        );
        self.let_through(&waiter.request.resource);
    }

    pub(super) fn let_through(&mut self, resource: &str) {
        while let Some(at) = self
            .waits
            .iter()
            .position(|w| w.request.resource == resource)
        {
            if self.waits[at].deadline_ms <= self.now_ms {
                return self.time_out(at);
            }
            if !self.admits(&self.waits[at].request) {
                return;
            }
            let waiter = self.waits.remove(at);
            let acquired = self.grant(waiter.request, self.now_ms - waiter.since_ms);
            self.tell((waiter.reply, waiter.since_ms), Outcome::Acquired(acquired));
        }
    }

    fn admits(&self, request: &Acquire) -> bool {
        let mut holds = self
            .holds
            .iter()
            .filter(|h| h.request.resource == request.resource);
        holds.all(|hold| (hold.request.mode, request.mode) == (Mode::Shared, Mode::Shared))
    }

    fn contention(&self, resource: &str) -> Contention {
        Contention {
            resource: resource.to_owned(),
            holders: self.holders(resource),
            queue_length: self.queue_length(resource),
        }
    }

    fn holders(&self, resource: &str) -> Vec<HolderView> {
        let here =
            |hold: &&Hold| hold.request.resource == resource && self.end_of(hold) > self.now_ms;
        let view = |hold: &Hold| HolderView {
            owner: hold.request.owner.clone(),
            token: hold.token,
            mode: hold.request.mode,
            expires_in_ms: self.end_of(hold) - self.now_ms,
            held_ms: self.now_ms - hold.granted_ms,
            meta: hold.request.meta.clone(),
        };
        self.holds.iter().filter(here).map(view).collect()
    }

    pub(super) fn queue_length(&self, resource: &str) -> u64 {
        self.waits
            .iter()
            .filter(|w| w.request.resource == resource)
            .count() as u64
    }

    fn acquired(&self, hold: &Hold) -> Acquired {
        Acquired {
            resource: hold.request.resource.clone(),
            owner: hold.request.owner.clone(),
            token: hold.token,
            mode: hold.request.mode,
            expires_in_ms: self.end_of(hold) - self.now_ms,
            waited_ms: hold.waited_ms,
        }
    }

    pub(super) fn held(&self, resource: &str, token: Token) -> Option<usize> {
        let same = |hold: &Hold| hold.request.resource == resource && hold.token == token;
        self.holds.iter().position(same)
    }

    pub(super) fn wait_of(&self, owner: &str) -> Option<usize> {
        self.waits
            .iter()
            .position(|waiter| waiter.request.owner == owner)
    }

    fn end_of(&self, hold: &Hold) -> u64 {
        hold.deadline_ms.max(self.floor_ms)
    }

    pub(super) fn tell(&mut self, (reply, since_ms): (ReplyTo, u64), outcome: Outcome) {
        let waited_ms = self.now_ms - since_ms;
        self.effects.push(Effect::WaitEnded {
            reply,
            waited_ms,
            outcome,
        });
    }

    fn note_owner(&mut self, owner: &str) {
        self.seen += 1;
        self.ages.entry(owner.to_owned()).or_insert(self.seen);
    }

    fn forget_idle_owners(&mut self) {
        let holds = self.holds.iter().map(|hold| &hold.request);
        let waits = self.waits.iter().map(|waiter| &waiter.request);
        let ended = self.ended.iter().map(|(request, ..)| request);
        let requests = holds.chain(waits).chain(ended);
        let busy: BTreeSet<_> = requests.map(|request| request.owner.clone()).collect();
        self.ages.retain(|owner, _| busy.contains(owner));
    }
}
