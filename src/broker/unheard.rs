//! Grants that nobody heard of are given back.
//!
//! A client that asks through an inbox of its own and then goes away leaves its wait behind, and a
//! grant that nobody releases. So the leader publishes each grant of a wait with a reply subject: a
//! broker that knows of nobody at the client's inbox says so there, and the leader has the hold taken
//! back. The message was then delivered to nobody, in a cluster of brokers too: a broker says so only
//! when none of its connections and none of the brokers that it knows has asked for the subject. The
//! command is void once the client has shown that it heard, or a later leader has told the grant
//! again ([`Hold::unheard_in`](crate::lock)).
//!
//! After this node's own connection was made anew nobody counts as gone until the others have had the time to
//! come back too ([`SETTLE`]). A client that misses its grant asks again, and finds it by its `request_id`; one
//! that is gone holds the lock until the end of the lease.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::interval;

use crate::broker::reconnects::Reconnects;
use crate::broker::{SharedBroker, SubscribeError};
use crate::ids::{NodeId, Token};
use crate::lock::command::Command;
use crate::protocol::Prefix;
use crate::raft;
use crate::raft::handle::Handle;
use crate::raft::proposals::{Role, Submission, Ticket};
use crate::time;

/// Answers of brokers not yet looked at; what is beyond is lost, and the lease ends the hold.
const ANSWERS_MAX: usize = 8_192;
/// How long the command waits for room in the log.
const KEPT: Duration = Duration::from_secs(5);
/// After this node's connection was made anew: longer than the pauses between two attempts of clients, which are
/// of 2 seconds in most libraries.
const SETTLE: Duration = Duration::from_secs(5);
/// How often it is looked at whether the connection was made anew.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where brokers say that nobody heard of a grant.
#[derive(Clone, Debug)]
pub struct Unheard {
    /// `<prefix>.int.unheard.<node>`
    inbox: String,
}

impl Unheard {
    pub fn new(me: NodeId, prefix: &Prefix) -> Self {
        Unheard {
            inbox: format!("{prefix}.int.unheard.{me}"),
        }
    }

    /// The reply subject of the news of a grant.
    pub fn reply_of(&self, token: Token) -> String {
        format!("{}.{token}", self.inbox)
    }

    /// Listens, until `stopped`.
    ///
    /// # Errors
    /// When the broker refuses the subscription.
    pub async fn listen(
        &self,
        broker: &SharedBroker,
        handle: Handle,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), SubscribeError> {
        let subject = format!("{}.*", self.inbox);
        let mut answers = broker.subscribe(subject, ANSWERS_MAX).await?;
        let mut reconnects = Reconnects::new(broker.connects());
        let broker = broker.clone();
        tokio::spawn(async move {
            let mut look = interval(LOOK_EVERY);
            let mut is_settled = || {
                let last = reconnects.last(broker.connects());
                last.is_none_or(|last| time::now() >= last + SETTLE)
            };
            loop {
                tokio::select! {
                    answer = answers.next() => match answer {
                        Some(answer) if answer.no_responders && is_settled() => {
                            give_back(&handle, &answer.subject);
                        }
                        Some(_) => {}
                        None => return,
                    },
                    _ = look.tick() => {
                        is_settled();
                    }
                    _ = stopped.changed() => return,
                }
            }
        });
        Ok(())
    }
}

fn give_back(handle: &Handle, subject: &str) {
    let token = subject.rsplit('.').next();
    let Some(token) = token.and_then(|token| token.parse().ok()).map(Token) else {
        return;
    };
    if !matches!(handle.role(), Role::Leader { .. }) {
        return;
    }
    tracing::info!(%token, "the client is gone: its grant is given back");
    handle.submit(Submission {
        command: raft::command::Command::Lock(Command::GiveBack { token }),
        ticket: Ticket::Nobody,
        deadline: time::now() + KEPT,
    });
}
