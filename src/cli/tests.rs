//! The help and the parsing of every command line.

use clap::CommandFactory;

use super::*;

/// Lines longer than this wrap on a terminal that is 100 columns wide.
const HELP_COLUMNS_MAX: usize = 100;

/// The full help of every command.
fn helps(command: &mut clap::Command, found: &mut Vec<String>) {
    found.push(command.render_long_help().to_string());
    for sub in command.get_subcommands_mut() {
        helps(sub, found);
    }
}

/// Calls `check` for this command and for all below it.
fn each(command: &clap::Command, check: &mut impl FnMut(&clap::Command)) {
    check(command);
    command.get_subcommands().for_each(|sub| each(sub, check));
}

fn built() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

#[test]
fn every_example_in_the_help_is_understood() {
    let mut found = Vec::new();
    helps(&mut Cli::command(), &mut found);
    let examples: Vec<&str> = found
        .iter()
        .flat_map(|help| help.lines())
        .filter_map(|line| line.strip_prefix("  mufakat "))
        .collect();
    assert!(examples.len() >= 12, "{examples:?}");
    for example in examples {
        let before_pipe = example.split(" | ").next().unwrap().replace('\'', "");
        let words = ["mufakat"].into_iter().chain(before_pipe.split(' '));
        if let Err(error) = Cli::try_parse_from(words) {
            panic!("{example}: {error}");
        }
    }
}

/// Texts of commands are printed as they are written here: a longer line leaves single words on lines of their own.
#[test]
fn no_line_of_the_help_is_too_long() {
    each(&built(), &mut |command| {
        let texts = [
            command.get_about(),
            command.get_long_about(),
            command.get_after_help(),
        ];
        let texts = texts.into_iter().flatten().map(ToString::to_string);
        let rendered = command.clone().render_long_help().to_string();
        for line in texts.chain([rendered]).flat_map(|text| lines_of(&text)) {
            let columns = line.chars().count();
            assert!(
                columns <= HELP_COLUMNS_MAX,
                "{}: {line}",
                command.get_name()
            );
        }
    });
}

fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Lists show the first line of each command's help: it is different for each, and not followed by a period.
#[test]
fn every_command_has_a_summary_of_its_own() {
    each(&built(), &mut |command| {
        let mut seen = std::collections::BTreeSet::new();
        for sub in command.get_subcommands() {
            let name = sub.get_name();
            let line = sub.get_about().expect(name).to_string();
            assert!(
                !line.contains('\n') && !line.ends_with('.'),
                "{name}: {line}"
            );
            assert!(seen.insert(line), "{name}: the summary of another command");
        }
    });
}

#[test]
fn every_argument_has_help_and_hides_the_value_of_its_variable() {
    each(&built(), &mut |command| {
        for arg in command.get_arguments() {
            let place = format!("{} {}", command.get_name(), arg.get_id());
            let help = arg.get_help().expect(&place).to_string();
            assert!(!help.is_empty() && !help.ends_with('.'), "{place}: {help}");
            let shows = arg.get_env().is_some() && !arg.is_hide_env_values_set();
            assert!(!shows, "{place}");
        }
    });
}

#[test]
fn flags_of_the_connection_may_stand_after_the_verb() {
    let line = "mufakat lock release a 7 --nats nats://x:1 --nats-token t --prefix p --json";
    Cli::command().debug_assert();
    assert!(Cli::try_parse_from(line.split(' ')).is_ok());
}

#[test]
fn lengths_have_units() {
    assert_eq!(length_ms("250ms"), Ok(250));
    assert_eq!(length_ms("1m 30s"), Ok(90_000));
    assert!(length_ms("30").unwrap_err().contains("write 250ms"));
    assert!(node_id("0").is_err());
}
