//! A law over source files.

use std::fmt;

use anyhow::{Context, Result};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::mention::{Build, Kind, Mention};
use crate::tree::SourceFile;

/// Something a law forbids to mention.
#[derive(Clone, Copy, Debug)]
pub enum Forbidden {
    /// This path and everything below it: `std::fs`.
    Path(&'static str),
    /// Every path that ends so: `Instant::now`.
    Ending(&'static str),
    /// Calls of a method of this name.
    Method(&'static str),
    /// Calls of a macro of this name.
    Macro(&'static str),
    /// An attribute of this name.
    Attribute(&'static str),
    /// `async` and `.await`.
    Async,
    /// A word in the text of the file, comments included.
    Word(&'static str),
}

/// Whether a law also binds code that only runs under `cargo test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tests {
    /// Tests are bound too.
    Bound,
    /// Tests may do it: they prepare and observe.
    Exempt,
}

/// One law: where it holds, what it forbids and why.
#[derive(Debug)]
pub struct Law {
    /// The law in one sentence.
    pub name: &'static str,
    /// Why it is one.
    pub reason: &'static str,
    /// Globs of the files it governs, from the root of the repository.
    pub governs: &'static [&'static str],
    /// Globs of the files that are allowed to do it.
    pub except: &'static [&'static str],
    /// Whether tests are bound.
    pub tests: Tests,
    /// What must not be mentioned.
    pub forbids: &'static [&'static [Forbidden]],
    /// Code that breaks the law, one example each.
    pub breaches: &'static [&'static str],
}

/// A place where a law is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Breach {
    file: String,
    line: usize,
    mentioned: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.mentioned)
    }
}

impl Law {
    /// Whether this law governs the file at `path`.
    ///
    /// # Errors
    /// When a glob of the law is malformed.
    pub fn governs(&self, path: &str) -> Result<bool> {
        Ok(globs(self.governs)?.is_match(path) && !globs(self.except)?.is_match(path))
    }

    /// The places where `file` breaks this law.
    ///
    /// # Errors
    /// When a glob of the law is malformed.
    pub fn breaches(&self, file: &SourceFile) -> Result<Vec<Breach>> {
        if !self.governs(file.path())? {
            return Ok(Vec::new());
        }
        let bound = |build| self.tests == Tests::Bound || build == Build::Shipped;
        let forbidden = || self.forbids.iter().copied().flatten();
        let mentions = file
            .mentions()
            .iter()
            .filter(|mention| bound(mention.build))
            .filter(|mention| forbidden().any(|forbidden| forbidden.covers(mention)))
            .map(|mention| (mention.line, described(mention)));
        let words = file.text().lines().enumerate().flat_map(|(index, text)| {
            forbidden()
                .filter_map(move |forbidden| forbidden.word().filter(|word| has_word(text, word)))
                .map(move |word| (index + 1, word.to_owned()))
        });
        Ok(mentions
            .chain(words)
            .map(|(line, mentioned)| Breach {
                file: file.path().to_owned(),
                line,
                mentioned,
            })
            .collect())
    }
}

impl Forbidden {
    fn covers(self, mention: &Mention) -> bool {
        let last = mention.path.last().map(String::as_str);
        match (self, mention.kind) {
            (Self::Path(path), Kind::Path | Kind::Macro) => {
                starts_with(&mention.path, &segments(path))
            }
            // `use std::*` brings `fs` in, so it counts for `std::fs`.
            (Self::Path(path), Kind::Glob) => {
                let path = segments(path);
                starts_with(&mention.path, &path)
                    || path.len() > mention.path.len()
                        && mention.path.iter().zip(&path).all(|(a, b)| a == b)
            }
            (Self::Ending(path), Kind::Path) => {
                let path = segments(path);
                let skipped = mention.path.len().checked_sub(path.len());
                skipped.is_some_and(|skipped| {
                    mention.path.iter().skip(skipped).eq(path.iter().copied())
                })
            }
            (Self::Method(name), Kind::Method)
            | (Self::Macro(name), Kind::Macro)
            | (Self::Attribute(name), Kind::Attribute) => last == Some(name),
            (Self::Async, Kind::Async) => true,
            _ => false,
        }
    }

    fn word(self) -> Option<&'static str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }
}

fn segments(path: &str) -> Vec<&str> {
    path.split("::").collect()
}

fn starts_with(path: &[String], prefix: &[&str]) -> bool {
    path.len() >= prefix.len() && path.iter().zip(prefix).all(|(a, b)| a == b)
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|found| found == word)
}

fn described(mention: &Mention) -> String {
    let path = mention.path.join("::");
    match mention.kind {
        Kind::Path | Kind::Async => path,
        Kind::Glob => format!("{path}::*"),
        Kind::Macro => format!("{path}!"),
        Kind::Method => format!(".{path}()"),
        Kind::Attribute => format!("#[{path}]"),
    }
}

fn globs(patterns: &[&str]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern)
            .literal_separator(true)
            .build()
            .with_context(|| format!("glob {pattern} of a law"))?;
        set.add(glob);
    }
    Ok(set.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAW: Law = Law {
        name: "plans are pure",
        reason: "so that they can be tested without a kernel",
        governs: &["crate/src/{plan.rs,plan/**}"],
        except: &["crate/src/plan/print.rs"],
        tests: Tests::Exempt,
        forbids: &[&[
            Forbidden::Path("std::fs"),
            Forbidden::Ending("Instant::now"),
            Forbidden::Macro("println"),
            Forbidden::Word("XXX"),
        ]],
        breaches: &[],
    };

    fn broken(path: &str, source: &str) -> Vec<String> {
        let file = SourceFile::parse(path, source).unwrap();
        let breaches = LAW.breaches(&file).unwrap();
        breaches.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_breach_names_the_place() {
        assert_eq!(
            broken("crate/src/plan.rs", "\nuse std::fs::File;"),
            ["crate/src/plan.rs:2: std::fs::File"]
        );
    }

    #[test]
    fn every_spelling_is_a_breach() {
        for source in [
            "use std::*;",
            "use std::fs as disk;",
            "use std::{fs::{File, read}};",
            "fn f() { ::std::fs::read(1); }",
            "fn f() { let t = std::time::Instant::now(); }",
            "use std::time as t; fn f() { t::Instant::now(); }",
            "use std::time::Instant; fn f() { x.map(Instant::now) }",
            "fn f() { println!() }",
            "fn f() { std::println!() }",
            "// XXX later",
        ] {
            assert_ne!(
                broken("crate/src/plan/route.rs", source),
                [""; 0],
                "{source}"
            );
        }
    }

    #[test]
    fn what_is_not_forbidden_is_allowed() {
        for source in [
            "use std::net::IpAddr;",
            "use std::time::{Duration, Instant}; fn f(now: Instant) {}",
            "mod fs {} fn f() { fs::read() }",
            "// a word such as XXXL",
            "#[cfg(test)] mod tests { use std::fs; }",
        ] {
            assert_eq!(broken("crate/src/plan.rs", source), [""; 0], "{source}");
        }
    }

    #[test]
    fn files_outside_and_excepted_files_are_free() {
        for path in [
            "crate/src/apply.rs",
            "crate/src/plan/print.rs",
            "other/src/plan.rs",
            "crate/src/deep/plan.rs",
        ] {
            assert_eq!(broken(path, "use std::fs;"), [""; 0], "{path}");
        }
    }
}
