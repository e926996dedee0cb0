//! What operators ask about a topic: each is a task and a script of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::redriving::after;
use super::running::refusal_of;
use super::{ACTS_MAX, Body, Origin, QueueService, Shared, lock, reconfiguring};
use crate::protocol::error::{Code, ErrorReply};
use crate::protocol::queue::{
    Act, Admin, Backoff, Cancelled, Change, Configured, DEDUP_MS_DEFAULT, MAX_DELIVERIES_DEFAULT,
    Paused, Purged, Settings, State, VISIBILITY_MS_DEFAULT,
};
use crate::protocol::{Refusal, ReplyTo};
use crate::queue::script::{Args, Caller, Denied, Done, Reply, Script, Stored};
use crate::queue::store::CallError;

/// Messages that one call of a purge removes: Redis does nothing else meanwhile.
const PURGE_STEP: u64 = 1_000;

impl QueueService {
    pub(super) fn act(&self, admin: Admin, origin: &Origin<'_>) -> Result<(), Refusal> {
        let shared = self.0.clone();
        let Ok(place) = shared.acts.clone().try_acquire_owned() else {
            return Err(ErrorReply::overloaded(
                "administrative requests in progress",
                ACTS_MAX as u64,
            )
            .into());
        };
        let (to, received_at, deadline) = (origin.to.clone(), origin.received_at, origin.deadline);
        let timing = (admin.act.operation(), received_at);
        tokio::spawn(async move {
            let _place = place;
            let done = tokio::time::timeout_at(deadline, shared.done_by(admin, &to)).await;
            let mut result = done.unwrap_or_else(|_| {
                let message = "the deadline passed while the request was running";
                Err(ErrorReply::new(Code::Indeterminate, message).into())
            });
            if let Err(refusal) = &mut result
                && timing.0.only_reads()
                && refusal.code == Code::Indeterminate
            {
                // It changes nothing, done or not.
                **refusal = ErrorReply::new(Code::Timeout, std::mem::take(&mut refusal.message));
            }
            let result = result.as_ref().map_err(|refusal| &**refusal);
            shared.parts.answers.answer(&to, timing, result);
        });
        Ok(())
    }
}

impl Shared {
    async fn done_by(self: &Arc<Self>, admin: Admin, to: &ReplyTo) -> Result<Body, Refusal> {
        let topic: Arc<str> = admin.topic.unwrap_or_default().into();
        if let Act::Cancel { .. } | Act::Redrive { .. } | Act::Purge { .. } = &admin.act {
            self.pass_all_time(&topic).await?;
        }
        match admin.act {
            Act::List {
                prefix,
                limit,
                cursor,
            } => self.list(&prefix, limit, cursor).await,
            Act::Stats => Ok(Body::Stats(self.stats(&topic).await?)),
            Act::Peek { look, limit } => Ok(Body::Peeked(
                self.peek(&topic, (look, limit), to.encoding).await?,
            )),
            Act::Cancel { id } => {
                let mut args = Args::default();
                args.text(&id);
                args.number(Stored::seq_of(&id).unwrap_or(0));
                let mut done = self.change(&topic, Script::Cancel, args).await?;
                let cancelled = done.number() == Some(1);
                Ok(Body::Cancelled(Cancelled { cancelled }))
            }
            Act::Configure(changes) => self.configure(&topic, changes).await,
            Act::Pause => self.pause(&topic, true).await,
            Act::Resume => self.pause(&topic, false).await,
            redrive @ Act::Redrive { .. } => {
                self.redrive(&topic, redrive, to.tenant.as_ref()).await
            }
            Act::Purge { states } => self.purge(&topic, &states).await,
        }
    }

    /// Runs a script that changes the topic, as its owner.
    pub(super) async fn change(
        self: &Arc<Self>,
        topic: &Arc<str>,
        script: Script,
        own: Args,
    ) -> Result<Done, Refusal> {
        let placement = self.placement();
        if placement.home(topic.as_bytes()) != Some(self.parts.me) {
            return Err(reconfiguring());
        }
        // What these change stays although the topic has no message yet.
        if matches!(script, Script::Configure | Script::Pause) {
            let noted = self.note_topic(topic).await;
            noted.map_err(|error| refusal_of(&error))?;
        }
        let caller = self.caller(topic, &placement);
        let done = self.run_script(topic, script, (caller, own)).await?;
        self.note_done(topic, (done.opseq, done.seq, done.bytes));
        // What it made ready may be what a pop waits for.
        if let Some(waiting) = lock(&self.topics).get_mut(topic) {
            waiting.owner.wake();
            self.start(topic, waiting);
        }
        Ok(done)
    }

    /// Runs a script with these arguments of its own.
    pub(super) async fn run_script(
        &self,
        topic: &Arc<str>,
        script: Script,
        (caller, own): (Caller, Args),
    ) -> Result<Done, Refusal> {
        let keyspace = self.keyspace().ok_or_else(reconfiguring)?;
        let keys = keyspace.of_topic(topic);
        self.store()?;
        let run = async |caller: Caller| {
            let args = caller.with(own.clone()).0;
            self.call((topic, &keys), caller, (script, &args), None)
                .await
        };
        let mut called = run(caller).await;
        if script.makes_room() && matches!(called, Err(CallError::OutOfMemory)) {
            let spare = Caller {
                spare: true,
                ..caller
            };
            called = run(spare).await;
        }
        let (reply, _) = called.map_err(|error| refusal_of(&error))?;
        match reply.outcome() {
            Some(Ok(done)) => Ok(done),
            Some(Err(Denied::Fenced { .. })) => Err(reconfiguring()),
            Some(Err(Denied::Lost { opseq, seq })) => {
                Err(self.alarm(topic, caller, (opseq, seq)).into())
            }
            None => Err(nonsense()),
        }
    }

    async fn configure(
        self: &Arc<Self>,
        topic: &Arc<str>,
        changes: Vec<(&'static str, Change)>,
    ) -> Result<Body, Refusal> {
        let mut args = Args::default();
        args.number(changes.len() as u64);
        for (name, change) in changes {
            args.text(name);
            match change {
                Change::Number(number) => args.number(number),
                Change::Text(text) => args.text(text),
                Change::Default => args.text(""),
            }
        }
        let mut done = self.change(topic, Script::Configure, args).await?;
        let settings = settings(&done.list().ok_or_else(nonsense)?);
        Ok(Body::Configured(Configured { settings }))
    }

    async fn pause(self: &Arc<Self>, topic: &Arc<str>, paused: bool) -> Result<Body, Refusal> {
        let mut args = Args::default();
        args.number(u64::from(paused));
        let changed = self.change(topic, Script::Pause, args).await?.number() == Some(1);
        if changed {
            let kind = if paused { "paused" } else { "resumed" };
            self.tell_watchers(kind, &json!({"topic": &**topic}));
        }
        Ok(Body::Paused(Paused { paused, changed }))
    }

    async fn purge(self: &Arc<Self>, topic: &Arc<str>, states: &[State]) -> Result<Body, Refusal> {
        let (mut count, mut groups_scanned) = (0, "0".to_owned());
        loop {
            let mut args = Args::default();
            args.number(PURGE_STEP);
            args.text(&groups_scanned);
            args.number(states.len() as u64);
            for state in states {
                args.text(state.name());
            }
            let done = self.change(topic, Script::Purge, args).await;
            let mut done = done.map_err(|refusal| after(count, refusal))?;
            count += done.number().ok_or_else(nonsense)?;
            let more_left = done.number().ok_or_else(nonsense)?;
            if more_left == 0 {
                return Ok(Body::Purged(Purged { count }));
            }
            let scanned = done.rest.next().and_then(|scanned| scanned.text());
            groups_scanned = scanned.ok_or_else(nonsense)?;
        }
    }
}

/// The settings in force, from those that were changed.
fn settings(changed: &[Reply]) -> Settings {
    let pairs = changed.chunks_exact(2);
    let changed: BTreeMap<String, &Reply> = pairs
        .filter_map(|pair| Some((pair[0].text()?, &pair[1])))
        .collect();
    let number = |name: &str| changed.get(name).and_then(|value| value.number());
    let text = |name: &str| changed.get(name).and_then(|value| value.text());
    let backoff = match (text("backoff").as_deref(), number("backoff_base_ms")) {
        (Some("fixed"), Some(base_ms)) => Backoff::Fixed { base_ms },
        (Some("exponential"), Some(base_ms)) => Backoff::Exponential {
            base_ms,
            max_ms: number("backoff_max_ms").unwrap_or(base_ms),
        },
        _ => Backoff::None,
    };
    Settings {
        visibility_ms: number("visibility_ms").unwrap_or(VISIBILITY_MS_DEFAULT),
        max_deliveries: number("max_deliveries").unwrap_or(MAX_DELIVERIES_DEFAULT),
        backoff: backoff.fields(),
        max_length: number("max_length"),
        overflow: text("overflow").unwrap_or_else(|| "reject".to_owned()),
        dedup_ms: number("dedup_ms").unwrap_or(DEDUP_MS_DEFAULT),
        ttl_ms: number("ttl_ms"),
    }
}

pub(super) fn nonsense() -> Refusal {
    ErrorReply::new(Code::Internal, "a Redis script gave an unexpected answer").into()
}
