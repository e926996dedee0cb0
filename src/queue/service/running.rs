//! The tasks of a topic: calls to Redis, and the time of those that wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Notify, watch};

use super::{Known, QueueService, Shared, Ticket, Topic, lock, reconfiguring};
use crate::broker::{SharedBroker, SubscribeError};
use crate::protocol::error::{Code, ErrorReply, Outcome};
use crate::protocol::queue::Receipt;
use crate::queue::owner::Call;
use crate::queue::script::{BatchReply, Caller, Denied, Reply, Script};
use crate::queue::store::{CallError, Late, Route};
use crate::stats::TopicStats;
use crate::time::{self, Instant};

/// Tasks of a topic that each have a call under way.
const RUNNERS_MAX: usize = 2;
/// How often requests whose time is over are looked for while a call is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Said to requests whose time is over while Redis does other things, or nothing.
const TOO_LATE: &str = "Redis did not answer in time";
/// A clock of Redis that is further behind is warned of, so often: no setting of it by a time service makes up more.
const CLOCK_BEHIND_MS: u64 = 1_000;
const CLOCK_WARNED_EVERY_MS: u64 = 60_000;
/// Words of the broker that nobody got an answer, not yet looked at.
const GONE_MAX: usize = 4_096;

impl QueueService {
    /// Listens to what the broker says about answers that nobody got, until `stopped`.
    ///
    /// # Errors
    /// When the broker refuses the subscription.
    pub async fn listen(
        &self,
        broker: &SharedBroker,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), SubscribeError> {
        let subject = format!("{}.>", self.0.gone_inbox());
        let mut inbox = broker.subscribe(subject, GONE_MAX).await?;
        tokio::spawn(self.clone().report(stopped.clone()));
        tokio::spawn(self.clone().follow_view(stopped.clone()));
        tokio::spawn(self.clone().sample(stopped.clone()));
        let service = self.clone();
        tokio::spawn(async move {
            loop {
                let word = tokio::select! {
                    _ = stopped.changed() => return,
                    word = inbox.next() => word,
                };
                let Some(word) = word else { return };
                let number = word.subject.rsplit('.').next().and_then(|n| n.parse().ok());
                if let (true, Some(number)) = (word.no_responders, number) {
                    service.requester_gone(number);
                }
            }
        });
        Ok(())
    }
}

/// A call that is about to be made.
struct Ready {
    call: Call<Ticket>,
    keys: Arc<[String]>,
    caller: Caller,
}

impl Shared {
    /// Makes sure that the topic's tasks run.
    pub(super) fn start(self: &Arc<Self>, name: &Arc<str>, topic: &mut Topic) {
        self.start_runner(name, topic);
        self.watch(name, topic);
    }

    /// One call after the other, as long as there is something to do. A task takes what there is
    /// only when it runs: after all that came in with the request that woke it.
    async fn run(self: Arc<Self>, name: Arc<str>) {
        while let Some(ready) = self.next_call(&name) {
            let Ready {
                mut call,
                keys,
                caller,
            } = ready;
            let result = self.execute(&name, &mut call, (&keys, caller)).await;
            self.conclude(&name, (call, caller), result);
        }
    }

    fn next_call(self: &Arc<Self>, name: &Arc<str>) -> Option<Ready> {
        let placement = self.placement();
        if placement.home(name.as_bytes()) != Some(self.parts.me) {
            self.give_up(name, true);
            return None;
        }
        let mut topics = lock(&self.topics);
        let topic = topics.get_mut(name)?;
        let Some(call) = topic.owner.call(self.now_ms()) else {
            topic.runners -= 1;
            if topic.owner.is_idle() && topic.runners == 0 {
                topics.remove(name);
            }
            return None;
        };
        let keys = topic.keys.clone();
        drop(topics);
        let caller = self.caller(name, &placement);
        Some(Ready { call, keys, caller })
    }

    async fn execute(
        self: &Arc<Self>,
        name: &Arc<str>,
        call: &mut Call<Ticket>,
        (keys, caller): (&[String], Caller),
    ) -> Result<(Reply, Route), CallError> {
        let args = call.args(name, caller).into_args().0;
        let began = time::now();
        let late = self.late(name, call);
        let execution = async {
            self.note_topic(name).await?;
            self.call((name, keys), caller, (Script::Batch, &args), late.as_ref())
                .await
        };
        let result = self.meanwhile(name, call, execution).await;
        self.parts
            .stats
            .redis
            .call
            .observe_duration(began.elapsed());
        if !matches!(result, Err(CallError::OutOfMemory)) {
            return result;
        }
        // What makes room must go on, or memory would stay full for ever.
        let refusal = Arc::new(refusal_of(&CallError::OutOfMemory));
        let (refused, some_left) = call.spare(&refusal);
        for ticket in refused {
            self.refuse_ticket(&ticket, &refusal);
        }
        if !some_left {
            return result;
        }
        let spare = Caller {
            spare: true,
            ..caller
        };
        let args = call.args(name, spare).into_args().0;
        // Nothing is handed out.
        let execution = self.call((name, keys), spare, (Script::Batch, &args), None);
        self.meanwhile(name, call, execution).await
    }

    /// Hands back what a call handed out whose answer came after its pops had been told that there was none.
    fn late(self: &Arc<Self>, name: &Arc<str>, call: &Call<Ticket>) -> Option<Late> {
        let tokens = call.tokens();
        if tokens.is_empty() {
            return None;
        }
        let (shared, name) = (self.clone(), name.clone());
        Some(Arc::new(move |reply: Reply| {
            let done = reply.outcome().and_then(Result::ok);
            let popped = done.and_then(BatchReply::read).map(|reply| reply.popped);
            let receipts = popped.iter().flatten().map(|message| Receipt {
                seq: message.seq,
                delivery: message.deliveries,
                token: tokens[message.pop].clone(),
            });
            let receipts: Vec<Receipt> = receipts.collect();
            if !receipts.is_empty() {
                shared.hand_back(&name, receipts);
            }
        }))
    }

    /// Waits for a call. If it takes long, requests are answered when their time is over, though what becomes of them
    /// is known only of those that are in no call.
    async fn meanwhile<R>(
        &self,
        name: &Arc<str>,
        call: &mut Call<Ticket>,
        execution: impl Future<Output = R>,
    ) -> R {
        let mut execution = std::pin::pin!(execution);
        loop {
            tokio::select! {
                biased;
                result = &mut execution => return result,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            // By then at the latest, so before the next look.
            let next = time::now() + LOOK_EVERY;
            for ticket in call.give_up(|ticket| ticket.deadline <= next) {
                self.refuse_ticket(&ticket, &ErrorReply::new(Code::Indeterminate, TOO_LATE));
            }
            self.refuse_late(name, next);
        }
    }

    /// Refuses those of a topic that are in no call and late by then.
    fn refuse_late(&self, name: &Arc<str>, next: Instant) {
        let late = match lock(&self.topics).get_mut(name) {
            Some(topic) => topic.owner.give_up(|ticket| ticket.deadline <= next),
            None => Vec::new(),
        };
        for ticket in late {
            self.refuse_ticket(&ticket, &ErrorReply::new(Code::Timeout, TOO_LATE));
        }
    }

    fn conclude(
        self: &Arc<Self>,
        name: &Arc<str>,
        (call, caller): (Call<Ticket>, Caller),
        result: Result<(Reply, Route), CallError>,
    ) {
        let outcome = result.map(|(reply, route)| {
            let outcome = reply.outcome();
            outcome.map(|outcome| outcome.map(|done| Some((BatchReply::read(done)?, route))))
        });
        match outcome {
            Ok(Some(Ok(Some((reply, route))))) => self.done(name, call, (reply, route)),
            Ok(Some(Err(Denied::Fenced { epoch }))) => {
                tracing::info!(topic = %name, epoch, "another node owns the topic now");
                self.fail(name, call, (*reconfiguring(), false));
                self.give_up(name, false);
            }
            Ok(Some(Err(Denied::Lost { opseq, seq }))) => {
                let refusal = self.alarm(name, caller, (opseq, seq));
                // Pops that wait are to hear it, too: the next call knows of no loss.
                self.fail(name, call, (refusal, true));
            }
            Ok(None | Some(Ok(None))) => {
                let error = CallError::Unknown("an answer that makes no sense".to_owned());
                self.fail(name, call, (refusal_of(&error), true));
            }
            Err(error) => {
                tracing::debug!(topic = %name, %error, "a call failed");
                self.fail(name, call, (refusal_of(&error), false));
            }
        }
    }

    fn done(
        self: &Arc<Self>,
        name: &Arc<str>,
        call: Call<Ticket>,
        (mut reply, route): (BatchReply, Route),
    ) {
        self.note_done(name, (reply.opseq, reply.seq, reply.bytes));
        if reply.clock_behind_ms > CLOCK_BEHIND_MS {
            self.warn_of_clock(name, reply.clock_behind_ms);
        }
        let buried = std::mem::take(&mut reply.buried);
        let died = buried.len() as u64;
        let (told, some_missed) = {
            let mut topics = lock(&self.topics);
            let Some(topic) = topics.get_mut(name) else {
                return;
            };
            count(&topic.stats, &reply, died);
            lock(&self.recent).count(name, &reply, self.now_ms());
            let told = topic.owner.done(call, reply, self.now_ms());
            self.watch(name, topic);
            (told, topic.owner.some_missed())
        };
        self.tell_all(name, told, route);
        self.tell_buried(name, buried);
        if some_missed {
            // However many short calls it takes to get to them.
            self.refuse_late(name, time::now());
        }
    }

    /// Once in a while: the clock is that of many topics.
    fn warn_of_clock(&self, name: &Arc<str>, behind_ms: u64) {
        let now_ms = self.now_ms().max(1);
        let next = |last: u64| {
            let is_due = last == 0 || now_ms.saturating_sub(last) >= CLOCK_WARNED_EVERY_MS;
            is_due.then_some(now_ms)
        };
        let warned = &self.clock_warned_ms;
        let warns = warned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        if warns.is_ok() {
            tracing::warn!(
                topic = %name,
                behind_ms,
                "the clock of Redis was set back: until it has caught up, no visibility, delay, \
                 lifetime or deduplication window of this topic ends"
            );
        }
    }

    fn fail(
        self: &Arc<Self>,
        name: &Arc<str>,
        call: Call<Ticket>,
        (refusal, all): (ErrorReply, bool),
    ) {
        let refusal = Arc::new(refusal);
        let told = {
            let mut topics = lock(&self.topics);
            let Some(topic) = topics.get_mut(name) else {
                return;
            };
            let told = topic.owner.failed(call, (&refusal, all), self.now_ms());
            self.watch(name, topic);
            told
        };
        for (ticket, told) in told {
            self.tell(name, ticket, told);
        }
    }

    /// Redis has less than it acknowledged, a call found: tells everybody, and goes on from what is left. What other
    /// calls find that were under way then is the same loss, told already.
    pub(super) fn alarm(
        &self,
        name: &Arc<str>,
        caller: Caller,
        (opseq, seq): (u64, u64),
    ) -> ErrorReply {
        let (mut before, mut is_news) = (Known::default(), false);
        self.note(name, |known| {
            before = *known;
            is_news = caller.losses >= known.losses;
            if is_news {
                known.losses += 1;
                known.opseq = opseq;
                known.is_noted = false;
                // Sequence numbers that were given out are not given out again.
                known.floor = known.floor.max(known.seq);
            }
            is_news
        });
        let (from, to) = (seq + 1, before.seq);
        let (first, last) = (opseq + 1, caller.opseq.max(before.opseq));
        if is_news {
            let lost = json!({
                "topic": &**name,
                "operations": (last + 1).saturating_sub(first),
                "seq_from": from,
                "seq_to": to,
            });
            tracing::error!(
                topic = %name,
                "Redis has lost acknowledged data: messages {from} to {to}, operations {first} to {last}"
            );
            self.parts.stats.queue.losses.inc();
            self.tell_watchers("data_loss", &lost);
        }
        let message = format!(
            "Redis lost what it had acknowledged in this topic: messages {from} to {to} (none if the \
             first is the greater), operations {first} to {last}; this request was not executed, the \
             next ones will be"
        );
        ErrorReply::new(Code::DataLossDetected, message)
    }

    /// Makes sure that the time of pops that wait is watched.
    fn watch(self: &Arc<Self>, name: &Arc<str>, topic: &mut Topic) {
        let Some(next_ms) = topic.owner.next_ms() else {
            return;
        };
        if topic.watch_until_ms == 0 {
            topic.watch_until_ms = next_ms;
            tokio::spawn(self.clone().keep_time(name.clone(), topic.watch.clone()));
        } else if next_ms < topic.watch_until_ms {
            topic.watch_until_ms = next_ms;
            topic.watch.notify_one();
        }
    }

    /// Ends with the topic: another one of the same name has a task of its own.
    async fn keep_time(self: Arc<Self>, name: Arc<str>, changed: Arc<Notify>) {
        let is_own = |topic: &&mut Topic| Arc::ptr_eq(&topic.watch, &changed);
        loop {
            let until_ms = {
                let mut topics = lock(&self.topics);
                let Some(topic) = topics.get_mut(&name).filter(is_own) else {
                    return;
                };
                let Some(next_ms) = topic.owner.next_ms() else {
                    topic.watch_until_ms = 0;
                    return;
                };
                topic.watch_until_ms = next_ms.max(1);
                next_ms
            };
            tokio::select! {
                () = tokio::time::sleep_until(self.time_of(until_ms)) => {}
                () = changed.notified() => continue,
            }
            let over = {
                let mut topics = lock(&self.topics);
                let Some(topic) = topics.get_mut(&name).filter(is_own) else {
                    return;
                };
                let over = topic.owner.expire(self.now_ms());
                self.start_runner(&name, topic);
                over
            };
            for (ticket, told) in over {
                self.tell(&name, ticket, told);
            }
            // A look that finds nothing new must not be repeated within the same millisecond.
            tokio::time::sleep_until(time::now() + Duration::from_millis(1)).await;
        }
    }

    /// Not while a call is waited for: the task that made it goes on then.
    fn start_runner(self: &Arc<Self>, name: &Arc<str>, topic: &mut Topic) {
        if topic.runners < RUNNERS_MAX && topic.owner.has_room() {
            topic.runners += 1;
            tokio::spawn(self.clone().run(name.clone()));
        }
    }
}

/// Counts what a call did.
pub(super) fn count(stats: &TopicStats, reply: &BatchReply, died: u64) {
    let known = reply.pushes.iter().flatten().filter(|(_, known)| *known);
    let duplicates = known.count() as u64;
    let pushed = reply.pushes.iter().flatten().count() as u64 - duplicates;
    let again = reply.popped.iter().filter(|message| message.deliveries > 1);
    let done = |codes: &[u64]| codes.iter().filter(|&&code| code == 1).count() as u64;
    for (counter, more) in [
        (&stats.pushed, pushed),
        (&stats.duplicates, duplicates),
        (&stats.delivered, reply.popped.len() as u64),
        (&stats.redelivered, again.count() as u64),
        (&stats.acked, done(&reply.acks)),
        (&stats.returned, done(&reply.nacks)),
        (&stats.dead, died),
    ] {
        if more > 0 {
            counter.inc_by(more);
        }
    }
}

/// What a client is told when a call has no result.
pub(super) fn refusal_of(error: &CallError) -> ErrorReply {
    match error {
        CallError::Unknown(_) => ErrorReply::new(Code::Indeterminate, error.to_string()),
        CallError::Unclaimed => ErrorReply::new(Code::Reconfiguring, error.to_string())
            .with_outcome(Outcome::NotApplied),
        CallError::Disconnected
        | CallError::Unserved(_)
        | CallError::Moved
        | CallError::OutOfMemory
        | CallError::Refused(_) => ErrorReply::new(Code::StoreUnavailable, error.to_string())
            .with_outcome(Outcome::NotApplied),
    }
}
