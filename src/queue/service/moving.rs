//! Pops that wait, when their topic is another node's or this node stops.
//!
//! A pop that another node handed on to this one is kept there. It has to end here, and be told to
//! have ended, or to be handed on from here, or to be left to that node: in each case by one of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::{Kept, QueueService, Shape, Shared, Ticket, lock, reconfiguring};
use crate::broker::relay::{Keep, Keeper};
use crate::ids::Incarnation;
use crate::protocol::error::{Code, ErrorReply};
use crate::protocol::{Refusal, ReplyTo};
use crate::queue::owner::{Ask, Dismissed, Wanted};
use crate::time;
use crate::view::tenure::Stay;

/// The new owner of a topic may learn of the view that says so a moment later than this node did, and
/// would refuse what comes before that.
const HAND_ON_DELAY: Duration = Duration::from_millis(300);

impl QueueService {
    /// Gives up topics as soon as the view gives them to others, until `stopped`: a pop that waits here
    /// hears nothing of what is pushed there.
    pub(super) async fn follow_view(self, mut stopped: watch::Receiver<bool>) {
        let mut changed = self.0.parts.handle.view_changes();
        loop {
            tokio::select! {
                biased;
                _ = stopped.changed() => return,
                _ = changed.changed() => {}
            }
            let placement = self.0.placement();
            let moved = |name: &&Arc<str>| {
                let home = placement.home(name.as_bytes());
                home != Some(self.0.parts.me)
            };
            let moved: Vec<Arc<str>> = {
                let topics = lock(&self.0.topics);
                topics.keys().filter(moved).cloned().collect()
            };
            for name in &moved {
                self.0.give_up(name, false);
            }
        }
    }

    /// Tells the pops that wait here that this node is stopping: another one takes them.
    pub fn dismiss(&self) {
        let waiting: Vec<(Arc<str>, Vec<Dismissed<Ticket>>)> = lock(&self.0.topics)
            .iter_mut()
            .map(|(name, topic)| (name.clone(), topic.owner.dismiss(|_| true)))
            .collect();
        let refusal = ErrorReply::new(Code::ShuttingDown, "this node is stopping; ask another");
        for (name, dismissed) in waiting {
            for one in dismissed {
                match one {
                    Dismissed::Waits(ticket, _) => self.0.refuse_ticket(&ticket, &refusal),
                    Dismissed::Done(ticket, told) => self.0.tell(&name, ticket, told),
                }
            }
        }
    }
}

impl Shared {
    /// The topic is another node's: what was not begun is refused, and pops that wait are handed on.
    pub(super) fn give_up(self: &Arc<Self>, name: &Arc<str>, ends_runner: bool) {
        let (pending, waiting) = {
            let mut topics = lock(&self.topics);
            let Some(topic) = topics.get_mut(name) else {
                return;
            };
            topic.runners -= usize::from(ends_runner);
            let given_up = topic.owner.abandon();
            if topic.owner.is_idle() && topic.runners == 0 {
                topics.remove(name);
            }
            given_up
        };
        for ticket in pending {
            self.refuse_ticket(&ticket, &reconfiguring());
        }
        let mut on = Vec::new();
        for one in waiting {
            match one {
                Dismissed::Waits(ticket, wanted) => on.push((ticket, wanted)),
                Dismissed::Done(ticket, told) => self.tell(name, ticket, told),
            }
        }
        if !on.is_empty() {
            self.moving.fetch_add(1, Ordering::AcqRel);
            tokio::spawn(self.clone().hand_on(name.clone(), on));
        }
    }

    /// Hands pops that wait to the node that owns their topic now.
    async fn hand_on(self: Arc<Self>, name: Arc<str>, waiting: Vec<(Ticket, Wanted)>) {
        tokio::time::sleep(HAND_ON_DELAY).await;
        self.hand_on_now(&name, waiting);
        self.moving.fetch_sub(1, Ordering::AcqRel);
    }

    fn hand_on_now(self: &Arc<Self>, name: &Arc<str>, waiting: Vec<(Ticket, Wanted)>) {
        let home = self.placement().home(name.as_bytes());
        let executor = home.and_then(|node| {
            let member = self
                .parts
                .handle
                .read(|state, _| state.view.latest_member(node))?;
            let incarnation = member.incarnation;
            Some(Stay { node, incarnation })
        });
        let stay = self.stay();
        for (ticket, wanted) in waiting {
            let Shape::Pop(kept) = &ticket.shape else {
                self.refuse_ticket(&ticket, &reconfiguring());
                continue;
            };
            if ticket.keeper.is_some() && kept.stay != stay {
                // This node was out of the view, and whoever keeps the pop has handed it on again.
                continue;
            }
            let result = match executor {
                Some(executor) if executor.node == self.parts.me && kept.deadline > time::now() => {
                    self.submit(name, Some(ticket), Ask::Pop(wanted));
                    continue;
                }
                Some(executor) if executor.node != self.parts.me => {
                    self.send_on(kept, &ticket, executor)
                }
                _ => Err(reconfiguring()),
            };
            match result {
                // From now on it is kept here.
                Ok(()) => self.ended(ticket.keeper),
                Err(refusal) => self.refuse_ticket(&ticket, &refusal),
            }
        }
    }

    fn send_on(&self, kept: &Kept, ticket: &Ticket, executor: Stay) -> Result<(), Refusal> {
        // The relay adds the trace.
        let incoming = kept.letter.incoming(&ticket.to.subject, None);
        let keep = Keep {
            executor,
            wait_until: kept.deadline,
            again: true,
        };
        let way = (&ticket.to, kept.deadline);
        self.parts.relay.send_kept(keep, &incoming, way)
    }

    /// Which stay of this node in the view it is.
    pub(super) fn stay(&self) -> Option<Incarnation> {
        let member = self
            .parts
            .handle
            .read(|state, _| state.view.latest_member(self.parts.me));
        member.map(|member| member.incarnation)
    }

    /// Forgets the pops of one client that wait here: the same request has come on another road.
    pub(super) fn forget_waiting(&self, topic: Option<&str>, to: &ReplyTo) {
        let mut topics = lock(&self.topics);
        let Some(topic) = topic.and_then(|name| topics.get_mut(name)) else {
            return;
        };
        let same = topic.owner.dismiss(|ticket| ticket.to == *to);
        drop(topics);
        for one in same {
            let (Dismissed::Waits(ticket, _) | Dismissed::Done(ticket, _)) = one;
            self.ended(ticket.keeper);
        }
    }

    /// Tells the node that keeps a request, if one does, that it has ended here.
    pub(super) fn ended(&self, keeper: Option<Keeper>) {
        if let Some(keeper) = keeper {
            self.parts.relay.ended(keeper);
        }
    }
}
