//! Waiting for conditions instead of for time to pass.

use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine: a condition that is not met by then never is.
pub const LONG: Duration = Duration::from_secs(40);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is something, and panics with `what` when [`LONG`] has passed.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(LONG, what, look).await
}

/// Looks until there is something, and panics with `what` when `limit` has passed.
pub async fn until_within<T>(
    limit: Duration,
    what: &str,
    look: impl AsyncFnMut() -> Option<T>,
) -> T {
    match look_within(limit, look).await {
        Some(found) => found,
        None => panic!("{what}: not within {limit:?}"),
    }
}

/// Looks until there is something; none when [`LONG`] has passed, for whoever has more to say about that.
pub async fn look_until<T>(look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    look_within(LONG, look).await
}

async fn look_within<T>(limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if start.elapsed() >= limit {
            return None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until something takes connections.
pub async fn listens(what: &str, port: u16) {
    until(&format!("{what} listens on {port}"), async || {
        let connection = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        connection.ok().map(drop)
    })
    .await;
}
