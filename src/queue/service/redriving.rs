//! Dead messages on their way back to consumers: in their own topic, or in another one.
//!
//! Another topic may be another node's, and another server's of a Redis Cluster, so no script has both.
//! Messages are shown, pushed there on the road of clients' requests, and removed here once that push is
//! acknowledged. Whatever ends this in between leaves them in both topics, so that what is moved comes at
//! least once. Each is known there by a name of this very death, made of its topic, its number and the time, whatever
//! its own id: so a redrive that is repeated while the other topic knows these names moves none twice, and what that
//! topic takes for there already is there, or was, from this move and no other one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use xxhash_rust::xxh3::xxh3_64;

use super::acts::nonsense;
use super::{Body, Shared, reconfiguring};
use crate::protocol::error::{Code, ErrorReply, Outcome};
use crate::protocol::queue::{Act, Message, Push, Pushed, Redriven};
use crate::protocol::{Encoding, NAME_BYTES_MAX, Operation, Refusal, Tenant, reply};
use crate::queue::script::{Args, Reply, Script, Stored};

/// Messages that one call moves: Redis does nothing else meanwhile.
const STEP: u64 = 1_000;
/// How long the owner of another topic may take for one push.
const PUSH_MAX: Duration = Duration::from_secs(5);
/// What the script tells of a message that it shows.
const PARTS: usize = 5;

/// The road on which this node asks as a client does.
pub trait Road: Send + Sync + 'static {
    /// The answer to one request, in its encoding; none if there is none within `limit`. A tenant asks by the
    /// names that it knows.
    fn ask(
        &self,
        whose: Option<Tenant>,
        request: (Operation, Bytes),
        limit: Duration,
    ) -> BoxFuture<'_, Option<Bytes>>;
}

/// What the script does with the messages that are meant.
#[derive(Clone, Copy)]
enum Mode {
    Move,
    Count,
    Show,
    Remove,
}

/// Which of the dead messages, in the order in which they died, a call looks at.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Behind this one it begins.
    died_at_ms: u64,
    seq: u64,
    /// What dies later is not meant: else a redrive would not end where messages die again at once. 0: now.
    until_ms: u64,
}

/// What one call did.
struct Step {
    count: u64,
    /// That are left in the dead state.
    dead: u64,
    shown: Vec<Reply>,
    /// Where the next call goes on.
    next: Place,
    is_last: bool,
}

/// Which dead messages are meant.
#[derive(Default)]
struct Choice {
    /// None given: all.
    ids: Vec<String>,
    /// None given: all.
    seqs: Vec<u64>,
    reason_contains: String,
    dead_since_ms: u64,
    per_second: u64,
}

impl Choice {
    /// For the next call, behind a place, when so many were moved before.
    fn args(&self, mode: Mode, most: u64, (from, moved): (Place, u64)) -> Args {
        let mut args = Args::default();
        args.number(mode as u64);
        args.number(most);
        args.text(&self.reason_contains);
        args.number(self.dead_since_ms);
        args.number(self.per_second);
        args.number(moved);
        args.number(from.died_at_ms);
        args.number(from.seq);
        args.number(from.until_ms);
        args.number(self.ids.len() as u64);
        for id in &self.ids {
            args.text(id);
        }
        args.number(self.seqs.len() as u64);
        for seq in &self.seqs {
            args.number(*seq);
        }
        args
    }
}

/// A dead message on its way to another topic.
struct Dead {
    seq: u64,
    stored: Stored,
    priority: u64,
    group: Option<String>,
    died_at_ms: u64,
}

/// Another topic.
struct Other<'a> {
    topic: &'a str,
    /// Who asks: it is pushed there as they would.
    whose: Option<&'a Tenant>,
}

impl Shared {
    pub(super) async fn redrive(
        self: &Arc<Self>,
        topic: &Arc<str>,
        act: Act,
        whose: Option<&Tenant>,
    ) -> Result<Body, Refusal> {
        let Act::Redrive {
            ids,
            reason_contains,
            dead_since_ms,
            limit,
            per_second,
            dry_run,
            to,
        } = act
        else {
            unreachable!("it is asked for a redrive");
        };
        let choice = Choice {
            ids,
            seqs: Vec::new(),
            reason_contains,
            dead_since_ms,
            per_second,
        };
        // A rate holds for one step: what else is dead stays for another request.
        let limit = match per_second {
            0 => limit,
            _ => limit.min(STEP),
        };
        let redriven = match to.filter(|to| **to != **topic) {
            _ if dry_run => self.steps(topic, (&choice, Mode::Count), limit).await?,
            Some(to) => {
                let to = Other { topic: &to, whose };
                self.redrive_to(topic, &to, (&choice, limit)).await?
            }
            None => self.steps(topic, (&choice, Mode::Move), limit).await?,
        };
        Ok(Body::Redriven(redriven))
    }

    async fn step(self: &Arc<Self>, topic: &Arc<str>, args: Args) -> Result<Step, Refusal> {
        let mut done = self.change(topic, Script::Redrive, args).await?;
        let count = done.number().ok_or_else(nonsense)?;
        let dead = done.number().ok_or_else(nonsense)?;
        let shown = done.list().ok_or_else(nonsense)?;
        let next = Place {
            died_at_ms: done.number().ok_or_else(nonsense)?,
            seq: done.number().ok_or_else(nonsense)?,
            until_ms: done.number().ok_or_else(nonsense)?,
        };
        Ok(Step {
            count,
            dead,
            shown,
            next,
            is_last: next.seq == 0,
        })
    }

    /// Counts or moves as many as there are, up to a limit.
    async fn steps(
        self: &Arc<Self>,
        topic: &Arc<str>,
        (choice, mode): (&Choice, Mode),
        limit: u64,
    ) -> Result<Redriven, Refusal> {
        let (mut moved, mut from) = (0, Place::default());
        loop {
            let most = match mode {
                Mode::Count => limit - moved,
                _ => STEP.min(limit - moved),
            };
            let args = choice.args(mode, most, (from, moved));
            let step = self.step(topic, args).await;
            let step = step.map_err(|refusal| match mode {
                Mode::Count => refusal,
                _ => after(moved, refusal),
            })?;
            moved += step.count;
            if step.is_last || moved >= limit {
                let dead = step.dead;
                return Ok(Redriven { moved, dead });
            }
            from = step.next;
        }
    }

    async fn redrive_to(
        self: &Arc<Self>,
        topic: &Arc<str>,
        to: &Other<'_>,
        (choice, limit): (&Choice, u64),
    ) -> Result<Redriven, Refusal> {
        let mut moved = 0;
        let mut from = Place::default();
        loop {
            let most = STEP.min(limit - moved);
            let shown = self.show_dead(topic, (choice, most), from).await;
            let (page, step) = shown.map_err(|refusal| after(moved, refusal))?;
            let mut dead = step.dead;
            if !page.is_empty() {
                let seqs: Vec<u64> = page.iter().map(|dead| dead.seq).collect();
                let count = seqs.len() as u64;
                let messages = (moved..).zip(page).map(|(nth, dead)| {
                    let rest_ms = (nth * 1_000).checked_div(choice.per_second).unwrap_or(0);
                    dead.message(topic, rest_ms)
                });
                let pushed = self.push_to(to, messages.collect()).await;
                pushed.map_err(|refusal| after(moved, refusal))?;
                moved += count;
                let pushed = Choice {
                    seqs,
                    ..Choice::default()
                };
                // What was made ready meanwhile and died again is another death.
                let died = Place {
                    until_ms: step.next.until_ms,
                    ..Place::default()
                };
                let args = pushed.args(Mode::Remove, count, (died, 0));
                let removed = self.step(topic, args).await;
                dead = removed.map_err(|refusal| after(moved, refusal))?.dead;
            }
            if step.is_last || moved >= limit {
                return Ok(Redriven { moved, dead });
            }
            from = step.next;
        }
    }

    /// Some of the messages that are meant.
    async fn show_dead(
        self: &Arc<Self>,
        topic: &Arc<str>,
        (choice, most): (&Choice, u64),
        from: Place,
    ) -> Result<(Vec<Dead>, Step), Refusal> {
        let mut args = choice.args(Mode::Show, most, (from, 0));
        args.number(self.parts.answers.payload_max() as u64 / 2);
        let step = self.step(topic, args).await?;
        let page = step.shown.chunks_exact(PARTS).map(Dead::read);
        let page = page.collect::<Option<_>>().ok_or_else(nonsense)?;
        Ok((page, step))
    }

    /// Has the owner of another topic take messages, all of them or none.
    async fn push_to(&self, to: &Other<'_>, messages: Vec<Message>) -> Result<(), Refusal> {
        let road = self.road.get().ok_or_else(reconfiguring)?;
        let topic = match to.whose {
            Some(tenant) => tenant.outside(to.topic),
            None => to.topic,
        };
        let push = Push {
            topic: topic.to_owned(),
            messages,
            batch: true,
            require_durability: None,
            timeout_ms: Some(PUSH_MAX.as_millis() as u64),
        };
        let encoding = Encoding::MessagePack;
        let body = encoding.encode(&push.in_encoding(encoding));
        let request = (Operation::QueuePush, body);
        let answer = road.ask(to.whose.cloned(), request, PUSH_MAX).await;
        let answer = answer.ok_or_else(|| {
            let message = "the push to the other topic was not answered in time";
            ErrorReply::new(Code::Indeterminate, message)
        })?;
        let answer = reply::read::<Pushed>(encoding, &answer);
        let answer = answer.map_err(|why| ErrorReply::new(Code::Internal, why))?;
        // One that is known there already came by this very move, in an earlier try.
        answer.result.map(drop)
    }
}

impl Dead {
    fn read(parts: &[Reply]) -> Option<Self> {
        let [seq, kept, priority, group, died_at_ms] = parts else {
            return None;
        };
        Some(Dead {
            seq: seq.number()?,
            stored: Stored::unpack(&kept.clone().into_bytes()?),
            priority: priority.number()?,
            group: group.text().filter(|group| !group.is_empty()),
            died_at_ms: died_at_ms.number()?,
        })
    }

    /// As it was pushed, so far as its topic kept that; it rests so long first.
    fn message(self, topic: &str, rest_ms: u64) -> Message {
        let number = self.seq.to_string();
        let death = format!("{number}/{}", self.died_at_ms);
        Message {
            id: Some(self.stored.id.unwrap_or_else(|| name_in(topic, &number))),
            dedup_id: Some(name_in(topic, &death)),
            delay_ms: Some(rest_ms).filter(|&ms| ms > 0),
            priority: self.priority,
            group: self.group,
            headers: self.stored.headers,
            ..Message::new(self.stored.payload)
        }
    }
}

/// A name for what is of a topic: the same one each time.
fn name_in(topic: &str, what: &str) -> String {
    let name = format!("{topic}/{what}");
    match name.len() {
        0..=NAME_BYTES_MAX => name,
        _ => format!("{:016x}/{what}", xxh3_64(topic.as_bytes())),
    }
}

/// A refusal that came when so many messages were done already.
pub(super) fn after(done: u64, mut refusal: Refusal) -> Refusal {
    if done > 0 {
        refusal.outcome = Outcome::Unknown;
        refusal.message = format!("{} ({done} messages were done before)", refusal.message).into();
    }
    refusal
}
