//! The dashboard: a page of three files, its stream of documents, and what it may do.
//!
//! | path | answer |
//! |---|---|
//! | `/`, `/dashboard.css`, `/dashboard.js` | the page; it loads nothing else, from nowhere else |
//! | `/dashboard/history` | requests of the last 15 minutes, as JSON |
//! | `/dashboard/events` | a document about each second, as server-sent events |
//! | `POST /dashboard/act/<operation>` | the reply to that operation, with the header `Authorization: Bearer TOKEN` |
//!
//! A browser sends that header for no other site's page, so that none can act with a reader's rights.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::sync::watch;

use crate::monitor::http::{Dashboard, NoReply};

const PAGE: &str = include_str!("dashboard/index.html");
const STYLE: &str = include_str!("dashboard/dashboard.css");
const SCRIPT: &str = include_str!("dashboard/dashboard.js");

/// The greatest body of an action.
const BODY_MAX: usize = 64 * 1024;

/// How long the body of an action may take after its head. A client that does not end it has a place no
/// longer than this, however it sends it.
pub(super) const BODY_TIME_MAX: Duration = Duration::from_secs(5);

/// The page may use its own files and nothing else; nobody may frame it.
const POLICY: [(HeaderName, &str); 4] = [
    (
        HeaderName::from_static("content-security-policy"),
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (HeaderName::from_static("x-content-type-options"), "nosniff"),
    (HeaderName::from_static("referrer-policy"), "no-referrer"),
    (CACHE_CONTROL, "no-cache"),
];

pub(super) fn routes(dashboard: Arc<dyn Dashboard>) -> Router {
    let file = |media: &'static str, text: &'static str| {
        get(move || async move { (POLICY, [(CONTENT_TYPE, media)], text) })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", PAGE))
        .route("/dashboard.css", file("text/css; charset=utf-8", STYLE))
        .route(
            "/dashboard.js",
            file("text/javascript; charset=utf-8", SCRIPT),
        )
        .route("/dashboard/history", get(history))
        .route("/dashboard/events", get(events))
        .route("/dashboard/act/{operation}", post(act))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(dashboard)
}

async fn events(State(dashboard): State<Arc<dyn Dashboard>>) -> Response {
    match dashboard.watch() {
        Some(documents) => Sse::new(stream_of(documents)).into_response(),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "too many viewers of this node already\n",
        )
            .into_response(),
    }
}

async fn history(State(dashboard): State<Arc<dyn Dashboard>>) -> Response {
    let json = [(CONTENT_TYPE, "application/json")];
    (POLICY, json, dashboard.history().await).into_response()
}

/// The present document, if there is one, and each that follows.
fn stream_of(
    documents: watch::Receiver<Bytes>,
) -> impl Stream<Item = Result<Event, std::convert::Infallible>> {
    stream::unfold((documents, true), |(mut documents, first)| async move {
        if !first {
            documents.changed().await.ok()?;
        }
        loop {
            let document = documents.borrow_and_update().clone();
            if !document.is_empty() {
                let text = String::from_utf8_lossy(&document).into_owned();
                return Some((Ok(Event::default().data(text)), (documents, false)));
            }
            documents.changed().await.ok()?;
        }
    })
}

async fn act(
    State(dashboard): State<Arc<dyn Dashboard>>,
    Path(operation): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let body = Bytes::from_request(request, &());
    let body = match tokio::time::timeout(BODY_TIME_MAX, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(refused)) => return refused.into_response(),
        Err(_late) => {
            let why = "the body did not end in time\n";
            return (StatusCode::REQUEST_TIMEOUT, why).into_response();
        }
    };
    let given = headers.get(AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok());
    let token = given.and_then(|value| value.strip_prefix("Bearer "));
    match dashboard.act(token, &operation, &body).await {
        Ok(reply) => ([(CONTENT_TYPE, "application/json")], reply).into_response(),
        Err(reason) => {
            let status = match reason {
                NoReply::Forbidden(_) => StatusCode::FORBIDDEN,
                NoReply::Busy => StatusCode::SERVICE_UNAVAILABLE,
                NoReply::Unknown => StatusCode::GATEWAY_TIMEOUT,
            };
            (status, format!("{reason}\n")).into_response()
        }
    }
}
