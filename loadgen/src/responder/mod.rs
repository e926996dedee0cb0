//! The other end of `echo`: sends every request back as it came, on a connection and a thread of its own.
//!
//! Two forms, because the echo is to be the best that the broker allows. `socket` speaks the broker's text
//! protocol on a plain TCP connection and needs about a third of the CPU time that `client` needs, which is a
//! client library's subscription; on two cores the echo gains 5 to 13% from that. `socket` knows neither TLS nor
//! any authentication but user, password and token; `client` is for brokers that ask for more.

use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use mufakat::broker::options::NatsOptions;
use tokio::sync::oneshot;

use crate::cpu;

mod client;
mod protocol;
mod socket;

/// How the responder is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// The broker's protocol on a plain TCP connection: the cheapest.
    #[default]
    Socket,
    /// A subscription of the NATS client library.
    Client,
}

impl Form {
    /// The form's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Client => "client",
        }
    }
}

/// A responder that answers until it is stopped or dropped.
pub struct Responder {
    stop: Option<Stop>,
    thread: Option<std::thread::JoinHandle<Result<Option<Duration>>>>,
}

enum Stop {
    /// Closing the socket ends the thread's read.
    Socket(TcpStream),
    Client(oneshot::Sender<()>),
}

impl Responder {
    /// Starts a responder and waits until the broker has its subscription.
    ///
    /// # Errors
    /// The broker cannot be reached or does not accept the connection.
    pub async fn start(form: Form, nats: &NatsOptions, subject: &str) -> Result<Self> {
        match form {
            Form::Socket => {
                let (nats, subject) = (nats.clone(), subject.to_owned());
                let connected =
                    tokio::task::spawn_blocking(move || socket::Socket::connect(&nats, &subject))
                        .await?;
                let socket = connected.context("the echo responder cannot connect")?;
                let stop = Stop::Socket(socket.stopper()?);
                Self::spawn(stop, move || socket.answer())
            }
            Form::Client => {
                let (stop, stopped) = oneshot::channel();
                let (ready, is_ready) = oneshot::channel();
                let (nats, subject) = (nats.clone(), subject.to_owned());
                let responder = Self::spawn(Stop::Client(stop), move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()?;
                    runtime.block_on(client::answer(&nats, &subject, ready, stopped))
                })?;
                match is_ready.await {
                    Ok(()) => Ok(responder),
                    Err(_) => Err(responder
                        .stop()
                        .err()
                        .unwrap_or_else(|| anyhow!("the echo responder ended"))),
                }
            }
        }
    }

    /// Stops the responder; returns the CPU time that it used, where the system tells.
    ///
    /// # Errors
    /// The responder had failed before.
    pub fn stop(mut self) -> Result<Option<Duration>> {
        self.tell_to_stop();
        let thread = self
            .thread
            .take()
            .expect("the thread is taken only here, and self is consumed");
        thread
            .join()
            .map_err(|_| anyhow!("the echo responder panicked"))?
    }

    fn spawn(stop: Stop, answer: impl FnOnce() -> Result<()> + Send + 'static) -> Result<Self> {
        let thread = std::thread::Builder::new()
            .name("echo".to_owned())
            .spawn(move || {
                answer()?;
                Ok(cpu::of_this_thread())
            })
            .context("cannot start the echo responder's thread")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn tell_to_stop(&mut self) {
        // In both cases failing means that the responder has already ended.
        match self.stop.take() {
            Some(Stop::Socket(socket)) => drop(socket.shutdown(Shutdown::Both)),
            Some(Stop::Client(stop)) => drop(stop.send(())),
            None => {}
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.tell_to_stop();
    }
}
