//! A broker of a test's own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A broker that ends with this.
pub struct Broker {
    child: Child,
    pub url: String,
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Fails only for a process that has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Broker {
    /// Starts it and connects to it.
    pub async fn start() -> (Self, async_nats::Client) {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let child = Command::new(nats_server())
            .args(["-a", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server starts: run `make tools`");
        let url = format!("nats://127.0.0.1:{port}");
        let broker = Self { child, url };
        let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let client = options.connect(&broker.url).await.expect("a client");
        let connected = tokio::time::timeout(Duration::from_secs(20), client.flush()).await;
        connected.expect("nats-server answers").expect("it is open");
        (broker, client)
    }
}

fn nats_server() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/nats-server");
    match beside.is_file() {
        true => beside,
        false => "nats-server".into(),
    }
}
