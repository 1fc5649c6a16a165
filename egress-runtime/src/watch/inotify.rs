//! An inotify instance under tokio.

#![expect(
    unsafe_code,
    reason = "tokio's AsyncFd cannot check that a descriptor stays open, and asks for the promise"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An inotify(7) instance whose events are awaited.
#[derive(Debug)]
pub(super) struct AsyncInotify {
    instance: AsyncFd<Instance>,
}

#[derive(Debug)]
struct Instance(Inotify);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl AsyncInotify {
    /// Fails with EMFILE when the user has too many instances or the process
    /// too many files.
    pub(super) fn new() -> io::Result<Self> {
        let instance = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let (instance, interest) = (Instance(instance), Interest::READABLE);
        // SAFETY: `Inotify` owns its descriptor, returns the same one each
        // time, and closes it only when dropped. Only shared references to it
        // are given out below, so it lives as long as the `AsyncFd`.
        let instance = unsafe { AsyncFd::register_with_interest(instance, interest) }?;
        Ok(Self { instance })
    }

    /// A directory that is watched already keeps its descriptor.
    pub(super) fn add(&self, path: &Path, events: AddWatchFlags) -> nix::Result<WatchDescriptor> {
        self.instance.get_ref().0.add_watch(path, events)
    }

    /// Fails with EINVAL when the watch has ended with its directory.
    pub(super) fn remove(&self, watch: WatchDescriptor) -> nix::Result<()> {
        self.instance.get_ref().0.rm_watch(watch)
    }

    /// Waits for events, at least one. Cancel safe.
    pub(super) async fn events(&self) -> io::Result<Vec<InotifyEvent>> {
        let read = |instance: &Instance| Ok(instance.0.read_events()?);
        self.instance.async_io(Interest::READABLE, read).await
    }
}
