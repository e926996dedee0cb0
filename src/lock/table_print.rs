//! Outcomes, effects and views as the scenario scripts show them.

use std::error::Error;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::claim::{Grip, Wants};
use super::event::{Effect, Event};
use super::outcome::*;
use super::table::Table;

pub(super) fn print_outcome(outcome: &Outcome) -> String {
    let line = match outcome {
        Outcome::Acquired(a) => format!(
            "acquired {} by {}: token {}, {}, expires in {}, waited {}",
            print_resources(&a.wants),
            a.owner,
            a.token,
            print_modes(&a.wants),
            a.expires_in_ms,
            a.waited_ms
        ),
        Outcome::Held(c) => format!("held: {}", print_contention(c)),
        Outcome::WaitTimeout(c) => format!("wait timeout: {}", print_contention(c)),
        Outcome::Deadlock(deadlock) => print_deadlock(deadlock),
        Outcome::AlreadyWaiting { resource } => format!("already waiting for {resource}"),
        Outcome::ModeConflict {
            resource,
            held,
            token,
        } => format!("mode conflict: {resource} {held:?} by {token}"),
        Outcome::RequestMismatch { field } => format!("request mismatch in {field}"),
        Outcome::LimitMismatch { resource, limit } => {
            format!("limit mismatch: {resource} has {limit}")
        }
        Outcome::Overloaded { what, limit } => format!("overloaded: {limit} {what}"),
        Outcome::Renewed { expires_in_ms } => format!("renewed, expires in {expires_in_ms}"),
        Outcome::WaitCancelled { resource } => format!("wait for {resource} cancelled"),
        Outcome::Cancelled { cancelled, token } => {
            format!("cancelled {cancelled}, token {token:?}")
        }
        Outcome::SessionOpened { session, ttl_ms } => format!("opened {session} for {ttl_ms}"),
        Outcome::KeptAlive(kept) => format!("{kept:?}"),
        Outcome::SessionClosed(ended) => {
            let released = ended.released.iter();
            let released: Vec<_> = released
                .map(|(wants, token)| format!("{} by {token}", print_resources(wants)))
                .collect();
            format!("closed, released [{}]", released.join("; "))
        }
        Outcome::SessionNotFound { session } => format!("no session {session}"),
        Outcome::SessionExpired { session } => format!("session {session} is over"),
        Outcome::ForceReleased(holders) => {
            let holders: Vec<_> = holders.iter().map(print_holder).collect();
            format!("released by force: [{}]", holders.join("; "))
        }
        Outcome::NotHeld { resource } => format!("nobody holds {resource}"),
        Outcome::Inconvertible => "inconvertible".to_owned(),
        Outcome::Waiting => "waiting".to_owned(),
        Outcome::NotHolder => "not holder".to_owned(),
        Outcome::Released => "released".to_owned(),
    };
    line + "\n"
}

fn print_resources(wants: &Wants) -> String {
    let names: Vec<&str> = wants.iter().map(|want| &*want.resource).collect();
    names.join("+")
}

fn print_modes(wants: &Wants) -> String {
    let modes: Vec<_> = wants.iter().map(|want| print_grip(want.grip)).collect();
    modes.join("+")
}

fn print_grip(grip: Grip) -> String {
    match grip {
        Grip::Permits { permits, limit } => format!("{permits} of {limit}"),
        other => format!("{other:?}"),
    }
}

/// A value in JSON, each element of a list on a line of its own.
pub(super) fn json_lines(value: &impl Serialize) -> Result<String, Box<dyn Error>> {
    let Value::Object(fields) = serde_json::to_value(value)? else {
        return Err("no object".into());
    };
    let mut out = String::new();
    for (name, value) in fields {
        match value {
            Value::Array(items) => {
                for item in items {
                    writeln!(out, "{name} {item}")?;
                }
            }
            value => writeln!(out, "{name} {value}")?,
        }
    }
    Ok(out)
}

pub(super) fn print_contention(contention: &Contention) -> String {
    let holders: Vec<_> = contention.holders.iter().map(print_holder).collect();
    let (resource, length) = (&contention.resource, contention.queue_length);
    let delay = contention
        .delay_ms
        .map_or(String::new(), |ms| format!(", closed for {ms}"));
    format!(
        "{resource} by [{}], queue {length}{delay}",
        holders.join("; ")
    )
}

pub(super) fn print_holder(h: &HolderView) -> String {
    let (owner, token, left, held) = (&h.owner, h.token, h.expires_in_ms, h.held_ms);
    let mode = print_grip(h.grip);
    let meta = h
        .meta
        .as_ref()
        .map_or(String::new(), |meta| format!(", meta {meta}"));
    let session = h
        .session
        .as_ref()
        .map_or(String::new(), |id| format!(", session {id}"));
    format!("{owner} {mode} token {token}, expires in {left}, held {held}{session}{meta}")
}

pub(super) fn print_deadlock(deadlock: &Deadlock) -> String {
    let edges: Vec<_> = deadlock
        .cycle
        .iter()
        .map(|edge| {
            let holds = match (&edge.holds, edge.token) {
                (Some(resource), Some(token)) => format!(" (holds {resource}, token {token})"),
                (None, None) => String::new(),
                broken => panic!("a hold has a token: {broken:?}"),
            };
            let (owner, next, resource) = (&edge.owner, &edge.waits_for_owner, &edge.resource);
            format!("{owner}{holds} -{:?}-> {next} for {resource}", edge.because)
        })
        .collect();
    let (victim, policy) = (&deadlock.victim, deadlock.policy);
    format!(
        "deadlock, victim {victim} by {policy:?}: {}",
        edges.join(", ")
    )
}

pub(super) fn print_effect(effect: &Effect) -> String {
    match effect {
        Effect::WaitEnded { reply, outcome, .. } => {
            format!(
                "to {}: {}",
                reply.subject,
                print_outcome(outcome).trim_end()
            )
        }
        Effect::Event(Event::Granted {
            resource,
            owner,
            token,
            mode,
            waited_ms,
        }) => {
            format!("event granted {resource} {owner} {token} {mode:?} waited {waited_ms}")
        }
        Effect::Event(Event::Released {
            resource,
            owner,
            token,
            held_ms,
            reason,
        }) => {
            let reason = reason
                .as_ref()
                .map_or(String::new(), |why| format!(": {why}"));
            format!("event released {resource} {owner} {token} held {held_ms}{reason}")
        }
        Effect::Event(Event::Expired {
            resource,
            owner,
            token,
            held_ms,
        }) => {
            format!("event expired {resource} {owner} {token} held {held_ms}")
        }
        Effect::Event(Event::Deadlock(deadlock)) => format!("event {}", print_deadlock(deadlock)),
        Effect::Event(Event::Contended {
            resource,
            owner,
            queue_length,
        }) => {
            format!("event contended {resource} {owner} queue {queue_length}")
        }
        Effect::Event(other) => format!("event {other:?}"),
    }
}

pub(super) fn print_check(check: &Check) -> String {
    let Check {
        valid,
        current_token,
        expires_in_ms,
    } = check;
    format!("valid {valid}, current {current_token:?}, expires in {expires_in_ms:?}\n")
}

pub(super) fn print_view(view: &LockView) -> String {
    let mut out = String::new();
    for holder in &view.holders {
        let _ = writeln!(out, "holder {}", print_holder(holder));
    }
    for w in &view.waiters {
        let id = w
            .request_id
            .as_ref()
            .map_or(String::new(), |id| format!(", id {id}"));
        let _ = writeln!(
            out,
            "waiter {} {} waited {}{id}",
            w.owner,
            print_grip(w.grip),
            w.waited_ms
        );
    }
    if let Some(ms) = view.delay_ms {
        let _ = writeln!(out, "closed for {ms}");
    }
    if out.is_empty() {
        "free\n".to_owned()
    } else {
        out
    }
}

pub(super) fn print_counts(table: &Table) -> String {
    let c = table.counts();
    format!(
        "held {}, waiting {}, resources {}, owners {}, sessions {}, ids {}\n",
        c.held, c.waiting, c.resources, c.owners, c.sessions, c.request_ids
    )
}

pub(super) fn print_endings(table: &Table, now_ms: u64) -> String {
    let lines = table.recent_endings(now_ms);
    lines
        .map(|(reply, outcome)| format!("to {}: {}", reply.subject, print_outcome(&outcome)))
        .collect()
}
