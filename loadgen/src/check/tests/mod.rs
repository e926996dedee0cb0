//! Histories, and what the checkers say of them.

use super::*;

mod cache;
mod counters;
mod locks;
mod queue;

const TTL: Duration = Duration::from_secs(30);

/// Instants that rise by a millisecond with each call.
struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn tick(&mut self) -> Instant {
        self.0 += Duration::from_millis(1);
        self.0
    }
}

fn found(history: &History) -> String {
    assert_eq!(history.violation_count(), 1, "{}", history.text());
    let text = history.text();
    text.lines().next().unwrap_or_default().to_owned()
}

fn finds_nothing(history: &History) {
    assert_eq!(history.violation_count(), 0, "{}", history.text());
}
