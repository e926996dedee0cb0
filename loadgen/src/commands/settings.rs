//! What a call was asked to do, as its report has it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cli::{CacheShape, Cli, Command, LocksShape, QueueShape};
use crate::report::{Settings, milliseconds};

/// The settings of a command that makes a run.
pub fn settings(cli: &Cli, workers: u32) -> Settings {
    let (plan, target, echo) = (cli.plan(), &cli.target, cli.command.echo());
    let echo = echo.filter(|flags| !flags.skip_echo && cli.command.chaos().is_none());
    let open_loop = plan.open_loop.as_ref();
    Settings {
        command: cli.command.name().to_owned(),
        users: plan.users,
        spawn_per_second: plan.spawn_rate,
        think_ms: milliseconds(plan.think),
        rate_per_second: open_loop.map(|open_loop| open_loop.rate),
        arrivals: open_loop.map(|open_loop| open_loop.arrivals.name().to_owned()),
        warm_up_ms: milliseconds(plan.warm_up),
        duration_ms: milliseconds(plan.duration),
        requests: plan.requests,
        seed: plan.seed,
        workload: own_settings(&cli.command),
        echo_payload_bytes: echo.map(|flags| flags.payload),
        echo_responder: echo.map(|flags| flags.responder.name().to_owned()),
        prefix: target.prefix.to_string(),
        encoding: target.encoding.name().to_owned(),
        target: target.target.to_string(),
        timeout_ms: milliseconds(target.timeout),
        connections: cli.setup().connections,
        threads: target.threads,
        workers,
    }
}

/// The flags that only this command has.
fn own_settings(command: &Command) -> BTreeMap<String, Value> {
    let mut own = Own::default();
    match command {
        Command::Reference(flags) => {
            own.add("hold_ms", json!(milliseconds(flags.hold)));
            own.add("think_ms", json!(milliseconds(flags.think)));
        }
        Command::Locks(flags) => {
            own.locks(&flags.shape);
            own.add("check", json!(flags.check.check));
        }
        Command::Queue(flags) => {
            own.queue(&flags.shape);
            own.add("check", json!(flags.check.check));
        }
        Command::Cache(flags) => {
            own.cache(&flags.shape);
            own.add("check", json!(flags.check.check));
        }
        Command::Mix(flags) => {
            own.add("weights", json!(flags.weights));
            own.locks(&flags.locks);
            own.queue(&flags.queue);
            own.cache(&flags.cache);
            own.add("check", json!(flags.check.check));
        }
        Command::Redis(flags) => own.add("value_bytes", json!(flags.value_bytes)),
        Command::Status(_) | Command::Echo(_) => {}
        Command::Bench(_) | Command::Coordinate(_) | Command::Worker(_) | Command::Compare(_) => {}
    }
    if let Some((flags, _)) = command.chaos() {
        let parts = flags.chaos_on.iter().map(|part| part.name());
        own.add("chaos_on", json!(parts.collect::<Vec<_>>()));
        own.add("chaos_every_ms", json!(milliseconds(flags.chaos_every)));
        own.add("chaos_outage_ms", json!(milliseconds(flags.chaos_outage)));
    }
    own.0
}

#[derive(Default)]
struct Own(BTreeMap<String, Value>);

impl Own {
    fn add(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    fn locks(&mut self, shape: &LocksShape) {
        self.add("locks", json!(shape.locks));
        self.add("set", json!(shape.set));
        self.add("shared", json!(shape.shared));
        self.add("hold_ms", json!(milliseconds(shape.hold)));
        self.add("wait_ms", json!(milliseconds(shape.wait())));
    }

    fn queue(&mut self, shape: &QueueShape) {
        self.add("topics", json!(shape.topics));
        self.add("batch", json!(shape.batch));
        self.add("message_bytes_min", json!(shape.message_bytes.start()));
        self.add("message_bytes_max", json!(shape.message_bytes.end()));
    }

    fn cache(&mut self, shape: &CacheShape) {
        self.add("increments", json!(shape.increments));
        self.add("reads", json!(shape.reads));
        self.add("keys", json!(shape.keys));
        self.add("zipf", json!(shape.zipf));
        self.add("value_bytes_min", json!(shape.value_bytes.start()));
        self.add("value_bytes_max", json!(shape.value_bytes.end()));
    }
}
