//! A broker made of virtual time and a seed, for simulations and tests.
//!
//! It promises what NATS promises and no more: at most once, interest-aware (a request that nobody
//! listens to is answered at once), with delay, loss, duplication, reordering, cut links, lost
//! connections and crashes as the test asks. Under a paused `current_thread` runtime the same seed
//! gives the same run. It keeps everything in memory and has one task, which ends with its owner.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, mpsc};

use super::{Broker, Message, Outgoing, PublishError, SubscribeError, Subscription};
use crate::ids::NodeId;
use crate::time::{Instant, now};

/// Messages on their way at once; what does not fit is lost, as in a broker that sheds load.
const ON_THEIR_WAY_MAX: usize = 100_000;

/// What the network does to messages. All rates are probabilities from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub delay_min: Duration,
    pub delay_max: Duration,
    pub drop: f64,
    pub duplicate: f64,
    /// Rate of messages that do not queue behind earlier ones and take up to ten times as long.
    pub reorder: f64,
}

impl Faults {
    /// A healthy local network: 0.2 to 1 ms, nothing lost.
    pub const NONE: Faults = Faults {
        delay_min: Duration::from_micros(200),
        delay_max: Duration::from_millis(1),
        drop: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
    };
}

/// The simulated network; clones share it.
#[derive(Clone)]
pub struct Simulation {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    rng: StdRng,
    faults: Faults,
    subscriptions: BTreeMap<u64, Subscriber>,
    next_subscription: u64,
    queue: BinaryHeap<Reverse<Delivery>>,
    next_delivery: u64,
    /// When the last message of each link arrives: later ones queue behind it.
    link_busy_until: BTreeMap<(NodeId, NodeId), Instant>,
    cut: BTreeSet<(NodeId, NodeId)>,
    disconnected: BTreeSet<NodeId>,
    /// How often the connection of each node was made anew.
    reconnects: BTreeMap<NodeId, u64>,
    /// How often each node crashed: what an earlier run of it still publishes goes nowhere.
    crashes: BTreeMap<NodeId, u64>,
    lost: u64,
}

struct Subscriber {
    node: NodeId,
    subject: String,
    sender: mpsc::Sender<Message>,
}

struct Delivery {
    at: Instant,
    number: u64,
    from: NodeId,
    subscription: u64,
    message: Message,
}

impl Simulation {
    /// Starts a network; the caller prints the seed. Needs a tokio runtime.
    pub fn new(seed: u64) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                rng: StdRng::seed_from_u64(seed),
                faults: Faults::NONE,
                subscriptions: BTreeMap::new(),
                next_subscription: 0,
                queue: BinaryHeap::new(),
                next_delivery: 0,
                link_busy_until: BTreeMap::new(),
                cut: BTreeSet::new(),
                disconnected: BTreeSet::new(),
                reconnects: BTreeMap::new(),
                crashes: BTreeMap::new(),
                lost: 0,
            }),
            changed: Notify::new(),
        });
        tokio::spawn(deliver(Arc::downgrade(&shared)));
        Simulation { shared }
    }

    /// The broker as this run of `node` sees it. Clients take numbers that no node has.
    pub fn broker(&self, node: NodeId) -> Arc<dyn Broker> {
        let run = self.state(|state| state.crashes_of(node));
        Arc::new(Endpoint {
            node,
            run,
            shared: self.shared.clone(),
        })
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state(|state| state.faults = faults);
    }

    /// From now on nothing of `from` reaches `to`; nobody is told.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.state(|state| state.cut.insert((from, to)));
    }

    /// Cuts all links between `node` and `others`, both ways.
    pub fn isolate(&self, node: NodeId, others: &[NodeId]) {
        for &other in others.iter().filter(|other| **other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// The node's connection breaks and both sides know: it cannot publish, others find no responder.
    pub fn disconnect(&self, node: NodeId) {
        self.state(|state| state.disconnected.insert(node));
    }

    /// The node's connection is made anew.
    pub fn reconnect(&self, node: NodeId) {
        self.state(|state| state.reconnect(node));
    }

    /// Ends all cuts and broken connections.
    pub fn heal(&self) {
        self.state(|state| {
            state.cut.clear();
            for node in state.disconnected.clone() {
                state.reconnect(node);
            }
        });
    }

    /// The node's process dies: its subscriptions end, what was on its way to them is lost, and its
    /// brokers are disconnected for good. What it had published still arrives.
    pub fn crash(&self, node: NodeId) {
        self.state(|state| {
            state.subscriptions.retain(|_, s| s.node != node);
            *state.crashes.entry(node).or_default() += 1;
        });
    }

    /// Messages lost so far, for whatever reason.
    pub fn lost(&self) -> u64 {
        self.state(|state| state.lost)
    }

    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.shared.state.lock().expect("no holder panics"))
    }
}

impl State {
    fn crashes_of(&self, node: NodeId) -> u64 {
        self.crashes.get(&node).copied().unwrap_or(0)
    }

    fn reconnect(&mut self, node: NodeId) {
        if self.disconnected.remove(&node) {
            *self.reconnects.entry(node).or_default() += 1;
        }
    }

    fn is_connected(&self, endpoint: &Endpoint) -> bool {
        !self.disconnected.contains(&endpoint.node)
            && self.crashes_of(endpoint.node) == endpoint.run
    }

    fn publish(&mut self, from: NodeId, message: &Outgoing) {
        let interested: Vec<u64> = self
            .subscriptions
            .iter()
            .filter(|(_, s)| {
                matches(&s.subject, &message.subject) && !self.disconnected.contains(&s.node)
            })
            .map(|(id, _)| *id)
            .collect();
        for &subscription in &interested {
            self.send(from, subscription, incoming(message, false));
        }
        if let (true, Some(reply)) = (interested.is_empty(), &message.reply) {
            let nobody = Outgoing {
                headers: Vec::new(),
                subject: reply.clone(),
                reply: None,
                payload: bytes::Bytes::new(),
            };
            let inboxes = self.subscriptions.iter();
            let own: Vec<u64> = inboxes
                .filter(|(_, s)| s.node == from && matches(&s.subject, reply))
                .map(|(id, _)| *id)
                .collect();
            for subscription in own {
                self.send(from, subscription, incoming(&nobody, true));
            }
        }
    }

    /// Puts one message, or two or none, on its way.
    fn send(&mut self, from: NodeId, subscription: u64, message: Message) {
        let to = self.subscriptions[&subscription].node;
        if self.rng.random_bool(self.faults.drop) || self.queue.len() >= ON_THEIR_WAY_MAX {
            self.lost += 1;
            return;
        }
        let copies = 1 + u32::from(self.rng.random_bool(self.faults.duplicate));
        for _ in 0..copies {
            let at = self.arrival(from, to);
            let number = self.next_delivery;
            self.next_delivery += 1;
            self.queue.push(Reverse(Delivery {
                at,
                number,
                from,
                subscription,
                message: message.clone(),
            }));
        }
    }

    fn arrival(&mut self, from: NodeId, to: NodeId) -> Instant {
        let Faults {
            delay_min,
            delay_max,
            reorder,
            ..
        } = self.faults;
        let delay = self.rng.random_range(delay_min..=delay_max);
        if self.rng.random_bool(reorder) {
            return now() + delay * self.rng.random_range(1..=10);
        }
        let free = self.link_busy_until.entry((from, to)).or_insert_with(now);
        *free = (*free).max(now() + delay);
        *free
    }

    /// Hands over what is due; answers when the next message is.
    fn deliver_due(&mut self) -> Option<Instant> {
        while let Some(Reverse(next)) = self.queue.peek() {
            if next.at > now() {
                return Some(next.at);
            }
            let Some(Reverse(delivery)) = self.queue.pop() else {
                break;
            };
            let Some(subscriber) = self.subscriptions.get(&delivery.subscription) else {
                self.lost += 1;
                continue;
            };
            let to = subscriber.node;
            let blocked = self.cut.contains(&(delivery.from, to))
                || self.disconnected.contains(&delivery.from)
                || self.disconnected.contains(&to);
            if blocked || subscriber.sender.try_send(delivery.message).is_err() {
                self.lost += 1;
            }
        }
        None
    }
}

fn incoming(message: &Outgoing, no_responders: bool) -> Message {
    Message {
        subject: message.subject.clone(),
        reply: message.reply.clone(),
        payload: message.payload.clone(),
        no_responders,
    }
}

fn matches(pattern: &str, subject: &str) -> bool {
    match pattern.strip_suffix('>') {
        Some(family) => subject.len() > family.len() && subject.starts_with(family),
        None => pattern == subject,
    }
}

/// The one task: delivers until every handle on the network is gone.
async fn deliver(network: Weak<Shared>) {
    /// How long the task may outlive the network's last handle, in virtual time.
    const LOOK_FOR_OWNER: Duration = Duration::from_secs(60);
    while let Some(shared) = network.upgrade() {
        let next = shared.state.lock().expect("no holder panics").deliver_due();
        let wake = next.unwrap_or_else(|| now() + LOOK_FOR_OWNER);
        tokio::select! {
            biased;
            () = shared.changed.notified() => {}
            () = tokio::time::sleep_until(wake) => {}
        }
    }
}

struct Endpoint {
    node: NodeId,
    run: u64,
    shared: Arc<Shared>,
}

impl Broker for Endpoint {
    fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let mut state = self.shared.state.lock().expect("no holder panics");
        if !state.is_connected(self) {
            return Err(PublishError::Disconnected);
        }
        state.publish(self.node, &message);
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    fn subscribe(
        &self,
        subject: String,
        capacity: usize,
    ) -> BoxFuture<'static, Result<Subscription, SubscribeError>> {
        let (sender, receiver) = mpsc::channel(capacity);
        let mut state = self.shared.state.lock().expect("no holder panics");
        let id = state.next_subscription;
        state.next_subscription += 1;
        let node = self.node;
        state.subscriptions.insert(
            id,
            Subscriber {
                node,
                subject,
                sender,
            },
        );
        drop(state);
        let interest = Interest {
            id,
            shared: Arc::downgrade(&self.shared),
        };
        let messages = stream::unfold(
            (receiver, interest),
            |(mut receiver, interest)| async move {
                let message = receiver.recv().await?;
                Some((message, (receiver, interest)))
            },
        );
        async move { Ok(Subscription::new(messages)) }.boxed()
    }

    fn is_connected(&self) -> bool {
        let state = self.shared.state.lock().expect("no holder panics");
        state.is_connected(self)
    }

    fn connects(&self) -> u64 {
        let state = self.shared.state.lock().expect("no holder panics");
        1 + state.reconnects.get(&self.node).copied().unwrap_or(0)
    }
}

/// Ends a subscription when its stream is dropped.
struct Interest {
    id: u64,
    shared: Weak<Shared>,
}

impl Drop for Interest {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let mut state = shared.state.lock().expect("no holder panics");
            state.subscriptions.remove(&self.id);
        }
    }
}

impl PartialEq for Delivery {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Delivery {}

impl PartialOrd for Delivery {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delivery {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[cfg(test)]
mod tests;
