//! The HTTP server: a few paths that read, from whoever knows ([`NodeInfo`]), and the dashboard's
//! ([`pages`]).
//!
//! [`pages`]: super::pages

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Sleep;

use crate::monitor::pages;
use crate::{stats, time};

/// Connections served at a time: a scraper, a health check and some people. Further ones stay in
/// the system's queue until one closes.
const CONNECTIONS_MAX: usize = 64;
/// How long the head of a request may take, from the connection's begin or the answer before. A client
/// that does not end its head has a place no longer than this, whatever it sends; one that asks less often
/// connects anew.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// A connection on which nothing was sent or received for so long is closed, so that clients that
/// went silent in the middle of a body or of an answer do not use the places up.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// How long a stop waits for answers that are on their way.
pub const STOP_MAX: Duration = Duration::from_secs(1);

/// What the server tells about its node. Called for each request: must be quick and not wait.
pub trait NodeInfo: Send + Sync + 'static {
    /// That clients are served, and the services that can't be at the moment though they are meant to.
    ///
    /// # Errors
    /// Why they are not, for people.
    fn ready(&self) -> Result<Vec<&'static str>, String>;

    /// The reply to `status`, as JSON.
    fn status_json(&self) -> Bytes;

    /// All metrics, in the format of [`stats::CONTENT_TYPE`].
    fn metrics_text(&self) -> String;
}

/// The reply to an action.
pub type Acting<'a> = BoxFuture<'a, Result<Bytes, NoReply>>;

/// Why there is no reply to an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// Nothing was done, for this reason.
    #[error("{0}")]
    Forbidden(&'static str),
    /// Nothing was done.
    #[error("too many waiting requests; try again")]
    Busy,
    #[error("no answer in time; the request may have taken effect")]
    Unknown,
}

/// What the dashboard shows and does.
pub trait Dashboard: Send + Sync + 'static {
    /// Documents as they come, the first one empty; none while too many look already.
    fn watch(&self) -> Option<watch::Receiver<Bytes>>;

    /// Requests of the last 15 minutes, as far as nodes remember them.
    fn history(&self) -> BoxFuture<'_, Bytes>;

    /// Does what somebody with this token asks for.
    fn act<'a>(&'a self, token: Option<&str>, operation: &str, body: &'a Bytes) -> Acting<'a>;
}

/// A bound server that does not answer yet.
pub struct Monitor {
    listener: TcpListener,
}

impl Monitor {
    /// Takes the address (`host:port`), so that a conflict is known before the node starts.
    ///
    /// # Errors
    /// When the address is taken, or is none.
    pub async fn bind(address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Monitor { listener })
    }

    /// The address that was taken: with its real port when 0 was asked for.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `shutdown` becomes true or its sender is dropped, then finishes what is on
    /// its way for at most [`STOP_MAX`].
    pub async fn serve(
        self,
        info: Arc<dyn NodeInfo>,
        dashboard: Arc<dyn Dashboard>,
        shutdown: watch::Receiver<bool>,
    ) {
        let mut listener = Limited {
            listener: self.listener,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
        let service = TowerToHyperService::new(routes(info, dashboard));
        let connections = GracefulShutdown::new();
        let mut over = pin!(is_over(shutdown));
        loop {
            let (stream, _) = tokio::select! {
                () = &mut over => break,
                accepted = listener.accept() => accepted,
            };
            let connection = http.serve_connection(TokioIo::new(stream), service.clone());
            let connection = connections.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "an HTTP connection failed");
                }
            });
        }
        drop(listener);
        let _ = tokio::time::timeout(STOP_MAX, connections.shutdown()).await;
    }
}

async fn is_over(mut shutdown: watch::Receiver<bool>) {
    // A dropped sender means the end, too.
    let _ = shutdown.wait_for(|&is_over| is_over).await;
}

fn routes(info: Arc<dyn NodeInfo>, dashboard: Arc<dyn Dashboard>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/statusz", get(statusz))
        .route("/metrics", get(metrics))
        .with_state(info)
        .merge(pages::routes(dashboard))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
}

async fn readyz(State(info): State<Arc<dyn NodeInfo>>) -> (StatusCode, String) {
    match info.ready() {
        Ok(degraded) if degraded.is_empty() => (StatusCode::OK, "ready\n".into()),
        Ok(degraded) => (StatusCode::OK, format!("ready\ndegraded: {degraded:?}\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn statusz(State(info): State<Arc<dyn NodeInfo>>) -> impl IntoResponse {
    let json: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];
    (json, info.status_json())
}

async fn metrics(State(info): State<Arc<dyn NodeInfo>>) -> impl IntoResponse {
    let text: [(HeaderName, &str); 1] = [(CONTENT_TYPE, stats::CONTENT_TYPE)];
    (text, info.metrics_text())
}

/// Accepts while there are places.
struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Limited {
    type Io = Connection<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection<TcpStream>, SocketAddr) {
        let place = self.places.clone().acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (Connection::new(stream, place), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when nothing moved on it for [`IDLE_MAX`].
struct Connection<S> {
    stream: S,
    idle: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl<S> Connection<S> {
    fn new(stream: S, place: OwnedSemaphorePermit) -> Self {
        Connection {
            stream,
            idle: Box::pin(tokio::time::sleep(IDLE_MAX)),
            _place: place,
        }
    }

    /// Passes `moved` on, unless nothing moves for too long.
    fn unless_idle<T>(
        &mut self,
        cx: &mut Context<'_>,
        moved: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.idle.as_mut().reset(time::now() + IDLE_MAX);
            return moved;
        }
        ready!(self.idle.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.unless_idle(cx, moved)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.unless_idle(cx, moved)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.unless_idle(cx, moved)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;

    #[derive(Default)]
    struct Node {
        is_ready: AtomicBool,
    }

    impl NodeInfo for Node {
        fn ready(&self) -> Result<Vec<&'static str>, String> {
            let is_ready = self.is_ready.load(Ordering::Relaxed);
            is_ready.then(Vec::new).ok_or("no leader is known".into())
        }

        fn status_json(&self) -> Bytes {
            Bytes::from_static(br#"{"ok":true}"#)
        }

        fn metrics_text(&self) -> String {
            "# EOF\n".into()
        }
    }

    impl Dashboard for Node {
        fn watch(&self) -> Option<watch::Receiver<Bytes>> {
            let (document, receiver) = watch::channel(Bytes::from_static(b"{\"node\":1}"));
            drop(document);
            Some(receiver)
        }

        fn history(&self) -> BoxFuture<'_, Bytes> {
            Box::pin(async { Bytes::from_static(b"{\"points\":[]}") })
        }

        fn act<'a>(&'a self, token: Option<&str>, operation: &str, body: &'a Bytes) -> Acting<'a> {
            let said = format!("{token:?} {operation} {}", String::from_utf8_lossy(body));
            Box::pin(async move {
                match said.starts_with("Some") {
                    true => Ok(said.into()),
                    false => Err(NoReply::Forbidden("the admin token is missing or wrong")),
                }
            })
        }
    }

    struct Running {
        node: Arc<Node>,
        address: SocketAddr,
        stop: watch::Sender<bool>,
        server: JoinHandle<()>,
    }

    async fn start() -> Running {
        let (stop, shutdown) = watch::channel(false);
        let monitor = Monitor::bind("127.0.0.1:0").await.expect("a port is free");
        let address = monitor.address().expect("it is bound");
        let node = Arc::new(Node::default());
        let server = tokio::spawn(monitor.serve(node.clone(), node.clone(), shutdown));
        Running {
            node,
            address,
            stop,
            server,
        }
    }

    impl Running {
        async fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(self.address).await;
            stream.expect("the server listens")
        }

        /// Takes all places with requests that do not go on.
        async fn stalled(&self, begin: &str) -> Vec<TcpStream> {
            let mut stalled = Vec::new();
            for _ in 0..CONNECTIONS_MAX {
                let mut stream = self.connect().await;
                let sent = stream.write_all(begin.as_bytes()).await;
                sent.expect("it is sent");
                stalled.push(stream);
            }
            stalled
        }

        /// Sends one request on a connection of its own; status line and headers, and body.
        async fn ask(&self, request: &str) -> (String, String) {
            let mut stream = self.connect().await;
            let head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("it is sent");
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.expect("an answer");
            let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
            (head.to_owned(), body.to_owned())
        }
    }

    #[tokio::test]
    async fn every_path_has_its_answer() {
        let running = start().await;
        let cases = [
            ("GET /livez", "200", "text/plain", "ok\n"),
            ("GET /readyz", "503", "text/plain", "no leader is known\n"),
            ("GET /statusz", "200", "application/json", "{\"ok\":true}"),
            (
                "GET /metrics",
                "200",
                "application/openmetrics-text",
                "# EOF\n",
            ),
            (
                "GET /dashboard/history",
                "200",
                "application/json",
                "{\"points\":[]}",
            ),
            ("GET /x", "404", "text/plain", "not found\n"),
            ("GET /metrics/x", "404", "text/plain", "not found\n"),
            ("POST /livez", "405", "allow: GET", ""),
        ];
        for (request, status, header, expected) in cases {
            let (head, body) = running.ask(request).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.contains(header), "{request}: {head}");
            assert_eq!(body, expected, "{request}");
        }
        running.node.is_ready.store(true, Ordering::Relaxed);
        assert_eq!(running.ask("GET /readyz").await.1, "ready\n");
    }

    #[tokio::test]
    async fn a_stop_closes_idle_connections_and_the_port() {
        let running = start().await;
        let mut idle = running.connect().await;
        assert_eq!(running.ask("GET /livez").await.1, "ok\n");
        running.stop.send_replace(true);
        running.server.await.expect("the server ends in order");
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.expect("it is closed");
        assert!(rest.is_empty());
        assert!(TcpStream::connect(running.address).await.is_err());
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_half_a_request() {
        let running = start().await;
        let mut stalled = running.connect().await;
        stalled.write_all(b"GET /li").await.expect("it is sent");
        assert_eq!(running.ask("GET /livez").await.1, "ok\n");
        drop(running.stop);
        let ended = tokio::time::timeout(STOP_MAX * 10, running.server).await;
        ended.expect("within the bound").expect("in order");
    }

    /// Time is paused, so that it jumps to the next deadline once nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn heads_that_do_not_end_keep_nobody_out_for_long() {
        let running = start().await;
        let start = time::now();
        let _stalled = running.stalled("GET /li").await;
        assert_eq!(running.ask("GET /livez").await.1, "ok\n");
        assert!(start.elapsed() < HEAD_MAX * 2, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_do_not_end_keep_nobody_out_for_long() {
        let running = start().await;
        let start = time::now();
        let head = "POST /dashboard/act/x HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n";
        let mut stalled = running.stalled(&format!("{head}{{")).await;
        assert_eq!(running.ask("GET /livez").await.1, "ok\n");
        let took = start.elapsed();
        assert!(took < pages::BODY_TIME_MAX * 2, "{took:?}");
        let mut reply = String::new();
        let read = stalled[0].read_to_string(&mut reply).await;
        read.expect("an answer");
        assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    }

    #[tokio::test]
    async fn a_connection_waits_for_a_place() {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let mut limited = Limited {
            listener: listener.expect("a port is free"),
            places: Arc::new(Semaphore::new(1)),
        };
        let address = limited.local_addr().expect("it is bound");
        let _clients = [
            TcpStream::connect(address).await,
            TcpStream::connect(address).await,
        ];
        let (first, _) = limited.accept().await;
        assert_eq!(limited.places.available_permits(), 0);
        drop(first);
        let (_second, _) = limited.accept().await;
        assert_eq!(limited.places.available_permits(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_fails_when_nothing_moves() {
        let places = Arc::new(Semaphore::new(1));
        let place = places.clone().acquire_owned().await.expect("it is open");
        let (mut client, stream) = tokio::io::duplex(16);
        let mut connection = Connection::new(stream, place);
        let start = time::now();
        tokio::time::sleep(IDLE_MAX / 2).await;
        client.write_all(b"x").await.expect("it is open");
        assert_eq!(connection.read_u8().await.expect("a byte"), b'x');
        tokio::time::sleep(IDLE_MAX / 2).await;
        connection.write_all(b"y").await.expect("it is open");
        let error = connection.read_u8().await.expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), IDLE_MAX * 2);
        drop(connection);
        assert_eq!(places.available_permits(), 1);
    }
}
