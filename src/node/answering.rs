//! What a node answers to other nodes, and shows to those who look at it.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::Core;
use super::departure::STAYS;
use crate::broker::dispatch::Dispatch;
use crate::broker::own::OwnRequests;
use crate::config::Config;
use crate::lock::service::QUERY;
use crate::monitor::board::{self, Board};
use crate::monitor::insight::Insight;
use crate::raft::call::{Caller, Trust};
use crate::raft::handle::Handle;
use crate::raft::message::Refusal;
use crate::raft::network::Network;
use crate::view::service::{self as view, READ_VIEW};

/// What the dashboard of this node shows.
pub(super) async fn board(
    core: &Core,
    config: &Config,
    stopped: watch::Receiver<bool>,
) -> Result<Arc<Board>> {
    let dispatch = core.dispatch.clone();
    let broker = dispatch.insight.clients.clone();
    let own = OwnRequests::listen(dispatch.clone(), &broker, stopped.clone()).await?;
    let parts = board::Parts {
        me: dispatch.me,
        prefix: dispatch.prefix.clone(),
        network: core.network.clone(),
        insight: dispatch.insight.clone(),
        broker,
        own,
        token: config.admin_token.clone(),
    };
    Ok(Board::start(parts, stopped))
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
