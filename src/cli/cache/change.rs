//! The arguments that all changes of a key share.

use clap::Args;

use crate::protocol::cache::{If, Repeat};

/// The condition under which a change is made.
#[derive(Args)]
pub(super) struct ConditionArgs {
    /// Only if the key has no value.
    #[arg(long, conflicts_with_all = ["if_present", "if_version"])]
    if_absent: bool,
    /// Only if the key has a value.
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

/// The id of a write, by which repeats are recognised.
#[derive(Args)]
pub(super) struct RepeatArgs {
    /// Id of this write; repeating it with the same id returns the first result.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// The write may have been sent before: fail (`indeterminate`) if the node cannot tell.
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
