//! What time brings to a topic when nobody pushes or pops: delays and deadlines that are over, messages that expire
//! or die. It happens in Redis with the next call of a batch; who finds something due when looking at a topic, or changes it
//! by a script of its own, makes one that carries nothing first.

use std::sync::Arc;

use super::Shared;
use super::acts::nonsense;
use super::running::count;
use crate::protocol::Refusal;
use crate::queue::script::{Args, BatchReply, Script};

/// Of a batch: acknowledgements, hand-backs, extensions, pushes, pops.
const SECTIONS: usize = 5;

impl Shared {
    /// Lets happen what is due; false if this node does not own the topic.
    pub(super) async fn pass_time(self: &Arc<Self>, topic: &Arc<str>) -> Result<bool, Refusal> {
        let placement = self.placement();
        if placement.home(topic.as_bytes()) != Some(self.parts.me) {
            return Ok(false);
        }
        let mut nothing = Args::default();
        for _ in 0..SECTIONS {
            nothing.number(0);
        }
        let caller = self.caller(topic, &placement);
        let done = self.run_script(topic, Script::Batch, (caller, nothing));
        let mut reply = BatchReply::read(done.await?).ok_or_else(nonsense)?;
        self.note_done(topic, (reply.opseq, reply.seq, reply.bytes));
        let buried = std::mem::take(&mut reply.buried);
        if !buried.is_empty() {
            let stats = self.parts.stats.queue.topic(topic);
            count(&stats, &reply, buried.len() as u64);
            self.tell_buried(topic, buried);
        }
        Ok(true)
    }
}
