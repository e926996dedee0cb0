//! Spans of requests on their way to an OpenTelemetry collector: OTLP over HTTP.
//!
//! The standard variables of the environment say where and how: `OTEL_EXPORTER_OTLP_ENDPOINT` above all,
//! without which nothing is exported. A thread of its own sends batches; what does not fit into its queue
//! (`OTEL_BSP_MAX_QUEUE_SIZE`, 2,048 spans) is dropped. A collector that is away costs its spans and
//! nothing else.

use std::env;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::ids::NodeId;
use crate::trace::Parent;

const ENDPOINT: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
const CERTIFICATE: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
];
const TIMEOUT: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
];
/// How long one batch may take, if the environment does not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// How long a node that stops waits for its last spans to be taken.
const FINISH_MAX: Duration = Duration::from_secs(2);
/// What a collector may answer, in bytes: a few words.
const ANSWER_MAX: u64 = 64 * 1024;

/// Set once by [`start`].
static EXPORT: OnceLock<(SdkTracerProvider, SdkTracer)> = OnceLock::new();

/// Begins to export, as the environment says. Without an endpoint, or with `OTEL_SDK_DISABLED=true`, nothing
/// is exported.
///
/// # Errors
/// When the environment says something that cannot be.
pub fn start(node: NodeId) -> Result<()> {
    let Some(endpoint) = first_of(ENDPOINT) else {
        return Ok(());
    };
    if env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(());
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector::new()?)
        .build()
        .with_context(|| format!("spans cannot be exported ({})", ENDPOINT[1]))?;
    let provider = SdkTracerProvider::builder()
        .with_resource(resource(node))
        .with_batch_exporter(exporter)
        .build();
    let tracer = provider.tracer("mufakat");
    if EXPORT.set((provider, tracer)).is_err() {
        panic!("a process is one node");
    }
    tracing::info!(%endpoint, "spans of requests are exported");
    Ok(())
}

/// Sends what is left, for two seconds at most.
pub fn finish() {
    if let Some((provider, _)) = EXPORT.get() {
        // What went wrong has been said by whoever sends.
        let _ = provider.shutdown_with_timeout(FINISH_MAX);
    }
}

fn resource(node: NodeId) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name("mufakat")
        .with_attributes([
            KeyValue::new("service.instance.id", node.to_string()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .with_detector(Box::new(EnvResourceDetector::new()));
    match env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}

fn first_of(names: [&str; 2]) -> Option<String> {
    let values = names.iter().filter_map(|name| env::var(name).ok());
    values.into_iter().find(|value| !value.is_empty())
}

/// The span of a request at this node; it ends when this is dropped.
pub(super) struct Exported(Context);

impl Exported {
    /// None if nothing is exported.
    pub(super) fn begin(operation: &'static str, parent: &Parent) -> Option<Self> {
        let (_, tracer) = EXPORT.get()?;
        let before = Context::new().with_remote_span_context(context_of(parent));
        let span = tracer.span_builder(operation).with_kind(SpanKind::Server);
        let span = tracer.build_with_context(span, &before);
        Some(Exported(before.with_span(span)))
    }

    pub(super) fn note_id(&self, id: &str) {
        let id = KeyValue::new("mufakat.request_id", id.to_owned());
        self.0.span().set_attribute(id);
    }

    /// What is wrong with a request is its client's error, not one of this span.
    pub(super) fn failed(&self, (code, status): (&'static str, u16)) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("error.type", code));
        if status >= 500 {
            span.set_status(Status::error(code));
        }
    }

    pub(super) fn traceparent(&self) -> String {
        let span = self.0.span();
        let context = span.span_context();
        let (trace, span) = (context.trace_id(), context.span_id());
        format!("00-{trace}-{span}-{:02x}", context.trace_flags())
    }
}

fn context_of(parent: &Parent) -> SpanContext {
    let parts: Vec<&str> = parent.as_str().split('-').collect();
    let trace = TraceId::from_hex(parts[1]).expect("it was looked at");
    let span = SpanId::from_hex(parts[2]).expect("it was looked at");
    let flags = u8::from_str_radix(parts[3], 16).expect("it was looked at");
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    SpanContext::new(trace, span, flags, true, TraceState::default())
}

/// The way to the collector.
#[derive(Debug)]
struct Collector {
    agent: ureq::Agent,
    /// It was said that it is away.
    is_away: AtomicBool,
}

impl Collector {
    fn new() -> Result<Self> {
        let timeout = match first_of(TIMEOUT) {
            None => TIMEOUT_DEFAULT,
            Some(text) => text.parse().map(Duration::from_millis).with_context(|| {
                format!(
                    "{} must be a number of milliseconds, not {text}",
                    TIMEOUT[1]
                )
            })?,
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(trusted()?)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .build();
        Ok(Collector {
            agent: config.new_agent(),
            is_away: AtomicBool::new(false),
        })
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (head, body) = request.into_parts();
        let response = self.agent.run(Request::from_parts(head, &body[..]))?;
        let (head, body) = response.into_parts();
        let body = body.into_with_config().limit(ANSWER_MAX).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }

    /// Says once that spans are lost, and once that they are not any more.
    fn note(&self, sent: &Result<Response<Bytes>, ureq::Error>) {
        let why = match sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answers {}", response.status())),
            Err(error) => Some(error.to_string()),
        };
        let was_away = self.is_away.swap(why.is_some(), Ordering::Relaxed);
        match why {
            Some(why) if !was_away => {
                tracing::warn!(%why, "the collector does not accept spans; they are lost");
            }
            None if was_away => tracing::info!("the collector accepts spans again"),
            Some(_) | None => {}
        }
    }
}

impl HttpClient for Collector {
    // As the trait's attribute writes it. It waits on the exporter's own thread.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> BoxFuture<'b, Result<Response<Bytes>, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        let sent = self.send(request);
        self.note(&sent);
        Box::pin(std::future::ready(sent.map_err(HttpError::from)))
    }
}

/// Who may vouch for a collector: whom the environment names, else whom the system trusts.
fn trusted() -> Result<Vec<Certificate<'static>>> {
    let Some(file) = first_of(CERTIFICATE) else {
        let found = rustls_native_certs::load_native_certs().certs;
        let owned = found
            .iter()
            .map(|one| Certificate::from_der(one).to_owned());
        return Ok(owned.collect());
    };
    let pem = fs::read(&file).with_context(|| format!("{}: {file}", CERTIFICATE[1]))?;
    let items: Result<Vec<PemItem<'_>>, _> = parse_pem(&pem).collect();
    let items = items.with_context(|| format!("{}: {file} is not a PEM file", CERTIFICATE[1]))?;
    let certificates = items.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    Ok(certificates.collect())
}
