//! A way between a node and the broker that takes time, as between hosts that are far from each other.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;
/// Chunks on their way in one direction of a connection; then the sender is not read any more.
const CHUNKS_MAX: usize = 1_024;

/// Takes connections and passes them on to the broker; gone with them when it is dropped.
///
/// What is on its way when a delay is changed keeps its own, and nothing overtakes.
pub struct Link {
    port: u16,
    to_broker: Delay,
    from_broker: Delay,
    passing: JoinHandle<()>,
}

/// How long a direction takes, in milliseconds.
type Delay = Arc<AtomicU64>;

impl Link {
    pub async fn to(broker_port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (to_broker, from_broker) = (Delay::default(), Delay::default());
        let delays = (to_broker.clone(), from_broker.clone());
        let passing = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((node, _)) = listener.accept().await {
                connections.spawn(pass(node, broker_port, delays.clone()));
            }
        });
        Link {
            port,
            to_broker,
            from_broker,
            passing,
        }
    }

    /// Where the node finds the broker.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How long each direction takes from now on, in milliseconds.
    pub fn set_delays(&self, to_broker_ms: u64, from_broker_ms: u64) {
        self.to_broker.store(to_broker_ms, Ordering::Relaxed);
        self.from_broker.store(from_broker_ms, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

/// One connection, until either end closes it. Without the broker it is closed at once.
async fn pass(node: TcpStream, broker_port: u16, (there, back): (Delay, Delay)) {
    let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, broker_port)).await else {
        return;
    };
    for end in [&node, &broker] {
        end.set_nodelay(true).expect("it is a TCP connection");
    }
    let (from_node, to_node) = node.into_split();
    let (from_broker, to_broker) = broker.into_split();
    tokio::select! {
        () = carry(from_node, to_broker, there) => {}
        () = carry(from_broker, to_node, back) => {}
    }
}

/// One direction of a connection, until its sender closes it and all has arrived.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Delay) {
    let (sender, mut on_its_way) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let depart = async move {
        let mut latest = Instant::now();
        let mut chunk = vec![0; CHUNK];
        while let Ok(read @ 1..) = from.read(&mut chunk).await {
            let delay = Duration::from_millis(delay.load(Ordering::Relaxed));
            latest = latest.max(Instant::now() + delay);
            if sender.send((latest, chunk[..read].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let arrive = async move {
        while let Some((at, bytes)) = on_its_way.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(depart, arrive);
}

#[tokio::test]
async fn a_link_delivers_late_and_in_order() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let link = Link::to(listener.local_addr().unwrap().port()).await;
    link.set_delays(200, 0);
    let mut node = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port()))
        .await
        .unwrap();
    let (mut broker, _) = listener.accept().await.unwrap();
    let sent = Instant::now();
    node.write_all(b"first ").await.unwrap();
    let mut text = [0; 6];
    broker.read_exact(&mut text).await.unwrap();
    assert!(
        sent.elapsed() >= Duration::from_millis(200),
        "it was too fast"
    );
    node.write_all(b"slow ").await.unwrap();
    // The other direction has a time of its own.
    let sent = Instant::now();
    broker.write_all(b"back").await.unwrap();
    let mut back = [0; 4];
    node.read_exact(&mut back).await.unwrap();
    assert!(
        sent.elapsed() < Duration::from_millis(200),
        "it was too slow"
    );
    link.set_delays(0, 0);
    node.write_all(b"fast").await.unwrap();
    let mut rest = [0; 9];
    broker.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"slow fast");
    // The end of a connection passes, too.
    drop(node);
    assert_eq!(broker.read(&mut rest).await.unwrap(), 0);
}
