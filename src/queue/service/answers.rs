//! What clients and watchers are told.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use super::{SENT_KEPT, Sent, Shared, Ticket, lock};
use crate::protocol::error::{Code, ErrorReply};
use crate::protocol::queue::{
    Cancelled, Configured, Delivered, Delivery, Listed, Paused, Peeked, Popped, Purged, Pushed,
    Receipt, ReceiptResult, Redriven, ResultOf, Results, Stats,
};
use crate::protocol::tenant::outward::Outward;
use crate::protocol::{Encoding, Operation, ReplyTo, Tenant};
use crate::queue::owner::Told;
use crate::queue::script::{PoppedMessage, Stored};
use crate::time::Instant;

/// The way to clients and watchers.
pub trait Answers: Send + Sync + 'static {
    /// Answers a request; with an error, if the broker would not carry the answer.
    fn answer(
        &self,
        to: &ReplyTo,
        timing: (Operation, Instant),
        result: Result<&Body, &ErrorReply>,
    );

    /// Answers a request unless the broker would not carry the answer: then less of it may. With
    /// `return_to` the broker says there if nobody is left to hear.
    fn answer_if_it_fits(
        &self,
        to: &ReplyTo,
        timing: (Operation, Instant),
        body: &Body,
        return_to: Option<String>,
    ) -> Answered;

    /// Tells watchers.
    fn event(&self, subject: String, event: Bytes);

    /// The most bytes of an answer.
    fn payload_max(&self) -> usize;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Handed to the broker, or lost with the connection to it.
    Sent,
    /// Not sent: the broker would not carry it.
    TooLarge,
}

/// Every answer of the queue.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Body {
    Pushed(Pushed),
    Popped(Popped),
    Results(Results),
    Peeked(Peeked),
    Cancelled(Cancelled),
    Configured(Configured),
    Stats(Stats),
    Listed(Listed),
    Redriven(Redriven),
    Paused(Paused),
    Purged(Purged),
}

impl Shared {
    pub(super) fn tell(self: &Arc<Self>, topic: &Arc<str>, ticket: Ticket, told: Told) {
        match told {
            Told::Pushed(None) => {
                let message = "the topic has reached its max_length";
                self.refuse_ticket(&ticket, &ErrorReply::new(Code::QueueFull, message));
            }
            Told::Pushed(Some(_)) => unreachable!("told with the way that the call went"),
            Told::Acked(results, popped) => {
                let results = results_of(
                    results,
                    &[
                        ReceiptResult::StaleReceipt,
                        ReceiptResult::Acked,
                        ReceiptResult::AlreadyAcked,
                    ],
                );
                self.tell_messages(topic, &ticket, Some(results), popped);
            }
            Told::Nacked(results) => {
                let kinds = [ReceiptResult::StaleReceipt, ReceiptResult::Returned];
                let results = results_of(results, &kinds);
                self.tell_messages(topic, &ticket, Some(results), None);
            }
            Told::Extended(deadlines) => {
                let results = deadlines.into_iter().map(extended).collect();
                self.tell_messages(topic, &ticket, Some(results), None);
            }
            Told::Popped(token, messages) => {
                self.tell_messages(topic, &ticket, None, Some((token, messages)));
            }
            Told::Refused(refusal) => self.refuse_ticket(&ticket, &refusal),
            Told::Paused => {
                let message = "the topic is paused: it accepts messages and delivers none";
                self.refuse_ticket(&ticket, &ErrorReply::new(Code::TopicPaused, message));
            }
        }
    }

    /// Answers with results of receipts, messages, or both. What does not fit goes back.
    fn tell_messages(
        self: &Arc<Self>,
        topic: &Arc<str>,
        ticket: &Ticket,
        results: Option<Vec<ResultOf>>,
        popped: Option<(String, Vec<PoppedMessage>)>,
    ) {
        let (token, popped) = match popped {
            Some((token, popped)) => (token, Some(popped)),
            None => (String::new(), None),
        };
        let mut messages: Option<Vec<Delivered>> = popped.map(|popped| {
            let each = popped.into_iter();
            each.map(|message| delivered(message, &token, ticket.to.encoding))
                .collect()
        });
        loop {
            let receipts = receipts_of(messages.as_deref().unwrap_or_default());
            let body = match &results {
                None => Body::Popped(Popped {
                    messages: messages.clone().unwrap_or_default(),
                }),
                Some(results) => Body::Results(Results {
                    results: results.clone(),
                    messages: messages.clone(),
                }),
            };
            let return_to = self.note_sent(topic, &receipts);
            let list = messages.as_mut().filter(|list| !list.is_empty());
            let Some(list) = list else {
                return self.send(ticket, &body);
            };
            let timing = (ticket.operation, ticket.received_at);
            let answers = &self.parts.answers;
            let fits = answers.answer_if_it_fits(&ticket.to, timing, &body, return_to);
            if fits == Answered::Sent {
                return self.ended(ticket.keeper);
            }
            let alone = list.len() == 1;
            let rest = list.split_off(list.len() / 2);
            self.hand_back(topic, receipts_of(&rest));
            if alone && results.is_none() {
                let message = "the next message does not fit into an answer of the broker in this \
                               encoding; ask in MessagePack, or raise the broker's max_payload";
                self.refuse_ticket(ticket, &ErrorReply::new(Code::PayloadTooLarge, message));
                return;
            }
        }
    }

    pub(super) fn send(&self, ticket: &Ticket, body: &Body) {
        let timing = (ticket.operation, ticket.received_at);
        self.parts.answers.answer(&ticket.to, timing, Ok(body));
        self.ended(ticket.keeper);
    }

    /// Keeps what is about to be sent, and says where the broker tells that nobody got it.
    fn note_sent(&self, topic: &Arc<str>, receipts: &[Receipt]) -> Option<String> {
        if receipts.is_empty() {
            return None;
        }
        let mut sent = lock(&self.sent);
        let number = self
            .sent_number
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if sent.len() >= SENT_KEPT {
            sent.pop_front();
        }
        sent.push_back(Sent {
            number,
            topic: topic.clone(),
            receipts: receipts.to_vec(),
        });
        Some(format!("{}.{number}", self.gone_inbox()))
    }

    /// Where the broker says that nobody got an answer; a number follows.
    pub(super) fn gone_inbox(&self) -> String {
        let prefix = self.parts.prefix.as_str();
        format!("{prefix}.int.queue.{}.gone", self.parts.me)
    }

    /// `kind` is `dead`, `data_loss`, `paused` or `resumed`; the event names its topic.
    pub(super) fn tell_watchers(&self, kind: &str, event: &serde_json::Value) {
        let (prefix, answers) = (&self.parts.prefix, &self.parts.answers);
        let kind = format!("queue.{kind}");
        answers.event(prefix.event(&kind), Encoding::Json.encode(event));
        let topic = event["topic"].as_str().expect("it is about a topic");
        if let Some(tenant) = Tenant::of_name(topic) {
            let shown = Encoding::Json.encode(&Outward::new(event, &tenant));
            answers.event(prefix.tenant_event(&tenant, &kind), shown);
        }
    }

    pub(super) fn tell_buried(&self, topic: &str, buried: Vec<(u64, String)>) {
        for (seq, why) in buried {
            self.tell_watchers("dead", &json!({"topic": topic, "seq": seq, "why": why}));
        }
    }
}

fn results_of(results: Vec<(Receipt, u64)>, kinds: &[ReceiptResult]) -> Vec<ResultOf> {
    let each = results.into_iter().map(|(receipt, code)| ResultOf {
        receipt: receipt.to_string(),
        result: *kinds
            .get(code as usize)
            .unwrap_or(&ReceiptResult::StaleReceipt),
        visible_until_ms: None,
    });
    each.collect()
}

fn extended((receipt, deadline): (Receipt, u64)) -> ResultOf {
    ResultOf {
        receipt: receipt.to_string(),
        result: match deadline {
            0 => ReceiptResult::StaleReceipt,
            _ => ReceiptResult::Extended,
        },
        visible_until_ms: (deadline > 0).then_some(deadline),
    }
}

fn receipts_of(messages: &[Delivered]) -> Vec<Receipt> {
    let receipts = messages
        .iter()
        .filter_map(|message| message.receipt.parse().ok());
    receipts.collect()
}

fn delivered(message: PoppedMessage, token: &str, encoding: Encoding) -> Delivered {
    let Stored {
        pushed_at_ms,
        id,
        headers,
        payload,
    } = Stored::unpack(&message.kept);
    let receipt = Receipt {
        seq: message.seq,
        delivery: message.deliveries,
        token: token.to_owned(),
    };
    let delivery = Delivery {
        id: Stored::id_of(id.as_deref(), message.seq),
        seq: message.seq,
        payload,
        headers,
        receipt: receipt.to_string(),
        deliveries: message.deliveries,
        pushed_at_ms,
        visible_until_ms: message.visible_until_ms,
        last_error: Some(message.last_error).filter(|reason| !reason.is_empty()),
    };
    Delivered::new(delivery, encoding)
}
