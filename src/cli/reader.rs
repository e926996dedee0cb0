//! Whoever reads what is printed: commands that show what happens until Ctrl-C end with their reader, too,
//! as `head` has seen enough.

use std::future::pending;
use std::io;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::Failure;

/// Shows what happens until that ends by itself, or the reader of stdout is gone.
pub(super) async fn while_read(
    show: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        shown = show => shown,
        () = reader_gone() => Ok(()),
    }
}

/// Returns once nobody can read what is written to stdout any more. A file has no reader that could go.
async fn reader_gone() {
    let (gone, told) = oneshot::channel();
    // A thread that ends with the process at the latest: it only waits.
    thread::spawn(move || {
        let stdout = io::stdout();
        // Asked for nothing, the system tells of errors and ends.
        let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
        let found = loop {
            match poll(&mut asked, None) {
                Err(Errno::INTR) => {}
                found => break found,
            }
        };
        if found.is_ok() {
            // Nobody waits for it when the command has ended by itself.
            let _ = gone.send(());
        }
    });
    if told.await.is_err() {
        pending().await
    }
}
