//! One network namespace, held by a file descriptor.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::{
    error::{Context, Result},
    netlink::Netlink,
    userns,
};

/// A network namespace. Clones are the same namespace; the kernel frees it
/// with the last of them.
#[derive(Debug, Clone)]
pub struct NetNs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    net: OwnedFd,
    /// The user namespace that owns `net`, when it is not the lab's own.
    user: Option<OwnedFd>,
    netlink: Mutex<Netlink>,
}

impl NetNs {
    /// A new namespace with nothing in it but `lo`, which is up. The name is
    /// for messages only.
    ///
    /// # Errors
    /// When the kernel refuses, for want of `CAP_SYS_ADMIN` or because of
    /// `user.max_net_namespaces`.
    pub fn create(name: &str) -> Result<Self> {
        let (net, netlink) = on_new_thread(name, || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let net = File::open("/proc/thread-self/ns/net")?;
            Ok::<_, io::Error>((OwnedFd::from(net), Netlink::open()?))
        })
        .context(|| format!("creating network namespace {name}"))?;
        Self::assemble(name, net, None, netlink)
    }

    /// As [`NetNs::create`], but owned by a user namespace of its own, as the
    /// pods are that set `hostUsers: false`.
    ///
    /// # Errors
    /// As for [`NetNs::create`].
    pub fn create_in_user_namespace(name: &str) -> Result<Self> {
        let (user, net) =
            userns::create().context(|| format!("creating user namespace of {name}"))?;
        let netlink = on_new_thread(name, || {
            setns(&net, CloneFlags::CLONE_NEWNET)?;
            Netlink::open()
        })
        .context(|| format!("entering network namespace {name}"))?;
        Self::assemble(name, net, Some(user), netlink)
    }

    fn assemble(name: &str, net: OwnedFd, user: Option<OwnedFd>, netlink: Netlink) -> Result<Self> {
        let netns = Self(Arc::new(Inner {
            name: name.to_owned(),
            net,
            user,
            netlink: Mutex::new(netlink),
        }));
        netns.set_up("lo")?;
        Ok(netns)
    }

    /// The name given at creation.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Runs a closure on a thread of its own inside the namespace and waits
    /// for it. Sockets opened there stay in the namespace and may be returned.
    ///
    /// # Panics
    /// When the closure panics, or the namespace cannot be entered.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        on_new_thread(self.name(), || {
            self.enter()
                .expect("a namespace that is held can be entered");
            action()
        })
    }

    /// Moves the calling thread into the namespace for good.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<()> {
        setns(&self.0.net, CloneFlags::CLONE_NEWNET)
            .context(|| format!("entering network namespace {}", self.name()))
    }

    /// Writes sysctls, each a path below `/proc/sys` and its value.
    ///
    /// # Errors
    /// When one of them cannot be written.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                fs::write(format!("/proc/sys/{key}"), value)
                    .context(|| format!("setting {key}={value} in {}", self.name()))?;
            }
            Ok(())
        })
    }

    /// Reads one sysctl, a path below `/proc/sys`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn read_sysctl(&self, key: &str) -> Result<String> {
        self.run(|| fs::read_to_string(format!("/proc/sys/{key}")))
            .map(|value| value.trim().to_owned())
            .context(|| format!("reading {key} in {}", self.name()))
    }

    /// Uses the namespace's rtnetlink socket, for what the methods here do not
    /// offer.
    pub fn netlink<T>(&self, action: impl FnOnce(&mut Netlink) -> T) -> T {
        action(
            &mut self
                .0
                .netlink
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Shell command that enters the namespace from outside, while this
    /// process lives.
    #[must_use]
    pub fn enter_command(&self) -> String {
        let process = std::process::id();
        let net = format!("--net=/proc/{process}/fd/{}", self.0.net.as_raw_fd());
        if crate::sandbox::is_initial_user_namespace() {
            format!("nsenter {net}")
        } else {
            format!("nsenter --target {process} --user --preserve-credentials {net}")
        }
    }

    /// The user namespace that owns this one, when it is not the lab's own.
    pub(crate) fn user_namespace(&self) -> Option<BorrowedFd<'_>> {
        self.0.user.as_ref().map(AsFd::as_fd)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.net.as_fd()
    }
}

/// Namespaces belong to threads, so whatever changes them gets a new one.
fn on_new_thread<T: Send>(name: &str, action: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, action)
            .expect("a thread can be started");
        worker.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
