//! What the broker does not allow.
//!
//! It says so of the connection, not of the request or the subscription, which nobody answers then:
//! so it is told to all that use the connection, and whom it concerns knows by the subject.

use async_nats::{Event, ServerError};
use tokio::sync::broadcast;

/// Refusals that somebody has not looked at yet. Of one that is lost the request ends with its time.
const WAITING_MAX: usize = 1_024;

/// One message or subscription that the broker refused, by its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Publish(String),
    Subscribe(String),
}

impl Refused {
    /// Reads what the broker says; none if it is something else.
    fn of(error: &ServerError) -> Option<Self> {
        let ServerError::Other(text) = error else {
            return None;
        };
        let quoted = |rest: &str| Some(rest.strip_prefix('"')?.split_once('"')?.0.to_owned());
        let what = text.strip_prefix("Permissions Violation for ")?;
        if let Some(rest) = what.strip_prefix("Publish to ") {
            quoted(rest).map(Refused::Publish)
        } else {
            let rest = what.strip_prefix("Subscription to ")?;
            quoted(rest).map(Refused::Subscribe)
        }
    }
}

/// Tells all that use a connection what is refused on it.
#[derive(Clone, Debug)]
pub(super) struct Refusals(broadcast::Sender<Refused>);

impl Default for Refusals {
    fn default() -> Self {
        Refusals(broadcast::Sender::new(WAITING_MAX))
    }
}

impl Refusals {
    /// Takes an event of the connection.
    pub(super) fn note(&self, event: &Event) {
        let Event::ServerError(error) = event else {
            return;
        };
        match Refused::of(error) {
            Some(refused) => {
                tracing::debug!(%error, "NATS refuses what this client wants");
                // Without anybody who asked or watches there is nobody to tell.
                let _ = self.0.send(refused);
            }
            None => tracing::warn!(%error, "NATS refuses what this client wants"),
        }
    }

    /// Hears of what is refused from now on.
    pub(super) fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

pub(super) struct Listener(broadcast::Receiver<Refused>);

impl Listener {
    /// The next refusal, if ever one comes. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Refused {
        loop {
            match self.0.recv().await {
                Ok(refused) => return refused,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_says_names_the_subject() {
        let said = |text: &str| Refused::of(&ServerError::Other(text.to_owned()));
        let publish = r#"Permissions Violation for Publish to "mufakat.lock.get.A""#;
        let expected = Refused::Publish("mufakat.lock.get.A".to_owned());
        assert_eq!(said(publish), Some(expected));
        let expected = Some(Refused::Subscribe("mufakat.event.>".to_owned()));
        for subscribe in [
            r#"Permissions Violation for Subscription to "mufakat.event.>""#,
            r#"Permissions Violation for Subscription to "mufakat.event.>" using queue "q""#,
        ] {
            assert_eq!(said(subscribe), expected);
        }
        for other in [
            r#"Permissions Violation for Publish with Reply of "x""#,
            "Permissions Violation for Publish to x",
            "Maximum Payload Violation",
        ] {
            assert_eq!(said(other), None, "{other}");
        }
        assert_eq!(Refused::of(&ServerError::AuthorizationViolation), None);
    }
}
