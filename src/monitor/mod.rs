//! What operators and their tools see of one node, over HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the process runs its event loop: restart it if there is no answer |
//! | `/readyz` | 200 when the node serves clients, else 503 with the reason |
//! | `/statusz` | the same JSON as the `status` operation |
//! | `/metrics` | OpenMetrics text |
//!
//! Promises: an answer needs no other node, no broker and no Redis; a stop waits no longer for
//! clients than [`http::STOP_MAX`].
//!
//! Limits: no TLS and no access control. It belongs on a loopback or operators' address.
//!
//! - [`http`]: the server.
//! - [`insight`]: what it tells.

pub mod http;
pub mod insight;
