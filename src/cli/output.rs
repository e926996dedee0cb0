//! The output of commands: data to stdout, the rest to stderr.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Writes lines to stdout. False once the reader has closed the pipe, as `head` does. On a terminal, control characters
/// are [made harmless](shown).
pub(crate) fn write_out(mut out: String) -> io::Result<bool> {
    if !out.ends_with('\n') {
        out.push('\n');
    }
    match io::stdout().is_terminal() {
        true => write(&shown(&out)),
        false => write(&out),
    }
}

/// Clears the terminal that stdout is.
pub(crate) fn clear_screen() -> io::Result<bool> {
    write(CLEAR)
}

fn write(out: &str) -> io::Result<bool> {
    match io::stdout().write_all(out.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

/// The text with control characters, except tabs and line ends, as JSON writes them. Payloads and names come from
/// others; a terminal would obey their control characters, and set its title or fill the clipboard.
fn shown(out: &str) -> Cow<'_, str> {
    let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !out.contains(is_control) {
        return Cow::Borrowed(out);
    }
    let mut text = String::with_capacity(out.len() + 16);
    for c in out.chars() {
        match is_control(c) {
            true => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => text.push(c),
        }
    }
    Cow::Owned(text)
}

/// Writes a line to stderr. A failure (a full disk, a closed pipe) is ignored: it must not stop what the line is
/// about.
pub(crate) fn say(line: impl Display) {
    let line = line.to_string();
    let line = match io::stderr().is_terminal() {
        true => shown(&line),
        false => Cow::Borrowed(&*line),
    };
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_by_what_it_shows() {
        let title = "a\x1b]0;pwned\x07\tb\r\nc\u{9b}2J\u{7f} ü";
        let expected = "a\\u001b]0;pwned\\u0007\tb\\u000d\nc\\u009b2J\\u007f ü";
        assert_eq!(shown(title), expected);
        // In JSON too it stays what it was.
        let json = serde_json::to_string("\u{9b}\u{7f}").expect("JSON");
        let back: String = serde_json::from_str(&shown(&json)).expect("JSON");
        assert_eq!(back, "\u{9b}\u{7f}");
        assert!(matches!(shown("plain\n"), Cow::Borrowed("plain\n")));
    }
}
