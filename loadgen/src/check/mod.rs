//! What clients may conclude from answers, checked while loading: `--check`.
//!
//! Each checker is plain code that hears of every request when it is sent and of every answer when it came, with the
//! instants. It claims a violation only where every order in which the requests can have taken effect breaks a
//! promise: of two requests the one took effect first whose answer came before the other was sent. What is not
//! answered, or with an unknown outcome, may have taken effect or not, and proves nothing.
//!
//! Its clock is the load generator's own; leases and visibility are held to be shorter by a hundredth, as much as
//! the rates of two clocks may differ.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub mod cache;
pub mod counters;
pub mod locks;
pub mod queue;
#[cfg(test)]
mod tests;

/// Events kept, over all subjects.
const EVENTS_MAX: usize = 20_000;
/// Events of its subject that are shown before a violation, and after it.
const SHOWN_BEFORE: usize = 20;
const SHOWN_AFTER: usize = 5;
/// Violations that are kept with their history; more are counted.
const VIOLATIONS_MAX: usize = 5;

/// A checker that the threads of a run share.
pub struct Shared<T>(Option<Arc<Mutex<T>>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Default> Shared<T> {
    /// A checker, or none where nothing is to be checked.
    pub fn new(checks: bool) -> Self {
        Self(checks.then(Arc::default))
    }
}

impl<T> Shared<T> {
    /// Tells the checker, if there is one.
    pub fn tell<R>(&self, what: impl FnOnce(&mut T, Instant) -> R) -> Option<R> {
        let mut checker = self.lock()?;
        // Read under the lock, so that instants rise in the order in which the checker hears of them.
        let now = Instant::now();
        Some(what(&mut checker, now))
    }

    fn lock(&self) -> Option<MutexGuard<'_, T>> {
        let checker = self.0.as_ref()?;
        Some(checker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Less by a hundredth.
fn surely(length: Duration) -> Duration {
    length - length / 100
}

/// Something that was sent, answered or found.
struct Event {
    at: Instant,
    subject: String,
    text: String,
}

/// What happened lately, and what of it must not have happened.
#[derive(Default)]
pub struct History {
    start: Option<Instant>,
    events: VecDeque<Event>,
    violations: Vec<Violation>,
    violation_count: u64,
}

/// A broken promise.
struct Violation {
    subject: String,
    what: String,
    history: Vec<String>,
    /// Events of the subject that are still to be added.
    more: usize,
}

impl History {
    fn note(&mut self, at: Instant, subject: &str, text: String) {
        self.start.get_or_insert(at);
        let event = Event {
            at,
            subject: subject.to_owned(),
            text,
        };
        let line = self.line(&event);
        for violation in &mut self.violations {
            if violation.subject == subject && violation.more > 0 {
                violation.more -= 1;
                violation.history.push(line.clone());
            }
        }
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn violation(&mut self, subject: &str, what: String) {
        self.violation_count += 1;
        if self.violations.len() == VIOLATIONS_MAX {
            return;
        }
        let before = self.events.iter().rev();
        let before = before.filter(|event| event.subject == subject);
        let mut history: Vec<_> = before
            .take(SHOWN_BEFORE)
            .map(|event| self.line(event))
            .collect();
        history.reverse();
        history.push(format!("    >>>>  {what}"));
        self.violations.push(Violation {
            subject: subject.to_owned(),
            what,
            history,
            more: SHOWN_AFTER,
        });
    }

    fn line(&self, event: &Event) -> String {
        let since = event.at - self.start.unwrap_or(event.at);
        format!("  {:9.6}s  {}", since.as_secs_f64(), event.text)
    }

    /// How many promises were broken.
    pub fn violation_count(&self) -> u64 {
        self.violation_count
    }

    /// The violations with what happened around them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for violation in &self.violations {
            let _ = writeln!(
                text,
                "VIOLATION of {}: {}",
                violation.subject, violation.what
            );
            for line in &violation.history {
                let _ = writeln!(text, "{line}");
            }
        }
        let shown = self.violations.len() as u64;
        if self.violation_count > shown {
            let _ = writeln!(text, "{} more violations", self.violation_count - shown);
        }
        text
    }
}
