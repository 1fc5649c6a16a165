//! Everything that is wrong with a configuration, reported at once.

use std::borrow::Cow;
use std::fmt;

use crate::list::{Line, ListError};
use crate::quote::OneLine;

/// One bad entry, shown as `VARIABLE line N: 'text': reason; remedy`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    variable: Cow<'static, str>,
    line: Option<u32>,
    text: Option<String>,
    message: String,
    legacy: Option<String>,
}

impl Diagnostic {
    /// What is wrong with a variable. The message is lower case, on one line:
    /// `reason; remedy`.
    pub fn new(variable: impl Into<Cow<'static, str>>, message: impl fmt::Display) -> Self {
        Self {
            variable: variable.into(),
            line: None,
            text: None,
            message: message.to_string(),
            legacy: None,
        }
    }

    /// What is wrong with one line of a list.
    pub fn at(
        variable: impl Into<Cow<'static, str>>,
        line: Line<'_>,
        message: impl fmt::Display,
    ) -> Self {
        let mut diagnostic = Self::new(variable, message).text(line.text());
        diagnostic.line = Some(line.number());
        diagnostic
    }

    /// Adds the offending text.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.text = Some(text.to_owned());
        self
    }

    /// Adds the sentence with which the image we replace stopped here, for
    /// scripts that match it.
    #[must_use]
    pub fn legacy(mut self, sentence: impl Into<String>) -> Self {
        self.legacy = Some(sentence.into());
        self
    }
}

impl From<ListError> for Diagnostic {
    fn from(error: ListError) -> Self {
        let diagnostic = Self::new(error.variable().to_owned(), &error);
        match error.path() {
            Some(path) => diagnostic.text(&path.to_string_lossy()),
            None => diagnostic,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Even a name may be anything: the warning of unknown variables shows it.
        write!(f, "{}", OneLine(&self.variable))?;
        if let Some(line) = self.line {
            write!(f, " line {line}")?;
        }
        if let Some(text) = &self.text {
            write!(f, ": '{}'", OneLine(text))?;
        }
        write!(f, ": {}", OneLine(&self.message))
    }
}

/// Something that may be meant, but probably is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning(Diagnostic);

impl Warning {
    /// What to look at in a variable: `reason; remedy`.
    pub fn new(variable: impl Into<Cow<'static, str>>, message: impl fmt::Display) -> Self {
        Self(Diagnostic::new(variable, message))
    }

    /// Adds the text it is about.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        Self(self.0.text(text))
    }

    /// Adds the number of the line it is about.
    #[must_use]
    pub fn line(mut self, number: u32) -> Self {
        self.0.line = Some(number);
        self
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Every bad entry of a configuration and every warning, in the order in
/// which they were found.
///
/// `Display` is the whole report without a final newline: the warnings, the
/// bad entries, and last the sentence with which the image we replace would
/// have stopped at the first of them that it knew.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Diagnostics {
    errors: Vec<Diagnostic>,
    warnings: Vec<Warning>,
}

impl Diagnostics {
    /// Nothing is wrong so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a bad entry.
    pub fn error(&mut self, diagnostic: impl Into<Diagnostic>) {
        self.errors.push(diagnostic.into());
    }

    /// Adds a warning.
    pub fn warn(&mut self, warning: Warning) {
        self.warnings.push(warning);
    }

    /// The bad entries.
    #[must_use]
    pub fn errors(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// The warnings.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The warnings alone, for a configuration that is usable.
    #[must_use]
    pub fn into_warnings(self) -> Vec<Warning> {
        self.warnings
    }

    /// The sentence of the image we replace for the first bad entry that it
    /// would have stopped at.
    #[must_use]
    pub fn legacy(&self) -> Option<&str> {
        self.errors
            .iter()
            .find_map(|diagnostic| diagnostic.legacy.as_deref())
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for warning in &self.warnings {
            write!(f, "{separator}warning: {warning}")?;
            separator = "\n";
        }
        for error in &self.errors {
            write!(f, "{separator}{error}")?;
            separator = "\n";
        }
        match self.legacy() {
            Some(sentence) => write!(f, "{separator}{}", OneLine(sentence)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::List;

    #[test]
    fn the_report_ends_with_the_first_known_sentence() {
        let list = List::new("X", "\na\u{1b}\nb");
        let mut lines = list.lines();
        let mut diagnostics = Diagnostics::new();
        diagnostics.error(Diagnostic::new("NEW", "is new").text("value"));
        diagnostics.error(
            Diagnostic::at("X", lines.next().unwrap().unwrap(), "is bad; fix it")
                .legacy("Bad destination 'a\u{1b}'"),
        );
        diagnostics.warn(Warning::new("Y", "is odd").text("y").line(7));
        diagnostics.error(
            Diagnostic::at("X", lines.next().unwrap().unwrap(), "is worse").legacy("second"),
        );
        assert_eq!(
            diagnostics.to_string(),
            "warning: Y line 7: 'y': is odd\n\
             NEW: 'value': is new\n\
             X line 2: 'a\\u{1b}': is bad; fix it\n\
             X line 3: 'b': is worse\n\
             Bad destination 'a\\u{1b}'"
        );
    }

    #[test]
    fn a_strange_name_stays_on_its_line() {
        let warning = Warning::new("EGRESS_\r\u{1b}[2J", "is unknown");
        assert_eq!(warning.to_string(), "EGRESS_\\r\\u{1b}[2J: is unknown");
    }

    #[test]
    fn without_a_known_sentence_the_last_entry_is_last() {
        let mut diagnostics = Diagnostics::new();
        diagnostics.error(Diagnostic::new("NEW", "is\nbad"));
        assert_eq!(diagnostics.to_string(), "NEW: is\\nbad");
        assert_eq!(diagnostics.legacy(), None);
    }
}
