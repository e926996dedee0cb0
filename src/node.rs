//! One node: the only place that builds the parts and hands them out.
//!
//! Start: data directory, broker connections, log and state, Raft, then the doors to clients and
//! HTTP. Stop (SIGTERM or Ctrl-C): not ready, hand over leadership, take no more requests, finish
//! what is in flight, end Raft.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use openraft::async_runtime::WatchReceiver;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::broker::connection::NatsBroker;
use crate::broker::discovery::ServiceInfo;
use crate::broker::dispatch::Dispatch;
use crate::broker::listen::Listener;
use crate::broker::options::NatsOptions;
use crate::broker::reply::Replier;
use crate::config::Config;
use crate::ids::{BootId, DiskId, NodeId};
use crate::lock::service::LockService;
use crate::monitor::http::Monitor;
use crate::monitor::insight::Insight;
use crate::queue::store::RedisLink;
use crate::raft::directory::DataDirectory;
use crate::raft::handle::{Handle, Timing};
use crate::raft::network::Network;
use crate::stats::{Connection, Stats};
use crate::{raft, time, view};
