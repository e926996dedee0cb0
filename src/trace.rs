//! Which trace a request belongs to, by [W3C Trace Context](https://www.w3.org/TR/trace-context/).
//!
//! A client may send the header `traceparent`. Each node that has such a request in hand has a span for
//! it: lines of the log carry it, and with the feature `otel` a collector hears of it (`export`). A
//! request that goes on to another node takes along the span of the node that it leaves, which is the
//! parent of the next one.
//!
//! A request without the header has a span for the log alone, and only where `mufakat::request=debug` is
//! logged; else nothing is made. A header that is not valid is none: no request is refused for it.
//!
//! What is replicated has no trace. So a wait belongs to its trace at the node that its client asked,
//! until it is over; the leader that ends it later may be one that never saw the header.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tracing::field::Empty;

use crate::ids::NodeId;

#[cfg(feature = "otel")]
pub mod export;

/// The header with the trace, as the standard writes it and as libraries for HTTP do.
pub const TRACEPARENT: [&str; 2] = ["traceparent", "Traceparent"];

/// The target of spans and lines about requests.
const REQUEST: &str = "mufakat::request";

/// Digits of the parts of a `traceparent`: version, trace, parent, flags.
const DIGITS: [usize; 4] = [2, 32, 16, 2];
/// All of them, with what is between.
const LENGTH: usize = 55;

/// A valid `traceparent` of version 00: a trace, and the span in it that comes before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent(String);

impl Parent {
    /// Reads a header; none if it is not valid. A later version is read as far as it is known here.
    pub fn parse(header: &str) -> Option<Self> {
        let (known, rest) = header.split_at_checked(LENGTH)?;
        let parts: Vec<&str> = known.split('-').collect();
        let &[version, trace, parent, flags] = &parts[..] else {
            return None;
        };
        let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let is_none = |text: &str| text.bytes().all(|b| b == b'0');
        let is_valid = parts.iter().map(|part| part.len()).eq(DIGITS)
            && parts.iter().all(|part| is_hex(part))
            && !is_none(trace)
            && !is_none(parent)
            && match version {
                "00" => rest.is_empty(),
                "ff" => false,
                _ => rest.is_empty() || rest.starts_with('-'),
            };
        is_valid.then(|| Parent(format!("00-{trace}-{parent}-{flags}")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The trace of a request that this node has in hand. Copies share it, and the last one ends its span;
/// the default is that of a request without.
#[derive(Clone, Default)]
pub struct Traced(Option<Arc<InHand>>);

struct InHand {
    /// For the log.
    span: tracing::Span,
    parent: Option<Parent>,
    #[cfg(feature = "otel")]
    exported: Option<export::Exported>,
}

impl Traced {
    /// Begins the span of a request that came with this header, if it came with one.
    pub fn begin(operation: &'static str, node: NodeId, header: Option<&str>) -> Self {
        let parent = header.and_then(Parent::parse);
        let node = node.0;
        let span = match &parent {
            Some(traceparent) => tracing::info_span!(
                target: REQUEST, "request", operation, node, %traceparent, request_id = Empty
            ),
            None => tracing::debug_span!(
                target: REQUEST, "request", operation, node, request_id = Empty
            ),
        };
        if parent.is_none() && span.is_disabled() {
            return Traced::default();
        }
        Traced(Some(Arc::new(InHand {
            span,
            #[cfg(feature = "otel")]
            exported: parent
                .as_ref()
                .and_then(|parent| export::Exported::begin(operation, parent)),
            parent,
        })))
    }

    /// Notes the id by which the request's client knows it.
    pub fn note_id(&self, id: Option<&str>) {
        let (Some(in_hand), Some(id)) = (&self.0, id) else {
            return;
        };
        in_hand.span.record("request_id", id);
        #[cfg(feature = "otel")]
        if let Some(exported) = &in_hand.exported {
            exported.note_id(id);
        }
    }

    /// Notes how it was answered: the code and status of an error, if it is one.
    pub fn answered(&self, error: Option<(&'static str, u16)>, took: Duration) {
        let Some(in_hand) = &self.0 else {
            return;
        };
        let took_ms = took.as_secs_f64() * 1e3;
        let code = error.map(|(code, _)| code);
        tracing::debug!(target: REQUEST, parent: &in_hand.span, took_ms, code, "answered");
        #[cfg(feature = "otel")]
        if let (Some(exported), Some(error)) = (&in_hand.exported, error) {
            exported.failed(error);
        }
    }

    /// Notes that another node is to answer it.
    pub fn goes_to(&self, node: NodeId) {
        let say = || tracing::debug!(target: REQUEST, to = node.0, "goes to another node");
        self.in_scope(say);
    }

    /// Runs something whose lines in the log are about the request.
    pub fn in_scope<T>(&self, run: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(in_hand) => in_hand.span.in_scope(run),
            None => run(),
        }
    }

    /// The header that goes along to another node.
    pub fn onward(&self) -> Option<String> {
        let in_hand = self.0.as_ref()?;
        #[cfg(feature = "otel")]
        if let Some(exported) = &in_hand.exported {
            return Some(exported.traceparent());
        }
        in_hand.parent.as_ref().map(Parent::to_string)
    }
}

/// Says only whether there is one: it is no part of what a request is.
impl fmt::Debug for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "traced" } else { "-" })
    }
}

/// All are equal: a request is the same with or without a trace.
impl PartialEq for Traced {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Traced {}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let read = |header: String| Parent::parse(&header).map(|parent| parent.to_string());
        let valid = format!("00-{TRACE}-01");
        assert_eq!(read(valid.clone()), Some(valid.clone()));
        // A later version is read by its beginning, and goes on as what is known here.
        for later in [format!("cc-{TRACE}-01"), format!("cc-{TRACE}-01-what.else")] {
            assert_eq!(read(later), Some(valid.clone()));
        }
        for wrong in [
            String::new(),
            format!("00-{TRACE}"),
            format!("00-{TRACE}-1"),
            format!("00-{TRACE}-01-"),
            format!("00-{TRACE}-01x"),
            format!("cc-{TRACE}-01x"),
            format!("ff-{TRACE}-01"),
            format!("00-{}-01", TRACE.to_uppercase()),
            format!("00_{TRACE}-01"),
            format!(
                "00-{}-01",
                TRACE.replace("b7ad6b7169203331", "0000000000000000")
            ),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{}-01", TRACE.replace('7', "ü")),
            "é".repeat(28),
        ] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn a_request_goes_on_with_its_trace_and_without_one_as_it_came() {
        let header = format!("00-{TRACE}-01");
        let begin = |header| Traced::begin("lock.acquire", NodeId(1), header);
        let onward = begin(Some(header.as_str())).onward();
        assert_eq!(onward, Some(header.clone()));
        assert_eq!(begin(Some("00-nonsense")).onward(), None);
        assert!(begin(None).0.is_none(), "nothing is made for it");
    }
}
