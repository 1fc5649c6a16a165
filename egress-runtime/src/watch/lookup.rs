//! The names that are looked up on the way to a file.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows: path_resolution(7).
const MAX_LINKS: usize = 40;

/// One name that is looked up in one directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lookup {
    /// Free of symbolic links.
    pub(super) directory: PathBuf,
    pub(super) name: OsString,
}

/// Every look-up that opening the absolute `path` makes at this moment, in
/// order, up to the one that fails.
pub(super) fn lookups(path: &Path) -> Vec<Lookup> {
    let mut found = Vec::new();
    let mut directory = PathBuf::from("/");
    let mut links = 0;
    let mut ahead = Vec::new();
    push_reversed(&mut ahead, path);
    while let Some(step) = ahead.pop() {
        match step {
            Step::Root => directory = PathBuf::from("/"),
            Step::Parent => {
                directory.pop();
            }
            Step::Name(name) => {
                let next = directory.join(&name);
                found.push(Lookup {
                    directory: directory.clone(),
                    name,
                });
                match fs::read_link(&next) {
                    Ok(target) if links < MAX_LINKS => {
                        links += 1;
                        push_reversed(&mut ahead, &target);
                    }
                    // EINVAL: there, and not a link.
                    Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                        directory = next;
                    }
                    Ok(_) | Err(_) => break,
                }
            }
        }
    }
    found
}

enum Step {
    Root,
    Parent,
    Name(OsString),
}

/// Puts the steps of `path` on the stack, the first one on top.
fn push_reversed(ahead: &mut Vec<Step>, path: &Path) {
    ahead.extend(path.components().rev().filter_map(|part| match part {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Parent),
        Component::Normal(name) => Some(Step::Name(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder whose own path is free of links, and the look-ups inside it.
    struct Folder {
        _guard: tempfile::TempDir,
        root: PathBuf,
    }

    impl Folder {
        fn new() -> Self {
            let guard = tempfile::tempdir().unwrap();
            let root = guard.path().canonicalize().unwrap();
            Self {
                _guard: guard,
                root,
            }
        }

        fn lookups(&self, path: &str) -> Vec<String> {
            let all = lookups(&self.root.join(path));
            let inside = all.iter().filter_map(|lookup| {
                let directory = lookup.directory.strip_prefix(&self.root).ok()?;
                Some(directory.join(&lookup.name).display().to_string())
            });
            inside.collect()
        }
    }

    #[test]
    fn starts_at_the_root() {
        let folder = Folder::new();
        let all = lookups(&folder.root);
        assert_eq!(all[0].directory, Path::new("/"));
        assert_eq!(all.len(), folder.root.components().count() - 1);
    }

    #[test]
    fn follows_the_links_of_a_config_map_volume() {
        let folder = Folder::new();
        fs::create_dir(folder.root.join("..2024")).unwrap();
        fs::write(folder.root.join("..2024/lines"), "").unwrap();
        symlink("..2024", folder.root.join("..data")).unwrap();
        symlink("..data/lines", folder.root.join("lines")).unwrap();
        assert_eq!(
            folder.lookups("lines"),
            ["lines", "..data", "..2024", "..2024/lines"]
        );
    }

    #[test]
    fn goes_through_absolute_links_and_parents() {
        let folder = Folder::new();
        fs::create_dir_all(folder.root.join("a/b")).unwrap();
        fs::write(folder.root.join("a/file"), "").unwrap();
        symlink(folder.root.join("a/b"), folder.root.join("link")).unwrap();
        assert_eq!(
            folder.lookups("./link/../file"),
            ["link", "a", "a/b", "a/file"]
        );
    }

    #[test]
    fn ends_at_what_is_missing_or_no_directory() {
        let folder = Folder::new();
        fs::write(folder.root.join("file"), "").unwrap();
        assert_eq!(folder.lookups("none/lines"), ["none"]);
        assert_eq!(folder.lookups("file/lines"), ["file", "file/lines"]);
    }

    #[test]
    fn ends_in_a_circle_of_links() {
        let folder = Folder::new();
        symlink("b", folder.root.join("a")).unwrap();
        symlink("a", folder.root.join("b")).unwrap();
        assert_eq!(folder.lookups("a").len(), MAX_LINKS + 1);
    }
}
