//! Scenario scripts for the lock table: one behaviour per file in `testscripts/`.
//!
//! Commands (times in milliseconds; `owner`, `resource` positional):
//!
//! - `at NOW`: time goes on to `NOW`, and what is over then ends, as at the start of an entry
//! - `try OWNER RESOURCE`, `wait OWNER RESOURCE [for=10000] [reply=OWNER]`: acquire; both take
//!   `[shared] [youngest] [permits=N limit=M] [ttl=30000] [session=ID] [id=ID] [meta=JSON]`, with a
//!   session and no `ttl` the hold lasts as long as that. Several resources are `a+b+c`; a mode of
//!   its own is `a:shared` or `a:2/3` for two of three permits
//! - `release RESOURCE TOKEN`, `renew RESOURCE TOKEN [ttl=…]`, `check RESOURCE TOKEN`; `*` stands for
//!   the token alone
//! - `convert RESOURCE TOKEN exclusive|shared [for=10000] [reply=TOKEN]`; `for=0` tries, here as in `wait`
//! - `cancel RESOURCE OWNER [id=ID] [session=ID]`, `give-back TOKEN`, `force RESOURCE [TOKEN] [reason=why]`
//! - `open SESSION [ttl=10000] [delay=0] [name=…]`, `keep SESSION …`, `close SESSION [reason=…]`
//! - `get RESOURCE`, `list [prefix=…] [cursor=…] [limit=100]`, `graph`, `deadlocks [limit=100]`,
//!   `session ID`, `sessions [prefix=…]`, `counts`, `next`, `endings`, `term grace=MS [revives]` (as leaders of
//!   earlier versions began one)
//! - `stall NOW`: time goes on, but nothing ends by itself, as after a mass expiry
//! - `limits FIELD=N …`: a new table with these limits
//! - `restore`: the table goes through its snapshot form
//!
//! After each command the outcome is printed, then the effects, indented, in their order.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use goldenscript::{Argument, ArgumentConsumer, Command as Line, Context, Runner};
use test_each_file::test_each_path;

use super::Name;
use super::claim::{Grip, Want, Wants};
use super::command::*;
use super::limits::Limits;
use super::listing::Page;
use super::table::Table;
use super::table_print::*;
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
            "term" => {
                let grace = Grace {
                    ms: number(args.take_key("grace"))?,
                    keeps_over: args.next_pos().is_none(),
                };
                self.table.start_term(self.now_ms, grace);
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
            name => match command(name, &mut args)? {
                Some(command) => {
                    let outcome = self.table.apply(self.now_ms, &command, &mut effects);
                    print_outcome(&outcome)
                }
                None => self.read(name, &mut args)?,
            },
        };
        args.reject_next()?;
        for effect in &effects {
            writeln!(out, "  {}", print_effect(effect))?;
        }
        self.table.assert_consistent(self.now_ms);
        Ok(out)
    }
}

impl Script {
    fn read(&self, name: &str, args: &mut ArgumentConsumer<'_>) -> Printed {
        let (table, now_ms) = (&self.table, self.now_ms);
        Ok(match name {
            "check" => {
                let resource = text(args.next_pos())?;
                let token = Token(number(args.next_pos())?);
                print_check(&table.check(resource, token, now_ms))
            }
            "get" => print_view(&table.get(text(args.next_pos())?, now_ms)),
            "list" => json_lines(&table.list(&page(args)?, now_ms))?,
            "graph" => json_lines(&table.graph(None, now_ms))?,
            "deadlocks" => {
                let limit = optional_number(args.take_key("limit"))?.unwrap_or(100);
                json_lines(&table.recent_deadlocks((limit as usize, None), now_ms))?
            }
            "session" => match table.session(text(args.next_pos())?, now_ms) {
                Ok(view) => json_lines(&view)?,
                Err(refusal) => print_outcome(&refusal),
            },
            "sessions" => json_lines(&table.list_sessions(&page(args)?, None, now_ms))?,
            "counts" => print_counts(table),
            "next" => format!("{:?}\n", table.next_deadline()),
            "endings" => print_endings(table, now_ms),
            other => return Err(format!("no command {other}").into()),
        })
    }
}

/// The table command of a line, if it is one.
fn command(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Option<Command>, Box<dyn Error>> {
    let optional_name = |text: Option<&str>| text.map(Name::from);
    Ok(Some(match name {
        "try" | "wait" => Command::Acquire(acquire(name, args)?),
        "release" => {
            let (resource, token) = resource_and_token(args)?;
            Command::Release {
                resource,
                token,
                tenant: None,
            }
        }
        "renew" => {
            let (resource, token) = resource_and_token(args)?;
            let ttl_ms = optional_number(args.take_key("ttl"))?;
            Command::Renew {
                resource,
                token,
                tenant: None,
                ttl_ms,
            }
        }
        "convert" => {
            let resource = text(args.next_pos())?.into();
            let token = text(args.next_pos())?;
            let to = grip(text(args.next_pos())?)?;
            let wait = wait(token, args)?;
            let token = Token(token.parse()?);
            Command::Convert(Box::new(Convert {
                resource,
                token,
                to,
                wait,
            }))
        }
        "cancel" => Command::Cancel {
            resource: text(args.next_pos())?.into(),
            owner: text(args.next_pos())?.into(),
            request_id: optional_name(args.take_key("id")),
            session: optional_name(args.take_key("session")),
        },
        "give-back" => Command::GiveBack {
            token: Token(number(args.next_pos())?),
        },
        "force" => Command::ForceRelease {
            resource: text(args.next_pos())?.into(),
            token: optional_number(args.next_pos())?.map(Token),
            reason: args.take_key("reason").unwrap_or("why").into(),
        },
        "open" => Command::OpenSession(Box::new(OpenSession {
            session: text(args.next_pos())?.into(),
            name: optional_name(args.take_key("name")),
            ttl_ms: optional_number(args.take_key("ttl"))?.unwrap_or(10_000),
            lock_delay_ms: optional_number(args.take_key("delay"))?.unwrap_or(0),
            meta: None,
            tenant: None,
        })),
        "keep" => {
            let mut sessions = Vec::new();
            while let Some(session) = args.next_pos() {
                sessions.push(session.into());
            }
            Command::KeepAlive { sessions }
        }
        "close" => Command::CloseSession {
            session: text(args.next_pos())?.into(),
            reason: optional_name(args.take_key("reason")),
        },
        _ => return Ok(None),
    }))
}

fn acquire(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Acquire, Box<dyn Error>> {
    let owner = text(args.next_pos())?;
    let resources = text(args.next_pos())?;
    let wait = wait(owner, args)?;
    let session = args.take_key("session").map(Name::from);
    let ttl_ms = optional_number(args.take_key("ttl"))?;
    let permits = args.take_key("permits").map(str::to_owned);
    let limit = args.take_key("limit").unwrap_or("1").to_owned();
    let mut mode = permits.map_or("exclusive".to_owned(), |n| format!("{n}/{limit}"));
    let mut on_deadlock = DeadlockPolicy::Requester;
    let request_id = args.take_key("id").map(Name::from);
    let meta = args.take_key("meta").map(str::to_owned);
    while let Some(word) = args.next_pos() {
        match word {
            "shared" => mode = word.to_owned(),
            "youngest" => on_deadlock = DeadlockPolicy::Youngest,
            other => return Err(format!("unexpected {other}").into()),
        }
    }
    Ok(Acquire {
        wants: wants(resources, &mode)?,
        owner: owner.into(),
        request_id,
        ttl_ms: match &session {
            Some(_) => ttl_ms,
            None => ttl_ms.or(Some(30_000)),
        },
        session,
        wait: (name == "wait").then_some(wait).flatten(),
        on_deadlock,
        meta,
        tenant: None,
    })
}

fn wait(who: &str, args: &mut ArgumentConsumer<'_>) -> Result<Option<Wait>, Box<dyn Error>> {
    let wait_ms = optional_number(args.take_key("for"))?.unwrap_or(10_000);
    let subject = args.take_key("reply").unwrap_or(who).to_owned();
    let encoding = Encoding::Json;
    let reply = ReplyTo::new(subject, encoding);
    Ok(Some(Wait { wait_ms, reply }))
}

fn wants(resources: &str, mode: &str) -> Result<Wants, Box<dyn Error>> {
    let want = |part: &str| -> Result<Want, Box<dyn Error>> {
        let (resource, mode) = part.split_once(':').unwrap_or((part, mode));
        Ok(Want {
            resource: resource.into(),
            grip: grip(mode)?,
        })
    };
    let mut wants: Vec<Want> = resources.split('+').map(want).collect::<Result<_, _>>()?;
    Ok(match wants.len() {
        1 => Wants::One(wants.remove(0)),
        _ => Wants::Set(Arc::from(wants)),
    })
}

fn grip(mode: &str) -> Result<Grip, Box<dyn Error>> {
    Ok(match mode {
        "exclusive" => Grip::Exclusive,
        "shared" => Grip::Shared,
        permits => {
            let (permits, limit) = permits.split_once('/').ok_or("a mode, or PERMITS/LIMIT")?;
            Grip::Permits {
                permits: permits.parse()?,
                limit: limit.parse()?,
            }
        }
    })
}

fn resource_and_token(
    args: &mut ArgumentConsumer<'_>,
) -> Result<(Option<Name>, Token), Box<dyn Error>> {
    let resource = text(args.next_pos())?;
    let resource = (resource != "*").then(|| resource.into());
    Ok((resource, Token(number(args.next_pos())?)))
}

fn page(args: &mut ArgumentConsumer<'_>) -> Result<Page, Box<dyn Error>> {
    Ok(Page {
        prefix: args.take_key("prefix").map(Name::from),
        cursor: args.take_key("cursor").map(Name::from),
        limit: optional_number(args.take_key("limit"))?.unwrap_or(100) as usize,
    })
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
            "claims_per_tenant" => &mut limits.claims_per_tenant,
            "bytes" => &mut limits.bytes,
            "bytes_per_tenant" => &mut limits.bytes_per_tenant,
            "claims_per_resource" => &mut limits.claims_per_resource,
            "claims_per_session" => &mut limits.claims_per_session,
            "sessions" => &mut limits.sessions,
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
