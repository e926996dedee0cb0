//! What commands write: data to stdout, the rest to stderr.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes lines to stdout; false when whoever reads has seen enough, as `head` does.
pub(crate) fn write_out(mut out: String) -> io::Result<bool> {
    if !out.ends_with('\n') {
        out.push('\n');
    }
    match io::stdout().write_all(out.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

/// Says a line on stderr. Where it cannot be written, with a full disk or nobody who reads, all that the
/// line is about is done all the same.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
