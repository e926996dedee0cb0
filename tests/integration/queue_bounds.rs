//! How much one call of a script does, and in which order, over a real Redis and without nodes.
//!
//! Scripts never take a time before that of any call before. So each topic here begins a day ahead, and from then
//! on time is what the test stores.

use mufakat::ids::ClusterId;
use mufakat::protocol::queue::{Message, Receipt};
use mufakat::protocol::value::Value;
use mufakat::queue::keys::Keyspace;
use mufakat::queue::script::{Args, Batch, BatchReply, Caller, Done, NewMessage, Script};
use mufakat::queue::store::Store;
use redis::Commands;
use tokio::sync::watch;

use crate::redis_server::RedisServer;
use crate::wait;

const TOPIC: &str = "a";
const DAY_MS: u64 = 86_400_000;

pub struct Topic {
    _server: RedisServer,
    _keep: watch::Sender<bool>,
    store: Store,
    pub raw: redis::Connection,
    pub keys: Vec<String>,
    now_ms: u64,
}

/// A pop: how many, visibility, bytes.
pub type Pop = (u64, u64, u64);

impl Topic {
    pub async fn start() -> Self {
        let server = RedisServer::start().await;
        let (keep, shutdown) = watch::channel(false);
        let store = Store::start(server.address(), shutdown).expect("an address");
        wait::until("Redis is connected", async || {
            store.status().connected.then_some(())
        })
        .await;
        let client = redis::Client::open(server.url()).expect("a URL");
        let mut topic = Topic {
            _server: server,
            _keep: keep,
            store,
            raw: client.get_connection().expect("Redis is there"),
            keys: Keyspace::new("test", ClusterId(1)).of_topic(TOPIC),
            now_ms: 0,
        };
        topic.pass(mufakat::time::unix_ms() + DAY_MS);
        topic
    }

    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let () = self
            .raw
            .hset(&self.keys[0], "now", self.now_ms)
            .expect("Redis answers");
    }

    pub fn set(&mut self, setting: &str, value: &str) {
        let () = self
            .raw
            .hset(&self.keys[11], setting, value)
            .expect("Redis answers");
    }

    async fn call(&self, script: Script, args: &[bytes::Bytes]) -> Done {
        let route = self.store.route(&self.keys[0]).expect("connected");
        let reply = route.run(script, &self.keys, args, None).await;
        let reply = reply.expect("Redis answers");
        reply.outcome().expect("an outcome").expect("not fenced")
    }

    pub async fn run(&self, script: Script, own: &[&str]) -> Done {
        let mut args = Caller::default().args();
        for arg in own {
            args.text(arg);
        }
        let Args(args) = args;
        self.call(script, &args).await
    }

    pub async fn batch(
        &self,
        nacks: &[Receipt],
        (reason, pushes): (&str, &[Message]),
        pops: &[Pop],
    ) -> BatchReply {
        let nacks: Vec<_> = nacks.iter().map(|receipt| (receipt, 'd', None)).collect();
        self.batch_with(&nacks, (reason, pushes), pops).await
    }

    /// The same with the mode of each that is handed back, and its delay, or its delivery if nobody got it.
    async fn batch_with(
        &self,
        nacks: &[(&Receipt, char, Option<u64>)],
        (reason, pushes): (&str, &[Message]),
        pops: &[Pop],
    ) -> BatchReply {
        let mut batch = Batch::new(Caller::default());
        batch.acks(TOPIC, [].iter());
        let nacks = nacks.iter();
        batch.nacks(nacks.map(|&(receipt, mode, delay)| (receipt, mode, delay, reason)));
        batch.extends(std::iter::empty::<(&Receipt, u64)>());
        let messages: Vec<NewMessage> = pushes.iter().map(NewMessage::new).collect();
        let each: Vec<&[NewMessage]> = messages.chunks(1).collect();
        batch.pushes(&each);
        let token = token();
        let each = pops.iter();
        batch.pops(each.map(|&(max, visibility, bytes)| (max, visibility, &*token, "c", bytes)));
        let done = self.call(Script::Batch, &batch.into_args().0).await;
        BatchReply::read(done).expect("a reply of a batch")
    }

    pub async fn push(&self, messages: &[Message]) -> BatchReply {
        self.batch(&[], ("", messages), &[]).await
    }

    pub async fn pop(&self, pops: &[Pop]) -> BatchReply {
        self.batch(&[], ("", &[]), pops).await
    }

    /// Sends the first that are ready to the dead state, all in one call.
    pub async fn bury(&self, count: u64, reason: &str) {
        let popped = self.pop(&[(count, 60_000, BYTES)]).await.popped;
        assert_eq!(popped.len() as u64, count);
        let receipts: Vec<Receipt> = popped.iter().map(|message| receipt(message.seq)).collect();
        self.batch(&receipts, (reason, &[]), &[]).await;
    }

    /// Ready, delayed, in flight, dead.
    pub async fn counts(&self) -> [u64; 4] {
        let mut done = self.run(Script::Inspect, &["", "0", "0", "0"]).await;
        done.number().expect("the time");
        [(); 4].map(|()| done.number().expect("a count"))
    }

    /// The age of the oldest that is ready or in flight; none if none is.
    async fn oldest_ms(&self) -> Option<u64> {
        let mut done = self.run(Script::Inspect, &["", "0", "0", "0"]).await;
        let numbers = [(); 7].map(|()| done.number().expect("a number"));
        let (now, pushed_at) = (numbers[0], numbers[6]);
        (pushed_at > 0).then(|| now - pushed_at)
    }

    /// How many were moved, and behind which one to go on.
    async fn redrive(
        &self,
        mode: &str,
        most: &str,
        contains: &str,
        from: &[u64; 2],
    ) -> (u64, [u64; 2]) {
        let from = [from[0], from[1], 0];
        let (moved, [at, seq, _]) = self.redrive_some((mode, most, contains), from, &[]).await;
        (moved, [at, seq])
    }

    /// The same of those with these ids, up to a time of death.
    async fn redrive_some(
        &self,
        (mode, most, contains): (&str, &str, &str),
        from: [u64; 3],
        ids: &[&str],
    ) -> (u64, [u64; 3]) {
        let [at, seq, until] = from.map(|number| number.to_string());
        let count = ids.len().to_string();
        let place = [&*at, &*seq, &*until, &*count];
        let own = [
            &[mode, most, contains, "0", "0", "0"],
            &place[..],
            ids,
            &["0"],
        ];
        let mut done = self.run(Script::Redrive, &own.concat()).await;
        let moved = done.number().expect("a count");
        done.number().expect("how many are dead");
        done.list().expect("what is shown");
        (moved, [(); 3].map(|()| done.number().expect("a place")))
    }
}

pub const BYTES: u64 = 1 << 20;

fn token() -> String {
    Receipt::token(TOPIC, 1)
}

pub fn receipt(seq: u64) -> Receipt {
    Receipt {
        seq,
        delivery: 1,
        token: token(),
    }
}

pub fn small(count: usize) -> Vec<Message> {
    vec![Message::new(Value::text("x")); count]
}

pub fn seqs(reply: &BatchReply) -> Vec<u64> {
    reply.popped.iter().map(|message| message.seq).collect()
}

#[tokio::test]
async fn queue_one_call_passes_over_a_bounded_number_of_expired_messages() {
    let mut topic = Topic::start().await;
    let brief = Message {
        ttl_ms: Some(10),
        ..Message::new(Value::text("x"))
    };
    for _ in 0..4 {
        topic.push(&vec![brief.clone(); 1_000]).await;
    }
    topic.push(&small(1)).await;
    topic.pass(10);
    let mut calls = 0;
    let popped = loop {
        let before = topic.counts().await[0];
        let reply = topic.pop(&[(1, 60_000, BYTES)]).await;
        calls += 1;
        let ended = before - topic.counts().await[0];
        assert!(ended <= 3_001, "{ended} in one call");
        if reply.pops_left == 0 {
            break reply;
        }
        assert_eq!((reply.pops_left, reply.popped.len()), (1, 0));
    };
    assert_eq!(seqs(&popped), [4_001]);
    assert!(calls > 1, "{calls}");
    assert_eq!(topic.counts().await, [0, 0, 1, 0]);
}

#[tokio::test]
async fn queue_one_call_hands_out_a_bounded_number_of_bytes() {
    let topic = Topic::start().await;
    let large = Message::new(Value::text("x".repeat(500_000)));
    topic.push(&vec![large; 30]).await;
    // Each as many as fit, and at least one.
    let reply = topic
        .pop(&[(10, 60_000, 1_100_000), (10, 60_000, 10)])
        .await;
    let pops: Vec<usize> = reply.popped.iter().map(|message| message.pop).collect();
    assert_eq!(pops, [0, 0, 1]);
    assert_eq!((reply.pops_left, reply.ready_left), (0, 27));
    let reply = topic.pop(&[(1, 60_000, BYTES); 20]).await;
    assert_eq!((reply.popped.len(), reply.pops_left), (9, 11));
    assert_eq!(seqs(&reply), (4..13).collect::<Vec<_>>());
    assert_eq!(reply.ready_left, 18);
}

#[tokio::test]
async fn queue_one_call_hands_out_a_bounded_number_of_messages() {
    let topic = Topic::start().await;
    for _ in 0..3 {
        topic.push(&small(1_000)).await;
    }
    let reply = topic.pop(&[(1_000, 60_000, BYTES); 5]).await;
    assert_eq!((reply.popped.len(), reply.pops_left), (1_000, 4));
    let reply = topic.pop(&[(900, 60_000, BYTES); 4]).await;
    assert_eq!((reply.popped.len(), reply.pops_left), (1_800, 2));
    let reply = topic.pop(&[(900, 60_000, BYTES); 2]).await;
    assert_eq!((reply.popped.len(), reply.pops_left), (200, 0));
    assert_eq!(topic.counts().await, [0, 0, 3_000, 0]);
}

#[tokio::test]
async fn queue_redrive_keeps_the_order_of_those_that_died_in_one_millisecond() {
    let mut topic = Topic::start().await;
    topic.push(&small(24)).await;
    topic.bury(12, "first").await;
    topic.pass(1);
    topic.bury(12, "later").await;
    let mut from = [0; 2];
    for moved in [5, 5, 5, 5, 4] {
        let (count, next) = topic.redrive("0", "5", "", &from).await;
        assert_eq!(count, moved);
        from = next;
    }
    assert_eq!(from, [0, 0], "all was looked at");
    let popped = topic.pop(&[(100, 60_000, BYTES)]).await;
    assert_eq!(seqs(&popped), (1..=24).collect::<Vec<_>>());
}

#[tokio::test]
async fn queue_redrive_looks_at_a_bounded_number_of_failures_in_one_call() {
    let mut topic = Topic::start().await;
    for _ in 0..3 {
        topic.push(&small(1_000)).await;
    }
    topic.push(&small(1)).await;
    // More in one instant than a call looks at.
    topic.bury(1_000, "no").await;
    topic.bury(1_000, "no").await;
    topic.pass(1);
    topic.bury(1_000, "no").await;
    topic.bury(1, "this one").await;
    for mode in ["1", "0"] {
        let (mut calls, mut found, mut from) = (0, 0, [0; 2]);
        loop {
            let (count, next) = topic.redrive(mode, "1000", "this", &from).await;
            (calls, found) = (calls + 1, found + count);
            if next == [0, 0] {
                break;
            }
            assert!(next > from, "{next:?} after {from:?}");
            from = next;
        }
        assert_eq!((found, calls), (1, 4));
    }
    assert_eq!(topic.counts().await, [1, 0, 0, 3_000]);
    assert_eq!(
        topic.redrive("1", "5000", "", &[0; 2]).await,
        (3_000, [0; 2])
    );
    assert_eq!(topic.redrive("1", "20", "", &[0; 2]).await, (20, [0; 2]));
}

#[tokio::test]
async fn queue_redrive_by_ids_looks_at_a_bounded_number_of_messages_in_one_call() {
    let mut topic = Topic::start().await;
    let mut each: Vec<Message> = small(3_000);
    for message in each.iter_mut().step_by(2) {
        message.id = Some("same".to_owned());
        message.dedup_ms = Some(0);
    }
    for part in each.chunks(1_000) {
        topic.push(part).await;
        topic.bury(1_000, "no").await;
        topic.pass(1);
    }
    let ids = ["same", "seq-2", "seq-3"];
    for mode in ["1", "0"] {
        let (mut calls, mut found, mut from) = (0, 0, [0; 3]);
        loop {
            let wanted = (mode, "1000", "");
            let (count, next) = topic.redrive_some(wanted, from, &ids).await;
            assert!(count <= 501, "{count} in one call");
            (calls, found) = (calls + 1, found + count);
            if next[1] == 0 {
                break;
            }
            from = next;
        }
        assert_eq!(found, 1_501, "the third has an id of its own");
        assert!(calls <= 4, "{calls}");
    }
    assert_eq!(topic.counts().await, [1_501, 0, 0, 1_499]);
    let popped = topic.pop(&[(5, 60_000, BYTES)]).await;
    assert_eq!(seqs(&popped), [1, 2, 3, 5, 7]);
}

#[tokio::test]
async fn queue_redrive_moves_none_that_died_after_it_had_begun() {
    let mut topic = Topic::start().await;
    topic.push(&small(6)).await;
    topic.bury(6, "no").await;
    let wanted = ("0", "4", "");
    let (moved, next) = topic.redrive_some(wanted, [0; 3], &[]).await;
    assert_eq!(moved, 4);
    topic.pass(1);
    topic.bury(4, "again").await;
    let (moved, next) = topic.redrive_some(wanted, next, &[]).await;
    assert_eq!((moved, &next[..2]), (2, &[0; 2][..]));
    assert_eq!(topic.counts().await, [2, 0, 0, 4]);
    let (count, _) = topic.redrive_some(("1", "100", ""), next, &[]).await;
    assert_eq!(count, 0, "what died before that time is ready");
}

#[tokio::test]
async fn queue_a_topic_far_above_its_limit_comes_down_to_it_and_takes_pushes_meanwhile() {
    let mut topic = Topic::start().await;
    for _ in 0..5 {
        topic.push(&small(1_000)).await;
    }
    topic.set("max_length", "10");
    topic.set("overflow", "dead");
    let mut dead = 0;
    for alive in [3_001, 1_002, 10, 10] {
        let reply = topic.push(&small(1)).await;
        assert!(reply.pushes[0].is_some(), "no room");
        let counts = topic.counts().await;
        assert_eq!(counts[0], alive);
        assert!(counts[3] - dead <= 2_000);
        dead = counts[3];
    }
    // What may not die makes no room.
    topic.pop(&[(10, 60_000, BYTES)]).await;
    let reply = topic.push(&small(1)).await;
    assert_eq!(reply.pushes, [None]);
    assert_eq!(topic.counts().await, [0, 0, 10, dead]);
}

#[tokio::test]
async fn queue_the_oldest_message_is_the_one_pushed_first_wherever_it_stands() {
    let mut topic = Topic::start().await;
    assert_eq!(topic.oldest_ms().await, None);
    let reply = topic.push(&small(1)).await;
    assert!(reply.clock_behind_ms > DAY_MS / 2, "it stands still");
    topic.pass(1_000);
    topic.push(&small(1)).await;
    topic.pass(500);
    // The later one has the earlier deadline.
    topic.pop(&[(1, 60_000, BYTES), (1, 20_000, BYTES)]).await;
    assert_eq!(topic.oldest_ms().await, Some(1_500));
    topic.batch(&[receipt(1), receipt(2)], ("", &[]), &[]).await;
    assert_eq!(topic.oldest_ms().await, None, "dead ones do not count");

    let grouped = Message {
        group: Some("g".to_owned()),
        ..Message::new(Value::text("x"))
    };
    let delayed = Message {
        delay_ms: Some(60_000),
        ..grouped.clone()
    };
    topic.push(&[delayed]).await;
    topic.pass(100);
    assert_eq!(topic.oldest_ms().await, None, "delayed ones do not count");
    topic.push(&[grouped]).await;
    topic.pass(100);
    assert_eq!(topic.oldest_ms().await, Some(100), "it waits for its turn");
}

#[tokio::test]
async fn queue_the_oldest_message_is_found_behind_those_that_were_taken_back() {
    let mut topic = Topic::start().await;
    for rest in [0, 2_000] {
        let first = topic.push(&small(20)).await.pushes[0].expect("room").0;
        topic.pass(1_000);
        topic.push(&small(1)).await;
        topic.pass(500);
        topic.push(&small(rest)).await;
        for seq in first..first + 20 {
            let own = [format!("seq-{seq}"), seq.to_string()];
            let mut done = topic.run(Script::Cancel, &[&own[0], &own[1]]).await;
            assert_eq!(done.number(), Some(1));
        }
        assert_eq!(topic.oldest_ms().await, Some(500));
        let popped = topic.pop(&[(1, 60_000, BYTES)]).await;
        topic
            .batch(&[receipt(seqs(&popped)[0])], ("", &[]), &[])
            .await;
    }
}

/// The answer of the first call came so late that the pop had got the message again meanwhile, under its one token.
#[tokio::test]
async fn queue_what_nobody_got_is_one_delivery() {
    let mut topic = Topic::start().await;
    topic.push(&small(1)).await;
    topic.pop(&[(1, 10, BYTES)]).await;
    topic.pass(10);
    let again = topic.pop(&[(1, 60_000, BYTES)]).await.popped;
    assert_eq!(again[0].deliveries, 2);
    let unheard = receipt(again[0].seq);
    for (delivery, handed_back) in [(1, 0), (2, 1)] {
        let nack = (&unheard, 'u', Some(delivery));
        let reply = topic.batch_with(&[nack], ("", &[]), &[]).await;
        assert_eq!(reply.nacks, [handed_back], "delivery {delivery}");
    }
}
