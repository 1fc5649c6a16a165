//! A running program, which never outlives the test.

use std::{
    io::{self, PipeWriter, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

use crate::error::{Context, LabError, Result};

/// A running program. It is killed when this is dropped, and by the kernel
/// when the test process ends in whatever way.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    state: Arc<State>,
    deadline: Duration,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    exit: Option<ExitStatus>,
    elapsed: Duration,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; for a program that a signal ended, 128 plus its number, as
    /// shells have it.
    pub code: i32,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// How long it ran, its start included.
    pub elapsed: Duration,
}

impl Output {
    /// Checks the exit code.
    ///
    /// # Panics
    /// When it is another; the message has what the program wrote.
    #[must_use = "the output is handed on"]
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "unexpected exit code\n--- stdout\n{}--- stderr\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Last line of standard error, which scripts match.
    #[must_use]
    pub fn last_error_line(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }
}

impl Process {
    /// Starts a program by `spawn`, which gets its standard output and error
    /// and says when it began, on a thread that lives as long as the program.
    pub(crate) fn start(
        thread_name: String,
        deadline: Duration,
        captured: bool,
        spawn: impl FnOnce(Stdio, Stdio) -> io::Result<(Instant, Child)> + Send + 'static,
    ) -> io::Result<Self> {
        let state = Arc::new(State::default());
        let (started, starting) = channel();
        let keeper = {
            let state = state.clone();
            thread::Builder::new()
                .name(thread_name)
                .spawn(move || keep(&state, captured, spawn, &started))?
        };
        let pid = starting
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))?;
        Ok(Self {
            pid,
            state,
            deadline,
            keeper: Some(keeper),
        })
    }

    /// Process id, in the test's PID namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends a signal; to a program that has ended, none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let progress = self.state.lock();
        if progress.exit.is_some() {
            return Ok(());
        }
        // Not reaped yet, so the id is still its own.
        kill(self.pid, signal).context(|| format!("sending {signal} to process {}", self.pid))
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// When it has not ended at the deadline; it is killed then.
    pub fn wait(self) -> Result<Output> {
        let deadline = self.deadline;
        self.until("its end", deadline, |progress| {
            let code = progress.exit.map(|status| {
                status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
            })?;
            Some(Output {
                code,
                stdout: String::from_utf8_lossy(&progress.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&progress.stderr).into_owned(),
                elapsed: progress.elapsed,
            })
        })
    }

    /// Waits until standard error contains `text`, and returns all of it so
    /// far.
    ///
    /// # Errors
    /// When the program ends or `deadline` passes without it.
    pub fn await_stderr(&self, text: &str, deadline: Duration) -> Result<String> {
        self.await_text(text, deadline, |progress| &progress.stderr)
    }

    /// As [`Process::await_stderr`], for standard output.
    ///
    /// # Errors
    /// As for [`Process::await_stderr`].
    pub fn await_stdout(&self, text: &str, deadline: Duration) -> Result<String> {
        self.await_text(text, deadline, |progress| &progress.stdout)
    }

    fn await_text(
        &self,
        text: &str,
        deadline: Duration,
        stream: impl Fn(&Progress) -> &[u8],
    ) -> Result<String> {
        let found = self.until(text, deadline, |progress| {
            let seen = String::from_utf8_lossy(stream(progress));
            if seen.contains(text) {
                Some(Some(seen.into_owned()))
            } else {
                progress.exit.map(|_| None)
            }
        })?;
        found.ok_or_else(|| {
            LabError::new(
                format!("waiting for {text:?} from process {}", self.pid),
                format!("it ended\n{}", self.state.transcript()),
            )
        })
    }

    /// Whether the program still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.lock().exit.is_none()
    }

    fn until<T>(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&Progress) -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        let mut progress = self.state.lock();
        loop {
            if let Some(value) = condition(&progress) {
                return Ok(value);
            }
            let Some(left) = deadline.checked_sub(start.elapsed()) else {
                drop(progress);
                return Err(LabError::new(
                    format!("waiting for {what:?} from process {}", self.pid),
                    format!("not within {deadline:?}\n{}", self.state.transcript()),
                ));
            };
            progress = self
                .state
                .changed
                .wait_timeout(progress, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.signal(Signal::SIGKILL);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn transcript(&self) -> String {
        let progress = self.lock();
        format!(
            "--- stdout\n{}--- stderr\n{}",
            String::from_utf8_lossy(&progress.stdout),
            String::from_utf8_lossy(&progress.stderr)
        )
    }
}

/// Life of the thread that starts a program and stays until its end: the
/// program's namespaces are this thread's, and the kernel kills the program
/// when this thread, its parent, is gone.
fn keep(
    state: &Arc<State>,
    captured: bool,
    spawn: impl FnOnce(Stdio, Stdio) -> io::Result<(Instant, Child)>,
    started: &Sender<io::Result<Pid>>,
) {
    // First the readers: a thread whose children are to have another PID
    // namespace cannot start threads.
    let (child, readers) = if captured {
        let stdout = capture(state, |progress| &mut progress.stdout);
        let stderr = capture(state, |progress| &mut progress.stderr);
        match (stdout, stderr) {
            (Ok((stdout, out)), Ok((stderr, err))) => {
                (spawn(stdout.into(), stderr.into()), vec![out, err])
            }
            (Err(error), _) | (_, Err(error)) => (Err(error), Vec::new()),
        }
    } else {
        (spawn(Stdio::inherit(), Stdio::inherit()), Vec::new())
    };
    match child {
        Err(error) => drop(started.send(Err(error))),
        Ok((begun, mut child)) => {
            let pid = Pid::from_raw(child.id().cast_signed());
            let _ = started.send(Ok(pid));
            for reader in readers {
                let _ = reader.join();
            }
            // The program stays a zombie until the lock is held, so that
            // nobody signals a stranger with its id.
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            let elapsed = begun.elapsed();
            state.update(|progress| {
                progress.elapsed = elapsed;
                progress.exit = Some(child.wait().unwrap_or_default());
            });
        }
    }
}

/// A pipe, and the thread that copies what comes out of it.
fn capture(
    state: &Arc<State>,
    sink: fn(&mut Progress) -> &mut Vec<u8>,
) -> io::Result<(PipeWriter, JoinHandle<()>)> {
    let (mut output, input) = io::pipe()?;
    let state = state.clone();
    let reader = thread::Builder::new()
        .name("output".to_owned())
        .spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let bytes = buffer.get(..length).unwrap_or_default();
                state.update(|progress| sink(progress).extend(bytes));
            }
        })?;
    Ok((input, reader))
}
