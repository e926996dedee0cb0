//! As the node whose client has a wish: asks the leader, again and again, until it is fulfilled.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::refusals::{stopping, unfinished};
use super::{Answer, Membership, WISH};
use crate::protocol::Refusal;
use crate::protocol::cluster::Wish;
use crate::time::{self, Instant};

/// How long one question may take; without an answer the next leader is asked.
const ASK_MAX: Duration = Duration::from_secs(1);
/// How soon it is asked again where nobody leads.
const LEADER_RETRY: Duration = Duration::from_millis(25);

impl Membership {
    /// Whether every client of this node that wished something has its answer.
    pub fn is_idle(&self) -> bool {
        self.0.asked.load(Ordering::Relaxed) == 0
    }

    /// Answers those clients: this node stops.
    pub fn give_up(&self) {
        self.0.given_up.send_replace(true);
    }

    /// Has the leader fulfil a wish, whoever leads until `deadline`.
    ///
    /// # Errors
    /// What the leader refused; `no_leader`; `indeterminate` when the change takes longer than
    /// `deadline`, which does not end it.
    pub async fn ask(&self, wish: Wish, deadline: Instant) -> Result<Answer, Refusal> {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let mut begun = false;
        let mut given_up = self.0.given_up.subscribe();
        let answer = tokio::select! {
            biased;
            answer = self.ask_leaders(wish, deadline, &mut begun) => Some(answer),
            _ = given_up.wait_for(|given_up| *given_up) => None,
        };
        let answer = answer.unwrap_or_else(|| Err(stopping(begun)));
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
        answer
    }

    async fn ask_leaders(
        &self,
        wish: Wish,
        deadline: Instant,
        begun: &mut bool,
    ) -> Result<Answer, Refusal> {
        loop {
            let answer = self.ask_leader(wish, deadline).await;
            *begun |= matches!(answer, Some(Answer::Going));
            let mut busy = None;
            let pause = match answer {
                Some(Answer::Refused(refusal)) => return Err(refusal),
                Some(Answer::NotYet(refusal)) => {
                    busy = Some(refusal);
                    LEADER_RETRY
                }
                Some(Answer::Going) => Duration::ZERO,
                Some(Answer::NotLeader) | None => LEADER_RETRY,
                Some(answer) => return Ok(answer),
            };
            if time::now() + pause >= deadline {
                return Err(busy.unwrap_or_else(|| unfinished(*begun && wish != Wish::Know)));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask_leader(&self, wish: Wish, deadline: Instant) -> Option<Answer> {
        let me = self.0.network.identity().node;
        let leader = self.0.handle.leader()?;
        let timeout = ASK_MAX.min(deadline.saturating_duration_since(time::now()));
        if leader == me {
            let answer = tokio::time::timeout(timeout, self.take(wish, me)).await;
            return answer.ok();
        }
        let body = rmp_serde::to_vec(&wish).expect("wishes always encode");
        let answer = self.0.network.call(leader, WISH, body.into(), timeout);
        rmp_serde::from_slice(&answer.await.ok()?).ok()
    }
}
