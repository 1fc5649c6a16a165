//! The command line.

use clap::Command as Clap;
use egress_config::{Program, help_text};
use egress_runtime::command_line::{self, Answer, Output, text_or_json};

/// What the program is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Serve.
    Run,
    /// Say what would be served.
    Rules(Output),
    /// Say whether the configuration is good.
    Check,
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
        Some(("rules", matches)) => Command::Rules(Output::of(matches)),
        Some(("check", _)) => Command::Check,
        _ => Command::Run,
    })
}

fn command() -> Clap {
    Clap::new("egress-dns-proxy")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "TCP and UDP proxy to named hosts of an egress router pod. Without a command it \
             serves.",
        )
        .after_help(format!(
            "{}\nExit status: 0 done, 64 bad configuration, 77 missing capability or \
             permission, 1 failed.",
            help_text(Program::DnsProxy)
        ))
        .subcommand(
            Clap::new("rules")
                .about("Says which ports would lead where; needs no privilege")
                .arg(text_or_json()),
        )
        .subcommand(Clap::new("check").about("Says whether the configuration is good"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, Answer> {
        parse(
            std::iter::once("egress-dns-proxy")
                .chain(arguments.iter().copied())
                .map(Into::into),
        )
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn commands_and_their_forms() {
        assert_eq!(parsed(&[]), Ok(Command::Run));
        assert_eq!(parsed(&["check"]), Ok(Command::Check));
        assert_eq!(parsed(&["rules"]), Ok(Command::Rules(Output::Text)));
        assert_eq!(
            parsed(&["rules", "--output", "json"]),
            Ok(Command::Rules(Output::Json))
        );
        assert!(parsed(&["rules", "-o", "nft"]).unwrap_err().is_error());
        assert!(parsed(&["sing"]).unwrap_err().is_error());
    }

    #[test]
    fn help_names_every_variable() {
        let help = parsed(&["--help"]).unwrap_err();
        assert!(!help.is_error());
        for name in [
            "EGRESS_DNS_PROXY_DESTINATION_FILE",
            "EGRESS_DNS_PROXY_UDP_SESSIONS",
            "EGRESS_RELOAD_EXISTING",
        ] {
            assert!(help.text().contains(name), "{name} in {}", help.text());
        }
    }
}
