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
        let address = nats.resolve()?.servers.swap_remove(0);
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::{Shutdown, TcpListener};

    use super::*;

    /// A broker for one connection: reads the three opening lines and says `reply`.
    fn broker(
        reply: &'static str,
    ) -> (
        NatsOptions,
        std::thread::JoinHandle<(Vec<String>, TcpStream)>,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("nats://ann:secret@{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let lines = lines.take(3).map(Result::unwrap).collect();
            stream.write_all(reply.as_bytes()).unwrap();
            (lines, stream)
        });
        let nats = NatsOptions {
            url: Some(url),
            ..NatsOptions::default()
        };
        (nats, thread)
    }

    #[test]
    fn requests_are_answered_until_the_socket_is_shut() {
        // The first request arrives in the same segment as the answer to the opening.
        let (nats, thread) = broker("INFO {}\r\nPONG\r\nMSG e 1 a 2\r\nhi\r\n");
        let socket = Socket::connect(&nats, "e").unwrap();
        let (lines, mut stream) = thread.join().unwrap();
        assert!(lines[0].contains(r#""user":"ann""#) && lines[0].contains(r#""pass":"secret""#));
        assert_eq!(lines[1..], ["SUB e 1", "PING"]);

        let stop = socket.stopper().unwrap();
        let answers = std::thread::spawn(move || socket.answer());
        stream.write_all(b"MSG e 1 b 3\r\nyou\r\n").unwrap();
        let expected = b"PUB a 2\r\nhi\r\nPUB b 3\r\nyou\r\n";
        let mut said = vec![0; expected.len()];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(said, expected);
        stop.shutdown(Shutdown::Both).unwrap();
        assert!(answers.join().unwrap().is_ok());
    }

    #[test]
    fn a_refusal_is_told() {
        let (nats, thread) = broker("INFO {}\r\n-ERR 'Authorization Violation'\r\n");
        let error = Socket::connect(&nats, "e")
            .err()
            .expect("the broker refused");
        assert!(
            error.to_string().contains("Authorization Violation"),
            "{error:#}"
        );
        drop(thread.join());
    }

    #[test]
    fn what_it_does_not_know_is_refused_before_connecting() {
        let nats = NatsOptions {
            url: Some("tls://127.0.0.1:1".to_owned()),
            ..NatsOptions::default()
        };
        let error = Socket::connect(&nats, "e").err().expect("TLS is not known");
        assert!(
            error.to_string().contains("--responder client"),
            "{error:#}"
        );
    }
}
