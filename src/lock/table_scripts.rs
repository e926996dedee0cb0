//! Scenario scripts for the lock table: one behaviour per file in `testscripts/`.
//!
//! Commands (times in milliseconds; `owner`, `resource` positional):
//!
//! - `at NOW`: time goes on to `NOW`, and what is over then ends, as at the start of an entry
//! - `try OWNER RESOURCE`, `wait OWNER RESOURCE [for=10000] [reply=OWNER]`: acquire; both take
//!   `[shared] [youngest] [ttl=30000] [id=ID] [meta=JSON]`
//! - `release RESOURCE TOKEN`, `renew RESOURCE TOKEN [ttl=…]`, `check RESOURCE TOKEN`
//! - `get RESOURCE`, `counts`, `next`, `endings`, `term grace=MS`
//! - `stall NOW`: time goes on, but nothing ends by itself, as after a mass expiry
//! - `limits FIELD=N …`: a new table with these limits
//! - `restore`: the table goes through its snapshot form
//!
//! After each command the outcome is printed, then the effects, indented, in their order.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use goldenscript::{Argument, ArgumentConsumer, Command as Line, Context, Runner};
use test_each_file::test_each_path;

use super::command::*;
use super::limits::Limits;
use super::table::Table;
use crate::ids::Token;
use crate::protocol::{Encoding, ReplyTo};

test_each_path! { in "src/lock/testscripts" as scripts => run_script }

fn run_script(path: &Path) {
    goldenscript::run(&mut Script::default(), path).expect("the script runs");
}

#[derive(Default)]
struct Script {
    table: Table,
    now_ms: u64,
}

type Printed = Result<String, Box<dyn Error>>;

impl Runner for Script {
    type Command = Line;

    fn run(&mut self, line: &Line, _context: &Context) -> Printed {
        let mut args = line.consume_args();
        let mut effects = Vec::new();
        let mut out = match line.name.as_str() {
            "at" => {
                self.now_ms = number(args.next_pos())?;
                self.table.expire(self.now_ms, &mut effects);
                String::new()
            }
            "stall" => {
                self.now_ms = number(args.next_pos())?;
                String::new()
            }
            "try" | "wait" | "release" | "renew" => {
                let command = command(&line.name, &mut args)?;
                let outcome = self.table.apply(self.now_ms, &command, &mut effects);
                print_outcome(&outcome)
            }
            "check" => {
                let (resource, token) = resource_and_token(&mut args)?;
                print_check(&self.table.check(&resource, token, self.now_ms))
            }
            "get" => print_view(&self.table.get(text(args.next_pos())?, self.now_ms)),
            "counts" => print_counts(&self.table),
            "next" => format!("{:?}\n", self.table.next_deadline()),
            "endings" => print_endings(&self.table, self.now_ms),
            "term" => {
                let grace_ms = number(args.take_key("grace"))?;
                self.table.start_term(self.now_ms, grace_ms);
                String::new()
            }
            "limits" => {
                self.table = Table::new(limits(&mut args)?);
                String::new()
            }
            "restore" => {
                let bytes = rmp_serde::to_vec(&self.table)?;
                self.table = rmp_serde::from_slice(&bytes)?;
                String::new()
            }
            other => return Err(format!("no command {other}").into()),
        };
        args.reject_next()?;
        for effect in &effects {
            writeln!(out, "  {}", print_effect(effect))?;
        }
        self.table.assert_consistent();
        Ok(out)
    }
}

fn command(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Command, Box<dyn Error>> {
    if matches!(name, "release" | "renew") {
        let (resource, token) = resource_and_token(args)?;
        return Ok(match name {
            "release" => Command::Release { resource, token },
            _ => Command::Renew {
                resource,
                token,
                ttl_ms: optional_number(args.take_key("ttl"))?,
            },
        });
    }
    let owner = text(args.next_pos())?.to_owned();
    let resource = text(args.next_pos())?.to_owned();
    let wait_ms = optional_number(args.take_key("for"))?.unwrap_or(10_000);
    let subject = args.take_key("reply").unwrap_or(&owner).to_owned();
    let encoding = Encoding::Json;
    let mut acquire = Acquire {
        resource,
        mode: Mode::Exclusive,
        owner,
        request_id: args.take_key("id").map(str::to_owned),
        ttl_ms: optional_number(args.take_key("ttl"))?.unwrap_or(30_000),
        wait: (name == "wait").then_some(Wait {
            wait_ms,
            reply: ReplyTo { subject, encoding },
        }),
        on_deadlock: DeadlockPolicy::Requester,
        meta: args.take_key("meta").map(str::to_owned),
    };
    while let Some(word) = args.next_pos() {
        match word {
            "shared" => acquire.mode = Mode::Shared,
            "youngest" => acquire.on_deadlock = DeadlockPolicy::Youngest,
            other => return Err(format!("unexpected {other}").into()),
        }
    }
    Ok(Command::Acquire(acquire))
}

fn resource_and_token(args: &mut ArgumentConsumer<'_>) -> Result<(String, Token), Box<dyn Error>> {
    let resource = text(args.next_pos())?.to_owned();
    Ok((resource, Token(number(args.next_pos())?)))
}

fn limits(args: &mut ArgumentConsumer<'_>) -> Result<Limits, Box<dyn Error>> {
    let mut limits = Limits::default();
    for arg in args {
        let Argument::KeyValue(field, value) = arg else {
            return Err("limits takes FIELD=N".into());
        };
        let limit = match field.as_str() {
            "waiters" => &mut limits.waiters,
            "waiters_per_resource" => &mut limits.waiters_per_resource,
            "claims" => &mut limits.claims,
            "claims_per_resource" => &mut limits.claims_per_resource,
            "request_ids" => &mut limits.request_ids,
            "recent_endings" => &mut limits.recent_endings,
            "endings_per_entry" => &mut limits.endings_per_entry,
            other => return Err(format!("no limit {other}").into()),
        };
        *limit = value.parse()?;
    }
    Ok(limits)
}

fn text(arg: Option<&str>) -> Result<&str, Box<dyn Error>> {
    arg.ok_or_else(|| "an argument is missing".into())
}

fn number(arg: Option<&str>) -> Result<u64, Box<dyn Error>> {
    Ok(text(arg)?.parse()?)
}

fn optional_number(arg: Option<&str>) -> Result<Option<u64>, Box<dyn Error>> {
    Ok(arg.map(str::parse).transpose()?)
}

fn print_outcome(outcome: &Outcome) -> String {
    let line = match outcome {
        Outcome::Acquired(a) => format!(
            "acquired {} by {}: token {}, {:?}, expires in {}, waited {}",
            a.resource, a.owner, a.token, a.mode, a.expires_in_ms, a.waited_ms
        ),
        Outcome::Held(c) => format!("held: {}", print_contention(c)),
        Outcome::WaitTimeout(c) => format!("wait timeout: {}", print_contention(c)),
        Outcome::Deadlock(deadlock) => print_deadlock(deadlock),
        Outcome::AlreadyWaiting { resource } => format!("already waiting for {resource}"),
        Outcome::ModeConflict { held, token } => format!("mode conflict: {held:?} by {token}"),
        Outcome::RequestMismatch { field } => format!("request mismatch in {field}"),
        Outcome::Overloaded { what, limit } => format!("overloaded: {limit} {what}"),
        Outcome::Renewed { expires_in_ms } => format!("renewed, expires in {expires_in_ms}"),
        Outcome::Waiting => "waiting".to_owned(),
        Outcome::NotHolder => "not holder".to_owned(),
        Outcome::Released => "released".to_owned(),
    };
    line + "\n"
}

fn print_contention(contention: &Contention) -> String {
    let holders: Vec<_> = contention.holders.iter().map(print_holder).collect();
    let (resource, length) = (&contention.resource, contention.queue_length);
    format!("{resource} by [{}], queue {length}", holders.join("; "))
}

fn print_holder(h: &HolderView) -> String {
    let (owner, token, mode, left, held) = (&h.owner, h.token, h.mode, h.expires_in_ms, h.held_ms);
    let meta = h
        .meta
        .as_ref()
        .map_or(String::new(), |meta| format!(", meta {meta}"));
    format!("{owner} {mode:?} token {token}, expires in {left}, held {held}{meta}")
}

fn print_deadlock(deadlock: &Deadlock) -> String {
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

fn print_effect(effect: &Effect) -> String {
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
        }) => {
            format!("event released {resource} {owner} {token} held {held_ms}")
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
    }
}

fn print_check(check: &Check) -> String {
    let Check {
        valid,
        current_token,
        expires_in_ms,
    } = check;
    format!("valid {valid}, current {current_token:?}, expires in {expires_in_ms:?}\n")
}

fn print_view(view: &LockView) -> String {
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
            "waiter {} {:?} waited {}{id}",
            w.owner, w.mode, w.waited_ms
        );
    }
    if out.is_empty() {
        "free\n".to_owned()
    } else {
        out
    }
}

fn print_counts(table: &Table) -> String {
    let c = table.counts();
    format!(
        "held {}, waiting {}, resources {}, owners {}, ids {}\n",
        c.held, c.waiting, c.resources, c.owners, c.request_ids
    )
}

fn print_endings(table: &Table, now_ms: u64) -> String {
    let lines = table.recent_endings(now_ms);
    lines
        .map(|(reply, outcome)| format!("to {}: {}", reply.subject, print_outcome(&outcome)))
        .collect()
}
