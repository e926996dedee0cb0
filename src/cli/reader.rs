//! Ends commands that would print until Ctrl-C once nobody reads their output, as behind `head`.

use std::future::pending;
use std::io;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::Failure;

/// Runs `show` until it ends by itself, or the reader of stdout is gone.
pub(super) async fn while_read(
    show: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        shown = show => shown,
        () = reader_gone() => Ok(()),
    }
}

/// Returns once nobody can read stdout any more. A file has no reader, so it never returns for one.
async fn reader_gone() {
    let (gone, told) = oneshot::channel();
    // The thread only waits; it ends with the process at the latest.
    thread::spawn(move || {
        let stdout = io::stdout();
        // Without any requested event, poll still reports errors and hang-ups.
        let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
        let found = loop {
            match poll(&mut asked, None) {
                Err(Errno::INTR) => {}
                found => break found,
            }
        };
        if found.is_ok() {
            // The receiver is gone if the command has ended by itself.
            let _ = gone.send(());
        }
    });
    if told.await.is_err() {
        pending().await
    }
}
