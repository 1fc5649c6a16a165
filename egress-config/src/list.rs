//! Multi-line lists, from a variable or from the file that its twin names.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::environment::{Environment, MAX_FILE_BYTES, NotUnicode};

/// A list variable `X` and its twin `X_FILE`, which names a file with the
/// same content: the way for lists beyond the 128 KiB that the kernel accepts
/// in one variable (`MAX_ARG_STRLEN`, execve(2)).
#[derive(Clone, Debug)]
pub struct ListVariable {
    name: String,
    file_name: String,
}

impl ListVariable {
    /// The list variable `name` with its twin.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            file_name: format!("{name}_FILE"),
        }
    }

    /// Reads the list. `None` when neither variable is set; a value of
    /// nothing but blanks counts as not set.
    ///
    /// # Errors
    /// [`ListError`] when both are set, a value is not text, or the file
    /// cannot be used.
    pub fn read(&self, environment: &dyn Environment) -> Result<Option<List>, ListError> {
        let text = set_variable(environment, &self.name)?;
        let path = set_variable(environment, &self.file_name)?;
        match (text, path) {
            (None, None) => Ok(None),
            (Some(text), None) => Ok(Some(List::new(&self.name, text))),
            (None, Some(path)) => self
                .read_file(environment, PathBuf::from(path.trim()))
                .map(Some),
            (Some(_), Some(_)) => Err(ListError::Both {
                name: self.name.clone(),
                file_name: self.file_name.clone(),
            }),
        }
    }

    fn read_file(&self, environment: &dyn Environment, path: PathBuf) -> Result<List, ListError> {
        let file = |problem| ListError::File {
            name: self.file_name.clone(),
            path: path.clone(),
            problem,
        };
        let bytes = environment
            .read(&path)
            .map_err(|source| file(FileProblem::Unreadable(source)))?;
        if bytes.len() > MAX_FILE_BYTES {
            return Err(file(FileProblem::TooLarge));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let before = error.as_bytes().iter().take(valid);
            let line = before.filter(|&&byte| byte == b'\n').count() + 1;
            file(FileProblem::NotUnicode { line })
        })?;
        if text.trim().is_empty() {
            return Err(file(FileProblem::Empty));
        }
        Ok(List {
            variable: self.file_name.clone(),
            path: Some(path),
            text,
        })
    }
}

fn set_variable(environment: &dyn Environment, name: &str) -> Result<Option<String>, ListError> {
    let value = environment.var(name).map_err(|source| ListError::Value {
        name: name.to_owned(),
        source,
    })?;
    Ok(value.filter(|value| !value.trim().is_empty()))
}

/// Why a list could not be read.
#[derive(Debug, Error)]
pub enum ListError {
    /// `X` and `X_FILE` are both set.
    #[error("{name} and {file_name} are both set; unset one of them")]
    Both {
        /// `X`.
        name: String,
        /// `X_FILE`.
        file_name: String,
    },
    /// The value of a variable is not text.
    #[error("{source}")]
    Value {
        /// The variable.
        name: String,
        /// What is wrong with its value.
        source: NotUnicode,
    },
    /// The file cannot be used.
    #[error("{problem}")]
    File {
        /// The variable that names the file.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
}

impl ListError {
    /// The variable to name in a message.
    #[must_use]
    pub fn variable(&self) -> &str {
        match self {
            Self::Both { name, .. } | Self::Value { name, .. } | Self::File { name, .. } => name,
        }
    }

    /// The file that could not be used.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::Both { .. } | Self::Value { .. } => None,
        }
    }
}

/// What is wrong with the file of a list.
#[derive(Debug, Error)]
pub enum FileProblem {
    /// The file system refused.
    #[error("the file cannot be read: {0}; check the path and that its volume is mounted")]
    Unreadable(io::Error),
    /// More than [`MAX_FILE_BYTES`].
    #[error("the file is larger than {} MiB; check the path", MAX_FILE_BYTES / 1024 / 1024)]
    TooLarge,
    /// Not UTF-8 text.
    #[error("the file is not valid UTF-8 in line {line}; write plain ASCII text")]
    NotUnicode {
        /// The first bad line, from 1.
        line: usize,
    },
    /// Nothing but blanks: more likely an accident than a wish.
    #[error("the file is empty; write the list there, or a comment line if no entry is meant")]
    Empty,
}

/// The text of a list and the variable it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct List {
    variable: String,
    path: Option<PathBuf>,
    text: String,
}

impl List {
    /// The list that stands in the variable itself.
    pub fn new(variable: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            variable: variable.into(),
            path: None,
            text: text.into(),
        }
    }

    /// The variable to name in a message: `X`, or `X_FILE` for a file.
    #[must_use]
    pub fn variable(&self) -> &str {
        &self.variable
    }

    /// The file that the list was read from.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The whole text, without a byte order mark: for a list that may also be
    /// a document of another format.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.strip_prefix('\u{feff}').unwrap_or(&self.text)
    }

    /// The entries in order: lines end with LF or CRLF, blanks and tabs
    /// around them are trimmed, blank lines and lines that start with `#` are
    /// left out. A byte order mark at the start is ignored.
    ///
    /// # Errors
    /// An item is [`Continued`] when its line ends with `\`. Comments are no
    /// exception: the shell's `read` joined the next line to them as well.
    pub fn lines(&self) -> impl Iterator<Item = Result<Line<'_>, Continued<'_>>> {
        self.text()
            .split('\n')
            .zip(1..)
            .filter_map(|(raw, number)| {
                let raw = raw.strip_suffix('\r').unwrap_or(raw);
                let line = Line {
                    number,
                    text: raw.trim_matches([' ', '\t']),
                };
                if line.text.ends_with('\\') {
                    Some(Err(Continued(line)))
                } else if line.text.is_empty() || line.text.starts_with('#') {
                    None
                } else {
                    Some(Ok(line))
                }
            })
    }
}

/// One line of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line<'a> {
    number: u32,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// The line's number in its list, from 1, blank and comment lines counted.
    #[must_use]
    pub fn number(self) -> u32 {
        self.number
    }

    /// The line without the blanks around it; never empty.
    #[must_use]
    pub fn text(self) -> &'a str {
        self.text
    }

    /// The parts of the line between blanks and tabs.
    pub fn fields(self) -> impl Iterator<Item = &'a str> {
        self.text
            .split([' ', '\t'])
            .filter(|field| !field.is_empty())
    }
}

/// A line that ends with `\`. The images we replace joined such a line with
/// the next one, which nobody documented or expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a line cannot be continued with '\\'; write the entry on one line")]
pub struct Continued<'a>(Line<'a>);

impl<'a> Continued<'a> {
    /// The line, its `\` included.
    #[must_use]
    pub fn line(self) -> Line<'a> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MapEnvironment;

    fn entries(text: &str) -> Vec<(u32, String)> {
        List::new("X", text)
            .lines()
            .map(|line| {
                let line = line.unwrap();
                (line.number(), line.text().to_owned())
            })
            .collect()
    }

    fn read(environment: &MapEnvironment) -> Result<Option<List>, String> {
        ListVariable::new("X")
            .read(environment)
            .map_err(|error| format!("{}: {error}", error.variable()))
    }

    #[test]
    fn numbers_count_every_line() {
        assert_eq!(
            entries("a\r\n\r\n \t b\tc \t\r\n  # comment\n#\n\nd"),
            [
                (1, "a".to_owned()),
                (3, "b\tc".to_owned()),
                (7, "d".to_owned())
            ]
        );
        assert_eq!(entries(""), []);
        assert_eq!(entries("\n\n"), []);
        assert_eq!(entries("\u{feff}a"), [(1, "a".to_owned())]);
    }

    #[test]
    fn only_blanks_and_tabs_are_trimmed() {
        assert_eq!(
            entries("a\r\r\n\u{a0}b"),
            [(1, "a\r".to_owned()), (2, "\u{a0}b".to_owned())]
        );
    }

    #[test]
    fn fields_are_separated_by_blanks_and_tabs() {
        let list = List::new("X", " 80\t tcp  10.4.5.6 ");
        let line = list.lines().next().unwrap().unwrap();
        assert_eq!(line.fields().collect::<Vec<_>>(), ["80", "tcp", "10.4.5.6"]);
    }

    #[test]
    fn a_continued_line_is_an_error_also_in_a_comment() {
        let list = List::new("X", "80 tcp \\\n10.4.5.6\n# note \\\r\nb");
        let lines: Vec<_> = list
            .lines()
            .map(|line| line.map_err(|error| (error.line().number(), error.line().text())))
            .map(|line| line.map(Line::number))
            .collect();
        assert_eq!(
            lines,
            [Err((1, "80 tcp \\")), Ok(2), Err((3, "# note \\")), Ok(4)]
        );
    }

    #[test]
    fn unset_and_blank_are_the_same() {
        assert_eq!(read(&MapEnvironment::new()), Ok(None));
        let blank = MapEnvironment::new()
            .with("X", " \n\t\r\n")
            .with("X_FILE", "");
        assert_eq!(read(&blank), Ok(None));
    }

    #[test]
    fn a_file_gives_the_same_lines_as_the_variable() {
        let variable = MapEnvironment::new().with("X", "a\nb");
        let file = MapEnvironment::new()
            .with("X", " ")
            .with("X_FILE", "/list")
            .with_file("/list", "a\nb");
        let variable = read(&variable).unwrap().unwrap();
        let file = read(&file).unwrap().unwrap();
        assert!(variable.lines().eq(file.lines()));
        assert_eq!((variable.variable(), variable.path()), ("X", None));
        assert_eq!(
            (file.variable(), file.path()),
            ("X_FILE", Some(Path::new("/list")))
        );
    }

    #[test]
    fn each_refusal_names_the_variable_and_a_remedy() {
        let environment = MapEnvironment::new;
        for (environment, message) in [
            (
                environment().with("X", "a").with("X_FILE", "/list"),
                "X: X and X_FILE are both set; unset one of them",
            ),
            (
                environment().with_not_unicode("X"),
                "X: value is not valid UTF-8; write plain ASCII text",
            ),
            (
                environment().with("X_FILE", "/list"),
                "X_FILE: the file cannot be read: entity not found; check the path and that its volume is mounted",
            ),
            (
                environment()
                    .with("X_FILE", "/list")
                    .with_file("/list", b"a\nb\xff\n"),
                "X_FILE: the file is not valid UTF-8 in line 2; write plain ASCII text",
            ),
            (
                environment()
                    .with("X_FILE", "/list")
                    .with_file("/list", "\r\n"),
                "X_FILE: the file is empty; write the list there, or a comment line if no entry is meant",
            ),
            (
                environment()
                    .with("X_FILE", "/list")
                    .with_file("/list", vec![b'#'; MAX_FILE_BYTES + 1]),
                "X_FILE: the file is larger than 16 MiB; check the path",
            ),
        ] {
            assert_eq!(read(&environment), Err(message.to_owned()));
        }
    }

    #[test]
    fn a_file_of_the_largest_size_is_read() {
        let environment = MapEnvironment::new()
            .with("X_FILE", "/list")
            .with_file("/list", vec![b'#'; MAX_FILE_BYTES]);
        assert!(matches!(read(&environment), Ok(Some(_))));
    }
}
