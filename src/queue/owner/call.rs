//! What one call carries, as the script takes it. Plain code.

use std::sync::Arc;

use super::{Ask, Call, Waiter};
use crate::protocol::error::ErrorReply;
use crate::protocol::queue::Receipt;
use crate::queue::script::{Batch, Caller};

impl<T> Call<T> {
    /// How many requests it carries, each counted once.
    pub(super) fn requests(&self) -> usize {
        self.items.len() + self.pops.len() - self.joined.len()
    }

    /// The tokens of its pops, in their order.
    pub fn tokens(&self) -> Vec<String> {
        let each = self.pops.iter();
        each.map(|pop| pop.wanted.token.clone()).collect()
    }

    /// The arguments of the script.
    pub fn args(&self, topic: &str, caller: Caller) -> Batch {
        let mut batch = Batch::new(caller);
        let asks = || self.items.iter().map(|item| &item.ask);
        let acks: Vec<&Receipt> = asks()
            .flat_map(|ask| match ask {
                Ask::Ack(receipts, _) => &receipts[..],
                _ => &[],
            })
            .collect();
        batch.acks(topic, acks.into_iter());
        let mut nacks = Vec::new();
        let mut extends = Vec::new();
        let mut pushes = Vec::new();
        for ask in asks() {
            match ask {
                Ask::Nack(receipts, back) => nacks.extend(receipts.iter().map(|receipt| {
                    let delay_or_delivery = match back.mode {
                        'u' => Some(receipt.delivery),
                        _ => back.delay_ms,
                    };
                    (receipt, back.mode, delay_or_delivery, back.reason.as_str())
                })),
                Ask::Extend(receipts, ms) => extends.extend(receipts.iter().map(|r| (r, *ms))),
                Ask::Push(messages) => pushes.push(&messages[..]),
                Ask::Ack(..) | Ask::Pop(_) => {}
            }
        }
        batch.nacks(nacks.into_iter());
        batch.extends(extends.into_iter());
        batch.pushes(&pushes);
        batch.pops(self.pops.iter().map(|Waiter { wanted, .. }| {
            (
                wanted.max,
                wanted.visibility_ms,
                wanted.token.as_str(),
                wanted.consumer.as_str(),
                wanted.bytes_max,
            )
        }));
        batch
    }

    /// Leaves what makes room, for a Redis without memory: acknowledgements. Pops stay in the call, which looks for no
    /// messages. Returns those whose requests are to be refused, and whether anything is left.
    pub fn spare(&mut self, refusal: &Arc<ErrorReply>) -> (Vec<T>, bool) {
        let mut joined = std::mem::take(&mut self.joined).into_iter().peekable();
        let mut refused = Vec::new();
        self.spare = Some(refusal.clone());
        for (at, item) in std::mem::take(&mut self.items).into_iter().enumerate() {
            let pop = joined.next_if(|(item, _)| *item == at);
            if matches!(item.ask, Ask::Ack(..)) {
                self.joined
                    .extend(pop.map(|(_, pop)| (self.items.len(), pop)));
                self.items.push(item);
            } else {
                refused.extend(item.client);
            }
        }
        (refused, !self.items.is_empty())
    }
}
