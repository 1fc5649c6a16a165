//! The command line.

use clap::Command as Clap;
use egress_config::{Program, help_text};
use egress_runtime::command_line::{self, Answer};

/// What the program is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// What `EGRESS_ROUTER_MODE` says.
    Run,
    /// Say what would be done.
    Plan(Output),
    /// Say whether the configuration is good.
    Check,
    /// Say how the router in this namespace is doing.
    Status(Output),
    /// Do nothing until SIGTERM.
    Wait,
    /// Take the router away.
    Undo,
}

/// Form of an answer on standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// The packet rules alone, for `nft -f`.
    Nft,
}

/// Reads the arguments, the program's name first.
///
/// # Errors
/// With what to print instead of working.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Command, Answer> {
    let matches = command_line::matches(command(), arguments)?;
    Ok(match matches.subcommand() {
        Some(("plan", matches)) => Command::Plan(output(matches)),
        Some(("check", _)) => Command::Check,
        Some(("status", matches)) => Command::Status(output(matches)),
        Some(("wait", _)) => Command::Wait,
        Some(("undo", _)) => Command::Undo,
        _ => Command::Run,
    })
}

fn output(matches: &clap::ArgMatches) -> Output {
    match command_line::chosen_output(matches) {
        Some("json") => Output::Json,
        Some("nft") => Output::Nft,
        _ => Output::Text,
    }
}

fn command() -> Clap {
    Clap::new("egress-router-init")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "Sets up the network of an egress router pod. Without a command it does what \
             EGRESS_ROUTER_MODE says.",
        )
        .after_help(format!(
            "{}\nExit status: 0 done, 64 bad configuration, 77 missing capability or \
             permission, 1 failed.",
            help_text(Program::RouterInit)
        ))
        .subcommand(
            Clap::new("plan")
                .about("Says what would be done; changes nothing, needs no privilege")
                .arg(command_line::output(&["text", "json", "nft"])),
        )
        .subcommand(Clap::new("check").about("Says whether the configuration is good"))
        .subcommand(
            Clap::new("status")
                .about("Shows interfaces, routes and every mapping with its counters")
                .arg(command_line::output(&["text", "json"])),
        )
        .subcommand(Clap::new("wait").about("Does nothing until SIGTERM; needs no privilege"))
        .subcommand(Clap::new("undo").about("Removes exactly what the router set up"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, Answer> {
        parse(
            std::iter::once("egress-router-init")
                .chain(arguments.iter().copied())
                .map(Into::into),
        )
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn no_command_means_the_mode() {
        assert_eq!(parsed(&[]), Ok(Command::Run));
    }

    #[test]
    fn commands_and_their_forms() {
        assert_eq!(parsed(&["plan"]), Ok(Command::Plan(Output::Text)));
        assert_eq!(
            parsed(&["plan", "--output", "nft"]),
            Ok(Command::Plan(Output::Nft))
        );
        assert_eq!(
            parsed(&["status", "-o", "json"]),
            Ok(Command::Status(Output::Json))
        );
        assert_eq!(parsed(&["wait"]), Ok(Command::Wait));
        assert!(
            parsed(&["status", "--output", "nft"])
                .unwrap_err()
                .is_error()
        );
        assert!(parsed(&["sing"]).unwrap_err().is_error());
    }

    #[test]
    fn help_names_every_variable() {
        let help = parsed(&["--help"]).unwrap_err();
        assert!(!help.is_error());
        for name in [
            "EGRESS_SOURCE",
            "EGRESS_DESTINATION",
            "EGRESS_ADDRESS_PROBE",
        ] {
            assert!(help.text().contains(name), "{name} in {}", help.text());
        }
    }
}
