//! The script of the hot path: what goes in and what comes out.

use bytes::Bytes;
use serde::Serialize;

use super::{Args, Caller, Done, Reply, Stored};
use crate::protocol::queue::{DedupScope, Message, PRIORITY_DEFAULT, Receipt};

/// A message on its way into Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    kept: Bytes,
    /// Empty when the message has none.
    options: Bytes,
}

/// Beside a message that is not the simplest; the names are those of `push.lua`.
#[derive(Serialize)]
struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    i: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    w: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    g: Option<&'a str>,
}

impl NewMessage {
    pub fn new(message: &Message) -> Self {
        let id = message.id.as_deref();
        let options = Options {
            i: id,
            w: match (message.dedup_scope, message.dedup_ms) {
                _ if id.is_none() => None,
                (DedupScope::UntilAcked, _) => Some(-1),
                (DedupScope::Window, window) => window.map(|ms| ms as i64),
            },
            d: message.delay_ms.filter(|&ms| ms > 0),
            a: message.deliver_at_ms,
            p: Some(message.priority).filter(|&priority| priority != PRIORITY_DEFAULT),
            t: message.ttl_ms,
            g: message.group.as_deref(),
        };
        let simple = matches!(
            options,
            Options {
                i: None,
                d: None,
                a: None,
                p: None,
                t: None,
                g: None,
                ..
            }
        );
        let options = match simple {
            true => Bytes::new(),
            false => rmp_serde::to_vec_named(&options)
                .expect("options have a form in MessagePack")
                .into(),
        };
        NewMessage {
            kept: Stored::pack(&message.payload, id, message.headers.as_ref()),
            options,
        }
    }

    pub fn bytes(&self) -> usize {
        self.kept.len() + self.options.len()
    }
}

/// The arguments of one call. The sections are written in the order of the functions here.
#[derive(Debug)]
pub struct Batch(Args);

impl Batch {
    pub fn new(caller: Caller) -> Self {
        Batch(caller.args())
    }

    pub fn acks<'a>(&mut self, receipts: impl ExactSizeIterator<Item = &'a Receipt>) {
        self.0.number(receipts.len() as u64);
        for receipt in receipts {
            self.receipt(receipt);
            self.0.number(receipt.delivery);
        }
    }

    pub fn nacks<'a>(
        &mut self,
        receipts: impl ExactSizeIterator<Item = (&'a Receipt, char, Option<u64>, &'a str)>,
    ) {
        self.0.number(receipts.len() as u64);
        for (receipt, mode, delay_ms, reason) in receipts {
            self.receipt(receipt);
            self.0.text(mode.encode_utf8(&mut [0; 4]));
            match delay_ms {
                Some(ms) => self.0.number(ms),
                None => self.0.text(""),
            }
            self.0.text(reason);
        }
    }

    pub fn extends<'a>(&mut self, receipts: impl ExactSizeIterator<Item = (&'a Receipt, u64)>) {
        self.0.number(receipts.len() as u64);
        for (receipt, visibility_ms) in receipts {
            self.receipt(receipt);
            self.0.number(visibility_ms);
        }
    }

    pub fn pushes<'a>(&mut self, requests: impl ExactSizeIterator<Item = &'a [NewMessage]>) {
        self.0.number(requests.len() as u64);
        for messages in requests {
            self.0.number(messages.len() as u64);
            for message in messages {
                self.0.bytes(message.kept.clone());
                self.0.bytes(message.options.clone());
            }
        }
    }

    /// For each: how many, visibility or 0, token, consumer, bytes.
    pub fn pops<'a>(
        &mut self,
        requests: impl ExactSizeIterator<Item = (u64, u64, &'a str, &'a str, u64)>,
    ) {
        self.0.number(requests.len() as u64);
        for (max, visibility_ms, token, consumer, bytes) in requests {
            self.0.number(max);
            self.0.number(visibility_ms);
            self.0.text(token);
            self.0.text(consumer);
            self.0.number(bytes);
        }
    }

    pub fn into_args(self) -> Vec<Bytes> {
        self.0.0
    }

    fn receipt(&mut self, receipt: &Receipt) {
        self.0.number(receipt.seq);
        self.0.text(&receipt.token);
    }
}

/// A message that a pop got, as the script tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoppedMessage {
    /// The number of the pop in the call, from 0.
    pub pop: usize,
    pub seq: u64,
    pub deliveries: u64,
    pub visible_until_ms: u64,
    pub kept: Bytes,
    /// Empty if there was no failure.
    pub last_error: String,
}

/// What a call did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchReply {
    pub opseq: u64,
    pub seq: u64,
    pub bytes: u64,
    /// How long until time makes a message ready; none if it won't.
    pub due_in_ms: Option<u64>,
    pub ready_left: u64,
    pub paused: bool,
    pub acks: Vec<u64>,
    pub nacks: Vec<u64>,
    /// Deadlines, 0 for a stale receipt.
    pub extends: Vec<u64>,
    /// For each message its sequence number and whether it was known; none where it does not fit.
    pub pushes: Vec<Option<(u64, bool)>>,
    pub popped: Vec<PoppedMessage>,
    /// Sequence numbers of messages that died, and why.
    pub buried: Vec<(u64, String)>,
}

impl BatchReply {
    /// None when it is not what `reply.lua` says.
    pub fn read(mut done: Done) -> Option<Self> {
        let now_ms = done.number()?;
        let due_ms = done.number()?;
        let ready_left = done.number().unwrap_or(0);
        let paused = done.number()? == 1;
        let numbers = |list: Vec<Reply>| list.iter().map(Reply::number).collect::<Option<_>>();
        let acks = numbers(done.list()?)?;
        let nacks = numbers(done.list()?)?;
        let extends = numbers(done.list()?)?;
        let pushes = done.list()?;
        let pushes = pushes.iter().map(|reply| match reply {
            Reply::Integer(-1) => Some(None),
            other => other.number().map(|n| Some((n / 2, n % 2 == 1))),
        });
        let pushes = pushes.collect::<Option<_>>()?;
        let popped = popped(done.list()?)?;
        let buried = done.list()?;
        let buried = buried.chunks_exact(2);
        let buried = buried.map(|pair| Some((pair[0].number()?, pair[1].text()?)));
        Some(BatchReply {
            opseq: done.opseq,
            seq: done.seq,
            bytes: done.bytes,
            due_in_ms: (due_ms > 0).then(|| due_ms.saturating_sub(now_ms)),
            ready_left,
            paused,
            acks,
            nacks,
            extends,
            pushes,
            popped,
            buried: buried.collect::<Option<_>>()?,
        })
    }
}

fn popped(list: Vec<Reply>) -> Option<Vec<PoppedMessage>> {
    let mut parts = list.into_iter();
    let mut popped = Vec::with_capacity(parts.len() / 6);
    while let Some(pop) = parts.next() {
        popped.push(PoppedMessage {
            pop: pop.number()?.checked_sub(1)? as usize,
            seq: parts.next()?.number()?,
            deliveries: parts.next()?.number()?,
            visible_until_ms: parts.next()?.number()?,
            kept: parts.next()?.into_bytes()?,
            last_error: parts.next()?.text()?,
        });
    }
    Some(popped)
}
