//! Whether a server or a node is ready. Each check is one connection to this machine with a short timeout. Any failure
//! means that it is not ready yet.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server on this machine that takes longer is not ready.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Far more than the answer of `/readyz`.
const ANSWER_BYTES_MAX: usize = 4096;

/// A broker greets each connection with its description.
pub(super) async fn nats(port: u16) -> bool {
    answer(port, b"", b"INFO ".len())
        .await
        .is_some_and(|start| start == b"INFO ")
}

/// Redis answers with an error while it loads its data, and to clients that it does not trust.
pub(super) async fn redis(port: u16) -> bool {
    answer(port, b"PING\r\n", b"+PONG".len())
        .await
        .is_some_and(|start| start == b"+PONG")
}

/// A node is ready when `/readyz` answers 200 and names nothing that is missing. A node without a connection to Redis
/// serves locks, but not all lines that are printed for the user to try.
pub(super) async fn node(port: u16) -> bool {
    const GET: &[u8] = b"GET /readyz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n";
    let answer = answer(port, GET, ANSWER_BYTES_MAX).await;
    answer.is_some_and(|answer| {
        // The server chooses the version of HTTP.
        let is_ok = answer.starts_with(b"HTTP/1.0 200 ") || answer.starts_with(b"HTTP/1.1 200 ");
        is_ok && answer.ends_with(b"\r\n\r\nready\n")
    })
}

/// The first `bytes` bytes of the answer, or fewer if it is shorter.
async fn answer(port: u16, question: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(question).await?;
        let mut start = Vec::new();
        stream.take(bytes as u64).read_to_end(&mut start).await?;
        std::io::Result::Ok(start)
    };
    timeout(ANSWER_MAX, exchange).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Serves `answers` to one connection each, after having read a request where one comes.
    async fn listener(answers: &'static [&'static str], reads: bool) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("bind");
        let port = listener.local_addr().expect("address").port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("accept");
                if reads {
                    let mut request = [0; 1024];
                    let _bytes = stream.read(&mut request).await.expect("read");
                }
                stream.write_all(answer.as_bytes()).await.expect("write");
            }
        });
        port
    }

    #[tokio::test]
    async fn a_node_is_ready_when_it_lacks_nothing() {
        let answers = &[
            "HTTP/1.1 503 Service Unavailable\r\n\r\nready\n",
            "HTTP/1.1 200 OK\r\n\r\nready\ndegraded: [\"queue\"]\n",
            "HTTP/1.1 200 OK\r\n\r\nready\n",
        ];
        let port = listener(answers, true).await;
        assert!(!node(port).await);
        assert!(!node(port).await, "one without Redis is not");
        assert!(node(port).await);
    }

    #[tokio::test]
    async fn a_loading_redis_is_not_ready() {
        let port = listener(&["-LOADING Redis is loading\r\n", "+PONG\r\n"], true).await;
        assert!(!redis(port).await);
        assert!(redis(port).await);
    }

    #[tokio::test]
    async fn a_broker_greets_by_itself() {
        let port = listener(&["INFO {}\r\n"], false).await;
        assert!(nats(port).await);
        assert!(!nats(port).await, "a closed port is not ready");
    }
}
