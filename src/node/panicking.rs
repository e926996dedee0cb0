//! The end of a node in which something panicked.
//!
//! A panic ends the task or thread that it is in, and no other: a node could go on leading, say, while
//! nothing takes its clients' requests any more. So the whole process ends at once, without handing
//! anything over. That is what SIGKILL does, which loses nothing that was acknowledged; others take over,
//! and whoever watches over the process starts it again.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::{panic, process, thread};

/// From now on a panic anywhere is logged, and ends this process by SIGABRT.
pub(super) fn end_the_process() {
    panic::set_hook(Box::new(|panicked| {
        let thread = thread::current();
        let thread = thread.name().unwrap_or("without a name");
        tracing::error!(thread, "this node ends: {panicked}");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tracing::error!("{backtrace}");
        }
        process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    const CHILD: &str = "MUFAKAT_TEST_PANICKING";

    #[test]
    fn a_panic_in_one_task_ends_the_process_and_is_logged() {
        let child = "node::panicking::tests::child_panics_in_a_task";
        let child = Command::new(std::env::current_exe().expect("this is a program"))
            .args(["--exact", child, "--nocapture"])
            .env(CHILD, "")
            .output()
            .expect("it can be run again");
        let log = String::from_utf8_lossy(&child.stderr);
        let abort = rustix::process::Signal::ABORT.as_raw();
        assert_eq!(child.status.signal(), Some(abort), "{log}");
        assert!(
            log.contains("this node ends: panicked at src/node/"),
            "{log}"
        );
        assert!(log.contains("something is broken"), "{log}");
    }

    #[tokio::test]
    async fn child_panics_in_a_task() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        tracing_subscriber::fmt().with_writer(io::stderr).init();
        end_the_process();
        let task = tokio::spawn(async { panic!("something is broken") });
        let ended = tokio::time::timeout(Duration::from_secs(10), task).await;
        panic!("this process goes on: {ended:?}");
    }
}
