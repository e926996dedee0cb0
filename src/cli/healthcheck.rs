//! `mufakat healthcheck`: asks a node on this machine whether it is ready, for containers and supervisors.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli::output::write_out;

/// A node answers from memory; one that takes longer is not ready.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Status line, headers and one line of reason are far shorter.
const ANSWER_BYTES_MAX: u64 = 8 * 1024;

/// Check over HTTP whether a node is ready, for containers and supervisors
///
/// Prints the answer of `/readyz`. Exits with 1 if the node is not ready or does not answer within
/// 2 s.
///
/// Examples:
///   mufakat healthcheck
///   mufakat healthcheck --http 127.0.0.1:5002
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct HealthcheckArgs {
    /// The node's own --http; for every address (0.0.0.0) the loopback address is asked.
    #[arg(
        long,
        env = "MUFAKAT_HTTP",
        hide_env_values = true,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:5001"
    )]
    http: SocketAddr,
}

/// Prints the answer of a node that is ready.
///
/// # Errors
/// The node is not ready, or does not answer.
pub(super) async fn run(args: &HealthcheckArgs) -> Result<()> {
    let address = reachable(args.http);
    let asked = tokio::time::timeout(ANSWER_MAX, ask(address)).await;
    let answer = asked
        .with_context(|| format!("{address} did not answer within {ANSWER_MAX:?}"))?
        .with_context(|| format!("cannot reach a node at {address}"))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("the server at {address} does not speak HTTP"))?;
    let body = body.trim_end().to_owned();
    match head.split(' ').nth(1) {
        Some("200") => {
            write_out(body)?;
            Ok(())
        }
        _ => bail!("not ready: {body}"),
    }
}

/// A server that listens on every address is asked on the loopback one.
fn reachable(http: SocketAddr) -> SocketAddr {
    let ip = match http.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, http.port())
}

async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_string(&mut answer)
        .await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_here() {
        for (given, asked) in [
            ("0.0.0.0:5001", "127.0.0.1:5001"),
            ("[::]:5001", "[::1]:5001"),
            ("10.0.0.7:80", "10.0.0.7:80"),
        ] {
            assert_eq!(reachable(given.parse().unwrap()).to_string(), asked);
        }
    }
}
