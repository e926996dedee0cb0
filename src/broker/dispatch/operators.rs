//! What operators ask that takes its time, so that each has a task: changes of the members, copies of the
//! state.

use std::sync::Arc;

use super::Dispatch;
use crate::lock::service::{Received, not_decided};
use crate::protocol::backup::{Part, Request};
use crate::protocol::cluster::Wish;
use crate::protocol::{Code, ErrorReply, Operation, Refusal, ReplyTo};
use crate::raft::membership::Answer;
use crate::time::Instant;

impl Dispatch {
    pub(super) fn wish(
        self: &Arc<Self>,
        wish: Wish,
        (asked, to): (Operation, ReplyTo),
        received: Received,
    ) {
        let dispatch = self.clone();
        tokio::spawn(async move {
            let timing = (Some(asked), received.at);
            match dispatch.membership.ask(wish, received.deadline).await {
                Ok(Answer::Known(members)) => dispatch.answer(&to, timing, Ok(&members)),
                Ok(Answer::Changed(changed)) => dispatch.answer(&to, timing, Ok(&changed)),
                Ok(other) => unreachable!("{other:?} is not the end of a wish"),
                Err(refusal) => dispatch.answer::<()>(&to, timing, Err(refusal)),
            }
        });
    }

    pub(super) fn back_up(self: &Arc<Self>, request: Request, to: ReplyTo, received: Received) {
        let dispatch = self.clone();
        tokio::spawn(async move {
            let timing = (Some(Operation::AdminClusterBackup), received.at);
            match dispatch.part_of(request, received.deadline).await {
                Ok(part) => dispatch.answer(&to, timing, Ok(&part)),
                Err(refusal) => dispatch.answer::<()>(&to, timing, Err(refusal)),
            }
        });
    }

    async fn part_of(&self, request: Request, deadline: Instant) -> Result<Part, Refusal> {
        let (name, bytes) = match request.backup {
            None => self.backups.make(deadline).await.map_err(not_decided)?,
            Some(name) => match self.backups.find(&name) {
                Some(bytes) => (name, bytes),
                None => {
                    let message = "this node does not keep that backup any more, or never made it; \
                                   begin anew";
                    return Err(ErrorReply::new(Code::NotFound, message).into());
                }
            },
        };
        let part = Part::of(self.me, name, &bytes, request.offset);
        part.ok_or_else(|| {
            ErrorReply::bad_field("offset", "`offset` is beyond the end of the backup").into()
        })
    }
}
