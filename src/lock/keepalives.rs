//! Keepalives of many sessions, gathered so that they cost few commands.
//!
//! The first one goes at once; those that come within [`GATHER`] after it go together, and so on: a
//! node sends no more than one command each [`GATHER`], or one for every [`SESSIONS_MAX`] sessions. One
//! whose client does not wait that long goes by itself.
//!
//! Each is answered by its own deadline. A command that has no outcome by the first of them is sent
//! again for the others: to keep a session alive twice is to keep it alive.

use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::lock::Name;
use crate::lock::answer::{session_expired, session_not_found};
use crate::lock::command::Command;
use crate::lock::outcome::{Kept, Outcome};
use crate::lock::service::not_decided;
use crate::protocol::session::KeptAlive;
use crate::protocol::{ErrorReply, Refusal};
use crate::raft;
use crate::raft::handle::Handle;
use crate::time::{self, Instant};

/// How long keepalives are gathered: short against the least length of a session.
const GATHER: Duration = Duration::from_millis(100);
/// Sessions that one command names: with names of 256 bytes it stays within an entry.
const SESSIONS_MAX: usize = 500;
/// Keepalives that wait at one node; further ones are refused.
const WAITING_MAX: usize = 65_536;

/// The keepalives of one node's clients; clones share them.
#[derive(Clone)]
pub struct Keepalives(Arc<Shared>);

struct Shared {
    handle: Handle,
    gathering: Mutex<Gathering>,
}

#[derive(Default)]
struct Gathering {
    waiting: Vec<Waiting>,
    /// Whether a task is about to send what waits.
    is_due: bool,
    sent_at: Option<Instant>,
}

struct Waiting {
    session: Name,
    deadline: Instant,
    answer: oneshot::Sender<Result<KeptAlive, Refusal>>,
}

/// What a keepalive that came has to begin.
enum Begins {
    /// It goes with those before it.
    Nothing,
    Gathering,
    Alone(Waiting),
}

impl Keepalives {
    pub fn new(handle: Handle) -> Self {
        Keepalives(Arc::new(Shared {
            handle,
            gathering: Mutex::default(),
        }))
    }

    /// `session.keepalive`; returns once it is in the log.
    ///
    /// # Errors
    /// When the session is over or was never there, and when the log did not decide in time.
    pub async fn keep(&self, session: String, deadline: Instant) -> Result<KeptAlive, Refusal> {
        let (answer, answered) = oneshot::channel();
        let begins = {
            let mut gathering = self.0.gathering.lock().expect("no holder panics");
            if gathering.waiting.len() >= WAITING_MAX {
                let what = "waiting keepalives";
                return Err(ErrorReply::overloaded(what, WAITING_MAX as u64).into());
            }
            let waiting = Waiting {
                session: session.into(),
                deadline,
                answer,
            };
            let goes_at = gathering.sent_at.map(|at| at + GATHER);
            match goes_at.is_some_and(|at| at >= deadline) {
                true => Begins::Alone(waiting),
                false => {
                    gathering.waiting.push(waiting);
                    match mem::replace(&mut gathering.is_due, true) {
                        true => Begins::Nothing,
                        false => Begins::Gathering,
                    }
                }
            }
        };
        match begins {
            Begins::Nothing => {}
            Begins::Gathering => drop(tokio::spawn(self.clone().send_when_due())),
            Begins::Alone(waiting) => drop(tokio::spawn(self.clone().send(vec![waiting]))),
        }
        answered.await.unwrap_or_else(|_| {
            let lost = raft::proposals::Refusal::Indeterminate;
            Err(not_decided(lost))
        })
    }

    async fn send_when_due(self) {
        let sent_at = self.0.gathering.lock().expect("no holder panics").sent_at;
        if let Some(sent_at) = sent_at {
            tokio::time::sleep_until(sent_at + GATHER).await;
        }
        let mut waiting = {
            let mut gathering = self.0.gathering.lock().expect("no holder panics");
            gathering.is_due = false;
            gathering.sent_at = Some(time::now());
            mem::take(&mut gathering.waiting)
        };
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(SESSIONS_MAX));
            tokio::spawn(self.clone().send(waiting));
            waiting = rest;
        }
    }

    /// One command for all of them, as long as the most impatient of their clients waits; then another for
    /// the rest.
    async fn send(self, mut waiting: Vec<Waiting>) {
        let kept = loop {
            let Some(first) = waiting.iter().map(|of| of.deadline).min() else {
                return;
            };
            let sessions = waiting.iter().map(|of| of.session.clone()).collect();
            let timeout = first.saturating_duration_since(time::now());
            let command = raft::command::Command::Lock(Command::KeepAlive { sessions });
            let refusal = match self.0.handle.call(command, timeout).await {
                Ok(raft::state::Outcome::Lock(Outcome::KeptAlive(kept))) => break kept,
                Ok(other) => unreachable!("a keepalive is answered with {other:?}"),
                Err(refusal) => refusal,
            };
            let now = time::now();
            let goes_on = |of: &Waiting| of.deadline > now && is_of_time(refusal);
            let (rest, ended): (Vec<_>, Vec<_>) = waiting.into_iter().partition(goes_on);
            for of in ended {
                // A client that is gone needs no answer.
                let _ = of.answer.send(Err(not_decided(refusal)));
            }
            waiting = rest;
        };
        for (of, kept) in waiting.into_iter().zip(kept) {
            let answer = match kept {
                Kept::Alive { expires_in_ms } => Ok(KeptAlive { expires_in_ms }),
                Kept::Expired => Err(Box::new(session_expired(&of.session))),
                Kept::Unknown => Err(Box::new(session_not_found(&of.session))),
            };
            let _ = of.answer.send(answer);
        }
    }
}

/// Whether a command ended so since its time was up.
fn is_of_time(refusal: raft::proposals::Refusal) -> bool {
    use raft::proposals::Refusal;
    match refusal {
        Refusal::NoLeader | Refusal::Timeout | Refusal::Indeterminate => true,
        Refusal::Overloaded | Refusal::ShuttingDown => false,
    }
}
