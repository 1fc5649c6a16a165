//! The command line.

use clap::{Arg, Command as Clap};
use egress_config::{Program, help_text};
use egress_runtime::command_line::{self, Answer, Output, text_or_json};

/// What the program is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Serve.
    Run,
    /// Say whether the configuration is good.
    Check,
    /// Show the rules in force.
    Rules(Output),
    /// Say what would become of a request.
    CheckUrl { url: String, output: Output },
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
        Some(("check", _)) => Command::Check,
        Some(("rules", matches)) => Command::Rules(Output::of(matches)),
        Some(("check-url", matches)) => Command::CheckUrl {
            url: matches
                .get_one::<String>("url")
                .cloned()
                .unwrap_or_default(),
            output: Output::of(matches),
        },
        _ => Command::Run,
    })
}

fn command() -> Clap {
    Clap::new("egress-http-proxy")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "HTTP forward and CONNECT proxy of an egress router pod. Without a command it serves.",
        )
        .after_help(format!(
            "{}\nExit status: 0 done, 64 bad configuration, 77 missing capability or \
             permission, 1 failed, or denied by check-url.",
            help_text(Program::HttpProxy)
        ))
        .subcommand(Clap::new("check").about("Says whether the configuration is good"))
        .subcommand(
            Clap::new("rules")
                .about("Shows the rules in order; changes nothing, needs no privilege")
                .arg(text_or_json()),
        )
        .subcommand(
            Clap::new("check-url")
                .about("Says what would become of a request, and the rule that decides")
                .arg(
                    Arg::new("url")
                        .value_name("URL")
                        .required(true)
                        .help("http://HOST[:PORT]/PATH, https://HOST[:PORT]/ or HOST:PORT"),
                )
                .arg(text_or_json()),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, Answer> {
        let program = std::iter::once("egress-http-proxy");
        parse(program.chain(arguments.iter().copied()).map(Into::into))
    }

    #[test]
    fn commands_are_told_apart() {
        assert_eq!(parsed(&[]), Ok(Command::Run));
        assert_eq!(parsed(&["check"]), Ok(Command::Check));
        assert_eq!(parsed(&["rules"]), Ok(Command::Rules(Output::Text)));
        assert_eq!(
            parsed(&["check-url", "-o", "json", "https://a.test/"]),
            Ok(Command::CheckUrl {
                url: "https://a.test/".to_owned(),
                output: Output::Json,
            })
        );
        assert!(parsed(&["plan"]).unwrap_err().is_error());
        assert!(parsed(&["check-url"]).unwrap_err().is_error());
    }

    #[test]
    fn help_lists_every_variable() {
        let help = parsed(&["--help"]).unwrap_err();
        assert!(!help.is_error());
        for spec in egress_config::variables::TABLE {
            if spec.is_read_by(Program::HttpProxy) {
                assert!(help.text().contains(spec.name()), "{}", spec.name());
            }
        }
    }
}
