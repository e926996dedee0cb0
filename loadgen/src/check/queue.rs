//! The queue: nothing that was acknowledged is lost, nothing is made up, and first deliveries come in order.
//!
//! A message is kept from the acknowledgement of its push to that of its delivery, also while it is in flight. When the
//! topic is empty, each one has to be done, or dead after too many deliveries.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{History, surely};

#[derive(Default)]
pub struct QueueCheck {
    pub history: History,
    /// Each message has a number of its own, over all topics.
    numbers: u64,
    topics: HashMap<String, Topic>,
}

#[derive(Default)]
struct Topic {
    messages: HashMap<u64, Message>,
    /// The greatest sequence of a push that was acknowledged.
    newest_seq: u64,
    /// The greatest sequence of a first delivery that a client has heard of.
    first_delivered: u64,
}

#[derive(Default)]
struct Message {
    state: State,
    bytes: usize,
    seq: Option<u64>,
    first_delivered: bool,
    in_flight_until: Option<Instant>,
    done_since: Option<Instant>,
    /// It may be done, or is dead: nobody has to get it any more.
    may_be_gone: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    /// Sent, and perhaps never answered.
    #[default]
    Unsure,
    Acknowledged,
    Refused,
}

/// A push on its way.
pub struct Pushing {
    number: u64,
    bytes: usize,
    floor: u64,
}

impl Pushing {
    /// What the message has to consist of.
    pub fn payload(&self) -> String {
        payload(self.number, self.bytes)
    }
}

/// A pop on its way.
pub struct Popping {
    sent: Instant,
    floor: u64,
}

/// A message that was handed out.
pub struct Got<'a> {
    pub payload: &'a [u8],
    pub seq: u64,
    pub deliveries: u64,
}

/// The payload of a message, at least so many bytes.
pub fn payload(number: u64, bytes: usize) -> String {
    format!("{number:<bytes$}")
}

/// What came of the acknowledgement of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The message is done, by this acknowledgement or an earlier one of the same delivery.
    Done,
    /// By this delivery it is not done.
    NotDone,
    Unknown,
}

/// The number that a payload has.
fn number(payload: &[u8]) -> Option<u64> {
    std::str::from_utf8(payload).ok()?.trim_end().parse().ok()
}

impl QueueCheck {
    /// A push of a message with at least so many bytes is about to be sent.
    pub fn pushes(&mut self, now: Instant, topic: &str, bytes: usize) -> Pushing {
        self.numbers += 1;
        let number = self.numbers;
        self.history
            .note(now, topic, format!("push of message {number}"));
        let state = self.topics.entry(topic.to_owned()).or_default();
        let message = Message {
            bytes,
            ..Message::default()
        };
        state.messages.insert(number, message);
        Pushing {
            number,
            bytes,
            floor: state.newest_seq,
        }
    }

    /// The push was acknowledged.
    pub fn pushed(&mut self, now: Instant, topic: &str, pushing: &Pushing, seq: u64) {
        let Pushing { number, floor, .. } = *pushing;
        self.history.note(
            now,
            topic,
            format!("message {number} is in the queue as {seq}"),
        );
        let state = self.topics.entry(topic.to_owned()).or_default();
        state.newest_seq = state.newest_seq.max(seq);
        let message = state.messages.entry(number).or_default();
        message.state = State::Acknowledged;
        let delivered_as = message.seq.replace(seq);
        if seq <= floor {
            let what = format!(
                "sequence {seq} is not above {floor}, which was given before this push was sent"
            );
            self.history.violation(topic, what);
        }
        if delivered_as.is_some_and(|other| other != seq) {
            let what = format!("message {number} was delivered under another sequence than {seq}");
            self.history.violation(topic, what);
        }
    }

    /// The push failed, perhaps with an unknown outcome.
    pub fn not_pushed(
        &mut self,
        now: Instant,
        topic: &str,
        pushing: &Pushing,
        code: &str,
        unknown: bool,
    ) {
        let number = pushing.number;
        self.history
            .note(now, topic, format!("push of message {number}: {code}"));
        if !unknown && let Some(state) = self.topics.get_mut(topic) {
            state.messages.entry(number).or_default().state = State::Refused;
        }
    }

    /// A pop is about to be sent.
    pub fn pops(&mut self, now: Instant, topic: &str) -> Popping {
        let state = self.topics.entry(topic.to_owned()).or_default();
        Popping {
            sent: now,
            floor: state.first_delivered,
        }
    }

    /// A pop failed: what it took, if anything, comes again later.
    pub fn not_popped(&mut self, now: Instant, topic: &str, code: &str) {
        self.history
            .note(now, topic, format!("a pop failed: {code}"));
    }

    /// A pop was answered.
    pub fn popped(
        &mut self,
        now: Instant,
        topic: &str,
        popping: &Popping,
        got: &[Got<'_>],
        visibility: Duration,
    ) {
        let mut first_before = popping.floor;
        for one in got {
            let Some(number) = number(one.payload) else {
                let what = format!(
                    "the payload under sequence {} is none that was pushed",
                    one.seq
                );
                self.history.violation(topic, what);
                continue;
            };
            let text = format!(
                "message {number} came as {}, delivery {}",
                one.seq, one.deliveries
            );
            self.history.note(now, topic, text);
            let state = self.topics.entry(topic.to_owned()).or_default();
            let Some(message) = state.messages.get_mut(&number) else {
                let what = format!("message {number} was never pushed to this topic");
                self.history.violation(topic, what);
                continue;
            };
            let mut wrong = message.came(now, popping, one);
            if one.payload != payload(number, message.bytes).as_bytes() {
                wrong.push("came with another payload".to_owned());
            }
            message.in_flight_until = Some(popping.sent + surely(visibility));
            if one.deliveries == 1 {
                if one.seq <= first_before {
                    wrong.push(format!(
                        "came for the first time as {} after {first_before}",
                        one.seq
                    ));
                }
                first_before = first_before.max(one.seq);
                state.first_delivered = state.first_delivered.max(one.seq);
            }
            for what in wrong {
                self.history
                    .violation(topic, format!("message {number} {what}"));
            }
        }
    }

    /// What came of the acknowledgement of a delivery, also in words.
    pub fn settled(
        &mut self,
        now: Instant,
        topic: &str,
        payload: &[u8],
        result: &str,
        settled: Settled,
    ) {
        let Some(number) = number(payload) else {
            return;
        };
        self.history.note(
            now,
            topic,
            format!("acknowledgement of message {number}: {result}"),
        );
        let state = self.topics.entry(topic.to_owned()).or_default();
        if let Some(message) = state.messages.get_mut(&number) {
            message.in_flight_until = None;
            match settled {
                Settled::Done => {
                    message.done_since.get_or_insert(now);
                }
                Settled::NotDone => {}
                Settled::Unknown => message.may_be_gone = true,
            }
        }
    }

    /// The message is dead: its topic shows it as such.
    pub fn died(&mut self, now: Instant, topic: &str, payload: &[u8]) {
        let Some(number) = number(payload) else {
            return;
        };
        self.history
            .note(now, topic, format!("message {number} is dead"));
        let state = self.topics.entry(topic.to_owned()).or_default();
        if let Some(message) = state.messages.get_mut(&number) {
            message.may_be_gone = true;
        }
    }

    /// Whether nothing is left that has to come.
    pub fn has_all(&self, topic: &str) -> bool {
        self.topics
            .get(topic)
            .is_none_or(|state| state.missing().is_empty())
    }

    /// The topics that messages were pushed to.
    pub fn topics(&self) -> Vec<String> {
        let mut topics: Vec<_> = self.topics.keys().cloned().collect();
        topics.sort();
        topics
    }

    /// The topic was emptied: whatever was acknowledged is done or dead.
    pub fn emptied(&mut self, now: Instant, topic: &str) {
        self.history
            .note(now, topic, "the topic is empty".to_owned());
        let missing = self
            .topics
            .get(topic)
            .map(Topic::missing)
            .unwrap_or_default();
        for (number, seq) in missing {
            let what = format!("message {number}, acknowledged as {seq}, is lost");
            self.history.violation(topic, what);
        }
    }
}

impl Topic {
    /// What was acknowledged and is neither done nor dead, with its sequence.
    fn missing(&self) -> Vec<(u64, u64)> {
        let messages = self.messages.iter();
        let mut missing: Vec<_> = messages
            .filter(|(_, message)| message.has_to_come())
            .map(|(number, message)| (*number, message.seq.unwrap_or(0)))
            .collect();
        missing.sort();
        missing
    }
}

impl Message {
    fn has_to_come(&self) -> bool {
        self.state == State::Acknowledged && self.done_since.is_none() && !self.may_be_gone
    }

    /// Takes in a delivery; what is wrong with it, in words.
    fn came(&mut self, now: Instant, popping: &Popping, got: &Got<'_>) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.state == State::Refused {
            wrong.push("came, though its push was refused".to_owned());
        }
        if self.seq.is_some_and(|seq| seq != got.seq) {
            wrong.push(format!("came as {}, but is another", got.seq));
        }
        if self.done_since.is_some_and(|since| since < popping.sent) {
            wrong.push("came again after its acknowledgement".to_owned());
        }
        if self.in_flight_until.is_some_and(|until| until > now) {
            wrong.push("came again while it was in flight".to_owned());
        }
        if got.deliveries == 1 && self.first_delivered {
            wrong.push("came for the first time twice".to_owned());
        }
        self.first_delivered |= got.deliveries == 1;
        self.seq.get_or_insert(got.seq);
        wrong
    }
}
