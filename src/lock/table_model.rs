//! A naive lock table to compare the real one with: plain lists, every question answered by looking
//! at everything. How holds and waits end is in [`super::table_model_ends`], the wait-for graph from
//! all pairs in [`super::table_oracle`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Name;
use super::claim::{Grip, Want, Wants};
use super::command::*;
use super::event::{Effect, Event};
use super::limits::Limits;
use super::outcome::*;
use crate::ids::Token;
use crate::protocol::ReplyTo;

#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) request: Acquire,
    pub(super) wants: Wants,
    pub(super) token: Token,
    pub(super) deadline_ms: Option<u64>,
    pub(super) granted_ms: u64,
    pub(super) waited_ms: u64,
    pub(super) ttl_ms: Option<u64>,
    /// The requests with ids that were answered with it.
    pub(super) ids: Vec<Acquire>,
    pub(super) unheard: bool,
    pub(super) converted_from: Option<Token>,
}

#[derive(Clone, Debug)]
pub(super) struct Waiter {
    /// Of a conversion: the resource in its new mode.
    pub(super) request: Acquire,
    pub(super) converts: Option<Token>,
    pub(super) reply: ReplyTo,
    pub(super) since_ms: u64,
    pub(super) deadline_ms: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) open: OpenSession,
    pub(super) deadline_ms: u64,
    /// Over from now on, while its parts end.
    pub(super) over: bool,
}

/// A request with an id whose grant has ended, and when it is forgotten.
type Ended = (Acquire, u64);

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) limits: Limits,
    pub(super) now_ms: u64,
    pub(super) floor_ms: u64,
    pub(super) last_token: u64,
    pub(super) holds: Vec<Hold>,
    /// In the order of service.
    pub(super) waits: Vec<Waiter>,
    pub(super) sessions: BTreeMap<Name, Session>,
    pub(super) gone: BTreeMap<Name, u64>,
    pub(super) closed: BTreeMap<Name, u64>,
    pub(super) ended: Vec<Ended>,
    seen: u64,
    pub(super) ages: BTreeMap<Name, u64>,
    pub(super) effects: Vec<Effect>,
}

impl Model {
    pub(super) fn new(limits: Limits) -> Self {
        Model {
            limits,
            ..Model::default()
        }
    }

    /// The live tokens with what they stand for, oldest first.
    pub(super) fn tokens(&self) -> Vec<(Wants, Token)> {
        let mut tokens: Vec<_> = self
            .holds
            .iter()
            .map(|h| (h.wants.clone(), h.token))
            .collect();
        tokens.sort_by_key(|(_, token)| *token);
        tokens
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn start_term(&mut self, grace_ms: u64) {
        for hold in &mut self.holds {
            hold.unheard = false;
        }
        self.floor_ms = self.floor_ms.max(self.now_ms + grace_ms);
    }

    /// `reported`: the deadlocks that the real table found in this step; the model checks each and
    /// then follows, since more than one cycle may be there to choose from.
    pub(super) fn apply(&mut self, command: &Command, reported: &[Arc<Deadlock>]) -> Outcome {
        let outcome = match command {
            Command::Acquire(request) => self.acquire(request, reported),
            Command::Release {
                resource, token, ..
            } => match self.named(resource.as_ref(), *token) {
                Some(at) => {
                    self.end_hold(at, &End::Willing);
                    Outcome::Released
                }
                None => Outcome::NotHolder,
            },
            Command::Renew {
                resource,
                token,
                ttl_ms,
                ..
            } => match self.named(resource.as_ref(), *token) {
                Some(at) => {
                    let ttl_ms = ttl_ms.or(self.holds[at].ttl_ms);
                    self.set_lease(at, ttl_ms);
                    let expires_in_ms = self.end_of(&self.holds[at]) - self.now_ms;
                    Outcome::Renewed { expires_in_ms }
                }
                None => Outcome::NotHolder,
            },
            Command::Convert(request) => self.convert(request, reported),
            Command::Cancel {
                resource,
                owner,
                request_id,
                session,
            } => self.cancel((resource, owner), request_id.as_ref(), session.as_ref()),
            Command::GiveBack { token } => match self.held(*token) {
                Some(at) if self.holds[at].unheard => {
                    self.end_hold(at, &End::GivenBack);
                    Outcome::Released
                }
                _ => Outcome::NotHolder,
            },
            Command::OpenSession(open) => self.open_session(open),
            Command::KeepAlive { sessions } => self.keep_alive(sessions),
            Command::CloseSession { session, reason } => self.close(session, reason.as_ref()),
            Command::ForceRelease {
                resource,
                token,
                reason,
            } => self.force_release(resource, *token, reason),
        };
        self.forget_idle_owners();
        for waiter in &self.waits {
            assert!(
                self.blocked_on(waiter).is_some(),
                "left waiting: {waiter:?}"
            );
        }
        outcome
    }

    pub(super) fn get(&self, resource: &str) -> LockView {
        let waits = self.waits.iter();
        LockView {
            holders: self.holders(resource),
            waiters: waits
                .filter_map(|w| {
                    Some(WaiterView {
                        owner: w.request.owner.clone(),
                        grip: w.request.wants.grip_of(resource)?,
                        session: w.request.session.clone(),
                        waited_ms: self.now_ms - w.since_ms,
                        request_id: w.request.request_id.clone(),
                    })
                })
                .collect(),
            held: None,
            waiting: None,
            delay_ms: self.delay_ms(resource),
        }
    }

    fn acquire(&mut self, request: &Acquire, reported: &[Arc<Deadlock>]) -> Outcome {
        if let Some(answer) = self.repeat(request) {
            return answer;
        }
        if let Some(refusal) = request
            .session
            .as_ref()
            .and_then(|id| self.session_refusal(id))
        {
            return refusal;
        }
        if let Some(answer) = self.answer_to_holder(request) {
            return answer;
        }
        let wants = request.wants.iter();
        if let Some(mismatch) = wants.clone().find_map(|want| self.limit_mismatch(want)) {
            return mismatch;
        }
        let blocking = wants.clone().find(|want| {
            let waits = self.waits.iter();
            let before = waits.filter_map(|w| w.request.wants.grip_of(&want.resource));
            !self.admits(want, None) || before.clone().any(|other| conflict(other, want.grip))
        });
        let Some(blocking) = blocking else {
            return match self.claims_over_limit(request) {
                Some(refusal) => refusal,
                None => Outcome::Acquired(self.grant(request.clone(), None)),
            };
        };
        let Some(wait) = request.wait.as_ref().filter(|wait| wait.wait_ms > 0) else {
            return Outcome::Held(self.contention(&blocking.resource));
        };
        self.start_wait(request, None, wait, reported)
    }

    pub(super) fn start_wait(
        &mut self,
        request: &Acquire,
        converts: Option<Token>,
        wait: &Wait,
        reported: &[Arc<Deadlock>],
    ) -> Outcome {
        if let Some(at) = self.wait_of(&request.owner) {
            return self.already_waiting(at);
        }
        if let Some(refusal) = self.claims_over_limit(request) {
            return refusal;
        }
        self.note_owner(&request.owner);
        let conversions = self.waits.iter().filter(|w| w.converts.is_some()).count();
        let at = converts.map_or(self.waits.len(), |_| conversions);
        self.waits.insert(
            at,
            Waiter {
                request: request.clone(),
                converts,
                reply: wait.reply.clone(),
                since_ms: self.now_ms,
                deadline_ms: self.now_ms + wait.wait_ms,
            },
        );
        self.break_cycles(request, reported)
    }

    fn repeat(&mut self, request: &Acquire) -> Option<Outcome> {
        let id = request.request_id.as_ref()?;
        let same = |of: &&Acquire| of.owner == request.owner && of.request_id.as_ref() == Some(id);
        let mut held = self.holds.iter().enumerate();
        let holding = held.find_map(|(at, h)| Some((at, h.ids.iter().find(same)?)));
        let waiting = self.waits.iter().position(|w| same(&&w.request));
        let ended = self.ended.iter().map(|(of, _)| of).find(same);
        let of = match (holding, waiting, ended) {
            (Some((_, of)), None, None) => of,
            (None, Some(at), None) => &self.waits[at].request,
            (None, None, Some(of)) => of,
            (None, None, None) => return None,
            _ => panic!("an id means two things"),
        };
        if of.wants != request.wants {
            let field = match (&of.wants, &request.wants) {
                (Wants::One(a), Wants::One(b)) if a.resource != b.resource => "resource",
                (Wants::One(a), Wants::One(b)) if a.grip.mode() != b.grip.mode() => "mode",
                (Wants::One(a), Wants::One(b)) if a.grip.permits() != b.grip.permits() => "permits",
                (Wants::One(_), Wants::One(_)) => "limit",
                _ => "resources",
            };
            return Some(Outcome::RequestMismatch {
                field: field.into(),
            });
        }
        let session = match (holding, waiting) {
            (Some((at, _)), _) => Some(&self.holds[at].request.session),
            (_, Some(at)) => Some(&self.waits[at].request.session),
            _ => None,
        };
        if session.is_some_and(|session| *session != request.session) {
            let field = "session".into();
            return Some(Outcome::RequestMismatch { field });
        }
        let lasting = request.wait.as_ref().filter(|wait| wait.wait_ms > 0);
        Some(match (holding, waiting, lasting) {
            (Some((at, _)), ..) => {
                self.holds[at].unheard = false;
                Outcome::Acquired(self.acquired(&self.holds[at]))
            }
            (_, Some(at), Some(wait)) => self.reattach(at, wait),
            (_, Some(at), None) => self.give_up(at, request.wait.as_ref()),
            _ => Outcome::NotHolder,
        })
    }

    pub(super) fn reattach(&mut self, at: usize, wait: &Wait) -> Outcome {
        self.waits[at].reply = wait.reply.clone();
        self.waits[at].deadline_ms = self.now_ms + wait.wait_ms;
        Outcome::Waiting
    }

    fn answer_to_holder(&mut self, request: &Acquire) -> Option<Outcome> {
        for want in request.wants.iter() {
            let mine = |hold: &Hold| {
                hold.request.owner == request.owner && hold.wants.grip_of(&want.resource).is_some()
            };
            let Some(at) = self.holds.iter().position(mine) else {
                continue;
            };
            if self.holds[at].wants == request.wants {
                return Some(self.acquire_again(at, request));
            }
            let held = self.holds[at].wants.grip_of(&want.resource).unwrap();
            return Some(Outcome::ModeConflict {
                resource: want.resource.clone(),
                held: held.mode(),
                token: self.holds[at].token,
            });
        }
        let at = self.wait_of(&request.owner)?;
        let waits_for = &self.waits[at].request.wants;
        let mut both = request.wants.iter();
        let overlaps = both.any(|want| waits_for.grip_of(&want.resource).is_some());
        (overlaps && waits_for.is_set()).then(|| self.already_waiting(at))
    }

    fn acquire_again(&mut self, at: usize, request: &Acquire) -> Outcome {
        let hold = &self.holds[at];
        if let Some(session) = &request.session
            && hold.request.session != request.session
            && let Some(refusal) = self.session_over_limit(session, request.wants.as_slice().len())
        {
            return refusal;
        }
        let ttl_ms = match (hold.ttl_ms, request.ttl_ms) {
            (_, asked) if hold.request.session != request.session => asked,
            (None, _) => None,
            (held, asked) => held.max(asked),
        };
        self.holds[at].request.session = request.session.clone();
        self.set_lease(at, ttl_ms);
        if request.request_id.is_some() {
            self.holds[at].ids.push(request.clone());
        }
        let acquired = self.acquired(&self.holds[at]);
        Outcome::Acquired(Acquired {
            waited_ms: 0,
            ..acquired
        })
    }

    fn limit_mismatch(&self, want: &Want) -> Option<Outcome> {
        let Grip::Permits { limit, .. } = want.grip else {
            return None;
        };
        let held = self.holds.iter().map(|hold| &hold.wants);
        let wanted = self.waits.iter().map(|waiter| &waiter.request.wants);
        let mut used =
            held.chain(wanted)
                .filter_map(|wants| match wants.grip_of(&want.resource)? {
                    Grip::Permits { limit, .. } => Some(limit),
                    _ => None,
                });
        let other = used.find(|used| *used != limit)?;
        Some(Outcome::LimitMismatch {
            resource: want.resource.clone(),
            limit: other,
        })
    }

    fn cancel(
        &mut self,
        (resource, owner): (&Name, &Name),
        id: Option<&Name>,
        session: Option<&Name>,
    ) -> Outcome {
        let of_session = |of: &Acquire| session.is_none() || of.session.as_ref() == session;
        let meant = |at: &usize| {
            let request = &self.waits[*at].request;
            let same_id = id.is_none() || request.request_id.as_ref() == id;
            same_id && of_session(request) && request.wants.grip_of(resource).is_some()
        };
        if let Some(at) = self.wait_of(owner).filter(meant) {
            let outcome = Outcome::WaitCancelled {
                resource: resource.clone(),
            };
            self.end_wait(at, outcome);
            return Outcome::Cancelled {
                cancelled: true,
                token: None,
            };
        }
        let of_owner = |hold: &&Hold| hold.request.owner == *owner;
        let mut holds = self.holds.iter().filter(of_owner);
        let hold = match id {
            Some(id) => holds.find(|hold| {
                let mut ids = hold.ids.iter();
                let is_meant = hold.wants.grip_of(resource).is_some();
                is_meant && ids.any(|of| of.request_id.as_ref() == Some(id))
            }),
            None => holds.find(|hold| hold.wants.grip_of(resource).is_some()),
        };
        let hold = hold.filter(|hold| of_session(&hold.request));
        Outcome::Cancelled {
            cancelled: false,
            token: hold.map(|hold| hold.token),
        }
    }

    pub(super) fn already_waiting(&self, at: usize) -> Outcome {
        let resource = self.waits[at].request.wants.as_slice()[0].resource.clone();
        Outcome::AlreadyWaiting { resource }
    }

    pub(super) fn wait_of(&self, owner: &Name) -> Option<usize> {
        self.waits.iter().position(|w| w.request.owner == *owner)
    }

    pub(super) fn held(&self, token: Token) -> Option<usize> {
        self.holds.iter().position(|hold| hold.token == token)
    }

    fn named(&self, resource: Option<&Name>, token: Token) -> Option<usize> {
        let at = self.held(token)?;
        let wants = &self.holds[at].wants;
        let named = |resource| !wants.is_set() && wants.grip_of(resource).is_some();
        resource
            .is_none_or(|resource| named(resource))
            .then_some(at)
    }

    pub(super) fn note_owner(&mut self, owner: &Name) {
        self.seen += 1;
        self.ages.entry(owner.clone()).or_insert(self.seen);
    }

    pub(super) fn forget_idle_owners(&mut self) {
        let holds = self.holds.iter().map(|hold| &hold.request);
        let waits = self.waits.iter().map(|waiter| &waiter.request);
        let ended = self.ended.iter().map(|(request, ..)| request);
        let requests = holds.chain(waits).chain(ended);
        let busy: BTreeSet<_> = requests.map(|request| request.owner.clone()).collect();
        self.ages.retain(|owner, _| busy.contains(owner));
    }

    pub(super) fn event(&mut self, event: Event) {
        self.effects.push(Effect::Event(event));
    }
}

/// How a hold ends.
pub(super) enum End {
    Willing,
    GivenBack,
    Expired,
    Forced(Name),
}

/// Whether two claims to one resource exclude each other, permits aside that are to be counted.
pub(super) fn conflict(a: Grip, b: Grip) -> bool {
    (a, b) != (Grip::Shared, Grip::Shared)
}
