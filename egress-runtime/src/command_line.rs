//! The command line as every program reads it.

use std::ffi::OsString;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command};

use crate::outcome::{Failure, complain, exit, exit_code, say};

/// The name of the argument of [`output`].
const OUTPUT: &str = "output";

/// An answer that needs no work: help, the version, or what is wrong with the
/// arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    text: String,
    is_error: bool,
}

impl Answer {
    /// What to print.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is about a mistake.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.is_error
    }
}

/// Form of an answer on standard output, for [`text_or_json`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl Output {
    /// What `--output` says.
    #[must_use]
    pub fn of(matches: &ArgMatches) -> Self {
        match chosen_output(matches) {
            Some("json") => Self::Json,
            _ => Self::Text,
        }
    }
}

/// Reads the arguments, the program's name first.
///
/// # Errors
/// With what to print instead of working.
pub fn matches(
    command: Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<ArgMatches, Answer> {
    command
        .try_get_matches_from(arguments)
        .map_err(|error| Answer {
            text: error.to_string(),
            is_error: !matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ),
        })
}

/// The argument `--output`, with `text` as its default.
#[must_use]
pub fn output(forms: &'static [&'static str]) -> Arg {
    Arg::new(OUTPUT)
        .long(OUTPUT)
        .short('o')
        .value_name("FORM")
        .value_parser(PossibleValuesParser::new(forms))
        .default_value("text")
        .help("Form of the answer")
}

/// The argument `--output` of an answer that [`Output`] has the forms of.
#[must_use]
pub fn text_or_json() -> Arg {
    output(&["text", "json"])
}

/// What `--output` says; `None` for a command without it.
#[must_use]
pub fn chosen_output(matches: &ArgMatches) -> Option<&str> {
    matches.get_one::<String>(OUTPUT).map(String::as_str)
}

/// Performs what was read, or gives the answer, and returns the exit code.
pub fn perform<C>(
    command: Result<C, Answer>,
    perform: impl FnOnce(C) -> Result<(), Failure>,
) -> u8 {
    match command {
        Ok(command) => exit_code(perform(command)),
        Err(answer) if answer.is_error => {
            complain(&answer.text);
            exit::CONFIG
        }
        Err(answer) => exit_code(say(&answer.text).map_err(Failure::from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("program").version("1.2.3").arg(text_or_json())
    }

    fn parsed(arguments: &[&str]) -> Result<ArgMatches, Answer> {
        let program = std::iter::once("program");
        matches(
            command(),
            program.chain(arguments.iter().copied()).map(Into::into),
        )
    }

    #[test]
    fn help_and_the_version_are_no_mistakes() {
        assert!(!parsed(&["--help"]).unwrap_err().is_error());
        let version = parsed(&["--version"]).unwrap_err();
        assert_eq!(
            (version.text(), version.is_error()),
            ("program 1.2.3\n", false)
        );
        assert!(parsed(&["--nonsense"]).unwrap_err().is_error());
        assert!(parsed(&["--output", "nft"]).unwrap_err().is_error());
    }

    #[test]
    fn forms_have_a_default() {
        assert_eq!(chosen_output(&parsed(&[]).unwrap()), Some("text"));
        assert_eq!(Output::of(&parsed(&[]).unwrap()), Output::Text);
        let json = parsed(&["-o", "json"]).unwrap();
        assert_eq!(chosen_output(&json), Some("json"));
        assert_eq!(Output::of(&json), Output::Json);
    }

    #[test]
    fn mistakes_are_bad_configuration() {
        let mistake = parsed(&["--nonsense"]).map(drop);
        assert_eq!(perform(mistake, |()| Ok(())), exit::CONFIG);
        assert_eq!(perform(Ok(()), |()| Ok(())), exit::DONE);
        let failure = |()| Err(Failure::Failed("no".to_owned()));
        assert_eq!(perform(Ok(()), failure), exit::FAILED);
    }
}
