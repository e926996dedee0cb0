//! Error codes: the one file that maps a code to its status, outcome and whether to retry.

/// Every error code that a reply can carry, as in the contract's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    BadRequest,
    UnknownOperation,
}
