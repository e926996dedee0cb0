//! What operators and their tools see of one node, over HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the process runs its event loop: restart it if there is no answer |
//! | `/readyz` | 200 when the node serves clients, with what it can't serve; else 503 with the reason |
//! | `/statusz` | the same JSON as the `status` operation |
//! | `/metrics` | OpenMetrics text |
//! | `/` | the dashboard ([`pages`]) |
//!
//! Promises: an answer needs no other node, no broker and no Redis, but for what the dashboard shows of
//! them; a stop waits no longer for
//! clients than [`http::STOP_MAX`].
//!
//! Limits: no TLS; no access control but the token for what changes something. It belongs on a loopback or operators' address.
//!
//! - [`http`]: the server.
//! - [`insight`]: what it tells.
//! - [`scrape`]: all metrics at one moment.
//! - [`history`]: the last 15 minutes of requests.
//! - [`board`]: what the dashboard shows, once a second while somebody looks.
//! - [`pages`]: the page itself, and its requests.

pub mod board;
pub mod history;
pub mod http;
pub mod insight;
mod pages;
pub mod scrape;
