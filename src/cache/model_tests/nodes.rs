//! Three nodes whose messages are delivered by hand.

use std::collections::BTreeMap;

use crate::cache::entry::{Key, Version};
use crate::cache::event::Event;
use crate::cache::message::{Invalidation, Matching, Message};
use crate::cache::operation::{Answer, Condition, Hit, Operation, Why, Write};
use crate::cache::state::{Cache, Effect, Flaws, Settings, Waiter};
use crate::cache::through::{Call, CallId};
use crate::ids::{BootId, NodeId};
use crate::protocol::value::Value;
use crate::view::cluster::{Command, View};

pub(super) const HOME: NodeId = NodeId(1);
pub(super) const READER: NodeId = NodeId(2);
pub(super) const OTHER: NodeId = NodeId(3);
pub(super) const LEASE_MS: u64 = 1_000;
pub(super) const REMEMBER_MS: u64 = 60_000;
/// Room for a few entries.
pub(super) const BYTES_MAX: usize = 3_000;

#[derive(Clone, Debug)]
pub(super) enum What {
    Message(Message),
    News(Invalidation),
}

#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) what: What,
}

/// Three nodes on one clock, and the messages that are under way.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    pub(super) now: u64,
    pub(super) view: View,
    pub(super) caches: BTreeMap<NodeId, Cache<u64>>,
    pub(super) mail: Vec<Mail>,
    pub(super) answers: BTreeMap<u64, Answer>,
    /// What watchers were told.
    pub(super) events: Vec<Event>,
    /// Fences to be looked up, and the writes that they are for.
    pub(super) lookups: Vec<(NodeId, Key, Write, Waiter<u64>)>,
    /// Calls of the store that have not been executed.
    pub(super) calls: Vec<(NodeId, CallId, Call)>,
    pub(super) last_ticket: u64,
    /// Hears and reads nothing.
    pub(super) deaf: Option<NodeId>,
}

/// A set that has nothing but a value, and a lifetime if it is given one.
pub(super) fn set_for(text: &str, ttl_ms: Option<u64>) -> Operation {
    Operation::Set {
        value: Value::text(text),
        ttl_ms,
        idle_ms: 0,
        condition: Condition::Always,
        tags: Vec::new(),
        fence: None,
        claim: None,
    }
}

impl Nodes {
    /// Nodes that have agreed on a view, and have room for `bytes_max` each.
    pub(super) fn start(bytes_max: usize) -> Self {
        Self::start_with(bytes_max, false)
    }

    pub(super) fn start_with(bytes_max: usize, backups: bool) -> Self {
        Self::start_as(Settings {
            bytes_max,
            backups,
            store: false,
            remember_ms: REMEMBER_MS,
        })
    }

    pub(super) fn start_as(settings: Settings) -> Self {
        let cache = |id: NodeId| Cache::new((id, BootId(id.0)), LEASE_MS, settings);
        let mut nodes = Nodes {
            now: 1_000,
            view: View::default(),
            caches: [HOME, READER, OTHER].map(|id| (id, cache(id))).into(),
            mail: Vec::new(),
            answers: BTreeMap::new(),
            events: Vec::new(),
            lookups: Vec::new(),
            calls: Vec::new(),
            last_ticket: 0,
            deaf: None,
        };
        for _ in 0..20 {
            nodes.pass(10);
        }
        assert_eq!(nodes.view.members().len(), 3);
        nodes
    }

    /// Lets time pass. Who hears reads the view and says what it has to.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now += ms;
        let mut commands = Vec::new();
        for (id, cache) in &mut self.caches {
            if self.deaf != Some(*id) {
                cache.observe(&self.view, Some(self.now), self.now);
                commands.extend(cache.commands(&self.view, self.now, *id == HOME));
            }
            cache.tick(self.now);
        }
        for command in commands {
            self.view.apply(&command);
        }
        self.collect();
    }

    pub(super) fn collect(&mut self) {
        for (from, cache) in &mut self.caches {
            for effect in cache.take_effects() {
                match effect {
                    Effect::Answer { ticket, answer } => {
                        self.answers.insert(ticket, answer);
                    }
                    Effect::Event(event) => self.events.push(event),
                    Effect::LookUp { key, write, waiter } => {
                        self.lookups.push((*from, key, write, waiter));
                    }
                    Effect::Call { id, call } => self.calls.push((*from, id, call)),
                    Effect::Send { to, message } => self.mail.push(Mail {
                        from: *from,
                        to,
                        what: What::Message(message),
                    }),
                    Effect::Invalidate(old) => {
                        let news = cache.news(&mut vec![old], self.now).expect("it acts");
                        self.mail.extend(to_others(*from, news));
                    }
                    // It is said below.
                    Effect::Confirm => {}
                }
            }
            // As early as it can be; it may arrive as late as it will.
            let news = cache.news(&mut Vec::new(), self.now);
            self.mail
                .extend(news.into_iter().flat_map(|news| to_others(*from, news)));
        }
    }

    pub(super) fn deliver(&mut self, mail: Mail) {
        if self.deaf == Some(mail.to) {
            return;
        }
        let Some(cache) = self.caches.get_mut(&mail.to) else {
            return;
        };
        match mail.what {
            What::Message(message) => cache.receive(mail.from, message, self.now),
            What::News(news) => cache.invalidated(mail.from, news, self.now),
        }
        self.collect();
    }

    /// Leaves out parts of the protocol, at every node.
    pub(super) fn flaw(&mut self, flaws: Flaws) {
        for cache in self.caches.values_mut() {
            cache.flaws = flaws;
        }
    }

    /// A node is gone, and the others have gone on without it.
    pub(super) fn lose(&mut self, node: NodeId) {
        self.begin_to_lose(node);
        self.go_on(|_| false);
        assert!(self.view.member(node).is_none());
    }

    /// The same, no longer than until the view is without it.
    pub(super) fn lose_at_once(&mut self, node: NodeId) {
        self.begin_to_lose(node);
        self.go_on_until(|nodes| nodes.view.member(node).is_none());
    }

    /// A node is gone; the others have not heard of it.
    pub(super) fn begin_to_lose(&mut self, node: NodeId) {
        self.deaf = Some(node);
        let member = self.view.member(node).expect("it is a member");
        let incarnation = member.incarnation;
        self.view.apply(&Command::Leave { node, incarnation });
    }

    /// A node that was lost begins anew; it is no member yet.
    pub(super) fn begin_anew(&mut self, node: NodeId) {
        let settings = self.caches[&node].settings();
        let boot = BootId(node.0 + 100);
        let cache = Cache::new((node, boot), LEASE_MS, settings);
        self.caches.insert(node, cache);
        self.deaf = None;
    }

    /// Lets so much time pass that a change of the view is over, with all messages arriving but those
    /// that are lost.
    pub(super) fn go_on(&mut self, is_lost: impl Fn(&Mail) -> bool) {
        for _ in 0..400 {
            self.pass(10);
            self.mail.retain(|mail| !is_lost(mail));
            while !self.mail.is_empty() {
                for mail in std::mem::take(&mut self.mail) {
                    self.deliver(mail);
                }
                self.mail.retain(|mail| !is_lost(mail));
            }
        }
    }

    /// Lets time pass until something is so, with all messages arriving.
    pub(super) fn go_on_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..1_000 {
            if is_so(self) {
                return self.pass(0);
            }
            self.pass(10);
            self.settle();
        }
        panic!("it has not come to that");
    }

    /// Takes what is under way to a node.
    pub(super) fn take(&mut self, to: NodeId) -> Vec<Mail> {
        let (taken, rest) = self.mail.drain(..).partition(|mail| mail.to == to);
        self.mail = rest;
        taken
    }

    pub(super) fn deliver_to(&mut self, to: NodeId) {
        for mail in self.take(to) {
            self.deliver(mail);
        }
    }

    /// Delivers until nothing is under way.
    pub(super) fn settle(&mut self) {
        while !self.mail.is_empty() {
            for mail in std::mem::take(&mut self.mail) {
                self.deliver(mail);
            }
        }
    }

    /// Keys that a node is home to.
    pub(super) fn keys(&self, home: NodeId) -> impl Iterator<Item = Key> {
        let is_home = move |key: &Key| self.caches[&HOME].home(key) == Some(home);
        let keys = (0..1_000).map(|n| Key::from(format!("key-{n}")));
        keys.filter(is_home)
    }

    /// A key that [`HOME`] is home to.
    pub(super) fn key(&self) -> Key {
        self.keys(HOME).next().expect("some key lives there")
    }

    /// Asks a node, as a client with a minute of patience; the ticket of its answer.
    pub(super) fn ask(
        &mut self,
        node: NodeId,
        ask: impl FnOnce(&mut Cache<u64>, Waiter<u64>, u64),
    ) -> u64 {
        self.last_ticket += 1;
        let waiter = Waiter {
            ticket: self.last_ticket,
            deadline_ms: self.now + 60_000,
        };
        let cache = self.caches.get_mut(&node).expect("one of three");
        ask(cache, waiter, self.now);
        self.collect();
        self.last_ticket
    }

    /// Asks a home for a change; the ticket of its answer.
    pub(super) fn write(&mut self, key: &Key, write: impl Into<Write>) -> u64 {
        let home = self.caches[&OTHER].home(key).expect("it acts");
        let (key, write) = (key.clone(), write.into());
        self.ask(home, |cache, waiter, now| {
            cache.write(key, write, waiter, now)
        })
    }

    pub(super) fn set(&mut self, key: &Key, text: &str) -> u64 {
        self.write(key, set_for(text, None))
    }

    pub(super) fn delete(&mut self, key: &Key) -> u64 {
        let condition = Condition::Always;
        self.write(key, Operation::Delete { condition })
    }

    pub(super) fn invalidate(&mut self, node: NodeId, matching: Matching) -> u64 {
        self.ask(node, |cache, waiter, now| {
            cache.invalidate(matching, waiter, now);
        })
    }

    pub(super) fn hit(&mut self, node: NodeId, key: &Key) -> Option<String> {
        let cache = self.caches.get_mut(&node).expect("one of three");
        cache.hit(key, self.now).map(|hit| text(&hit))
    }

    /// Asks a node for a value that it does not have.
    pub(super) fn read(&mut self, node: NodeId, key: &Key) -> u64 {
        self.ask(node, |cache, waiter, now| {
            cache.read(key.clone(), waiter, now);
        })
    }

    /// What a ticket's question was answered with: a value, or none.
    pub(super) fn read_value(&self, ticket: u64) -> Option<String> {
        match &self.answers[&ticket] {
            Answer::Found(hit) => Some(text(hit)),
            Answer::Missed => None,
            other => panic!("{other:?}"),
        }
    }

    /// Reads through a node, with all messages arriving.
    pub(super) fn get(&mut self, node: NodeId, key: &Key) -> Option<String> {
        if let Some(value) = self.hit(node, key) {
            return Some(value);
        }
        let ticket = self.read(node, key);
        self.settle();
        self.read_value(ticket)
    }

    pub(super) fn is_answered(&self, ticket: u64) -> bool {
        self.answers.contains_key(&ticket)
    }

    /// A value that the reader has asked for: the question's ticket, and the home's answer, on its way.
    pub(super) fn answer_on_its_way(&mut self, key: &Key) -> (u64, Vec<Mail>) {
        self.set(key, "old");
        let asked = self.read(READER, key);
        self.deliver_to(HOME);
        let late = self.take(READER);
        assert_eq!(late.len(), 1);
        (asked, late)
    }

    /// A value that is written, and that [`READER`] has a copy of.
    pub(super) fn share(&mut self, key: &Key, text: &str) {
        self.set(key, text);
        self.settle();
        assert_eq!(self.get(READER, key).as_deref(), Some(text));
        assert_eq!(self.hit(READER, key).as_deref(), Some(text));
    }
}

/// A value that will never fit into so much memory.
pub(super) fn too_large(bytes_max: usize) -> Why {
    let limit = bytes_max as u64;
    Why::TooLarge { limit }
}

fn to_others(from: NodeId, news: Invalidation) -> impl Iterator<Item = Mail> {
    let others = [HOME, READER, OTHER]
        .into_iter()
        .filter(move |to| *to != from);
    others.map(move |to| Mail {
        from,
        to,
        what: What::News(news.clone()),
    })
}

/// Adds one to a counter that begins at zero.
pub(super) fn add_one(id: &str) -> Write {
    let increment = Operation::Increment {
        by: 1,
        initial: 0,
        ttl_ms: None,
    };
    Write {
        id: Some(id.into()),
        ..increment.into()
    }
}

pub(super) fn text(hit: &Hit) -> String {
    String::from_utf8(hit.value.bytes().to_vec()).expect("text")
}

/// A write of what was loaded, under a claim if there is one.
pub(super) fn loaded(text: &str, claim: Option<Version>, tags: &[&str]) -> Operation {
    Operation::Set {
        value: Value::text(text),
        ttl_ms: None,
        idle_ms: 0,
        condition: Condition::Always,
        tags: tags.iter().map(|tag| Key::from(*tag)).collect(),
        fence: None,
        claim,
    }
}
