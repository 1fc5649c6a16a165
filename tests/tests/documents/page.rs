//! A page of Markdown: its blocks, and what else of it is checked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use egress_lab::harness::TestResult;
use regex::Regex;

use crate::PAGES;

/// A fenced block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// Where it starts.
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// What a block holds, as its first line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Commands.
    Commands,
    /// Commands with what they print.
    Session,
    /// YAML, and what it is part of: nothing for whole objects.
    Yaml(String),
    /// A list, by the tag of its program.
    List(String),
}

impl Kind {
    fn parse(info: &str) -> Option<Self> {
        Some(match info.split_once(' ').unwrap_or((info, "")) {
            ("sh", "") => Self::Commands,
            ("console", "") => Self::Session,
            ("yaml", part) => Self::Yaml(part.to_owned()),
            (tag @ ("redirect-lines" | "http-proxy-rules" | "dns-proxy-lines"), "") => {
                Self::List(tag.to_owned())
            }
            _ => return None,
        })
    }
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub(crate) fn read(name: &str) -> String {
    let path = root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All blocks of a page.
pub(crate) fn blocks(name: &str) -> Vec<Block> {
    let text = read(name);
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (number, line) in (1..).zip(text.lines()) {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            if is_open {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            continue;
        };
        is_open = !is_open;
        if is_open {
            assert!(
                line.starts_with("```"),
                "{name}:{number}: no block is indented"
            );
            let kind = Kind::parse(info)
                .unwrap_or_else(|| panic!("{name}:{number}: '{info}' is no kind of block"));
            blocks.push(Block {
                line: number,
                kind,
                text: String::new(),
            });
        } else {
            assert_eq!(info, "", "{name}:{number}: a block ends without a word");
        }
    }
    assert!(!is_open, "{name}: the last block does not end");
    blocks
}

/// The page without its blocks.
pub(crate) fn prose(name: &str) -> String {
    let mut is_open = false;
    let text = read(name);
    let lines = text.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        is_open ^= is_fence;
        !is_open && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands between backticks.
pub(crate) fn code_spans(prose: &str) -> Vec<String> {
    // A pair of backticks holds text that has one itself.
    let spans = Regex::new(r"``(?s:(.+?))``|`([^`]+)`").unwrap();
    let spans = spans.captures_iter(prose).map(|found| {
        let text = found.get(1).or_else(|| found.get(2)).unwrap().as_str();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    spans.collect()
}

pub(crate) fn every_page_is_listed() -> TestResult {
    let mut found: BTreeSet<String> = ["README.md", "CONTRIBUTING.md"].map(str::to_owned).into();
    for entry in fs::read_dir(root().join("docs"))? {
        let name = entry?.file_name().into_string().unwrap();
        if name.ends_with(".md") {
            found.insert(format!("docs/{name}"));
        }
    }
    let listed = PAGES.map(|(name, ..)| name.to_owned()).into();
    assert_eq!(found, listed);
    Ok(())
}

/// Anchors as GitHub makes them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| {
        let heading = line.trim_start_matches('#').strip_prefix(' ')?;
        line.starts_with('#').then_some(heading)
    });
    headings
        .map(|heading| {
            let kept = heading.to_lowercase();
            kept.chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

pub(crate) fn links_lead_somewhere() -> TestResult {
    let links = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut seen = 0;
    let mut linked = BTreeSet::new();
    for name in PAGES
        .map(|(name, ..)| name)
        .into_iter()
        .chain(["ARCHITECTURE.md"])
    {
        for link in links.captures_iter(&prose(name)) {
            let link = link.get(1).unwrap().as_str();
            assert!(
                !link.contains("://"),
                "{name}: {link} leads out of the repository"
            );
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(name).parent().unwrap();
            let file = if path.is_empty() {
                root().join(name)
            } else {
                root().join(folder).join(path)
            };
            let there = file.canonicalize();
            let there = there.unwrap_or_else(|error| panic!("{name}: {link}: {error}"));
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(&there)?);
                assert!(
                    anchors.contains(anchor),
                    "{name}: {link} is none of {anchors:?}"
                );
            }
            linked.insert(there);
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen} links");
    // A page or an example that nothing leads to is not found.
    let mut expected: Vec<PathBuf> = PAGES.iter().map(|(name, ..)| root().join(name)).collect();
    for folder in fs::read_dir(root().join("manifests/examples"))? {
        for file in fs::read_dir(folder?.path())? {
            expected.push(file?.path());
        }
    }
    for file in expected {
        let file = file.canonicalize()?;
        assert!(
            linked.contains(&file) || file.ends_with("README.md"),
            "nothing leads to {}",
            file.display()
        );
    }
    Ok(())
}

/// A command outside of a block would be run by nobody. `make VERB`, and a
/// program of ours with a subcommand, may be named in a sentence: that they
/// exist is checked.
pub(crate) fn commands_stand_in_blocks() -> TestResult {
    const COMMANDS: [&str; 16] = [
        "kubectl",
        "oc",
        "podman",
        "docker",
        "buildah",
        "kustomize",
        "curl",
        "cargo",
        "nft",
        "ip",
        "git",
        "apt-get",
        "sudo",
        "cd",
        "export",
        "nsenter",
    ];
    let makefile = read("Makefile");
    for (name, ..) in PAGES {
        let prose = prose(name);
        for line in prose.lines() {
            let is_indented = line.starts_with("    ") || line.starts_with('\t');
            let is_command = line.trim_start().starts_with("$ ");
            assert!(
                !is_indented && !is_command,
                "{name}: not in a block: {line}"
            );
        }
        for span in code_spans(&prose) {
            let mut words = span.split(' ');
            let (first, second) = (words.next().unwrap(), words.next());
            match (first, second) {
                ("make", Some(verb)) => assert!(
                    makefile.contains(&format!("\n{verb}: ")),
                    "{name}: make has no verb {verb}"
                ),
                // The name of a program alone, or of a tool.
                (_, None) => {}
                (first, Some(_)) => {
                    assert!(!COMMANDS.contains(&first), "{name}: not in a block: {span}");
                }
            }
        }
    }
    Ok(())
}

/// SVG is XML, and a reader that shows no picture shows its title.
pub(crate) fn pictures_can_be_read() -> TestResult {
    let tags = Regex::new(r"<(/?)([a-z]+)\b[^>]*?(/?)>").unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(root().join("docs"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "svg") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let place = path.display();
        for part in [
            "<svg xmlns=\"http://www.w3.org/2000/svg\"",
            "viewBox=",
            "<title",
            "<desc",
        ] {
            assert!(text.contains(part), "{place}: {part}");
        }
        let mut open = Vec::new();
        for tag in tags.captures_iter(&text) {
            let tag_name = tag[2].to_owned();
            match (&tag[1], &tag[3]) {
                ("/", _) => assert_eq!(open.pop(), Some(tag_name), "{place}"),
                (_, "/") => {}
                _ => open.push(tag_name),
            }
        }
        assert_eq!(open, Vec::<String>::new(), "{place}");
        seen += 1;
    }
    assert_eq!(seen, 1, "pictures");
    Ok(())
}
