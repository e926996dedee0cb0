//! Where answers and calls arrive.

use tokio::sync::watch;

use super::frame::{Header, Lane};
use super::network::{Counters, Network};
use super::pending::Replied;
use crate::broker::{Message, Subscription};

/// The receiving end of answers and calls: one task, which [`Listener::run`] is.
pub struct Listener {
    network: Network,
    answers: Subscription,
    /// To this node, and to all.
    calls: [Subscription; 2],
}

impl Listener {
    pub(super) fn new(network: Network, answers: Subscription, calls: [Subscription; 2]) -> Self {
        Listener {
            network,
            answers,
            calls,
        }
    }

    /// Runs until `shutdown` is true or the broker has gone for good.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let Listener {
            network,
            mut answers,
            calls: [to_this, to_all],
        } = self;
        let deliver = async {
            while let Some(message) = answers.next().await {
                network.deliver(&message);
            }
        };
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = deliver => {}
            () = network.serve_calls(to_this) => {}
            () = network.serve_calls(to_all) => {}
        }
    }
}

impl Network {
    fn deliver(&self, message: &Message) {
        let pending = &self.shared.pending;
        let counters = &self.shared.counters;
        if message.no_responders {
            let id = message
                .subject
                .rsplit('.')
                .next()
                .and_then(|id| id.parse().ok());
            if !id.is_some_and(|id| pending.deliver(id, Replied::NoResponders, counters)) {
                Counters::add(&counters.late_answers);
            }
            return;
        }
        let Some(frame) = self.open(message, Lane::Reply) else {
            return;
        };
        let Header {
            stream, sequence, ..
        } = frame.header;
        // A stream's answers carry its number, a single question's answer has only its id.
        let id = if stream == 0 { sequence } else { stream };
        if !pending.deliver(id, Replied::Frame(frame), counters) {
            Counters::add(&counters.late_answers);
        }
    }
}
