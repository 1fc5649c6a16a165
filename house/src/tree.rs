//! The source files of the workspace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::mention::{self, Build, Mention};

/// One source file, parsed.
#[derive(Debug)]
pub struct SourceFile {
    path: String,
    text: String,
    mentions: Vec<Mention>,
    test_modules: Vec<String>,
}

impl SourceFile {
    /// Parses the text of the file at `path` (from the root of the repository).
    ///
    /// # Errors
    /// When the text is not a Rust file.
    pub fn parse(path: &str, text: &str) -> Result<Self> {
        let read = mention::read(text, &module(path)).map_err(|error| {
            let line = error.span().start().line;
            anyhow!("{path}:{line}: {error}")
        })?;
        Ok(Self {
            path: path.to_owned(),
            text: text.to_owned(),
            mentions: read.all,
            test_modules: read.test_modules,
        })
    }

    /// Path from the root of the repository, with `/` between the parts.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The file as it stands.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the file mentions.
    #[must_use]
    pub fn mentions(&self) -> &[Mention] {
        &self.mentions
    }
}

/// Every `.rs` file below `folders`, each a folder in `root`.
///
/// Files that a parent declares as `#[cfg(test)] mod name;` count as test code.
///
/// # Errors
/// When a folder or a file cannot be read or is not Rust.
pub fn read(root: &Path, folders: &[String]) -> Result<Vec<SourceFile>> {
    let mut files = BTreeMap::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("read folder {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                // The output of a build is not source.
                if path.file_name().is_some_and(|name| name != "target") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root)?
                    .components()
                    .map(|part| part.as_os_str().to_string_lossy().into_owned())
                    .collect::<Vec<_>>()
                    .join("/");
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("read {}", path.display()))?;
                files.insert(name.clone(), SourceFile::parse(&name, &text)?);
            }
        }
    }
    mark_tests(&mut files);
    Ok(files.into_values().collect())
}

fn mark_tests(files: &mut BTreeMap<String, SourceFile>) {
    let declared: Vec<String> = files
        .values()
        .flat_map(|file| {
            let folder = module_folder(&file.path);
            file.test_modules
                .iter()
                .map(move |name| format!("{folder}/{name}"))
        })
        .collect();
    for (path, file) in files {
        let is_test = declared.iter().any(|module| {
            path.strip_prefix(module.as_str())
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
        if is_test {
            for mention in &mut file.mentions {
                mention.build = Build::TestOnly;
            }
        }
    }
}

/// The folder in which the modules declared by the file at `path` lie.
fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => format!("{folder}/{}", name.trim_end_matches(".rs")),
    }
}

/// The module of the file at `path`, as segments below `crate`.
fn module(path: &str) -> Vec<String> {
    let folder = module_folder(path);
    let inside = match folder.split_once("/src") {
        Some((_, inside)) => inside,
        None => "",
    };
    inside
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(ToOwned::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_the_module() {
        for (path, expected) in [
            ("egress-config/src/lib.rs", ""),
            ("egress-config/src/port.rs", "port"),
            ("egress-router-init/src/netlink/mod.rs", "netlink"),
            (
                "egress-router-init/src/netlink/nft/batch.rs",
                "netlink::nft::batch",
            ),
            ("tests/tests/matrix.rs", ""),
        ] {
            assert_eq!(module(path).join("::"), expected, "{path}");
        }
    }

    #[test]
    fn files_of_test_modules_are_test_code() {
        let mut files: BTreeMap<_, _> = [
            (
                "a/src/plan.rs",
                "use a::b; #[cfg(test)] mod golden; mod route;",
            ),
            ("a/src/plan/golden.rs", "use std::fs;"),
            ("a/src/plan/golden/cases.rs", "use std::fs;"),
            ("a/src/plan/golden_path.rs", "use std::fs;"),
            ("a/src/plan/route.rs", "use std::fs;"),
        ]
        .into_iter()
        .map(|(path, text)| (path.to_owned(), SourceFile::parse(path, text).unwrap()))
        .collect();
        mark_tests(&mut files);
        let test_only: Vec<_> = files
            .values()
            .filter(|file| file.mentions.iter().all(|m| m.build == Build::TestOnly))
            .map(SourceFile::path)
            .collect();
        assert_eq!(
            test_only,
            ["a/src/plan/golden.rs", "a/src/plan/golden/cases.rs"]
        );
    }
}
