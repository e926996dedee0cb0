//! A broker of a few lines for tests of the client: it takes requests and reacts as it is told.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of a request.
pub(super) enum Reaction {
    Answer(String),
    NoResponders,
    Silence,
    /// The connection breaks; the next one works.
    Disconnect,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub subject: String,
    pub body: String,
}

type React = Box<dyn FnMut(&Arrived) -> Reaction + Send>;

pub(super) struct FakeBroker {
    pub client: async_nats::Client,
    arrived: watch::Sender<Vec<Arrived>>,
}

impl FakeBroker {
    /// Listens, and connects a client to itself.
    pub(super) async fn start(react: impl FnMut(&Arrived) -> Reaction + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let arrived = watch::Sender::new(Vec::new());
        tokio::spawn(accept(listener, Box::new(react), arrived.clone()));
        let client = async_nats::connect(address).await.expect("a broker");
        FakeBroker { client, arrived }
    }

    pub(super) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.borrow().clone()
    }

    /// Returns once what has arrived, by subject, is as it is wanted.
    pub(super) async fn until(&self, wanted: impl Fn(&[&str]) -> bool) {
        let mut arrived = self.arrived.subscribe();
        let arrived = arrived.wait_for(|arrived| {
            let subjects: Vec<&str> = arrived.iter().map(|a| &*a.subject).collect();
            wanted(&subjects)
        });
        let arrived = tokio::time::timeout(Duration::from_secs(20), arrived).await;
        arrived.expect("it arrives").expect("the broker runs");
    }

    pub(super) fn subjects(&self) -> Vec<String> {
        self.arrived().into_iter().map(|a| a.subject).collect()
    }
}

async fn accept(listener: TcpListener, mut react: React, arrived: watch::Sender<Vec<Arrived>>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        serve(stream, &mut react, &arrived).await.ok();
    }
}

async fn serve(
    stream: TcpStream,
    react: &mut React,
    arrived: &watch::Sender<Vec<Arrived>>,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    write
        .write_all(b"INFO {\"server_id\":\"x\",\"server_name\":\"x\",\"version\":\"2.12.0\",\"go\":\"\",\"host\":\"127.0.0.1\",\"port\":1,\"headers\":true,\"max_payload\":1048576,\"proto\":1,\"client_id\":1}\r\n")
        .await?;
    loop {
        let mut line = String::new();
        if read.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["PING"] => write.write_all(b"PONG\r\n").await?,
            ["PUB", subject, reply, size] => {
                let body = body(&mut read, size).await?;
                let request = Arrived {
                    subject: subject.to_owned(),
                    body,
                };
                arrived.send_modify(|arrived| arrived.push(request.clone()));
                match react(&request) {
                    Reaction::Disconnect => return Ok(()),
                    reaction => answer(&mut write, reply, reaction).await?,
                }
            }
            _ => {}
        }
    }
}

async fn body(read: &mut BufReader<OwnedReadHalf>, size: &str) -> std::io::Result<String> {
    let size: usize = size.parse().expect("a size");
    let mut body = vec![0; size + "\r\n".len()];
    read.read_exact(&mut body).await?;
    body.truncate(size);
    Ok(String::from_utf8(body).expect("tests speak JSON"))
}

async fn answer(
    write: &mut OwnedWriteHalf,
    reply: &str,
    reaction: Reaction,
) -> std::io::Result<()> {
    // The inbox is the first subscription of the connection.
    let message = match reaction {
        Reaction::Answer(text) => format!("MSG {reply} 1 {}\r\n{text}\r\n", text.len()),
        Reaction::NoResponders => {
            format!("HMSG {reply} 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n")
        }
        Reaction::Silence | Reaction::Disconnect => return Ok(()),
    };
    write.write_all(message.as_bytes()).await
}
