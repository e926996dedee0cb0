//! `mufakat config …`: what a node would be told, without starting it; and what a shell or a manual
//! needs to know of the command line.

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

/// Whether a node would start with these flags, this environment and this file.
///
/// Takes what `mufakat node` takes, and reads the files that are named, of credentials, certificates and keys.
/// Connects to nothing.
/// Exit code 1 and a message that names the setting, if not.
///
/// Examples:
///   mufakat config check --config /etc/mufakat.toml
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    node: NodeCommand,
}

/// Every setting that would be in force, as TOML, and where it comes from; secrets are left out.
///
/// Examples:
///   mufakat config print --id 1 --peers 1,2,3 --data-dir /var/lib/mufakat
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PrintArgs {
    #[command(flatten)]
    node: NodeCommand,
}

/// Print a script that completes commands in a shell.
///
/// Examples:
///   mufakat completions bash
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CompletionsArgs {
    /// Whose script.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
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

/// Writes the manual page to stdout, in roff.
pub(super) fn man() -> anyhow::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    write(page)
}

fn write(text: Vec<u8>) -> anyhow::Result<()> {
    write_out(String::from_utf8(text)?)?;
    Ok(())
}
