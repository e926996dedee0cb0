//! The end of one node's cache: whoever waits is told what became of the request. Plain code.

use crate::cache::entry::NEVER;
use crate::cache::operation::Why;
use crate::cache::state::Cache;

impl<T> Cache<T> {
    /// This node stops: from now on nobody waits here for the right to decide, which another node will have.
    pub fn dismiss(&mut self) {
        self.is_dismissed = true;
        for parked in std::mem::take(&mut self.parked) {
            self.refuse(parked.waiter, Why::Stopping);
        }
        if self.tenure.acting().is_none() {
            self.end_sweeps(NEVER);
        }
    }

    /// Ends all that is under way, as it is. What has begun may yet take effect.
    pub fn give_up(&mut self) {
        self.dismiss();
        self.abandon_writes(|_| true);
        self.abandon_fills(|_| true);
        self.forget_claims();
        self.end_sweeps(NEVER);
        self.end_audits(NEVER);
    }
}
