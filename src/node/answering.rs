//! What a node answers to other nodes, and shows to those who look at it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::Core;
use super::departure::STAYS;
use crate::broker::dispatch::Dispatch;
use crate::config::Config;
use crate::lock::service::QUERY;
use crate::monitor::board::{self, Board};
use crate::monitor::insight::Insight;
use crate::queue::service::{ABOUT_TOPICS, QueueService};
use crate::raft::call::{Caller, Trust};
use crate::raft::handle::Handle;
use crate::raft::message::Refusal;
use crate::raft::network::Network;
use crate::view::service::{self as view, READ_VIEW};

/// What the dashboard of this node shows.
pub(super) fn board(core: &Core, config: &Config, stopped: watch::Receiver<bool>) -> Arc<Board> {
    let dispatch = core.dispatch.clone();
    let parts = board::Parts {
        me: dispatch.me,
        prefix: dispatch.prefix.clone(),
        network: core.network.clone(),
        insight: dispatch.insight.clone(),
        broker: dispatch.insight.clients.clone(),
        own: core.own.clone(),
        token: config.admin_token.clone(),
    };
    Board::start(parts, stopped)
}

/// Tells the dashboards of other nodes what this one says of itself.
pub(super) fn answer_dashboards(network: &Network, insight: &Arc<Insight>) {
    let tell = |kind, told: fn(&Insight) -> Bytes| {
        let insight = insight.clone();
        let handler = move |_: Caller, _: Bytes| -> BoxFuture<'static, Result<Bytes, Refusal>> {
            let told = told(&insight);
            Box::pin(async move { Ok(told) })
        };
        network.handle(kind, Trust::Members, Arc::new(handler));
    };
    tell(board::REPORT, Insight::report);
    tell(board::HISTORY, |insight| board::json(&insight.told()));
}

/// Answers the reads that other nodes forward to this one as the leader.
pub(super) fn answer_queries(network: &Network, dispatch: &Arc<Dispatch>) {
    let dispatch = dispatch.clone();
    let handler = move |_: Caller, body: Bytes| -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let dispatch = dispatch.clone();
        Box::pin(async move {
            dispatch
                .locks
                .answer_query(body)
                .await
                .ok_or(Refusal::UnknownCall)
        })
    };
    network.handle(QUERY, Trust::Members, Arc::new(handler));
}

/// Tells other nodes what only this one knows of topics that it owns.
pub(super) fn answer_about_topics(network: &Network, queues: &QueueService) {
    let queues = queues.clone();
    let handler = move |_: Caller, body: Bytes| -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let answer = queues.answer_about(&body).ok_or(Refusal::UnknownCall);
        Box::pin(std::future::ready(answer))
    };
    network.handle(ABOUT_TOPICS, Trust::Members, Arc::new(handler));
}

/// Answers reads of the view by other nodes, as the leader.
pub(super) fn answer_view_reads(network: &Network, handle: &Handle) {
    let handle = handle.clone();
    let handler = move |_: Caller, _: Bytes| -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let handle = handle.clone();
        let not_leader = || Refusal::Other("this node does not lead".to_owned());
        Box::pin(async move { view::answer_read(&handle).await.ok_or_else(not_leader) })
    };
    network.handle(READ_VIEW, Trust::Members, Arc::new(handler));
}

/// Tells a leader that stops whether this node stays: one that stops, too, is nobody to hand over to.
pub(super) fn answer_who_stays(network: &Network, leaving: watch::Receiver<bool>) {
    let handler = move |_: Caller, _: Bytes| -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let stays = !*leaving.borrow();
        let answer = stays.then(Bytes::new).ok_or(Refusal::Stopped);
        Box::pin(std::future::ready(answer))
    };
    network.handle(STAYS, Trust::Members, Arc::new(handler));
}
