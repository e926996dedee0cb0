//! What time brings to a topic when nobody pushes or pops: delays and deadlines that are over, messages that expire
//! or die. It happens in Redis with the next call of a batch; who finds something due when looking at a topic, or changes it
//! by a script of its own, makes one that carries nothing first.

use std::sync::Arc;

use super::Shared;
use super::acts::nonsense;
use super::running::count;
use crate::protocol::Refusal;
use crate::queue::script::{Batch, BatchReply, Script};

/// How far what is due has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    All,
    /// As much as one call deals with.
    Some,
    /// Nothing: this node does not own the topic.
    NotHere,
}

impl Shared {
    /// Lets happen all that is due, in as many calls as that takes: for what acts on states.
    pub(super) async fn pass_all_time(self: &Arc<Self>, topic: &Arc<str>) -> Result<(), Refusal> {
        while self.pass_time(topic).await? == Passed::Some {}
        Ok(())
    }

    /// Lets happen what is due, in one call.
    pub(super) async fn pass_time(self: &Arc<Self>, topic: &Arc<str>) -> Result<Passed, Refusal> {
        let placement = self.placement();
        if placement.home(topic.as_bytes()) != Some(self.parts.me) {
            return Ok(Passed::NotHere);
        }
        let caller = self.caller(topic, &placement);
        let done = self.run_script(topic, Script::Batch, (caller, Batch::nothing()));
        let mut reply = BatchReply::read(done.await?).ok_or_else(nonsense)?;
        self.note_done(topic, (reply.opseq, reply.seq, reply.bytes));
        let buried = std::mem::take(&mut reply.buried);
        if !buried.is_empty() {
            let stats = self.parts.stats.queue.topic(topic);
            count(&stats, &reply, buried.len() as u64);
            self.tell_buried(topic, buried);
        }
        Ok(match reply.more_due {
            true => Passed::Some,
            false => Passed::All,
        })
    }
}
