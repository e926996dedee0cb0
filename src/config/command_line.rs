//! Parses command lines whose flags may also come from the environment.

use std::env;
use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::{Command, Parser};

/// Parses the command line of this process, or ends it with the reason.
///
/// An empty variable counts as not set, as it does for the settings of a node.
pub fn parse<T: Parser>() -> T {
    parse_from(env::args_os())
}

/// Parses these words, of which the first is the program's name, as [`parse`] does.
pub fn parse_from<T: Parser>(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> T {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    let mut matches = without_variables(T::command(), &is_empty).get_matches_from(words);
    T::from_arg_matches_mut(&mut matches)
        .unwrap_or_else(|error| error.format(&mut T::command()).exit())
}

/// The same command, but it ignores these variables.
fn without_variables(command: Command, these: &impl Fn(&OsStr) -> bool) -> Command {
    command
        .mut_args(|arg| match arg.get_env().is_some_and(these) {
            true => arg.env(Resettable::Reset),
            false => arg,
        })
        .mut_subcommands(|subcommand| without_variables(subcommand, these))
}

#[cfg(test)]
mod tests {
    use clap::{Args, CommandFactory, FromArgMatches, Subcommand};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(Subcommand)]
    enum Verb {
        Go(Flags),
    }

    #[derive(Args)]
    struct Flags {
        /// A variable that is set wherever tests run.
        #[arg(long, env = "PATH")]
        path: Option<String>,
    }

    #[test]
    fn a_variable_that_is_not_looked_at_gives_no_value() {
        for (is_empty, given) in [(false, true), (true, false)] {
            let command = without_variables(Line::command(), &|_| is_empty);
            let matches = command.get_matches_from(["line", "go"]);
            let Verb::Go(flags) = Line::from_arg_matches(&matches).expect("valid").verb;
            assert_eq!(flags.path.is_some(), given);
        }
    }
}
