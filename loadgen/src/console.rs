//! What is printed. Nobody may be there to read it any more, as behind `| head`: that ends no run and loses no file.

use std::fmt::Display;
use std::io::Write;

/// Prints results, as they are, on stdout.
pub fn print(text: impl Display) {
    let _ = write!(std::io::stdout(), "{text}");
}

/// Prints a line for people on stderr.
pub fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
