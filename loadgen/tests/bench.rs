//! `bench`: the whole set, far too short to say anything, on a cluster that it starts and stops.
//!
//! The program `mufakat` has to be there, beside the load generator: a build of the whole workspace leaves it there.

use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

mod ports;

use ports::{PORTS, free_base};

/// Longer than it takes on a busy machine.
const LONG: Duration = Duration::from_secs(180);

#[tokio::test]
async fn the_set_ends_as_a_page_and_leaves_nothing() {
    let directory = TempDir::new().expect("a directory");
    let base = free_base();
    let bench = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args([
            "bench",
            "--page",
            "page.md",
            "--port-base",
            &base.to_string(),
        ])
        .args(["--duration", "300ms", "--warm-up", "0s", "--clients", "4"])
        .current_dir(directory.path())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LONG, bench).await.expect("in time");
    let output = output.expect("loadgen runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");

    let page = std::fs::read_to_string(directory.path().join("page.md")).expect("a page");
    for row in [
        "| `echo` | echo | ",
        "| `locks` | lock.acquire | ",
        "| `queue --batch 100`, pushes | queue.push | ",
        "| `mix lock=3,queue=1,cache=6 --target spread` | ",
        "| `redis` | rpush | ",
        "| by hand | ",
        "| what a push survives | fsync |",
    ] {
        assert!(page.contains(row), "{row} is not in\n{page}");
    }
    let left = std::fs::read_dir(directory.path().join(".data")).expect("its parent");
    assert_eq!(left.count(), 0, "data goes away with the cluster");
    for port in PORTS {
        let connected = std::net::TcpStream::connect(("127.0.0.1", port + base));
        assert!(connected.is_err(), "somebody listens on {port}");
    }
}
