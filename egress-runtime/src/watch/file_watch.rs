//! One watched file.

use std::io;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tracing::warn;

use super::directories::{Directories, Way};
use super::fingerprint::Fingerprint;

/// A change is told when nothing more has happened for this long: an editor
/// makes several steps of one change.
const QUIET: Duration = Duration::from_millis(50);

/// A file that never comes to rest is looked at after this long.
const RESTLESS: Duration = Duration::from_secs(1);

/// How often the file is looked at when the kernel does not tell.
const POLL: Duration = Duration::from_secs(5);

/// Watches one file and tells when it holds something else.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    source: Source,
    /// Something happened that has not been looked at, also when the future
    /// that saw it was dropped.
    dirty: bool,
    seen: Fingerprint,
}

#[derive(Debug)]
enum Source {
    Kernel(Directories),
    Clock(Interval),
}

impl FileWatch {
    /// Watches `path`, which need not exist. Make the watch before the file is
    /// first read, and no change can fall between the two.
    ///
    /// Where inotify is not to be had (ENOSPC, EMFILE, EACCES), the file is
    /// looked at every 5 seconds instead, and a warning says so.
    ///
    /// # Panics
    /// Outside a tokio runtime with its I/O and time drivers enabled.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self::with_directories(path, Directories::new(), POLL)
    }

    fn with_directories(path: &Path, directories: io::Result<Directories>, poll: Duration) -> Self {
        // Only an empty path or a deleted working directory cannot be made
        // absolute; reading such a file fails and says so.
        let path = absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut dirty = false;
        let followed = directories.and_then(|mut directories| {
            dirty = directories.follow(&path)? == Way::Moving;
            Ok(directories)
        });
        let source = match followed {
            Ok(directories) => Source::Kernel(directories),
            Err(error) => Source::clock(&path, &error, poll),
        };
        let seen = Fingerprint::of(&path);
        Self {
            path,
            source,
            dirty,
            seen,
        }
    }

    /// Waits until the file holds something else than when this last returned,
    /// or when the watch was made: other content, or it came, went, or became
    /// readable or unreadable. Changes in quick succession are told once, 50 ms
    /// after the last, or after a second when they do not end. Cancel safe.
    pub async fn changed(&mut self) {
        loop {
            if !self.dirty {
                self.event().await;
                self.dirty = true;
            }
            self.settle().await;
            // First the watches, then the content: a change in between is
            // seen twice rather than never.
            self.dirty = self.follow() == Way::Moving;
            let now = Fingerprint::of(&self.path);
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }

    /// Waits until there is reason to look at the file.
    async fn event(&mut self) {
        let error = match &mut self.source {
            Source::Kernel(directories) => match directories.changed().await {
                Ok(()) => return,
                Err(error) => error,
            },
            Source::Clock(interval) => {
                interval.tick().await;
                return;
            }
        };
        self.source = Source::clock(&self.path, &error, POLL);
    }

    /// Waits until events have ceased.
    async fn settle(&mut self) {
        // A look by the clock has waited long enough.
        if matches!(self.source, Source::Clock(_)) {
            return;
        }
        let latest = Instant::now() + RESTLESS;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            tokio::select! {
                biased;
                () = sleep_until(quiet) => return,
                () = self.event() => {}
            }
        }
    }

    fn follow(&mut self) -> Way {
        let Source::Kernel(directories) = &mut self.source else {
            return Way::Watched;
        };
        match directories.follow(&self.path) {
            Ok(way) => way,
            Err(error) => {
                self.source = Source::clock(&self.path, &error, POLL);
                Way::Watched
            }
        }
    }
}

impl Source {
    fn clock(path: &Path, error: &io::Error, period: Duration) -> Self {
        warn!(
            "cannot watch {} for changes, looking every {period:?} instead: {error}; raise \
             fs.inotify.max_user_watches or fs.inotify.max_user_instances on the node when they \
             are used up",
            path.display()
        );
        let mut interval = interval_at(Instant::now() + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self::Clock(interval)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    /// Far longer than any change takes, so that only a missed one fails.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A directory as the kubelet fills it for a `ConfigMap` volume.
    struct Volume {
        guard: tempfile::TempDir,
        version: u32,
    }

    impl Volume {
        fn new(content: &str) -> Self {
            let mut volume = Self {
                guard: tempfile::tempdir().unwrap(),
                version: 0,
            };
            volume.update(content);
            symlink("..data/lines", volume.file()).unwrap();
            volume
        }

        fn at(&self, name: &str) -> PathBuf {
            self.guard.path().join(name)
        }

        fn file(&self) -> PathBuf {
            self.at("lines")
        }

        /// New directory, new link beside the old one, rename, remove the old.
        fn update(&mut self, content: &str) {
            let old = self.at(&format!("..2024_{}", self.version));
            self.version += 1;
            let new = format!("..2024_{}", self.version);
            fs::create_dir(self.at(&new)).unwrap();
            fs::write(self.at(&new).join("lines"), content).unwrap();
            symlink(&new, self.at("..data_tmp")).unwrap();
            fs::rename(self.at("..data_tmp"), self.at("..data")).unwrap();
            if self.version > 1 {
                fs::remove_dir_all(old).unwrap();
            }
        }
    }

    async fn told(watch: &mut FileWatch) {
        timeout(PATIENCE, watch.changed())
            .await
            .expect("the change was not told");
    }

    /// That nothing is told for `changes`, by what is told next being `last`.
    async fn told_only(watch: &mut FileWatch, changes: impl FnOnce(), last: impl FnOnce()) {
        changes();
        // The watch sees the events, waits for quiet, and compares.
        timeout(QUIET * 4, watch.changed())
            .await
            .expect_err("told without a change");
        last();
        told(watch).await;
    }

    #[tokio::test]
    async fn tells_each_swap_of_a_config_map() {
        let mut volume = Volume::new("80 tcp 192.0.2.0");
        let mut watch = FileWatch::new(&volume.file());
        for version in 1..6 {
            let content = format!("80 tcp 192.0.2.{version}");
            volume.update(&content);
            told(&mut watch).await;
            assert_eq!(fs::read_to_string(volume.file()).unwrap(), content);
            assert_eq!(watch.seen, Fingerprint::of(&volume.file()));
        }
    }

    #[tokio::test]
    async fn a_swap_to_the_same_content_is_not_told() {
        let mut volume = Volume::new("80 tcp 192.0.2.1");
        let mut watch = FileWatch::new(&volume.file());
        let volume = &mut volume;
        volume.update("80 tcp 192.0.2.1");
        timeout(QUIET * 4, watch.changed())
            .await
            .expect_err("told without a change");
        volume.update("80 tcp 192.0.2.2");
        told(&mut watch).await;
    }

    #[tokio::test]
    async fn tells_what_happened_before_it_was_asked() {
        let mut volume = Volume::new("80 tcp 192.0.2.1");
        let mut watch = FileWatch::new(&volume.file());
        volume.update("80 tcp 192.0.2.2");
        volume.update("80 tcp 192.0.2.3");
        told(&mut watch).await;
        timeout(QUIET * 4, watch.changed())
            .await
            .expect_err("one change was told twice");
    }

    /// The paused clock moves only when there are no events left to read.
    #[tokio::test(start_paused = true)]
    async fn forgets_nothing_when_dropped() {
        let mut volume = Volume::new("80 tcp 192.0.2.1");
        let mut watch = FileWatch::new(&volume.file());
        volume.update("80 tcp 192.0.2.2");
        timeout(QUIET / 5, watch.changed())
            .await
            .expect_err("told before it was quiet");
        assert!(watch.dirty);
        told(&mut watch).await;
    }

    #[tokio::test]
    async fn tells_an_in_place_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        fs::write(&path, "80 tcp 192.0.2.1").unwrap();
        let mut watch = FileWatch::new(&path);
        let write = || fs::write(&path, "80 tcp 192.0.2.2").unwrap();
        told_only(&mut watch, || drop(File::open(&path)), write).await;
    }

    #[tokio::test]
    async fn tells_an_in_place_write_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("target");
        fs::write(&target, "a").unwrap();
        let path = folder.path().join("lines");
        symlink(&target, &path).unwrap();
        let mut watch = FileWatch::new(&path);
        fs::write(&target, "b").unwrap();
        told(&mut watch).await;
    }

    #[tokio::test]
    async fn an_unfinished_write_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let mut file = File::create(&path).unwrap();
        let mut watch = FileWatch::new(&path);
        file.write_all(b"80 tcp 192.0.").unwrap();
        timeout(QUIET * 4, watch.changed())
            .await
            .expect_err("told half a line");
        file.write_all(b"2.1").unwrap();
        drop(file);
        told(&mut watch).await;
        assert!(matches!(watch.seen, Fingerprint::Content { bytes: 16, .. }));
    }

    #[tokio::test]
    async fn tells_an_atomic_rename_and_a_removal() {
        let folder = tempfile::tempdir().unwrap();
        let [path, new] = ["lines", ".lines.swp"].map(|name| folder.path().join(name));
        fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::new(&path);
        fs::write(&new, "b").unwrap();
        fs::rename(&new, &path).unwrap();
        told(&mut watch).await;
        fs::remove_file(&path).unwrap();
        told(&mut watch).await;
        assert_eq!(watch.seen, Fingerprint::Unreadable(io::ErrorKind::NotFound));
    }

    #[tokio::test]
    async fn an_editor_that_saves_in_steps_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let [path, backup] = ["lines", "lines~"].map(|name| folder.path().join(name));
        fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::new(&path);
        fs::rename(&path, &backup).unwrap();
        fs::write(&path, "b").unwrap();
        fs::remove_file(&backup).unwrap();
        told(&mut watch).await;
        assert!(matches!(watch.seen, Fingerprint::Content { .. }));
    }

    #[tokio::test]
    async fn tells_a_file_and_directories_that_come_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc/egress/lines");
        let mut watch = FileWatch::new(&path);
        fs::create_dir_all(folder.path().join("etc/egress")).unwrap();
        fs::write(&path, "a").unwrap();
        told(&mut watch).await;
        fs::write(&path, "b").unwrap();
        told(&mut watch).await;
    }

    #[tokio::test]
    async fn tells_a_directory_that_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, content) in [("mount", "a"), ("next", "b")] {
            fs::create_dir_all(at(name).join("deep")).unwrap();
            fs::write(at(name).join("deep/lines"), content).unwrap();
        }
        let path = at("mount/deep/lines");
        let mut watch = FileWatch::new(&path);
        fs::rename(at("mount"), at("old")).unwrap();
        fs::rename(at("next"), at("mount")).unwrap();
        told(&mut watch).await;
        // And goes on in the new one.
        fs::write(&path, "c").unwrap();
        told(&mut watch).await;
        fs::remove_dir_all(at("mount")).unwrap();
        told(&mut watch).await;
        fs::create_dir_all(at("mount/deep")).unwrap();
        fs::write(&path, "d").unwrap();
        told(&mut watch).await;
    }

    #[tokio::test]
    async fn a_file_that_never_rests_is_told_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        fs::write(&path, "0").unwrap();
        let mut watch = FileWatch::new(&path);
        let writes = async {
            for count in 1_u64.. {
                fs::write(&path, count.to_string()).unwrap();
                tokio::time::sleep(QUIET / 5).await;
            }
        };
        tokio::select! {
            () = told(&mut watch) => {}
            () = writes => unreachable!("writing does not end"),
        }
    }

    #[tokio::test]
    async fn looks_by_the_clock_where_inotify_is_used_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        fs::write(&path, "a").unwrap();
        let used_up = Err(io::Error::from_raw_os_error(nix::libc::EMFILE));
        let mut watch = FileWatch::with_directories(&path, used_up, QUIET);
        assert!(matches!(watch.source, Source::Clock(_)));
        let write = || fs::write(&path, "b").unwrap();
        told_only(&mut watch, || fs::write(&path, "a").unwrap(), write).await;
    }
}
