//! `mufakat queue work`: runs a command for each message of a topic.
//!
//! The command gets the payload on stdin. While it runs, the reservation of the message is extended at a third of its
//! visibility timeout. When the command exits with 0 the message is acknowledged, otherwise it is returned. If the
//! message was redelivered to another consumer meanwhile (extending it is stale), the command is killed: its work is
//! not wanted.

use std::ffi::OsString;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cli::output::say;
use crate::cli::run::{STOP_MAX, Signals, signal_group, wants_the_terminal};
use crate::cli::{Connection, ExitStatus, Failure, length_ms};
use crate::client::{Client, ClientError, Target};
use crate::protocol::Code;
use crate::protocol::queue::{
    Delivered, Demand, Pop, Popped, Receipt, ReceiptResult, Receipts, Results, Verdict, WAIT_MS_MAX,
};

/// How long one pop waits. The next one follows at once.
const WAIT_MS: u64 = 20_000;
const _: () = assert!(WAIT_MS <= WAIT_MS_MAX);
/// Pause after a pop that failed, so that a cluster that comes back is not flooded.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a command may be stopped for the terminal before this is noticed.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(10);
/// Signals that end the worker.
const ENDS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// Run a command for each message of a topic
///
/// The command gets the payload on stdin, and MUFAKAT_TOPIC, MUFAKAT_ID, MUFAKAT_SEQ and
/// MUFAKAT_DELIVERIES in its environment. While it runs, the message stays reserved. If it exits with
/// 0 the message is acknowledged, otherwise it is returned to the queue.
///
/// SIGINT, SIGTERM, SIGHUP and SIGQUIT:
///   - The first one: take no more messages, and finish those whose commands run.
///   - The second one: send SIGTERM to the commands, and SIGKILL after 5 s. The message of a command
///     that does not exit with 0 is returned.
///   - A signal that is ignored at the start, as SIGHUP under nohup, stays ignored.
///
/// Each command has its own process group: Ctrl-C does not reach it. Nor does Ctrl-Z, which stops
/// only the worker: a message whose time runs out meanwhile may be delivered again, and its command
/// is killed once the worker goes on. A command that reads from the terminal is killed, and its
/// message is returned.
///
/// Exit codes:
///   0    ended by a signal, or --until-empty found the topic empty
///   1    a request for messages was refused
///   69   the cluster cannot be reached at the start
///   126  the command cannot be executed (127: not found); its message is returned
///
/// Examples:
///   mufakat queue work mails -- ./send-mail
///   mufakat queue work images --jobs 4 --visibility 2m -- ./resize --fast
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct WorkArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Number of commands to run at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: u64,
    /// Visibility timeout of the messages; it is extended while the command runs.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = length_ms)]
    visibility: u64,
    /// Name of this consumer, shown to operators.
    #[arg(long, value_name = "NAME", default_value = "queue-work")]
    consumer: String,
    /// Exit when no message is ready, instead of waiting; with 1 if the topic is paused. Other failed
    /// requests are still retried.
    #[arg(long)]
    until_empty: bool,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How far the worker is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Works,
    /// It takes no more messages.
    Finishes,
    /// It stops the commands.
    Stops,
}

pub(super) async fn run(connection: &Connection, args: WorkArgs) -> Result<ExitStatus, Failure> {
    let mut signals = Signals::listen(&ENDS)?;
    let (stage, staged) = watch::channel(Stage::Works);
    let client = connection.client_of_values(Target::Leader).await?;
    let args = Arc::new(args);
    let mut workers = JoinSet::new();
    for _ in 0..args.jobs {
        let worker = Worker {
            client: client.clone(),
            pops: client.apart().await.map_err(ClientError::from)?,
            args: args.clone(),
            stage: staged.clone(),
        };
        workers.spawn(worker.work());
    }
    let mut status = ExitStatus::Done;
    loop {
        tokio::select! {
            _ = signals.next() => {
                let (next, saying) = match *staged.borrow() {
                    Stage::Works => (
                        Stage::Finishes,
                        "taking no more messages; a second signal stops the running commands",
                    ),
                    Stage::Finishes | Stage::Stops => (Stage::Stops, "stopping the commands"),
                };
                stage.send_replace(next);
                say(format_args!("mufakat: {saying}"));
            }
            ended = workers.join_next() => match ended {
                None => return Ok(status),
                Some(ended) => {
                    let worst = ended.unwrap_or(ExitStatus::Refused);
                    if worst != ExitStatus::Done {
                        status = worst;
                        stage.send_modify(|stage| *stage = (*stage).max(Stage::Finishes));
                    }
                }
            },
        };
    }
}

struct Worker {
    client: Client,
    /// For pops alone. Its inbox is closed with the last pop, so that no node delivers a message to a worker that
    /// takes no more.
    pops: Client,
    args: Arc<WorkArgs>,
    stage: watch::Receiver<Stage>,
}

/// How the command of a message ended.
enum Ended {
    ByItself(std::io::Result<std::process::ExitStatus>),
    /// Killed, since the message was redelivered to another consumer.
    Lost,
    /// Stopped, since the worker ends.
    Stopped,
    /// Killed, since it would wait forever for a terminal that it does not own.
    WantsTerminal,
}

impl Worker {
    async fn work(mut self) -> ExitStatus {
        let pop = Pop {
            topic: self.args.topic.clone(),
            demand: Demand {
                wait_ms: if self.args.until_empty { 0 } else { WAIT_MS },
                visibility_ms: Some(self.args.visibility),
                ..Demand::new(self.args.consumer.clone())
            },
            timeout_ms: None,
        };
        // What lasts is said once.
        let mut said = String::new();
        loop {
            let Some(popped) = self.pop(&pop).await else {
                return ExitStatus::Done;
            };
            if popped.is_ok() {
                said.clear();
            }
            match popped {
                Ok(popped) if popped.messages.is_empty() && self.args.until_empty => {
                    return ExitStatus::Done;
                }
                Ok(popped) => {
                    for message in popped.messages {
                        if let Err(status) = self.one(message).await {
                            return status;
                        }
                    }
                }
                Err(error) if error.retryable() && !self.ends_by(&error) => {
                    let why = error.to_string();
                    if why != said {
                        say(format_args!(
                            "mufakat: cannot get messages, retrying: {why}"
                        ));
                        said = why;
                    }
                    let _ = tokio::time::timeout(PAUSE, self.reached(Stage::Finishes)).await;
                }
                Err(error) => {
                    say(format_args!("mufakat: {error}"));
                    return ExitStatus::Refused;
                }
            }
        }
    }

    /// How long a topic is paused is not known: with `--until-empty` that is not waited for.
    fn ends_by(&self, error: &ClientError) -> bool {
        self.args.until_empty && error.code() == Some(Code::TopicPaused)
    }

    /// Waits until the worker has reached a stage.
    fn reached(&self, stage: Stage) -> impl Future<Output = ()> + use<> {
        let mut stages = self.stage.clone();
        async move {
            // Without a sender the worker is at its end, too.
            let _ = stages.wait_for(|now| *now >= stage).await;
        }
    }

    /// The answer to a pop; none once no more messages are to be taken. A message that still arrives while the broker
    /// closes the inbox is returned.
    async fn pop(&mut self, pop: &Pop) -> Option<Result<Popped, ClientError>> {
        let popped = self.pops.pop(pop);
        tokio::pin!(popped);
        tokio::select! {
            biased;
            () = self.reached(Stage::Finishes) => {}
            popped = &mut popped => return Some(popped),
        }
        self.pops.close().await;
        let messages = popped.await.map_or(Vec::new(), |popped| popped.messages);
        for message in messages {
            if let Ok(receipt) = message.receipt.parse() {
                let reason = "it arrived when the worker took no more messages";
                self.give_back(receipt, Some(0), reason.to_owned()).await;
            }
        }
        None
    }

    /// Handles one message. An error means that the command cannot be run at all; its message is returned.
    async fn one(&self, message: Delivered) -> Result<(), ExitStatus> {
        let Ok(receipt) = message.receipt.parse::<Receipt>() else {
            return Ok(());
        };
        let spawned = self.spawn(&message);
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                say(format_args!(
                    "mufakat: cannot run {}: {error}",
                    self.args.command[0].display()
                ));
                self.give_back(receipt, None, format!("cannot run: {error}"))
                    .await;
                return Err(match error.kind() {
                    std::io::ErrorKind::NotFound => ExitStatus::NotFound,
                    _ => ExitStatus::NotExecutable,
                });
            }
        };
        let payload = message.payload().map(|value| value.into_bytes());
        let stdin = child.stdin.take();
        // It is no error if the command does not read its input.
        let feeding = tokio::spawn(async move {
            if let (Some(mut stdin), Ok(payload)) = (stdin, payload) {
                let _ = stdin.write_all(&payload).await;
            }
        });
        let ended = self.until_end(&mut child, &receipt).await;
        feeding.abort();
        match ended {
            Ended::Lost => say(format_args!(
                "mufakat: lost message {}: another consumer has it now; its command was killed",
                message.id
            )),
            Ended::ByItself(Ok(status)) if status.success() => {
                let done = self.settle(receipt, Verdict::Ack { pop: None }).await;
                if let Err(error) = done {
                    say(format_args!(
                        "mufakat: the command for {} succeeded, but the acknowledgement failed, so that \
                         it may be delivered again: {error}",
                        message.id
                    ));
                }
            }
            Ended::ByItself(Ok(status)) => {
                let id = &message.id;
                say(format_args!(
                    "mufakat: {id} is returned to the queue: {status}"
                ));
                self.give_back(receipt, None, status.to_string()).await;
            }
            Ended::ByItself(Err(error)) => self.give_back(receipt, None, error.to_string()).await,
            Ended::WantsTerminal => {
                say(format_args!(
                    "mufakat: the command for {} wants the terminal, which it cannot have; it was killed",
                    message.id
                ));
                self.give_back(receipt, None, "the command wants a terminal".to_owned())
                    .await;
            }
            Ended::Stopped => {
                let reason = "the command was stopped together with the worker";
                self.give_back(receipt, Some(0), reason.to_owned()).await;
            }
        }
        Ok(())
    }

    fn spawn(&self, message: &Delivered) -> std::io::Result<Child> {
        Command::new(&self.args.command[0])
            .args(&self.args.command[1..])
            .env("MUFAKAT_TOPIC", &self.args.topic)
            .env("MUFAKAT_ID", &message.id)
            .env("MUFAKAT_SEQ", message.seq.to_string())
            .env("MUFAKAT_DELIVERIES", message.deliveries.to_string())
            .stdin(Stdio::piped())
            // Ctrl-C on a terminal is for the worker, which decides about its commands.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Waits for the command, and keeps the message reserved until it has ended.
    async fn until_end(&self, child: &mut Child, receipt: &Receipt) -> Ended {
        let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
        let signal = |signal| pid.into_iter().for_each(|pid| signal_group(pid, signal));
        let kept = self.keep(receipt, pid);
        tokio::pin!(kept);
        let ended = tokio::select! {
            biased;
            ended = child.wait() => return Ended::ByItself(ended),
            ended = &mut kept => ended,
            () = self.reached(Stage::Stops) => {
                signal(Signal::TERM);
                tokio::select! {
                    biased;
                    ended = child.wait() => match ended {
                        Ok(status) if status.success() => Ended::ByItself(Ok(status)),
                        _ => Ended::Stopped,
                    },
                    ended = &mut kept => ended,
                    () = tokio::time::sleep(STOP_MAX) => Ended::Stopped,
                }
            }
        };
        // Other processes of the group may outlive the command.
        signal(Signal::KILL);
        let _ = child.wait().await;
        ended
    }

    /// Keeps the message reserved until there is a reason to end its command.
    async fn keep(&self, receipt: &Receipt, command: Option<Pid>) -> Ended {
        let visibility_ms = self.args.visibility;
        let extend_every = Duration::from_millis((visibility_ms / 3).max(10)).min(LOOK_EVERY_MAX);
        loop {
            tokio::time::sleep(extend_every).await;
            if command.is_some_and(wants_the_terminal) {
                return Ended::WantsTerminal;
            }
            let extended = self.settle(receipt.clone(), Verdict::Extend { visibility_ms });
            // A failed extension is retried: the message is ours until another consumer gets it.
            if let Ok(results) = extended.await
                && results
                    .results
                    .iter()
                    .any(|r| r.result == ReceiptResult::StaleReceipt)
            {
                return Ended::Lost;
            }
        }
    }

    /// Returns a message to the queue. Without a delay, the topic's backoff applies.
    async fn give_back(&self, receipt: Receipt, delay_ms: Option<u64>, reason: String) {
        let verdict = Verdict::Nack {
            delay_ms,
            dead: false,
            reason: Some(reason),
        };
        if let Err(error) = self.settle(receipt, verdict).await {
            say(format_args!(
                "mufakat: a message could not be returned; it is redelivered when its visibility \
                 timeout ends: {error}"
            ));
        }
    }

    async fn settle(&self, receipt: Receipt, what: Verdict) -> Result<Results, ClientError> {
        let request = Receipts {
            topic: self.args.topic.clone(),
            receipts: vec![receipt],
            what,
            timeout_ms: None,
        };
        self.client.settle(&request).await
    }
}
