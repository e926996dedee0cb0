//! Random operations on one topic, in a real Redis and in a model of a few plain collections.
//!
//! Scripts never take a time before that of any call before. So the test stores a time a day ahead, and
//! from then on time is what the test stores: both sides expire the same things at the same steps.

use std::collections::VecDeque;

use mufakat::ids::ClusterId;
use mufakat::protocol::queue::{DedupScope, Message, Receipt};
use mufakat::protocol::value::Value;
use mufakat::queue::keys::Keyspace;
use mufakat::queue::script::{Args, Batch, BatchReply, Caller, NewMessage, Script};
use mufakat::queue::store::Store;
use redis::Commands;
use tokio::sync::watch;

use crate::dice::Dice;
use crate::queue_reference::{MAX_DELIVERIES, Model};
use crate::redis_server::RedisServer;
use crate::wait;

/// Calls of a script in the usual run; `MUFAKAT_MODEL_STEPS` makes it longer.
const STEPS: u64 = 10_000;
const TOPIC: &str = "model";

/// The real one and the model, side by side.
struct Pair {
    store: Store,
    raw: redis::Connection,
    keys: Vec<String>,
    model: Model,
    receipts: Vec<Receipt>,
    dice: Dice,
}

impl Pair {
    async fn run(&self, script: Script, args: Args) -> mufakat::queue::script::Done {
        let all = caller().with(args);
        let route = self.store.route(&self.keys[0]).expect("connected");
        let reply = route.run(script, &self.keys, &all.0, None).await;
        let reply = reply.expect("Redis answers");
        reply.outcome().expect("an outcome").expect("not fenced")
    }

    async fn batch(&self, batch: Batch) -> BatchReply {
        let args = batch.into_args().0;
        let route = self.store.route(&self.keys[0]).expect("connected");
        let reply = route.run(Script::Batch, &self.keys, &args, None).await;
        let reply = reply.expect("Redis answers");
        let done = reply.outcome().expect("an outcome").expect("not fenced");
        BatchReply::read(done).expect("a reply of a batch")
    }

    fn any_receipts(&mut self) -> Vec<Receipt> {
        let count = self.dice.below(3).min(self.receipts.len() as u64);
        (0..count)
            .map(|_| {
                let at = self.dice.below(self.receipts.len() as u64) as usize;
                self.receipts[at].clone()
            })
            .collect()
    }

    fn any_message(&mut self) -> Message {
        let mut message = Message::new(Value::text("x"));
        if self.dice.below(3) == 0 {
            // Of messages without options several go as one part.
            return message;
        }
        if self.dice.below(3) == 0 {
            message.priority = self.dice.below(10);
        }
        if self.dice.below(3) == 0 {
            message.id = Some(format!("id-{}", self.dice.below(20)));
        }
        if self.dice.below(6) == 0 {
            message.dedup_id = Some(format!("id-{}", self.dice.below(10)));
        }
        if message.id.is_some() || message.dedup_id.is_some() {
            message.dedup_ms = Some(self.dice.below(500).saturating_sub(100));
            if self.dice.below(2) == 0 {
                message.dedup_scope = DedupScope::UntilAcked;
            }
        }
        if self.dice.below(4) == 0 {
            message.delay_ms = Some(self.dice.below(300));
        }
        if self.dice.below(5) == 0 {
            message.ttl_ms = Some(self.dice.below(500) + 1);
        }
        if self.dice.below(4) == 0 {
            message.group = Some(format!("g{}", self.dice.below(3)));
        }
        message
    }

    /// One call with something in each of its sections, or nothing.
    async fn mixed(&mut self) {
        let acks = self.any_receipts();
        let nacks: Vec<(Receipt, char, Option<u64>)> = self
            .any_receipts()
            .into_iter()
            .map(|receipt| {
                let mode = ['c', 'u', 'd'][self.dice.below(3) as usize];
                let delay = (self.dice.below(2) == 0).then(|| self.dice.below(200));
                // Of what nobody got, the delivery stands there.
                let delay = if mode == 'u' {
                    Some(receipt.delivery)
                } else {
                    delay
                };
                (receipt, mode, delay)
            })
            .collect();
        let extends: Vec<(Receipt, u64)> = self
            .any_receipts()
            .into_iter()
            .map(|receipt| (receipt, self.dice.below(300) + 1))
            .collect();
        let pushes: Vec<Vec<Message>> = (0..self.dice.below(4))
            .map(|_| match self.dice.below(3) {
                0 => (0..3).map(|_| self.any_message()).collect(),
                _ => vec![self.any_message()],
            })
            .collect();
        let pop = (self.dice.below(2) == 0).then(|| self.dice.below(4) + 1);
        let visibility = self.dice.below(300) + 1;
        let token = Receipt::token(TOPIC, self.dice.below(u64::MAX));

        let mut batch = Batch::new(caller());
        batch.acks(TOPIC, acks.iter());
        batch.nacks(
            nacks
                .iter()
                .map(|(receipt, mode, delay)| (receipt, *mode, *delay, "why")),
        );
        batch.extends(extends.iter().map(|(receipt, ms)| (receipt, *ms)));
        let new = pushes.iter();
        let new = new.map(|messages| messages.iter().map(NewMessage::new).collect());
        let new: Vec<Vec<NewMessage>> = new.collect();
        let new: Vec<&[NewMessage]> = new.iter().map(|messages| &messages[..]).collect();
        batch.pushes(&new);
        let pops: Vec<_> = pop
            .iter()
            .map(|max| (*max, visibility, token.as_str(), "c", 1 << 20))
            .collect();
        batch.pops(pops.into_iter());
        let reply = self.batch(batch).await;

        let model = &mut self.model;
        let expected: Vec<u64> = acks.iter().map(|receipt| model.ack(receipt)).collect();
        assert_eq!(reply.acks, expected, "{acks:?}");
        assert_eq!(reply.nacks, model.nack(&nacks), "{nacks:?}");
        let extended = extends
            .iter()
            .map(|(receipt, ms)| model.extend(receipt, *ms));
        assert_eq!(reply.extends, extended.collect::<Vec<_>>());
        model.sweep();
        let pushed = pushes
            .iter()
            .flat_map(|messages| model.push_request(messages));
        assert_eq!(reply.pushes, pushed.collect::<Vec<_>>(), "{pushes:?}");
        if let Some(max) = pop {
            let expected = model.pop(max, visibility, &token);
            let got: Vec<(u64, u64)> = reply.popped.iter().map(|m| (m.seq, m.deliveries)).collect();
            assert_eq!(got, expected);
            let ready: usize = model.ready.iter().map(VecDeque::len).sum();
            assert_eq!(reply.ready_left, ready as u64);
        }
        for message in reply.popped {
            self.receipts.push(Receipt {
                seq: message.seq,
                delivery: message.deliveries,
                token: token.clone(),
            });
        }
        if self.receipts.len() > 30 {
            self.receipts.remove(0);
        }
    }

    async fn operate(&mut self) {
        match self.dice.below(6) {
            0 => {
                let id = format!("id-{}", self.dice.below(20));
                let mut args = Args::default();
                args.text(&id);
                args.number(0);
                let cancelled = self.run(Script::Cancel, args).await.number();
                assert_eq!(cancelled, Some(self.model.cancel(&id)), "{id}");
            }
            1 if self.dice.below(4) == 0 => {
                let mut args = Args::default();
                for arg in ["0", "1000", "", "0", "0", "0", "0", "0", "0", "0", "0"] {
                    args.text(arg);
                }
                let moved = self.run(Script::Redrive, args).await.number();
                assert_eq!(moved, Some(self.model.redrive()));
            }
            2 if self.dice.below(4) == 0 => {
                let length = self.dice.below(20);
                let overflow = ["reject", "dead"][self.dice.below(2) as usize];
                self.model.limit = (length > 0).then_some((length, overflow == "dead"));
                let settings = &self.keys[11];
                let _: () = match length {
                    0 => self.raw.hdel(settings, "max_length"),
                    _ => self.raw.hset(settings, "max_length", length),
                }
                .expect("Redis answers");
                let _: () = self
                    .raw
                    .hset(settings, "overflow", overflow)
                    .expect("Redis answers");
            }
            3 if self.dice.below(4) == 0 => {
                self.model.backoff = (self.dice.below(2) == 0).then_some((40, 100));
                let kind = self.model.backoff.map_or("none", |_| "exponential");
                let pairs = [
                    ("backoff", kind),
                    ("backoff_base_ms", "40"),
                    ("backoff_max_ms", "100"),
                ];
                let _: () = self
                    .raw
                    .hset_multiple(&self.keys[11], &pairs)
                    .expect("Redis answers");
            }
            4 if self.dice.below(8) == 0 => self.purge().await,
            _ => {
                self.model.now += self.dice.below(100);
                let now = self.model.now;
                let _: () = self
                    .raw
                    .hset(&self.keys[0], "now", now)
                    .expect("Redis answers");
            }
        }
    }

    /// Of one state or several, in any order.
    async fn purge(&mut self) {
        let mut states = vec!["ready", "delayed", "in_flight", "dead"];
        while states.len() > 1 && self.dice.below(3) > 0 {
            states.remove(self.dice.below(states.len() as u64) as usize);
        }
        let first = self.dice.below(states.len() as u64) as usize;
        states.rotate_left(first);
        let mut args = Args::default();
        args.number(100_000);
        args.number(0);
        args.number(states.len() as u64);
        for state in &states {
            args.text(state);
        }
        let mut done = self.run(Script::Purge, args).await;
        let purged = [done.number(), done.number()];
        assert_eq!(
            purged,
            [Some(self.model.purge(&states)), Some(0)],
            "{states:?}"
        );
    }

    async fn compare(&mut self) {
        let mut args = Args::default();
        for arg in ["ready", "100000", "0", "100000000"] {
            args.text(arg);
        }
        let mut done = self.run(Script::Inspect, args).await;
        let bodies: Vec<Vec<u8>> = self.raw.hvals(&self.keys[1]).expect("Redis answers");
        let bytes: usize = bodies.iter().map(Vec::len).sum();
        assert_eq!(done.bytes, bytes as u64);
        assert_eq!(done.number(), Some(self.model.now));
        let counts = [(); 4].map(|()| done.number().expect("a count"));
        assert_eq!(counts, self.model.counts());
        let (_paused, _oldest, _acked, _settings) =
            (done.number(), done.number(), done.number(), done.list());
        let shown = done.list().expect("messages");
        let shown = shown
            .chunks(8)
            .map(|parts| parts[0].number().expect("a number"));
        let ready = self.model.ready.iter().rev().flatten().copied();
        assert_eq!(shown.collect::<Vec<_>>(), ready.collect::<Vec<_>>());
    }
}

fn caller() -> Caller {
    Caller {
        epoch: 1,
        counts_bytes: true,
        ..Caller::default()
    }
}

#[tokio::test]
async fn queue_scripts_do_what_a_model_does() {
    let server = RedisServer::start().await;
    let (_keep, shutdown) = watch::channel(false);
    let store = Store::start(server.address(), shutdown).expect("an address");
    wait::until("Redis is connected", async || {
        store.status().connected.then_some(())
    })
    .await;
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut pair = Pair {
        store,
        raw: client.get_connection().expect("Redis is there"),
        keys: Keyspace::new("test", ClusterId(1)).of_topic(TOPIC),
        model: Model::default(),
        receipts: Vec::new(),
        dice: Dice::roll(),
    };
    pair.model.now = mufakat::time::unix_ms() + 86_400_000;
    let _: () = pair
        .raw
        .hset(&pair.keys[0], "now", pair.model.now)
        .expect("Redis answers");
    let settings = &pair.keys[11];
    let _: () = pair
        .raw
        .hset(settings, "max_deliveries", MAX_DELIVERIES)
        .expect("Redis answers");
    let steps = std::env::var("MUFAKAT_MODEL_STEPS").ok();
    let steps = steps.and_then(|text| text.parse().ok()).unwrap_or(STEPS);
    for step in 0..steps {
        match pair.dice.below(4) {
            0 => pair.operate().await,
            _ => pair.mixed().await,
        }
        if step % 20 == 0 {
            pair.compare().await;
        }
    }
    println!("{steps} steps, {} messages", pair.model.seq);
}
