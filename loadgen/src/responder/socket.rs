//! The echo on a plain TCP connection: one read takes all requests that wait, one write sends all answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::ServerAddr;
use mufakat::broker::options::NatsOptions;

use super::protocol;

/// What is read at once. It has to hold one whole message, so it bounds the payload of an echo.
const READ_BYTES_MAX: usize = 256 * 1024;
/// How long the broker may take to greet and to take the subscription.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that has its subscription.
pub struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Socket {
    /// Connects and subscribes.
    ///
    /// # Errors
    /// The broker cannot be reached, asks for TLS, or refuses.
    pub fn connect(nats: &NatsOptions, subject: &str) -> Result<Self> {
        let address = nats.servers()?.swap_remove(0);
        let files = [&nats.creds, &nats.nkey, &nats.cert, &nats.ca];
        if address.tls_required()
            || nats.context.is_some()
            || files.iter().any(|file| file.is_some())
        {
            bail!("it knows neither TLS, credentials nor contexts: use `--responder client`");
        }
        let stream = TcpStream::connect((address.host(), address.port()))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        let mut socket = Self {
            stream,
            buffer: vec![0; READ_BYTES_MAX],
            filled: 0,
        };
        let greeting = connect_options(&address, nats);
        let opening = format!("CONNECT {greeting}\r\nSUB {subject} 1\r\nPING\r\n");
        socket.stream.write_all(opening.as_bytes())?;
        socket.wait_for_pong()?;
        socket.stream.set_read_timeout(None)?;
        Ok(socket)
    }

    /// A handle whose `shutdown` ends `answer`.
    pub fn stopper(&self) -> Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }

    /// Answers until the connection is closed.
    ///
    /// # Errors
    /// The connection broke or the broker reported an error.
    pub fn answer(mut self) -> Result<()> {
        let mut out = Vec::with_capacity(READ_BYTES_MAX);
        loop {
            let used = protocol::answer(&self.buffer[..self.filled], &mut out)?;
            self.buffer.copy_within(used..self.filled, 0);
            self.filled -= used;
            self.stream.write_all(&out)?;
            out.clear();
            if !self.read()? {
                return Ok(());
            }
        }
    }

    /// Reads on until the broker has answered the first PING, which tells that it has the subscription.
    fn wait_for_pong(&mut self) -> Result<()> {
        loop {
            let lines = &self.buffer[..self.filled];
            if let Some(at) = lines.windows(6).position(|window| window == b"PONG\r\n") {
                self.buffer.copy_within(at + 6..self.filled, 0);
                self.filled -= at + 6;
                return Ok(());
            }
            if let Some(at) = lines.windows(5).position(|window| window == b"-ERR ") {
                bail!(
                    "the broker says {}",
                    String::from_utf8_lossy(&lines[at..]).trim()
                );
            }
            if !self.read().context("no answer to CONNECT")? {
                bail!("the broker closed the connection");
            }
        }
    }

    /// Reads what is there; `false` if the connection was closed.
    fn read(&mut self) -> Result<bool> {
        if self.filled == self.buffer.len() {
            bail!("a message is longer than {READ_BYTES_MAX} bytes");
        }
        let bytes = self.stream.read(&mut self.buffer[self.filled..])?;
        self.filled += bytes;
        Ok(bytes > 0)
    }
}

/// The options of CONNECT: user and password, or a token, from the flags or else from the URL.
fn connect_options(address: &ServerAddr, nats: &NatsOptions) -> serde_json::Value {
    let mut options = serde_json::json!({
        "verbose": false, "pedantic": false, "headers": false, "echo": false, "protocol": 0,
        "name": "loadgen echo", "lang": "rust", "version": env!("CARGO_PKG_VERSION"),
    });
    let user = nats.user.as_deref().or(address.username());
    let password = nats.password.as_deref().or(address.password());
    match (nats.token.as_deref(), user, password) {
        (Some(token), _, _) | (None, Some(token), None) => options["auth_token"] = token.into(),
        (None, Some(user), Some(password)) => {
            options["user"] = user.into();
            options["pass"] = password.into();
        }
        (None, None, _) => {}
    }
    options
}
