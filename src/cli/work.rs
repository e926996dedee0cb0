//! `mufakat queue work`: a command for each message of a topic.
//!
//! The command gets the payload on stdin. While it runs the message is extended at a third of its
//! visibility; when it exits with 0 the message is acknowledged, else handed back. A message that was
//! lost to somebody else meanwhile (its extension is stale) ends the command: its work is not wanted.

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

/// How long one pop waits; the next follows at once.
const WAIT_MS: u64 = 20_000;
const _: () = assert!(WAIT_MS <= WAIT_MS_MAX);
/// After a pop that failed: the cluster is not there, and should not be flooded when it is.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a command may stand still for the terminal before that is seen.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(10);
/// Signals that end the work.
const ENDS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// Run a command for each message: payload on stdin, done if it exits with 0.
///
/// The command finds MUFAKAT_TOPIC, MUFAKAT_ID, MUFAKAT_SEQ and MUFAKAT_DELIVERIES in its environment.
/// While it runs, the message is kept. Any other exit code hands the message back. On SIGTERM, SIGHUP,
/// SIGQUIT or Ctrl-C (but for those that are ignored already, as SIGHUP is under nohup) no more messages are
/// taken, and those that run are finished; the second time the commands get SIGTERM, after 5 s SIGKILL, and
/// messages whose commands do not exit with 0 all the same are handed back. Each command has a process group of
/// its own: Ctrl-C does not reach it, and one that wants to read from the terminal is stopped by the system,
/// which ends it here, too.
///
/// Examples:
///   mufakat queue work mails -- ./send-mail
///   mufakat queue work images --jobs 4 --visibility 2m -- ./resize --fast
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct WorkArgs {
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Commands at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: u64,
    /// How long a message is kept before it has to be extended.
    #[arg(long, value_name = "LENGTH", default_value = "30s", value_parser = length_ms)]
    visibility: u64,
    /// Who takes the messages; shown to operators.
    #[arg(long, value_name = "NAME", default_value = "queue-work")]
    consumer: String,
    /// End when the topic has nothing ready, instead of waiting; with 1 when it is paused. While the queue cannot be
    /// reached it is asked again.
    #[arg(long)]
    until_empty: bool,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How far the whole is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Works,
    /// No more messages are taken.
    Finishes,
    /// Commands are stopped.
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
                        "no more messages are taken; once more, and commands that run are stopped",
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
    /// For pops alone: its inbox ends with the last one, so that no node gives this worker a message when it
    /// takes none any more.
    pops: Client,
    args: Arc<WorkArgs>,
    stage: watch::Receiver<Stage>,
}

/// How the command of a message ended.
enum Ended {
    ByItself(std::io::Result<std::process::ExitStatus>),
    /// Stopped, since the message is somebody else's.
    Lost,
    /// Stopped, since the whole is to end.
    Stopped,
    /// Stopped, since it would wait for ever for the terminal, which is not its own.
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
                        say(format_args!("mufakat: no messages now: {why}"));
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

    /// Nobody knows for how long a topic is paused: who ends when nothing is ready does not wait for that.
    fn ends_by(&self, error: &ClientError) -> bool {
        self.args.until_empty && error.code() == Some(Code::TopicPaused)
    }

    /// Waits until the whole is so far on its way to its end.
    fn reached(&self, stage: Stage) -> impl Future<Output = ()> + use<> {
        let mut stages = self.stage.clone();
        async move {
            // Should nobody be left to say so, it is at its end, too.
            let _ = stages.wait_for(|now| *now >= stage).await;
        }
    }

    /// What a pop answers; none when no more messages are to be taken. One that came all the same, while
    /// the broker was told, goes back.
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
                let reason = "it came when no more messages were taken";
                self.hand_back(receipt, Some(0), reason.to_owned()).await;
            }
        }
        None
    }

    /// One message. An error is a command that cannot be run at all: its message is handed back.
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
                self.hand_back(receipt, None, format!("cannot run: {error}"))
                    .await;
                return Err(match error.kind() {
                    std::io::ErrorKind::NotFound => ExitStatus::NotFound,
                    _ => ExitStatus::NotExecutable,
                });
            }
        };
        let payload = message.payload().map(|value| value.into_bytes());
        let stdin = child.stdin.take();
        // A command that does not read its input is no error.
        let feeding = tokio::spawn(async move {
            if let (Some(mut stdin), Ok(payload)) = (stdin, payload) {
                let _ = stdin.write_all(&payload).await;
            }
        });
        let ended = self.until_end(&mut child, &receipt).await;
        feeding.abort();
        match ended {
            Ended::Lost => say(format_args!(
                "mufakat: {} is somebody else's now",
                message.id
            )),
            Ended::ByItself(Ok(status)) if status.success() => {
                let done = self.settle(receipt, Verdict::Ack { pop: None }).await;
                if let Err(error) = done {
                    say(format_args!(
                        "mufakat: {} is done, but that is not known: {error}",
                        message.id
                    ));
                }
            }
            Ended::ByItself(Ok(status)) => {
                say(format_args!(
                    "mufakat: {} is handed back: {status}",
                    message.id
                ));
                self.hand_back(receipt, None, status.to_string()).await;
            }
            Ended::ByItself(Err(error)) => self.hand_back(receipt, None, error.to_string()).await,
            Ended::WantsTerminal => {
                say(format_args!(
                    "mufakat: the command for {} wants the terminal, which it cannot have",
                    message.id
                ));
                self.hand_back(receipt, None, "it wants a terminal".to_owned())
                    .await;
            }
            Ended::Stopped => {
                let reason = "the command was stopped together with the worker";
                self.hand_back(receipt, Some(0), reason.to_owned()).await;
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
            // Ctrl-C on a terminal is for the worker, which decides what it means for the command.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Waits for the command, and keeps the message until it has ended.
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
        // Also after the command has ended: others of its group may not have.
        signal(Signal::KILL);
        let _ = child.wait().await;
        ended
    }

    /// Keeps the message, until there is a reason to end its command.
    async fn keep(&self, receipt: &Receipt, command: Option<Pid>) -> Ended {
        let visibility_ms = self.args.visibility;
        let extend_every = Duration::from_millis((visibility_ms / 3).max(10)).min(LOOK_EVERY_MAX);
        loop {
            tokio::time::sleep(extend_every).await;
            if command.is_some_and(wants_the_terminal) {
                return Ended::WantsTerminal;
            }
            let extended = self.settle(receipt.clone(), Verdict::Extend { visibility_ms });
            // What fails is tried again; the message is ours until it is somebody else's.
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

    /// Absent, the delay is the topic's backoff.
    async fn hand_back(&self, receipt: Receipt, delay_ms: Option<u64>, reason: String) {
        let verdict = Verdict::Nack {
            delay_ms,
            dead: false,
            reason: Some(reason),
        };
        if let Err(error) = self.settle(receipt, verdict).await {
            say(format_args!(
                "mufakat: a message was not handed back and comes again by itself: {error}"
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
