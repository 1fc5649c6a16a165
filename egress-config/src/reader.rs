//! Reads typed values out of an environment and collects what is wrong.

use std::fmt::Display;

use crate::diagnostics::{Diagnostic, Diagnostics, Warning};
use crate::environment::Environment;
use crate::list::{List, ListVariable};
use crate::unknown::unknown_variables;
use crate::variables::{DefaultValue, Program, VariableSpec};

/// Reads the variables of one program. Nothing stops at the first bad entry:
/// what is bad is reported and reads as `None`, and [`Reader::finish`] refuses
/// the whole.
pub struct Reader<'e> {
    environment: &'e dyn Environment,
    diagnostics: Diagnostics,
}

impl<'e> Reader<'e> {
    /// Starts reading; variables that no program knows are warned of.
    #[must_use]
    pub fn new(environment: &'e dyn Environment, program: Program) -> Self {
        let mut diagnostics = Diagnostics::new();
        for warning in unknown_variables(environment, program) {
            diagnostics.warn(warning);
        }
        Self {
            environment,
            diagnostics,
        }
    }

    /// The value without the blanks around it; `None` when it is not set or
    /// has nothing but blanks.
    pub fn text(&mut self, variable: &VariableSpec) -> Option<String> {
        match self.environment.var(variable.name()) {
            Ok(value) => value
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty()),
            Err(error) => {
                self.error(Diagnostic::new(variable.name(), error));
                None
            }
        }
    }

    /// The parsed value, or that of the default when the variable is not set.
    /// `None` when it is bad, or not set and without a default value.
    pub fn value<T, E: Display>(
        &mut self,
        variable: &VariableSpec,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.parsed(variable, parse, |diagnostic, _| diagnostic)
    }

    /// The same as [`Reader::value`] for a variable of the image we replace:
    /// `legacy` makes its sentence about a bad text.
    pub fn legacy_value<T, E: Display>(
        &mut self,
        variable: &VariableSpec,
        parse: impl FnOnce(&str) -> Result<T, E>,
        legacy: impl FnOnce(&str) -> String,
    ) -> Option<T> {
        self.parsed(variable, parse, |diagnostic, text| {
            diagnostic.legacy(legacy(text))
        })
    }

    fn parsed<T, E: Display>(
        &mut self,
        variable: &VariableSpec,
        parse: impl FnOnce(&str) -> Result<T, E>,
        complete: impl FnOnce(Diagnostic, &str) -> Diagnostic,
    ) -> Option<T> {
        let text = match (self.text(variable), variable.default()) {
            (Some(text), _) => text,
            (None, DefaultValue::Value(text)) => text.to_owned(),
            (None, DefaultValue::Required | DefaultValue::Described(_)) => return None,
        };
        parse(&text)
            .map_err(|error| {
                let diagnostic = Diagnostic::new(variable.name(), error).text(&text);
                self.error(complete(diagnostic, &text));
            })
            .ok()
    }

    /// The parsed words of a value, which blanks, commas or both separate.
    /// Bad words are reported and left out.
    pub fn words<T, E: Display>(
        &mut self,
        variable: &VariableSpec,
        mut parse: impl FnMut(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let Some(text) = self.text(variable) else {
            return Vec::new();
        };
        words(&text)
            .filter_map(|word| {
                parse(word)
                    .map_err(|error| {
                        self.error(Diagnostic::new(variable.name(), error).text(word));
                    })
                    .ok()
            })
            .collect()
    }

    /// A list from the variable or the file of its twin.
    ///
    /// # Errors
    /// [`Reported`] when neither can be used; the reason has been reported.
    pub fn list(&mut self, variable: &VariableSpec) -> Result<Option<List>, Reported> {
        ListVariable::new(variable.name())
            .read(self.environment)
            .map_err(|error| {
                self.error(error.into());
                Reported
            })
    }

    /// Reports a bad entry.
    pub fn error(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.error(diagnostic);
    }

    /// Reports a warning.
    pub fn warn(&mut self, warning: Warning) {
        self.diagnostics.warn(warning);
    }

    /// What was reported so far.
    pub fn diagnostics(&mut self) -> &mut Diagnostics {
        &mut self.diagnostics
    }

    /// The configuration and its warnings, unless something was bad.
    ///
    /// # Errors
    /// Everything that was reported, when a bad entry was reported or there
    /// is no configuration.
    pub fn finish<T>(self, config: Option<T>) -> Result<(T, Vec<Warning>), Diagnostics> {
        match config {
            Some(config) if self.diagnostics.errors().is_empty() => {
                Ok((config, self.diagnostics.into_warnings()))
            }
            Some(_) | None => Err(self.diagnostics),
        }
    }
}

/// The reason has been reported to the [`Reader`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reported;

/// The words of a text, which blanks, commas or both separate.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| character.is_whitespace() || character == ',')
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MapEnvironment, Port, PortError, parse_duration, variables};

    #[test]
    fn every_default_value_is_what_reading_it_gives() {
        let environment = MapEnvironment::new();
        let mut reader = Reader::new(&environment, Program::RouterInit);
        let probe = reader.value(variables::ADDRESS_PROBE, parse_duration);
        assert_eq!(probe, Some(std::time::Duration::from_millis(400)));
        assert_eq!(reader.text(variables::ADDRESS_PROBE), None);
        assert_eq!(
            reader.finish(probe).map(|(_, warnings)| warnings),
            Ok(vec![])
        );
    }

    #[test]
    fn all_bad_values_are_reported() {
        let environment = MapEnvironment::new()
            .with("EGRESS_LOCAL_PORTS", "80, 0 8080,http\n9090")
            .with("EGRESS_ADDRESS_PROBE", " soon ")
            .with_not_unicode("EGRESS_INTERFACE")
            .with("EGRESS_LOCAL_PORT", "1");
        let mut reader = Reader::new(&environment, Program::RouterInit);
        let ports: Vec<Port> = reader.words(variables::LOCAL_PORTS, str::parse);
        let numbers: Vec<u16> = ports.into_iter().map(Port::get).collect();
        assert_eq!(numbers, [80, 8080, 9090]);
        assert_eq!(reader.value(variables::ADDRESS_PROBE, parse_duration), None);
        assert_eq!(reader.text(variables::INTERFACE), None);
        let report = reader.finish(Some(())).unwrap_err().to_string();
        assert_eq!(
            report,
            format!(
                "warning: EGRESS_LOCAL_PORT: unknown variable, which has no effect; did you mean EGRESS_LOCAL_PORTS?\n\
                 EGRESS_LOCAL_PORTS: '0': {}\n\
                 EGRESS_LOCAL_PORTS: 'http': {}\n\
                 EGRESS_ADDRESS_PROBE: 'soon': {}\n\
                 EGRESS_INTERFACE: value is not valid UTF-8; write plain ASCII text",
                PortError::OutOfRange,
                PortError::NotANumber,
                parse_duration("soon").unwrap_err(),
            )
        );
    }

    #[test]
    fn a_list_that_cannot_be_read_is_reported_once() {
        let environment = MapEnvironment::new().with("EGRESS_DESTINATION_FILE", "/nowhere");
        let mut reader = Reader::new(&environment, Program::RouterInit);
        assert_eq!(reader.list(variables::DESTINATION), Err(Reported));
        let report = reader.finish(Some(())).unwrap_err();
        assert_eq!(report.errors().len(), 1);
        assert!(
            report
                .to_string()
                .starts_with("EGRESS_DESTINATION_FILE: '/nowhere': ")
        );
    }
}
