//! The broker dies under load and comes back.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mufakat::client::{Client, Target};
use mufakat::ids::Token;
use mufakat::protocol::Outcome;
use mufakat::protocol::lock::{Acquire, Acquired, Release};

use crate::cluster::{Cluster, Options};
use crate::locks;

const TTL_MS: u64 = 600_000;
const CLIENTS: usize = 8;
/// Clients that all want the same lock.
const RIVALS: usize = 3;
/// Every so many locks one is kept, to be looked for at the end.
const KEEP_EVERY: usize = 5;
/// Pairs of each client with locks of its own before the broker dies, and again after it is back.
const PAIRS_AROUND: usize = 100;
const AWAY: Duration = Duration::from_secs(1);

/// What the clients did.
#[derive(Default)]
struct Ledger {
    stop: Cell<bool>,
    /// Locks that were acquired and never released.
    kept: RefCell<Vec<(String, Token)>>,
    /// Who holds the lock that the rivals want, as they know it.
    rival: Cell<Option<Token>>,
    last_success: Cell<Option<Instant>>,
    /// The first success after the broker was back.
    back_at: Cell<Option<Instant>>,
    restarted_at: Cell<Option<Instant>>,
    pairs: Cell<usize>,
    /// Of these, the pairs of each client with locks of its own.
    own: RefCell<[usize; CLIENTS]>,
}

impl Ledger {
    fn success(&self) {
        let now = Instant::now();
        self.last_success.set(Some(now));
        self.pairs.set(self.pairs.get() + 1);
        if self.restarted_at.get().is_some() && self.back_at.get().is_none() {
            self.back_at.set(Some(now));
        }
    }

    /// Waits until each client with locks of its own has made so many more pairs.
    async fn each_goes_on(&self, more: usize) {
        let before = *self.own.borrow();
        crate::wait::until("each client takes and releases locks", async || {
            let now = *self.own.borrow();
            let goes_on = |(now, before): (&usize, &usize)| now - before >= more;
            now.iter().zip(&before).all(goes_on).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn all_come_back_and_nothing_is_forgotten() {
    let mut cluster = Cluster::start(Options::default()).await;
    let ledger = Ledger::default();
    let mut clients = Vec::new();
    for number in 0..CLIENTS + RIVALS {
        let target = [Target::Any, Target::Leader][number % 2];
        clients.push(cluster.client(target).await);
    }
    let (own, rivals) = clients.split_at(CLIENTS);
    let own = join_all(
        (0..)
            .zip(own)
            .map(|(n, client)| own_locks(&ledger, n, client)),
    );
    let rivals = join_all(rivals.iter().map(|client| rival(&ledger, client)));
    let chaos = async {
        ledger.each_goes_on(PAIRS_AROUND).await;
        cluster.kill_broker();
        let killed_at = Instant::now();
        let before = ledger.pairs.get();
        // How long it is away is what the clients have to bear.
        tokio::time::sleep(AWAY).await;
        cluster.start_broker().await;
        let restarted_at = Instant::now();
        ledger.restarted_at.set(Some(restarted_at));
        cluster.all_follow().await;
        println!("{before} pairs, then the broker died");
        println!(
            "all nodes back {:?} after the broker",
            restarted_at.elapsed()
        );
        crate::wait::until("a client is served", async || ledger.back_at.get()).await;
        ledger.each_goes_on(PAIRS_AROUND).await;
        ledger.stop.set(true);
        let back_at = ledger.back_at.get().expect("waited for");
        let (back, out) = (back_at - restarted_at, back_at - killed_at);
        println!("clients back {back:?} after the broker, {out:?} after its end");
        assert!(
            back < Duration::from_secs(10),
            "clients back only after {back:?}"
        );
    };
    futures_util::join!(own, rivals, chaos);

    let reconnects = r#"mufakat_nats_reconnects_total{connection="clients"}"#;
    for node in cluster.ids() {
        assert_eq!(cluster.metric(node, reconnects).await, Some(1.0));
    }
    println!(
        "{} pairs, {} locks kept",
        ledger.pairs.get(),
        ledger.kept.borrow().len()
    );
    let nats = cluster.nats().await;
    assert!(
        ledger.kept.borrow().len() > CLIENTS,
        "there was hardly any load"
    );
    for (resource, token) in ledger.kept.take() {
        let holders = locks::get(&nats, &resource).await.holders;
        let tokens: Vec<u64> = holders.iter().map(|holder| holder.token).collect();
        assert_eq!(
            tokens,
            [token.0],
            "{resource} was granted and its lease runs"
        );
    }
    let rival = locks::get(&nats, "rivals").await;
    assert!(
        rival.holders.is_empty() && rival.waiters.is_empty(),
        "{rival:?}"
    );
    cluster.state_hashes().await;
}

/// Takes locks that nobody else wants, and keeps some.
async fn own_locks(ledger: &Ledger, number: usize, client: &Client) {
    for count in 0_usize.. {
        if ledger.stop.get() {
            return;
        }
        let mut request = Acquire::new(format!("own-{number}-{count}"));
        request.ttl_ms = Some(TTL_MS);
        let acquired = acquire(client, request).await;
        if count.is_multiple_of(KEEP_EVERY) {
            let kept = (acquired.resource, acquired.token);
            ledger.kept.borrow_mut().push(kept);
        } else {
            release(client, &acquired).await;
        }
        ledger.own.borrow_mut()[number] += 1;
        ledger.success();
    }
}

/// Takes the lock that its rivals want too.
async fn rival(ledger: &Ledger, client: &Client) {
    while !ledger.stop.get() {
        let mut request = Acquire::new("rivals");
        request.ttl_ms = Some(TTL_MS);
        request.wait_ms = 30_000;
        let acquired = acquire(client, request).await;
        let before = ledger.rival.replace(Some(acquired.token));
        assert_eq!(before, None, "{acquired:?} was granted while another holds");
        tokio::task::yield_now().await;
        ledger.rival.set(None);
        release(client, &acquired).await;
        ledger.success();
    }
}

/// Acquires, asking again with the same id while the outcome is unknown.
async fn acquire(client: &Client, mut request: Acquire) -> Acquired {
    request.request_id = Some(client.new_request_id());
    loop {
        match client.acquire(&request).await {
            Ok(acquired) => return acquired,
            Err(error) if error.retryable() || error.outcome() == Outcome::Unknown => {}
            Err(error) => panic!("{request:?}: {error}"),
        }
    }
}

async fn release(client: &Client, acquired: &Acquired) {
    let request = Release::new(acquired.resource.clone(), acquired.token);
    let mut unknown = false;
    loop {
        match client.release(&request).await {
            Ok(_) => return,
            Err(error) if unknown && error.status() == Some(409) => return,
            Err(error) if error.retryable() || error.outcome() == Outcome::Unknown => {
                unknown |= error.outcome() == Outcome::Unknown;
            }
            Err(error) => panic!("{request:?}: {error}"),
        }
    }
}
