//! Calls: questions of other parts of a node (greeting at start, forwarded reads), answered by
//! handlers that they register by kind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::frame::{Header, Lane};
use super::message::{Answer, CallRequest, Refusal};
use super::network::{Counters, Network};
use crate::broker::{Message, Subscription};
use crate::ids::{BootId, DiskId, NodeId};

/// Calls answered at once by one node; a further one is refused as overloaded.
const CALLS_AT_ONCE_MAX: usize = 1024;

/// Who calls. The data directory is the caller's word unless the kind trusts members only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub node: NodeId,
    pub disk: DiskId,
    pub boot: BootId,
}

/// Who may make a kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Only a node that the membership names with the very data directory that it calls from.
    Members,
    /// Also nodes that the membership does not name, or names with another data directory.
    Anyone,
}

/// Answers one kind of call. It bounds its own time; its caller has a timeout.
pub type Handler =
    Arc<dyn Fn(Caller, Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> + Send + Sync>;

#[derive(Default)]
pub(super) struct Handlers {
    by_kind: Mutex<BTreeMap<&'static str, (Trust, Handler)>>,
}

impl Handlers {
    pub fn insert(&self, kind: &'static str, trust: Trust, handler: Handler) {
        let mut by_kind = self.by_kind.lock().expect("no holder panics");
        by_kind.insert(kind, (trust, handler));
    }

    fn get(&self, kind: &str) -> Option<(Trust, Handler)> {
        self.by_kind
            .lock()
            .expect("no holder panics")
            .get(kind)
            .cloned()
    }
}

impl Network {
    /// Answers calls, many at once, until the subscription ends.
    pub(super) async fn serve_calls(&self, mut calls: Subscription) {
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = running.next() => {}
                message = calls.next() => {
                    let Some(message) = message else { return };
                    if let Some(work) = self.begin_call(message, running.len()) {
                        running.push(work);
                    }
                }
            }
        }
    }

    fn begin_call(
        &self,
        message: Message,
        running: usize,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let frame = self.open(&message, Lane::Call)?;
        let subject = message.reply?;
        let request: CallRequest = self.body(&frame)?;
        let header = frame.header;
        let refuse = |refusal| {
            self.answer(&header, &subject, &Err::<Answer, Refusal>(refusal));
            None
        };
        if running >= CALLS_AT_ONCE_MAX {
            Counters::add(&self.shared.counters.overflows);
            return refuse(Refusal::Overloaded);
        }
        let Some((trust, handler)) = self.shared.handlers.get(&request.kind) else {
            return refuse(Refusal::UnknownCall);
        };
        let Some(caller) = self.caller(&header, trust) else {
            Counters::add(&self.shared.counters.from_wrong_disk);
            return refuse(Refusal::UnknownDisk);
        };
        let network = self.clone();
        let work = handler(caller, request.body);
        Some(async move {
            let answer = work.await.map(Answer::Call);
            network.answer(&header, &subject, &answer);
        })
    }

    /// The caller as a handler sees it, if it may call this kind.
    fn caller(&self, header: &Header, trust: Trust) -> Option<Caller> {
        let known = self.known_disk(header.from) == Some(header.from_disk);
        (known || trust == Trust::Anyone).then_some(Caller {
            node: header.from,
            disk: header.from_disk,
            boot: header.from_boot,
        })
    }
}
