//! How subscriptions end without losing what the broker has sent already.
//!
//! The client library's own drain forgets a subscription the next time that anything wakes its
//! connection, and what arrives from then until the broker has heard of the end is dropped
//! (async-nats 0.51, `ConnectionHandler::process`): a burst of requests without an answer. So the
//! broker is told first, in a way that leaves the subscription to the library: to end after more
//! messages than a broker can count. nats-server takes a count of more than nine digits as none and
//! ends the subscription at once (`parseSize`, `processUnsub`). A round trip later nothing more can
//! come. A broker that could count so far would leave it to the library's drain, as before.

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures_util::stream::{SelectAll, StreamExt};

/// More messages than a broker can count.
const NEVER: u64 = u64::MAX;

/// Ends the subscriptions; what the broker has sent by them until it hears of that is taken, however
/// long that takes. `fence` is a subject of this node alone.
pub(super) async fn leave(
    client: &Client,
    fence: String,
    mut subscriptions: SelectAll<Subscriber>,
    mut take: impl FnMut(Message),
) {
    for subscription in subscriptions.iter_mut() {
        let _ = subscription.unsubscribe_after(NEVER).await;
    }
    let mut arrived = std::pin::pin!(round_trip(client, fence));
    loop {
        tokio::select! {
            biased;
            Some(message) = subscriptions.next() => take(message),
            _ = &mut arrived => break,
        }
    }
    for subscription in subscriptions.iter_mut() {
        let _ = subscription.drain().await;
    }
    while let Some(message) = subscriptions.next().await {
        take(message);
    }
}

/// Returns when the broker has taken all that was published before, and all that it had sent until
/// then has arrived here. While the broker is away it waits.
///
/// # Errors
/// When the connection has ended for good.
pub(crate) async fn round_trip(client: &Client, subject: String) -> anyhow::Result<()> {
    let mut fence = client.subscribe(subject.clone()).await?;
    client.publish(subject, Bytes::new()).await?;
    fence.next().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const ON_THEIR_WAY: usize = 3;

    /// A broker that had sent some messages, one after the other, when it reads that a subscription
    /// ends.
    async fn serve(stream: TcpStream) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write
            .write_all(b"INFO {\"server_id\":\"x\",\"server_name\":\"x\",\"version\":\"2.12.0\",\"go\":\"\",\"host\":\"127.0.0.1\",\"port\":1,\"headers\":true,\"max_payload\":1048576,\"proto\":1,\"client_id\":1}\r\n")
            .await?;
        let mut fence = String::new();
        let mut sent = false;
        while let Some(line) = lines.next_line().await? {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["PING"] => write.write_all(b"PONG\r\n").await?,
                ["SUB", "fence", sid] => fence = sid.to_owned(),
                ["PUB", "fence", _] => {
                    let message = format!("MSG fence {fence} 0\r\n\r\n");
                    write.write_all(message.as_bytes()).await?;
                }
                ["UNSUB", sid, ..] if sid != fence && !sent => {
                    sent = true;
                    for _ in 0..ON_THEIR_WAY {
                        let message = format!("MSG asked {sid} 2\r\n{{}}\r\n");
                        write.write_all(message.as_bytes()).await?;
                        // On a way that takes its time.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn what_is_on_its_way_when_a_subscription_ends_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            serve(stream).await
        });
        let client = async_nats::connect(address).await.expect("a broker");
        let subscriber = client.subscribe("asked").await.expect("connected");
        let mut subscriptions = SelectAll::new();
        subscriptions.push(subscriber);
        let mut taken = 0;
        leave(&client, "fence".to_owned(), subscriptions, |_| taken += 1).await;
        assert_eq!(taken, ON_THEIR_WAY);
    }
}
