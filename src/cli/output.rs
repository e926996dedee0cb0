//! The output of commands: data to stdout, the rest to stderr.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes lines to stdout. False once the reader has closed the pipe, as `head` does.
pub(crate) fn write_out(mut out: String) -> io::Result<bool> {
    if !out.ends_with('\n') {
        out.push('\n');
    }
    match io::stdout().write_all(out.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

/// Writes a line to stderr. A failure (a full disk, a closed pipe) is ignored: it must not stop what the line is
/// about.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
