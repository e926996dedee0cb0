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
    k: Option<&'a str>,
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
        let known_by = message.dedup_id.as_deref();
        let options = Options {
            i: id,
            k: known_by,
            w: match (message.dedup_scope, message.dedup_ms) {
                _ if id.or(known_by).is_none() => None,
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
                k: None,
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

/// Results of one kind in a call; no call asks for as many.
const RESULTS_MAX: i64 = 1 << 20;

/// The arguments of one call. The sections are written in the order of the functions here.
#[derive(Debug)]
pub struct Batch(Args);

impl Batch {
    pub fn new(caller: Caller) -> Self {
        Batch(caller.args())
    }

    /// The own arguments of a call that carries nothing: what is due happens.
    pub fn nothing() -> Args {
        let mut batch = Batch(Args::default());
        batch.acks("", std::iter::empty());
        batch.nacks(std::iter::empty());
        batch.extends(std::iter::empty());
        batch.pushes(&[]);
        batch.pops(std::iter::empty());
        batch.0
    }

    pub fn acks<'a>(&mut self, topic: &str, receipts: impl ExactSizeIterator<Item = &'a Receipt>) {
        self.0.number(receipts.len() as u64);
        for receipt in receipts {
            self.receipt(receipt);
            // The script remembers of most acknowledgements no token to compare with.
            let is_own = receipt.is_of(topic);
            self.0.number(if is_own { receipt.delivery } else { 0 });
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

    /// Requests with one message each that has no options, as most are, come without what says so for each.
    pub fn pushes(&mut self, requests: &[&[NewMessage]]) {
        let is_plain = |request: &[NewMessage]| matches!(request, [one] if one.options.is_empty());
        let parts = || requests.chunk_by(|a, b| is_plain(a) && is_plain(b));
        self.0.number(parts().count() as u64);
        for part in parts() {
            if is_plain(part[0]) {
                self.0.number(0);
                self.0.number(part.len() as u64);
                for message in part.iter().copied().flatten() {
                    self.0.bytes(message.kept.clone());
                }
                continue;
            }
            for request in part {
                self.0.number(request.len() as u64);
                for message in *request {
                    self.0.bytes(message.kept.clone());
                    self.0.bytes(message.options.clone());
                }
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

    pub fn into_args(self) -> Args {
        self.0
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
    /// How many of the last pops the call did not get to: it had enough to do for those before.
    pub pops_left: usize,
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
    /// Perhaps more is due than a call deals with.
    pub more_due: bool,
    /// How far the server's clock was set back behind the newest time that the topic has seen.
    pub clock_behind_ms: u64,
}

impl BatchReply {
    /// None when it is not what `reply.lua` says.
    pub fn read(mut done: Done) -> Option<Self> {
        let now_ms = done.number()?;
        let due_ms = done.number()?;
        let ready_left = done.number().unwrap_or(0);
        let pops_left = done.number()? as usize;
        let paused = done.number()? == 1;
        let numbers = |list: Vec<Reply>| list.iter().map(Reply::number).collect::<Option<_>>();
        let acks = runs(&done.list()?, 0)?;
        let acks = acks.into_iter().map(|result| result.try_into().ok());
        let acks = acks.collect::<Option<_>>()?;
        let nacks = numbers(done.list()?)?;
        let extends = numbers(done.list()?)?;
        let pushes = runs(&done.list()?, 2)?;
        let pushes = pushes.into_iter().map(|result| {
            let result = u64::try_from(result).ok()?;
            Some((result / 2, result % 2 == 1))
        });
        let pushes = pushes.collect();
        let deadlines: Vec<u64> = numbers(done.list()?)?;
        let popped = popped(done.list()?, &deadlines)?;
        let buried = done.list()?;
        let buried = buried.chunks_exact(2);
        let buried = buried.map(|pair| Some((pair[0].number()?, pair[1].text()?)));
        let buried = buried.collect::<Option<_>>()?;
        Some(BatchReply {
            opseq: done.opseq,
            seq: done.seq,
            bytes: done.bytes,
            due_in_ms: (due_ms > 0).then(|| due_ms.saturating_sub(now_ms)),
            ready_left,
            pops_left,
            paused,
            acks,
            nacks,
            extends,
            pushes,
            popped,
            buried,
            more_due: done.number()? == 1,
            clock_behind_ms: done.number()?,
        })
    }
}

/// Results that are told by runs: the first of each, and how many follow one another by `step`.
fn runs(list: &[Reply], step: i64) -> Option<Vec<i64>> {
    let mut results = Vec::new();
    for run in list.chunks(2) {
        let &[Reply::Integer(first), Reply::Integer(count)] = run else {
            return None;
        };
        if !(0..=RESULTS_MAX).contains(&count) {
            return None;
        }
        results.extend((0..count).map(|place| first.saturating_add(step * place)));
    }
    Some(results)
}

fn popped(list: Vec<Reply>, deadlines: &[u64]) -> Option<Vec<PoppedMessage>> {
    let mut parts = list.into_iter();
    let mut popped = Vec::with_capacity(parts.len() / 4);
    while let Some(pop) = parts.next() {
        let pop = pop.number()?.checked_sub(1)? as usize;
        let (seq, kept) = (parts.next()?.number()?, parts.next()?.into_bytes()?);
        let (deliveries, last_error) = match parts.next()? {
            Reply::List(failed) => (failed.first()?.number()?, failed.get(1)?.text()?),
            deliveries => (deliveries.number()?, String::new()),
        };
        popped.push(PoppedMessage {
            pop,
            seq,
            deliveries,
            visible_until_ms: *deadlines.get(pop)?,
            kept,
            last_error,
        });
    }
    Some(popped)
}
