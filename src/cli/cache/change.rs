//! What changes of a key have in common on the command line.

use clap::Args;

use crate::protocol::cache::{If, Repeat};

/// What must be so for a change to be made.
#[derive(Args)]
pub(super) struct ConditionArgs {
    /// Only if there is no value.
    #[arg(long, conflicts_with_all = ["if_present", "if_version"])]
    if_absent: bool,
    /// Only if there is a value.
    #[arg(long, conflicts_with = "if_version")]
    if_present: bool,
    /// Only if the value has this version.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<String>,
}

impl ConditionArgs {
    pub(super) fn condition(self) -> Option<If> {
        let condition = If {
            absent: self.if_absent,
            present: self.if_present,
            version: self.if_version,
        };
        (condition != If::default()).then_some(condition)
    }
}

/// Which write of a key it is.
#[derive(Args)]
pub(super) struct RepeatArgs {
    /// The name of this write: asked again with the same one, it gets the first answer.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// It may have been made before: then fail where that would not be known.
    #[arg(long, requires = "request_id")]
    repeat: bool,
}

impl RepeatArgs {
    pub(super) fn repeat(self) -> Repeat {
        Repeat {
            request_id: self.request_id,
            repeat: self.repeat,
        }
    }
}
