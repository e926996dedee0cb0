//! Requests whose time is over while Redis does not answer. Plain code.

use super::{Ask, Behind, Call, Item, Owner, Return, Waiter};
use crate::protocol::queue::Receipt;
use crate::queue::script::PoppedMessage;

impl<T> Owner<T> {
    /// Gives up the requests that are late and in no call: nothing was done for them. A pop behind an acknowledgement
    /// ends when its wait does.
    pub fn give_up(&mut self, is_late: impl Fn(&T) -> bool) -> Vec<T> {
        let mut late = Vec::new();
        // What nobody asked for has no client and stays.
        self.pending.retain_mut(|item| {
            let gone = item.client.take_if(|client| is_late(client));
            let is_gone = gone.is_some();
            late.extend(gone);
            !is_gone
        });
        let gone = self.waiting.take(|waiter| {
            let is_own = matches!(waiter.behind, Behind::Nothing);
            is_own && waiter.client.as_ref().is_some_and(&is_late)
        });
        late.extend(gone.into_iter().filter_map(|waiter| waiter.client));
        late
    }

    /// Hands back what a pop got whose client was told already that it took too long.
    pub(super) fn hand_back(&mut self, waiter: &Waiter<T>, messages: &[PoppedMessage]) {
        if messages.is_empty() {
            return;
        }
        let receipts = messages.iter().map(|message| Receipt {
            seq: message.seq,
            delivery: message.deliveries,
            token: waiter.wanted.token.clone(),
        });
        self.pending.push_back(Item {
            client: None,
            ask: Ask::Nack(receipts.collect(), Return::unheard()),
        });
    }
}

impl<T> Call<T> {
    /// Takes the clients that are late out of the call: it is not known what it does for them.
    pub fn give_up(&mut self, is_late: impl Fn(&T) -> bool) -> Vec<T> {
        let items = self.items.iter_mut().map(|item| &mut item.client);
        let pops = self.pops.iter_mut().map(|pop| &mut pop.client);
        let clients = items.chain(pops);
        clients
            .filter_map(|client| client.take_if(|client| is_late(client)))
            .collect()
    }
}
