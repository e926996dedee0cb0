//! Orders to a local cluster: how another program on this machine breaks and mends it.
//!
//! `mufakat dev` takes orders on a Unix socket in its data directory. It carries them out on its own child processes.
//! So nobody signals a process id that meanwhile belongs to another process, and a restarted process still ends with
//! `mufakat dev`.
//!
//! A connection is one order and one answer, each a line of JSON: `{"act":"kill","process":"node-2"}`. Only the owner of
//! the socket may open it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// The name of the socket in the data directory.
const SOCKET: &str = "control";
/// Maximum size of an order or an answer.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// Time to read an order or to write an answer, with a peer on this machine.
const EXCHANGE_MAX: Duration = Duration::from_secs(1);
/// Longer than the time in which a process must stop.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// An action, and the process it is for: `nats`, `redis`, `node-1`, `node-2`, …
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", content = "process", rename_all = "snake_case")]
pub enum Order {
    /// Do nothing; the answer lists the processes.
    List,
    /// Kill the process (SIGKILL).
    Kill(String),
    /// Stop the process (SIGTERM), and wait until it has ended.
    Stop(String),
    /// Start a process that an order killed or stopped.
    Start(String),
    /// Pause the process (SIGSTOP).
    Pause(String),
    /// Resume a paused process (SIGCONT).
    Resume(String),
}

/// The processes after an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The port of the broker on 127.0.0.1.
    pub nats_port: u16,
    /// Processes that run or are paused.
    pub running: Vec<String>,
    /// Processes that an order killed or stopped.
    pub stopped: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Done(State),
    Refused(String),
}

/// Gives an order to the `mufakat dev` of this data directory, and waits until it is carried out.
///
/// # Errors
/// No `mufakat dev` uses this directory, or it refuses the order: there is no such process.
pub async fn give(data_dir: &Path, order: &Order) -> anyhow::Result<State> {
    let shown = data_dir.display();
    let none = || format!("no `mufakat dev` runs with the data directory {shown}");
    let mut stream = UnixStream::connect(data_dir.join(SOCKET))
        .await
        .with_context(none)?;
    let mut line = serde_json::to_string(order)?;
    line.push('\n');
    let exchange = async {
        stream.write_all(line.as_bytes()).await?;
        read_line(&mut stream).await
    };
    let answer = timeout(ANSWER_MAX, exchange)
        .await
        .with_context(|| format!("`mufakat dev` in {shown} does not answer"))??;
    match serde_json::from_str(&answer).context("not an answer of `mufakat dev`")? {
        Answer::Done(state) => Ok(state),
        Answer::Refused(why) => bail!("{why}"),
    }
}

/// The socket, as long as this lives.
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens in the directory. The caller holds its lock, so that an existing socket belongs to a process that has
    /// ended.
    pub(super) fn listen(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(SOCKET);
        if path.exists() {
            fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// The next connection. Cancelling this loses nothing.
    pub(super) async fn asked(&self) -> std::io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Clients of a socket that stays behind find that nobody listens.
        let _left = fs::remove_file(&self.path);
    }
}

/// The order of a connection. Anything else is refused here.
pub(super) async fn order(stream: &mut UnixStream) -> Option<Order> {
    let line = timeout(EXCHANGE_MAX, read_line(stream)).await.ok()?.ok()?;
    match serde_json::from_str(&line) {
        Ok(order) => Some(order),
        Err(error) => {
            answer(stream, &Answer::Refused(format!("not an order: {error}"))).await;
            None
        }
    }
}

/// Answers. A client that has gone is ignored.
pub(super) async fn answer(stream: &mut UnixStream, answer: &Answer) {
    let mut line = serde_json::to_string(answer).expect("an answer can be written as JSON");
    line.push('\n');
    let _sent = timeout(EXCHANGE_MAX, stream.write_all(line.as_bytes())).await;
}

async fn read_line(stream: &mut UnixStream) -> std::io::Result<String> {
    let mut line = String::new();
    let mut limited = BufReader::new(stream).take(LINE_BYTES_MAX);
    limited.read_line(&mut line).await?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_is_answered_and_what_is_none_refused() {
        let directory = tempfile::tempdir().expect("directory");
        let nobody = give(directory.path(), &Order::List).await;
        let why = nobody.expect_err("nobody listens").to_string();
        assert!(why.starts_with("no `mufakat dev` runs"), "{why}");

        let control = Control::listen(directory.path()).expect("listens");
        let state = State {
            nats_port: 4222,
            running: vec!["node-1".to_owned()],
            stopped: vec![],
        };
        let serve = async {
            let mut stream = control.asked().await.expect("asked");
            let ordered = order(&mut stream).await;
            answer(&mut stream, &Answer::Done(state.clone())).await;
            let mut stream = control.asked().await.expect("asked");
            assert_eq!(order(&mut stream).await, None);
            ordered
        };
        let ask = async {
            let kill = Order::Kill("node-2".to_owned());
            let done = give(directory.path(), &kill).await.expect("done");
            let path = directory.path().join(SOCKET);
            let mut stream = UnixStream::connect(path).await.expect("connected");
            stream
                .write_all(b"{\"act\":\"dance\"}\n")
                .await
                .expect("sent");
            (done, read_line(&mut stream).await.expect("answered"))
        };
        let (ordered, (done, refused)) = tokio::join!(serve, ask);
        assert_eq!(ordered, Some(Order::Kill("node-2".to_owned())));
        assert_eq!(done, state);
        assert!(refused.contains("not an order"), "{refused}");
        drop(control);
        assert!(!directory.path().join(SOCKET).exists());
    }

    #[test]
    fn orders_are_plain_json() {
        let kill = serde_json::to_string(&Order::Kill("node-2".to_owned())).expect("JSON");
        assert_eq!(kill, r#"{"act":"kill","process":"node-2"}"#);
        let list: Order = serde_json::from_str(r#"{"act":"list"}"#).expect("an order");
        assert_eq!(list, Order::List);
    }
}
