//! Nodes, their network, their clocks and their clients.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::clients::Asked;
use super::seen::Seen;
use super::store::{Lax, Ways};
use crate::cache::entry::{Key, Version};
use crate::cache::message::{Invalidation, Matching, Message, Old};
use crate::cache::operation::{Answer, Write};
use crate::cache::state::{Cache, Effect, Flaws, Settings, Waiter};
use crate::cache::through::{Call, CallId, Outcome};
use crate::ids::{BootId, NodeId};
use crate::view::cluster::{Command, View};

const NODES: u64 = 3;
pub(super) const CLIENTS: u64 = 6;
pub(super) const KEYS: u64 = 4;
const LEASE_MS: u64 = 300;
const RENEW_MS: u64 = 75;
const TICK_MS: u64 = 20;
const SUSPICION_MS: u64 = 120;
pub(super) const PATIENCE_MS: u64 = 1_500;
const RUN_MS: u64 = 12_000;
/// Room for about six values, or a part of them and of remembered results; and, with a store, for two.
const BYTES_MAX: usize = 40_000;
const BYTES_MAX_BEFORE_STORE: usize = 16_000;
/// Longer than a client repeats a write.
const REMEMBER_MS: u64 = 6_000;

/// Parts of the protocol that are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wrong {
    pub flaws: Flaws,
    pub no_wait_before_activation: bool,
    pub cached_clock: bool,
    pub lease_from_receipt: bool,
    /// There is a store, which may be too lax.
    pub store: Option<Lax>,
}

#[derive(Clone, Debug)]
pub(super) enum Mail {
    Message(Message),
    News(Invalidation),
    /// Clients' requests; a write has been handed on to the home.
    Read(Key, Waiter<u64>),
    Write(Key, Box<Write>, Waiter<u64>),
    Invalidate(Matching, Waiter<u64>),
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Mail(NodeId, NodeId, Mail),
    Tick(NodeId, BootId),
    /// A read of the view is sent, has been answered, has arrived.
    Renew(NodeId, BootId),
    Read(NodeId, BootId, u64),
    View(NodeId, BootId, Option<u64>, Box<View>),
    Command(Command),
    Suspect,
    Client(u64),
    GiveUp(u64, u64),
    Crash,
    Restart(NodeId),
    Resume(NodeId, BootId),
    Pause,
    /// A call arrives at the store over a connection; its answer arrives; a connection ends; the store goes away,
    /// or comes back.
    Call(NodeId, BootId, u64, CallId, Box<Call>),
    Called(NodeId, BootId, CallId, Outcome),
    LoseConnection(NodeId),
    TurnStore,
}

pub(super) struct Node {
    pub(super) cache: Cache<u64>,
    boot: BootId,
    paused_until: u64,
    /// What happens while it is paused happens after.
    missed: Vec<Event>,
    view: View,
    cached_ms: u64,
    old: Vec<Old>,
}

pub struct World {
    pub(super) wrong: Wrong,
    pub(super) rng: StdRng,
    pub(super) now: u64,
    pub(super) events: BinaryHeap<Reverse<(u64, u64)>>,
    pub(super) bodies: BTreeMap<u64, Event>,
    pub(super) view: View,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) ways: Option<Ways>,
    pub(super) silent_since: BTreeMap<NodeId, u64>,
    pub(super) boots: u64,
    pub(super) asked: Vec<Asked>,
    /// Which ticket each client waits for.
    pub(super) waiting: BTreeMap<u64, u64>,
    /// What clients last saw of each key: value and version.
    pub(super) known: BTreeMap<u64, (u64, Version)>,
    /// Which value each version of each key is of.
    pub(super) versions: BTreeMap<(u64, Version), u64>,
    /// The versions and values that the counter was answered with, and the times that it was not counted.
    pub(super) counted: Vec<(Version, u64)>,
    pub(super) uncounted: u64,
    pub(super) broken: Option<String>,
    pub(super) seen: Seen,
}

impl World {
    pub fn new(seed: u64, wrong: Wrong) -> Self {
        let mut world = World {
            wrong,
            rng: StdRng::seed_from_u64(seed),
            now: 0,
            events: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            view: View::default(),
            nodes: BTreeMap::new(),
            ways: wrong.store.map(Ways::new),
            silent_since: BTreeMap::new(),
            boots: 0,
            asked: Vec::new(),
            waiting: BTreeMap::new(),
            known: BTreeMap::new(),
            versions: BTreeMap::new(),
            counted: Vec::new(),
            uncounted: 0,
            broken: None,
            seen: Seen::default(),
        };
        for node in 1..=NODES {
            world.start(NodeId(node));
        }
        for client in 0..CLIENTS {
            world.at(200 + client, Event::Client(client));
        }
        world.at(50, Event::Suspect);
        world.at(900, Event::Crash);
        world.at(500, Event::Pause);
        if wrong.store.is_some() {
            world.at(700, Event::TurnStore);
        }
        world
    }

    pub(super) fn at(&mut self, after: u64, event: Event) {
        let number = self.bodies.last_key_value().map_or(0, |(last, _)| last + 1);
        self.bodies.insert(number, event);
        self.events.push(Reverse((self.now + after, number)));
    }

    fn start(&mut self, id: NodeId) {
        self.boots += 1;
        let boot = BootId(self.boots);
        let settings = Settings {
            bytes_max: self.bytes_max(),
            backups: self.ways.is_none(),
            store: self.ways.is_some(),
            remember_ms: REMEMBER_MS,
        };
        let cache = Cache::new((id, boot), LEASE_MS, settings).with_flaws(self.wrong.flaws);
        let node = Node {
            cache,
            boot,
            paused_until: 0,
            missed: Vec::new(),
            view: self.view.clone(),
            cached_ms: 0,
            old: Vec::new(),
        };
        self.nodes.insert(id, node);
        self.at(1, Event::Tick(id, boot));
        self.at(2, Event::Renew(id, boot));
    }

    fn bytes_max(&self) -> usize {
        match self.ways {
            Some(_) => BYTES_MAX_BEFORE_STORE,
            None => BYTES_MAX,
        }
    }

    pub fn run(&mut self) {
        while let Some(Reverse((at, number))) = self.events.pop() {
            if at > RUN_MS || self.broken.is_some() {
                return;
            }
            self.now = at;
            let event = self.bodies.remove(&number).expect("each event once");
            self.happen(event);
        }
    }

    /// A node's clock: apart from the others, and up to a hundredth too fast or too slow.
    fn clock(&self, node: NodeId) -> u64 {
        let rate = [1_000, 1_010, 990][(node.0 - 1) as usize];
        node.0 * 1_000_000 + self.now * rate / 1_000
    }

    fn node_time(&self, id: NodeId) -> u64 {
        match self.wrong.cached_clock {
            true => self.nodes[&id].cached_ms,
            false => self.clock(id),
        }
    }

    /// The node as far as it runs; what concerns one that is paused is kept for later.
    fn running(&mut self, id: NodeId, boot: Option<BootId>, event: &Event) -> bool {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else {
            return false;
        };
        if boot.is_some_and(|boot| boot != node.boot) {
            return false;
        }
        if now < node.paused_until {
            node.missed.push(event.clone());
            return false;
        }
        true
    }

    fn happen(&mut self, event: Event) {
        match &event {
            Event::Mail(_, to, _) if !self.running(*to, None, &event) => return,
            Event::Tick(node, boot)
            | Event::Renew(node, boot)
            | Event::View(node, boot, ..)
            | Event::Called(node, boot, ..)
                if !self.running(*node, Some(*boot), &event) =>
            {
                return;
            }
            _ => {}
        }
        match event {
            Event::Mail(from, to, mail) => self.deliver(from, to, mail),
            Event::Tick(id, boot) => self.tick(id, boot),
            Event::Renew(id, boot) => {
                let sent = self.node_time(id);
                let way = self.rng.random_range(1..30);
                self.at(way, Event::Read(id, boot, sent));
                self.at(RENEW_MS, Event::Renew(id, boot));
            }
            Event::Read(id, boot, sent) => {
                let slow = if self.rng.random_bool(0.1) { 250 } else { 10 };
                let way = self.rng.random_range(1..slow);
                let view = Box::new(self.view.clone());
                self.at(way, Event::View(id, boot, Some(sent), view));
            }
            Event::View(id, boot, sent, view) => self.observe(id, boot, sent, *view),
            Event::Command(command) => self.apply(&command),
            Event::Suspect => self.suspect(),
            Event::Client(client) => self.ask(client),
            Event::GiveUp(client, asked) => {
                if self.waiting.get(&client) == Some(&asked) {
                    self.give_up(client, asked);
                }
            }
            Event::Crash => self.crash(),
            Event::Restart(id) => self.start(id),
            Event::Resume(id, boot) => self.resume(id, boot),
            Event::Pause => self.pause(),
            Event::Call(id, boot, connection, call_id, call) => {
                self.execute((id, boot), connection, (call_id, &call));
            }
            Event::Called(id, _, call_id, outcome) => {
                let now = self.node_time(id);
                let node = self.nodes.get_mut(&id).expect("it runs");
                node.cache.store_answered(call_id, outcome, now);
                self.flush(id);
            }
            Event::LoseConnection(id) => self.lose_connection(id),
            Event::TurnStore => self.turn_store(),
        }
    }

    fn tick(&mut self, id: NodeId, boot: BootId) {
        let now = self.clock(id);
        let view = self.nodes[&id].view.clone();
        let leads = self.nodes.keys().next() == Some(&id);
        let node = self.nodes.get_mut(&id).expect("it runs");
        node.cached_ms = now;
        node.cache.observe(&view, None, now);
        node.cache.tick(now);
        for command in node.cache.commands(&view, now, leads) {
            let way = self.rng.random_range(1..20);
            self.at(way, Event::Command(command));
        }
        self.flush(id);
        self.at(TICK_MS, Event::Tick(id, boot));
    }

    fn observe(&mut self, id: NodeId, boot: BootId, sent: Option<u64>, view: View) {
        let now = self.node_time(id);
        let node = self.nodes.get_mut(&id).expect("it runs");
        assert_eq!(node.boot, boot);
        let read_at = match (sent, self.wrong.lease_from_receipt) {
            (Some(_), true) => Some(now),
            (sent, _) => sent,
        };
        node.cache.observe(&view, read_at, now);
        if view.revision() > node.view.revision() {
            node.view = view;
        }
        self.flush(id);
    }

    fn apply(&mut self, command: &Command) {
        let before = self.view.revision();
        let epoch = self.view.epoch();
        self.view.apply(command);
        if let (true, Some(next)) = (self.wrong.no_wait_before_activation, self.view.next()) {
            let prepared = next.prepared;
            self.view.apply(&Command::Activate { prepared });
        }
        self.seen.epochs += self.view.epoch().0 - epoch.0;
        if self.view.revision() > before {
            for (id, boot) in self.boots() {
                let way = self.rng.random_range(1..40);
                let view = Box::new(self.view.clone());
                self.at(way, Event::View(id, boot, None, view));
            }
        }
    }

    fn boots(&self) -> Vec<(NodeId, BootId)> {
        self.nodes
            .iter()
            .map(|(id, node)| (*id, node.boot))
            .collect()
    }

    /// What a leader does about silent nodes.
    fn suspect(&mut self) {
        for id in (1..=NODES).map(NodeId) {
            let silent = self
                .nodes
                .get(&id)
                .is_none_or(|n| self.now < n.paused_until);
            if !silent {
                self.silent_since.remove(&id);
                continue;
            }
            let since = *self.silent_since.entry(id).or_insert(self.now);
            let member = self.view.latest().get(&id).copied();
            if let (true, Some(member)) = (self.now - since > SUSPICION_MS, member) {
                let incarnation = member.incarnation;
                let node = id;
                self.apply(&Command::Leave { node, incarnation });
            }
        }
        self.at(50, Event::Suspect);
    }

    fn crash(&mut self) {
        let id = NodeId(self.rng.random_range(1..=NODES));
        if self.nodes.len() as u64 == NODES {
            self.seen.crashes += 1;
            self.nodes.remove(&id);
            let away = self.rng.random_range(10..1_500);
            self.at(away, Event::Restart(id));
        }
        let next = self.rng.random_range(300..3_000);
        self.at(next, Event::Crash);
    }

    fn pause(&mut self) {
        let id = NodeId(self.rng.random_range(1..=NODES));
        // A node that is stopped for less than a lease goes on with what it has.
        let length = [LEASE_MS * 2 / 3, LEASE_MS * 3][self.rng.random_range(0..2)];
        let until = self.now + length;
        if let Some(node) = self.nodes.get_mut(&id)
            && node.paused_until <= self.now
        {
            self.seen.pauses += 1;
            node.paused_until = until;
            let boot = node.boot;
            self.at(length, Event::Resume(id, boot));
        }
        let next = self.rng.random_range(200..2_000);
        self.at(next, Event::Pause);
    }

    /// What came meanwhile is there at once, in an order of its own: the worst one is that answers to
    /// old questions come first, and then clients.
    fn resume(&mut self, id: NodeId, boot: BootId) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.boot == boot) else {
            return;
        };
        for event in std::mem::take(&mut node.missed) {
            let after = match event {
                Event::View(_, _, Some(_), _) => 0,
                Event::Mail(_, _, Mail::Read(..)) => 1,
                _ => self.rng.random_range(1..8),
            };
            self.at(after, event);
        }
    }

    pub(super) fn mail(&mut self, from: NodeId, to: NodeId, mail: Mail) {
        if self.rng.random_bool(0.03) {
            return;
        }
        // Requests are told from their repeats on the way.
        let is_request = matches!(
            mail,
            Mail::Read(..) | Mail::Write(..) | Mail::Invalidate(..)
        );
        let copies = 1 + u64::from(!is_request && self.rng.random_bool(0.05));
        for _ in 0..copies {
            let slow = if self.rng.random_bool(0.08) { 120 } else { 6 };
            let way = self.rng.random_range(1..slow);
            self.at(way, Event::Mail(from, to, mail.clone()));
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, mail: Mail) {
        let now = self.node_time(to);
        let cache = &mut self.nodes.get_mut(&to).expect("it runs").cache;
        match mail {
            Mail::Message(message) => cache.receive(from, message, now),
            Mail::News(news) => cache.invalidated(from, news, now),
            Mail::Read(key, waiter) => match cache.hit(&key, now) {
                Some(hit) => {
                    self.seen.local += 1;
                    self.answered(waiter.ticket, Answer::Found(hit));
                }
                None => {
                    let deadline_ms = now + PATIENCE_MS;
                    cache.read(
                        key,
                        Waiter {
                            deadline_ms,
                            ..waiter
                        },
                        now,
                    );
                }
            },
            Mail::Write(key, write, waiter) => {
                let waiter = Waiter {
                    deadline_ms: now + PATIENCE_MS,
                    ..waiter
                };
                cache.write(key, *write, waiter, now);
            }
            Mail::Invalidate(matching, waiter) => {
                let waiter = Waiter {
                    deadline_ms: now + PATIENCE_MS,
                    ..waiter
                };
                cache.invalidate(matching, waiter, now);
            }
        }
        self.flush(to);
    }

    fn flush(&mut self, id: NodeId) {
        let bytes_max = self.bytes_max();
        let node = self.nodes.get_mut(&id).expect("it runs");
        let boot = node.boot;
        let (entries, bytes) = node.cache.size();
        assert!(bytes <= bytes_max, "{entries} entries take {bytes} bytes");
        let mut confirms = false;
        for effect in node.cache.take_effects() {
            match effect {
                Effect::Answer { ticket, answer } => self.answered(ticket, answer),
                Effect::Event(_) => {}
                Effect::Call { id: call_id, call } => self.call(id, boot, (call_id, call)),
                Effect::LookUp { .. } => unreachable!("no client names a fence"),
                Effect::Send { to, message } => self.mail(id, to, Mail::Message(message)),
                Effect::Invalidate(old) => {
                    self.nodes.get_mut(&id).expect("it runs").old.push(old);
                }
                Effect::Confirm => confirms = true,
            }
        }
        let now = self.node_time(id);
        let node = self.nodes.get_mut(&id).expect("it runs");
        let mut old = std::mem::take(&mut node.old);
        if (confirms || !old.is_empty())
            && let Some(news) = node.cache.news(&mut old, now)
        {
            for to in (1..=NODES).map(NodeId) {
                self.mail(id, to, Mail::News(news.clone()));
            }
        }
    }
}
