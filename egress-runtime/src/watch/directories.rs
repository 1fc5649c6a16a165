//! The watched directories.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InotifyEvent, WatchDescriptor};

use super::inotify::AsyncInotify;
use super::lookup::{Lookup, lookups};

/// A path that goes on changing is looked at again later.
const ATTEMPTS: usize = 8;

/// The directories on the way to a file, and the names in them that matter.
#[derive(Debug)]
pub(super) struct Directories {
    inotify: AsyncInotify,
    names: BTreeMap<WatchDescriptor, BTreeSet<OsString>>,
}

/// Whether the way to the file held still while its watches were placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Every later change gives an event.
    Watched,
    /// A change may have been missed.
    Moving,
}

impl Directories {
    /// Fails with EMFILE when the user has too many inotify instances or the
    /// process too many files.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: AsyncInotify::new()?,
            names: BTreeMap::new(),
        })
    }

    /// Watches the directories on the way to `path` as it is now, and no
    /// others. Fails with ENOSPC when the user has too many watches, with
    /// EACCES when a directory cannot be listed.
    pub(super) fn follow(&mut self, path: &Path) -> io::Result<Way> {
        // A change between the look-up and the watch goes unseen, so the path
        // is looked up again until nothing new needed watching.
        let mut way = lookups(path);
        for _ in 0..ATTEMPTS {
            self.place(&way)?;
            let again = lookups(path);
            if again == way {
                return Ok(Way::Watched);
            }
            way = again;
        }
        Ok(Way::Moving)
    }

    fn place(&mut self, way: &[Lookup]) -> io::Result<()> {
        let mut names = BTreeMap::<_, BTreeSet<_>>::new();
        for Lookup { directory, name } in way {
            match self.watch(directory) {
                Ok(watch) => {
                    names.entry(watch).or_default().insert(name.clone());
                }
                // Gone since, or a file where a directory is needed.
                Err(Errno::ENOENT | Errno::ENOTDIR) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let before = std::mem::replace(&mut self.names, names);
        for watch in before.into_keys() {
            if !self.names.contains_key(&watch) {
                // EINVAL: the directory is gone, and its watch with it.
                let _ = self.inotify.remove(watch);
            }
        }
        Ok(())
    }

    fn watch(&self, directory: &Path) -> nix::Result<WatchDescriptor> {
        let events = AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            // Not IN_MODIFY: a writer that is not done is not worth reading.
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        self.inotify.add(directory, events)
    }

    /// Waits for an event on the way to the file. Cancel safe.
    pub(super) async fn changed(&self) -> io::Result<()> {
        loop {
            let events = self.inotify.events().await?;
            if events.iter().any(|event| self.concerns(event)) {
                return Ok(());
            }
        }
    }

    fn concerns(&self, event: &InotifyEvent) -> bool {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true;
        }
        match (self.names.get(&event.wd), &event.name) {
            // A watch that was removed since.
            (None, _) => false,
            // The directory itself.
            (Some(_), None) => true,
            (Some(names), Some(name)) => names.contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// The events up to the one that ends the writing of a file `name`. Other
    /// tests make events in the parent of the folder at any time.
    async fn events_until_written(directories: &Directories, name: &str) -> Vec<InotifyEvent> {
        let mut all: Vec<InotifyEvent> = Vec::new();
        let written = |event: &InotifyEvent| {
            event.name.as_deref() == Some(name.as_ref())
                && event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE)
        };
        while !all.iter().any(written) {
            all.extend(directories.inotify.events().await.unwrap());
        }
        all
    }

    #[tokio::test]
    async fn names_beside_the_way_do_not_concern() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        fs::write(&path, "").unwrap();
        let mut directories = Directories::new().unwrap();
        assert_eq!(directories.follow(&path).unwrap(), Way::Watched);

        fs::write(folder.path().join("other"), "").unwrap();
        let beside = events_until_written(&directories, "other").await;
        assert!(!beside.iter().any(|event| directories.concerns(event)));

        fs::write(&path, "80 tcp 192.0.2.1").unwrap();
        let on = events_until_written(&directories, "lines").await;
        assert!(on.iter().any(|event| directories.concerns(event)));
    }

    #[tokio::test]
    async fn directories_off_the_way_are_no_longer_watched() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["old", "new"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("lines"), "").unwrap();
        }
        symlink("old", at("data")).unwrap();
        let path = at("data/lines");
        let mut directories = Directories::new().unwrap();
        directories.follow(&path).unwrap();
        let watched = directories.names.len();

        symlink("new", at("next")).unwrap();
        fs::rename(at("next"), at("data")).unwrap();
        directories.follow(&path).unwrap();
        assert_eq!(directories.names.len(), watched);

        // Were the old directory watched, its events would come first.
        fs::write(at("old/lines"), "x").unwrap();
        fs::write(at("new/lines"), "x").unwrap();
        let events = events_until_written(&directories, "lines").await;
        let named = events
            .iter()
            .filter(|event| event.name.as_deref() == Some("lines".as_ref()));
        let watches: BTreeSet<_> = named.map(|event| event.wd).collect();
        assert_eq!(watches.len(), 1);
        assert!(
            watches
                .iter()
                .all(|watch| directories.names.contains_key(watch))
        );
    }
}
