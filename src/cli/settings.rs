//! `mufakat config …`: the configuration of a node without starting it. Also the shell completions and the manual
//! pages.

use anyhow::Context;
use clap::{Args, CommandFactory, Subcommand};
use clap_complete::Shell;

use crate::cli::output::{say, write_out};
use crate::cli::{Cli, NodeCommand};
use crate::config::{self, Config};
use crate::node;

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    Check(Box<CheckArgs>),
    Print(Box<PrintArgs>),
}

/// Check whether a node would start with these flags, variables and files
///
/// Takes the flags of `mufakat node`, and also reads the credentials, certificates and keys that they
/// name. Connects to nothing. If the node would not start, prints the setting that is wrong and exits
/// with 1.
///
/// Examples:
///   mufakat config check --config /etc/mufakat.toml
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    node: NodeCommand,
}

/// Print every setting that a node would use, as TOML, and its source, without secrets
///
/// Examples:
///   mufakat config print --id 1 --peers 1,2,3 --data-dir /var/lib/mufakat
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PrintArgs {
    #[command(flatten)]
    node: NodeCommand,
}

/// Print a script for a shell to complete commands
///
/// Examples:
///   mufakat completions bash
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// Print a manual page in roff
///
/// Examples:
///   mufakat man
///   mufakat man lock acquire
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ManArgs {
    /// The command, such as `lock acquire` [default: the main page].
    #[arg(value_name = "SUBCOMMAND")]
    subcommand: Vec<String>,
}

pub(super) fn run(command: ConfigCommand) -> anyhow::Result<()> {
    let environment = config::environment();
    match command {
        ConfigCommand::Check(args) => {
            let nats = args.node.nats.clone();
            let config = Config::load(args.node.settings()?, environment)?;
            node::check(&config, &nats)?;
            for warning in config.warnings() {
                say(format_args!("mufakat: {warning}"));
            }
            write_out(format!("node {} would start", config.id))?;
        }
        ConfigCommand::Print(args) => {
            write_out(Config::in_force(args.node.settings()?, environment)?)?;
        }
    }
    Ok(())
}

/// Writes the completions to stdout.
pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mufakat", &mut script);
    write(script)
}

/// Writes the page of a command to stdout, in roff.
pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    write(page(&args.subcommand)?)
}

fn page(of: &[String]) -> anyhow::Result<Vec<u8>> {
    let mut program = Cli::command().disable_help_subcommand(true);
    // Pages have the names of all commands before theirs, and the flags that all commands share.
    program.build();
    let mut command = &program;
    for name in of {
        let found = command.find_subcommand(name);
        command = found.with_context(|| format!("there is no command `{}`", of.join(" ")))?;
    }
    let version = env!("CARGO_PKG_VERSION");
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .source(format!("mufakat {version}"))
        .render(&mut page)?;
    Ok(page)
}

fn write(text: Vec<u8>) -> anyhow::Result<()> {
    write_out(String::from_utf8(text)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the page of a command, and of what is under it, each of which its page refers to.
    fn has_pages(command: &clap::Command, path: &[String]) {
        let text = page(path).expect("it is there");
        let text = String::from_utf8(text).expect("text").replace("\\-", "-");
        let name = [&["mufakat".to_owned()], path].concat().join("-");
        assert!(text.contains(&format!(".TH {name} 1")), "{text}");
        for sub in command.get_subcommands() {
            assert!(text.contains(&format!("{name}-{}(1)", sub.get_name())));
            has_pages(sub, &[path, &[sub.get_name().to_owned()]].concat());
        }
    }

    #[test]
    fn every_command_has_its_page() {
        has_pages(&Cli::command(), &[]);
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let shared = String::from_utf8(page(&words("lock acquire")).expect("one")).expect("text");
        assert!(shared.contains("NATS_URL"), "{shared}");
        let none = page(&words("lock steal")).expect_err("there is none");
        assert_eq!(none.to_string(), "there is no command `lock steal`");
    }
}
