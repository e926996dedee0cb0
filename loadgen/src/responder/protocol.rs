//! As much of the broker's text protocol as an echo needs, apart from any socket.
//!
//! Source: docs.nats.io, "Client Protocol". The responder connects without headers, so the broker sends it
//! `MSG` only. Whatever it does not know is skipped line by line.

use anyhow::{Result, bail};

/// The longest protocol line: the broker's own limit for control lines is 4096 bytes; INFO may be longer.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Reads what came from the broker and appends the answers to `out`: a `PUB` with the same payload for each
/// `MSG` that has a reply subject, `PONG` for each `PING`. Returns how many bytes of `input` were used up; the
/// rest is the beginning of something that is not yet complete.
///
/// # Errors
/// The broker reported an error, or sent what is not its protocol.
pub fn answer(input: &[u8], out: &mut Vec<u8>) -> Result<usize> {
    let mut used = 0;
    loop {
        let rest = &input[used..];
        let Some(newline) = rest.iter().position(|byte| *byte == b'\n') else {
            if rest.len() > LINE_BYTES_MAX {
                bail!("the broker sent a line of more than {LINE_BYTES_MAX} bytes");
            }
            return Ok(used);
        };
        let line = rest[..newline]
            .strip_suffix(b"\r")
            .unwrap_or(&rest[..newline]);
        let mut length = newline + 1;
        if let Some(header) = line.strip_prefix(b"MSG ") {
            let message = Message::parse(header)?;
            let body = length + message.size + 2;
            let Some(payload) = rest.get(length..body) else {
                return Ok(used);
            };
            message.answer(payload, out);
            length = body;
        } else if line.starts_with(b"PING") {
            out.extend_from_slice(b"PONG\r\n");
        } else if line.starts_with(b"-ERR") {
            bail!("the broker says {}", String::from_utf8_lossy(line));
        }
        used += length;
    }
}

/// The header of a `MSG`: `<subject> <sid> [reply] <size>`.
struct Message<'a> {
    reply: Option<&'a [u8]>,
    size: usize,
    size_text: &'a [u8],
}

impl<'a> Message<'a> {
    fn parse(header: &'a [u8]) -> Result<Self> {
        let mut fields = header
            .split(|byte| *byte == b' ')
            .filter(|field| !field.is_empty())
            .skip(2);
        let (reply, size_text) = match (fields.next(), fields.next(), fields.next()) {
            (Some(size), None, None) => (None, size),
            (Some(reply), Some(size), None) => (Some(reply), size),
            _ => bail!("not a message: {}", String::from_utf8_lossy(header)),
        };
        let size = std::str::from_utf8(size_text)?.parse()?;
        Ok(Self {
            reply,
            size,
            size_text,
        })
    }

    /// `payload` still has its line end, which the `PUB` needs as well.
    fn answer(&self, payload: &[u8], out: &mut Vec<u8>) {
        let Some(reply) = self.reply else { return };
        out.extend_from_slice(b"PUB ");
        out.extend_from_slice(reply);
        out.push(b' ');
        out.extend_from_slice(self.size_text);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &[u8] =
        b"PING\r\nMSG e 1 _INBOX.a.b 5\r\nhe\nlo\r\nMSG e 1 3\r\nabc\r\n+OK\r\nMSG e 1 _INBOX.a.c 0\r\n\r\n";
    const ANSWERS: &[u8] = b"PONG\r\nPUB _INBOX.a.b 5\r\nhe\nlo\r\nPUB _INBOX.a.c 0\r\n\r\n";

    #[test]
    fn each_request_is_sent_back() {
        let mut out = Vec::new();
        assert_eq!(answer(INPUT, &mut out).unwrap(), INPUT.len());
        assert_eq!(out, ANSWERS);
    }

    #[test]
    fn input_may_be_cut_anywhere() {
        for cut in 0..INPUT.len() {
            let mut out = Vec::new();
            let used = answer(&INPUT[..cut], &mut out).unwrap();
            assert!(used <= cut);
            assert_eq!(
                used + answer(&INPUT[used..], &mut out).unwrap(),
                INPUT.len()
            );
            assert_eq!(out, ANSWERS, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_an_error() {
        for input in [
            "-ERR 'Authorization Violation'\r\n",
            "MSG e 1 a b 5\r\n",
            "MSG e 1 x\r\n",
            "MSG e\r\n",
        ] {
            assert!(
                answer(input.as_bytes(), &mut Vec::new()).is_err(),
                "{input}"
            );
        }
        assert!(answer(&vec![b'x'; LINE_BYTES_MAX + 1], &mut Vec::new()).is_err());
    }
}
