//! The secret without which the dashboard changes nothing.

use std::fmt;

/// Shorter secrets can be guessed.
const BYTES_MIN: usize = 16;
const BYTES_MAX: usize = 256;

/// A secret of 16 to 256 visible ASCII characters. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(String);

impl AdminToken {
    pub(super) fn new(text: String) -> Result<Self, String> {
        let visible = text.bytes().all(|b| b.is_ascii_graphic());
        match (BYTES_MIN..=BYTES_MAX).contains(&text.len()) && visible {
            true => Ok(AdminToken(text)),
            false => Err(format!(
                "must be {BYTES_MIN} to {BYTES_MAX} visible ASCII characters"
            )),
        }
    }

    /// Whether the text is this token. Takes the same time for every text of the same length.
    pub fn is(&self, text: &str) -> bool {
        let pairs = self.0.bytes().zip(text.bytes());
        let differing = pairs.fold(0, |differing, (a, b)| differing | (a ^ b));
        self.0.len() == text.len() && std::hint::black_box(differing) == 0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_is_it() {
        let token = AdminToken::new("0123456789abcdef".into()).expect("long enough");
        assert!(token.is("0123456789abcdef"));
        for other in [
            "",
            "0123456789abcdeF",
            "0123456789abcdef0",
            "0123456789abcde",
        ] {
            assert!(!token.is(other), "{other}");
        }
        assert!(!format!("{token:?}").contains("0123"));
        for wrong in ["short", "0123456789 abcdef", "0123456789abcdeä"] {
            assert!(AdminToken::new(wrong.into()).is_err(), "{wrong}");
        }
    }
}
