//! The cache with time and messages: requests of clients and news of other nodes in, answers out.
//!
//! Everything is decided in [`state`](crate::cache::state) under one lock, which is held for a lookup
//! or a decision and never while waiting. A node runs on one thread, so that nobody waits for it.
//!
//! Three tasks, each ended by the shutdown watch: one takes messages of other nodes, one gathers what
//! has become old while the others ran and says it in one message, one lets time pass while
//! anything is waited for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};

use crate::broker::SubscribeError;
use crate::cache::answer;
use crate::cache::claims::Wish;
use crate::cache::entry::{Fence, Key};
use crate::cache::event::Event;
use crate::cache::explain::Explanation;
use crate::cache::message::{Invalidation, Matching, Message, Old};
use crate::cache::operation::{Answer, Why, Write};
use crate::cache::state::{Cache, Effect, Settings, Waiter};
use crate::cache::through::{Call, CallId, Outcome};
use crate::ids::{BootId, NodeId};
use crate::protocol::cache::Consistency;
use crate::protocol::tenant::seat::Seat;
use crate::protocol::{self, ReplyTo};
use crate::raft::posts::{Arrival, Inbox, Lane, Post, PostError, Posts, Unheard};
use crate::stats::cache::Reading;
use crate::time::{self, Instant, LeaseClock};
use crate::view::cluster::{self, View};
use crate::view::service::Tenant;

mod stopping;

/// Messages of other nodes not yet looked at; what does not fit is sent again.
const MESSAGES_MAX: usize = 65_536;
/// How often time passes while something is waited for.
const TICK: Duration = Duration::from_millis(20);

/// Who gives the answers, and tells what happened.
pub trait Answers: Send + Sync + 'static {
    fn answer(&self, ask: Ask, answer: Answer);
    /// The answers to each key of a request that named several, in its order.
    fn answer_many(&self, ask: Ask, answers: Vec<Answer>);
    fn tell_watchers(&self, event: &Event);
}

/// Who knows which locks are held.
pub trait Fences: Send + Sync + 'static {
    /// Whether a lock is held exclusively under a token, as it is now or later.
    ///
    /// # Errors
    /// Why the write that it is for is refused.
    fn look_up(&self, fence: Fence, deadline: Instant) -> BoxFuture<'static, Result<(), Why>>;
}

/// Who keeps values behind the memory of all nodes.
pub trait Store: Send + Sync + 'static {
    /// Each call ends within seconds, if only with an unknown outcome.
    fn call(&self, call: Call) -> BoxFuture<'static, Outcome>;
}

/// Who asked, and what.
#[derive(Clone, Debug)]
pub struct Ask {
    pub to: ReplyTo,
    pub operation: protocol::Operation,
    pub received: Instant,
    pub deadline: Instant,
    /// Held until it is answered.
    pub seat: Seat,
}

/// Whom an answer is for.
enum Ticket {
    One(Ask),
    /// One of several keys of one request.
    Part(Arc<Many>, usize),
}

/// A request that named several keys.
struct Many {
    ask: Ask,
    answers: Mutex<Vec<Answer>>,
    left: AtomicUsize,
}

/// The cache, as one node offers it; clones share it.
#[derive(Clone)]
pub struct CacheService(Arc<Shared>);

struct Shared {
    cache: Mutex<Cache<Ticket>>,
    clock: LeaseClock,
    posts: Posts,
    answers: Arc<dyn Answers>,
    fences: Arc<dyn Fences>,
    /// There is one if the settings say so.
    store: Option<Arc<dyn Store>>,
    news: Mutex<Vec<Old>>,
    news_wake: Notify,
    /// Requests, or keys of requests, that are not answered.
    open: AtomicUsize,
    ticks: AtomicBool,
    ticks_wake: Notify,
}

impl CacheService {
    /// `lease` is how long this node acts on a view that it read; `store` is there if the settings say so.
    pub fn new(
        posts: Posts,
        clock: LeaseClock,
        (lease, settings): (Duration, Settings),
        (answers, fences): (Arc<dyn Answers>, Arc<dyn Fences>),
        store: Option<Arc<dyn Store>>,
    ) -> Self {
        let identity = posts.identity();
        let who: (NodeId, BootId) = (identity.node, identity.boot);
        let cache = Cache::new(who, lease.as_millis() as u64, settings);
        CacheService(Arc::new(Shared {
            cache: Mutex::new(cache),
            clock,
            posts,
            answers,
            fences,
            store,
            news: Mutex::new(Vec::new()),
            news_wake: Notify::new(),
            open: AtomicUsize::new(0),
            ticks: AtomicBool::new(false),
            ticks_wake: Notify::new(),
        }))
    }

    /// Begins to take messages of other nodes, until `stopped`.
    ///
    /// # Errors
    /// When the broker refuses the subscriptions.
    pub async fn run(&self, stopped: watch::Receiver<bool>) -> Result<(), SubscribeError> {
        let posts = &self.0.posts;
        let messages = posts.listen(Lane::Cache, MESSAGES_MAX).await?;
        let news = posts.listen_to_all(Lane::Invalidate, MESSAGES_MAX).await?;
        tokio::spawn(self.clone().listen(messages, news, stopped.clone()));
        tokio::spawn(self.clone().tell(stopped.clone()));
        tokio::spawn(self.clone().tick(stopped));
        Ok(())
    }

    /// `cache.get`: from this node's memory at once, if it may.
    pub fn get(&self, asked: &protocol::cache::Get, ask: Ask) {
        let key = &*asked.key;
        let now_ms = self.0.clock.now_ms();
        let hit = {
            let mut cache = self.0.cache();
            cache.meet(ask.to.tenant.as_ref());
            match cache.hit(key, now_ms) {
                None if asked.consistency == Consistency::Any => cache.hit_any(key, now_ms),
                hit => hit,
            }
        };
        if let Some(hit) = hit {
            return self.0.answers.answer(ask, Answer::Found(hit));
        }
        let waiter = self.0.waiter(Ticket::One(ask), now_ms);
        let wish = asked.claim_ms.map(|load_ms| Wish {
            load_ms,
            wait_until_ms: now_ms + asked.wait_ms,
        });
        self.0.with(|cache| match wish {
            Some(wish) => cache.read_or_claim(key.into(), wish, waiter, now_ms),
            None => cache.read(key.into(), waiter, now_ms),
        });
    }

    /// `cache.get_many`.
    pub fn get_many(&self, keys: &[String], any: bool, ask: Ask) {
        self.0.cache().meet(ask.to.tenant.as_ref());
        let many = Arc::new(Many {
            answers: Mutex::new(vec![Answer::Missed; keys.len()]),
            left: AtomicUsize::new(keys.len()),
            ask,
        });
        let now_ms = self.0.clock.now_ms();
        for (index, key) in keys.iter().enumerate() {
            let ticket = Ticket::Part(many.clone(), index);
            let hit = {
                let mut cache = self.0.cache();
                match cache.hit(key, now_ms) {
                    None if any => cache.hit_any(key, now_ms),
                    hit => hit,
                }
            };
            match hit {
                Some(hit) => self.0.answer(ticket, Answer::Found(hit)),
                None => {
                    let waiter = self.0.waiter(ticket, now_ms);
                    let key = key.as_str().into();
                    self.0.with(|cache| cache.read(key, waiter, now_ms));
                }
            }
        }
    }

    /// A change of a key that this node is home to.
    pub fn write(&self, key: &str, write: Write, ask: Ask) {
        let now_ms = self.0.clock.now_ms();
        self.0.cache().meet(ask.to.tenant.as_ref());
        let waiter = self.0.waiter(Ticket::One(ask), now_ms);
        self.0
            .with(|cache| cache.write(key.into(), write, waiter, now_ms));
    }

    /// `cache.invalidate`.
    pub fn invalidate(&self, matching: Matching, ask: Ask) {
        let now_ms = self.0.clock.now_ms();
        let waiter = self.0.waiter(Ticket::One(ask), now_ms);
        self.0
            .with(|cache| cache.invalidate(matching, waiter, now_ms));
    }

    /// `cache.audit`.
    pub fn audit(&self, sample: Option<u64>, ask: Ask) {
        let sample = sample.unwrap_or(protocol::cache::SAMPLE_DEFAULT) as usize;
        let now_ms = self.0.clock.now_ms();
        let waiter = self.0.waiter(Ticket::One(ask), now_ms);
        self.0.with(|cache| cache.audit(sample, waiter, now_ms));
    }

    /// The node that decides about a key; none if this one does not know.
    pub fn home(&self, key: &str) -> Option<NodeId> {
        self.0.cache().home(key)
    }

    /// What this node knows of a key.
    pub fn explain(&self, key: &str) -> Explanation {
        let now_ms = self.0.clock.now_ms();
        self.0.cache().explain(key, now_ms)
    }

    /// What the cache of this node has and has counted.
    pub fn stats(&self) -> protocol::cache::Stats {
        let now_ms = self.0.clock.now_ms();
        let cache = self.0.cache();
        answer::stats(
            cache.counts(),
            cache.size(),
            cache.settings(),
            cache.lease_left_ms(now_ms),
        )
    }

    /// The same, for metrics.
    pub fn reading(&self) -> Reading {
        let cache = self.0.cache();
        answer::reading(cache.counts(), cache.size(), cache.settings())
    }

    /// Entries and bytes that this node keeps.
    pub fn size(&self) -> (usize, usize) {
        self.0.cache().size()
    }

    /// Whether there is a store behind the memory of all nodes.
    pub fn has_store(&self) -> bool {
        self.0.store.is_some()
    }

    /// Whether other nodes have all that the newest change of the view is to give them from here.
    pub fn has_moved(&self) -> bool {
        !self.0.cache().is_moving()
    }

    /// What is left of the right to act on the view.
    pub fn lease_ms(&self) -> u64 {
        let now_ms = self.0.clock.now_ms();
        self.0.cache().lease_left_ms(now_ms)
    }

    async fn listen(
        self,
        mut messages: Inbox,
        mut news: Inbox,
        mut stopped: watch::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                biased;
                _ = stopped.changed() => return,
                arrival = news.next() => match arrival {
                    Some(Arrival::Post(post)) => self.take_news(&post),
                    Some(Arrival::Unheard(_)) => {}
                    None => return,
                },
                arrival = messages.next() => match arrival {
                    Some(Arrival::Post(post)) => self.take_message(&post),
                    Some(Arrival::Unheard(_)) => {}
                    None => return,
                },
            }
        }
    }

    fn take_news(&self, post: &Post) {
        if post.from == self.0.posts.identity().node {
            return;
        }
        match post.body::<Invalidation>() {
            Ok(news) => {
                let now_ms = self.0.clock.now_ms();
                self.0
                    .with(|cache| cache.invalidated(post.from, news, now_ms));
            }
            Err(error) => {
                tracing::debug!(%error, from = %post.from, "news of a cache were dropped")
            }
        }
    }

    fn take_message(&self, post: &Post) {
        let now_ms = self.0.clock.now_ms();
        match post.body::<Message>() {
            Ok(message) => self
                .0
                .with(|cache| cache.receive(post.from, message, now_ms)),
            Err(error) => tracing::debug!(%error, from = %post.from, "a message was dropped"),
        }
    }

    /// Says what has become old. Others run first, so that much is said at once when much happens.
    async fn tell(self, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                _ = stopped.changed() => return,
                () = self.0.news_wake.notified() => {}
            }
            tokio::task::yield_now().await;
            let mut old = std::mem::take(&mut *self.0.news.lock().expect("no holder panics"));
            loop {
                let now_ms = self.0.clock.now_ms();
                let news = self.0.cache().news(&mut old, now_ms);
                let Some(news) = news else {
                    break;
                };
                let hint = news.size_hint();
                say_if_too_large(self.0.posts.broadcast(Lane::Invalidate, &news, hint));
            }
        }
    }

    async fn tick(self, mut stopped: watch::Receiver<bool>) {
        loop {
            let waits = self.0.cache().waits();
            self.0.ticks.store(waits, Ordering::Relaxed);
            tokio::select! {
                biased;
                _ = stopped.changed() => return,
                () = tokio::time::sleep(TICK), if waits => {
                    let now_ms = self.0.clock.now_ms();
                    self.0.with(|cache| cache.tick(now_ms));
                }
                () = self.0.ticks_wake.notified(), if !waits => {}
            }
        }
    }
}

impl Shared {
    fn cache(&self) -> MutexGuard<'_, Cache<Ticket>> {
        self.cache.lock().expect("no holder of the cache panics")
    }

    /// Runs a decision and does what it wants done.
    fn with(self: &Arc<Self>, decide: impl FnOnce(&mut Cache<Ticket>)) {
        let (effects, waits) = {
            let mut cache = self.cache();
            decide(&mut cache);
            (cache.take_effects(), cache.waits())
        };
        for effect in effects {
            match effect {
                Effect::Answer { ticket, answer } => self.end(ticket, answer),
                Effect::Send { to, message } => {
                    let how = (message.size_hint(), Unheard::Ignore);
                    say_if_too_large(self.posts.send(to, Lane::Cache, &message, how));
                }
                Effect::Event(event) => self.answers.tell_watchers(&event),
                Effect::LookUp { key, write, waiter } => self.look_up(key, write, waiter),
                Effect::Call { id, call } => self.call_store(id, call),
                Effect::Invalidate(old) => {
                    self.news.lock().expect("no holder panics").push(old);
                    self.news_wake.notify_one();
                }
                Effect::Confirm => self.news_wake.notify_one(),
            }
        }
        if waits && !self.ticks.swap(true, Ordering::Relaxed) {
            self.ticks_wake.notify_one();
        }
    }

    fn call_store(self: &Arc<Self>, id: CallId, call: Call) {
        let store = self.store.as_ref().expect("only with a store is it called");
        let called = store.call(call);
        let shared = self.clone();
        tokio::spawn(async move {
            let outcome = called.await;
            let now_ms = shared.clock.now_ms();
            shared.with(|cache| cache.store_answered(id, outcome, now_ms));
        });
    }

    /// Finds out whether the lock of a write's fence is held, and tries the write again if so.
    fn look_up(self: &Arc<Self>, key: Key, write: Write, waiter: Waiter<Ticket>) {
        let Some(fenced) = write.operation.fenced() else {
            return;
        };
        let left = waiter.deadline_ms.saturating_sub(self.clock.now_ms());
        let deadline = time::now() + Duration::from_millis(left);
        let looked_up = self.fences.look_up(fenced.fence.clone(), deadline);
        let shared = self.clone();
        tokio::spawn(async move {
            match looked_up.await {
                Ok(()) => {
                    let now_ms = shared.clock.now_ms();
                    shared.with(|cache| cache.write(key, write, waiter, now_ms));
                }
                Err(why) => shared.end(waiter.ticket, Answer::Refused(why)),
            }
        });
    }

    /// Answers who was waiting.
    fn end(&self, ticket: Ticket, answer: Answer) {
        self.answer(ticket, answer);
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    fn answer(&self, ticket: Ticket, answer: Answer) {
        match ticket {
            Ticket::One(ask) => self.answers.answer(ask, answer),
            Ticket::Part(many, index) => {
                many.answers.lock().expect("no holder panics")[index] = answer;
                if many.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    let answers = &mut *many.answers.lock().expect("no holder panics");
                    self.answers
                        .answer_many(many.ask.clone(), std::mem::take(answers));
                }
            }
        }
    }

    /// Whoever has to wait, until [`Shared::end`].
    fn waiter(&self, ticket: Ticket, now_ms: u64) -> Waiter<Ticket> {
        self.open.fetch_add(1, Ordering::AcqRel);
        let deadline = match &ticket {
            Ticket::One(ask) => ask.deadline,
            Ticket::Part(many, _) => many.ask.deadline,
        };
        let left = deadline.saturating_duration_since(time::now());
        Waiter {
            ticket,
            deadline_ms: now_ms + left.as_millis() as u64,
        }
    }
}

/// What is lost is said again until it is answered. What is too large for a message would be so each time, and is a
/// fault of ours: one line tells of it.
fn say_if_too_large<T>(said: Result<T, PostError>) {
    static SAID: Once = Once::new();
    if let Err(error @ PostError::TooLarge) = said {
        SAID.call_once(|| tracing::error!(%error, "a message of the cache cannot be sent"));
    }
}

impl Tenant for CacheService {
    fn observe(&self, view: &View, read_at_ms: Option<u64>) {
        let now_ms = self.0.clock.now_ms();
        self.0.with(|cache| cache.observe(view, read_at_ms, now_ms));
    }

    fn commands(&self, view: &View, leads: bool) -> Vec<cluster::Command> {
        let now_ms = self.0.clock.now_ms();
        self.0.cache().commands(view, now_ms, leads)
    }
}
