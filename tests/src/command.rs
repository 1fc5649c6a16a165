//! A real program to run in a namespace, and what it finds there.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{self, Stdio},
    time::Duration,
};

pub use capctl::caps::Cap as Capability;

use crate::{
    container::Container,
    error::{Context, Result},
    netns::NetNs,
    process::{Output, Process},
};

/// How long a program may run unless [`Command::deadline`] says otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

/// A program to run, and the container it believes to be in. The environment
/// starts empty.
#[derive(Debug, Clone)]
pub struct Command {
    netns: NetNs,
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    container: Container,
    inherit_output: bool,
    deadline: Duration,
}

impl Command {
    /// A program to be run in `netns`.
    #[must_use]
    pub fn new(netns: &NetNs, program: impl AsRef<Path>) -> Self {
        Self {
            netns: netns.clone(),
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            container: Container::default(),
            inherit_output: false,
            deadline: DEADLINE,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Sets several environment variables.
    #[must_use]
    pub fn envs<N: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.environment.extend(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into())),
        );
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn env_remove(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Gives the program an `/etc` of its own that holds just this
    /// `resolv.conf`, as in an image FROM scratch.
    #[must_use]
    pub fn resolv_conf(mut self, text: &str) -> Self {
        self.container.resolv_conf = Some(text.to_owned());
        self
    }

    /// Leaves the program only these capabilities, which also survive the exec
    /// of a user other than root.
    #[must_use]
    pub fn capabilities(mut self, capabilities: &[Capability]) -> Self {
        self.container.capabilities = Some(capabilities.to_vec());
        self
    }

    /// Runs the program as this user and group. Needs a machine where the lab
    /// runs as root: a user namespace of the unprivileged has one user only.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.container.uid = Some(uid);
        self
    }

    /// Mounts `/proc/sys` read-only, as container runtimes do for pods that
    /// are not privileged.
    #[must_use]
    pub fn read_only_proc_sys(mut self) -> Self {
        self.container.read_only_proc_sys = true;
        self
    }

    /// Gives the program a PID namespace with its own `/proc`; it is process 1.
    #[must_use]
    pub fn own_pid_namespace(mut self) -> Self {
        self.container.own_pids = true;
        self
    }

    /// Lets the program have at most so many files open: its soft and hard
    /// `RLIMIT_NOFILE`.
    #[must_use]
    pub fn open_files(mut self, most: u64) -> Self {
        self.container.open_files = Some(most);
        self
    }

    /// Lets the program write to the test's own stdout and stderr.
    #[must_use]
    pub fn inherit_output(mut self) -> Self {
        self.inherit_output = true;
        self
    }

    /// How long [`Command::run`] and [`Process::wait`] let it run; 10 s
    /// otherwise.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts the program and waits for its end.
    ///
    /// # Errors
    /// When it cannot be started or does not end before the deadline.
    pub fn run(self) -> Result<Output> {
        self.spawn()?.wait()
    }

    /// Starts the program.
    ///
    /// # Errors
    /// When it, or its container, cannot be started.
    pub fn spawn(self) -> Result<Process> {
        let what = format!(
            "starting {} in {}",
            self.program.display(),
            self.netns.name()
        );
        let thread_name = format!("{} keeper", self.netns.name());
        let (deadline, captured) = (self.deadline, !self.inherit_output);
        Process::start(thread_name, deadline, captured, move |stdout, stderr| {
            let mut command = process::Command::new(&self.program);
            command
                .args(&self.arguments)
                .env_clear()
                .envs(&self.environment)
                .stdin(Stdio::null())
                .stdout(stdout)
                .stderr(stderr);
            self.container.start(&self.netns, command)
        })
        .context(|| what)
    }
}
