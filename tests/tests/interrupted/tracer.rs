//! Runs a program under ptrace(2) and ends it, or spoils what it asks of the
//! kernel, at its N-th change of the network.
//!
//! Who traces must be the program's parent, and must wait for it: so this test
//! program plays that role in a process of its own, inside the pod, and a
//! third one steps aside for the program once it is traced.

use std::{
    collections::HashSet,
    env, fs,
    fs::File,
    io,
    ops::Range,
    os::unix::{fs::FileExt, process::CommandExt},
    path::Path,
    process::{Command, ExitCode},
};

use nix::{
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// Says which of the roles a copy of this program plays.
const ROLE: &str = "EGRESS_TRACE_ROLE";
const PROGRAM: &str = "EGRESS_TRACE_PROGRAM";
const STEP: &str = "EGRESS_TRACE_STEP";
const FATE: &str = "EGRESS_TRACE_FATE";
const ALL: [&str; 4] = [ROLE, PROGRAM, STEP, FATE];

const TRACER: &str = "tracer";
const TRACEE: &str = "tracee";

/// What happens to a program at one of its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// SIGKILL, once the kernel has carried the change out.
    Kill,
    /// The kernel gets a request that it refuses.
    Refuse,
}

impl Fate {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Refuse => "refuse",
        }
    }
}

/// Makes `tracer`, a command that is this test program, one that runs
/// `program` with the arguments and the environment it has, and has `fate`
/// come over it at its change number `step`, counted from 1. It writes which
/// change that was to standard output; nothing, when the program ended before.
/// The exit code is the program's.
pub(crate) fn traced(
    tracer: egress_lab::Command,
    program: &Path,
    fate: Fate,
    step: usize,
) -> egress_lab::Command {
    tracer
        .env(ROLE, TRACER)
        .env(PROGRAM, program.display().to_string())
        .env(STEP, step.to_string())
        .env(FATE, fate.name())
}

/// Plays a role, when this process was started for one.
pub(crate) fn role() -> Option<ExitCode> {
    let result = match env::var(ROLE).ok()?.as_str() {
        TRACEE => become_program(),
        _ => trace(),
    };
    Some(result.unwrap_or_else(|error| {
        eprintln!("tracing: {error}; ptrace(2) must be allowed here");
        ExitCode::from(99)
    }))
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

/// Replaces this process by the program, which stops at its first instruction.
fn become_program() -> io::Result<ExitCode> {
    capctl::prctl::set_pdeathsig(Some(Signal::SIGKILL as i32))?;
    ptrace::traceme()?;
    let mut command = Command::new(variable(PROGRAM)?);
    command.args(env::args_os().skip(1));
    for name in ALL {
        command.env_remove(name);
    }
    Err(command.exec())
}

fn trace() -> io::Result<ExitCode> {
    let step = variable(STEP)?.parse().map_err(io::Error::other)?;
    let fate = match variable(FATE)?.as_str() {
        "kill" => Fate::Kill,
        _ => Fate::Refuse,
    };
    let child = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(ROLE, TRACEE)
        .spawn()?;
    let program = Pid::from_raw(child.id().cast_signed());
    match waitpid(program, None)? {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
        other => return Err(io::Error::other(format!("instead of a program: {other:?}"))),
    }
    ptrace::setoptions(
        program,
        Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK,
    )?;
    let mut trace = Trace {
        program,
        step,
        fate,
        seen: 0,
        inside: HashSet::new(),
        due: None,
    };
    ptrace::syscall(program, None)?;
    trace.run()
}

struct Trace {
    program: Pid,
    step: usize,
    fate: Fate,
    /// Changes so far.
    seen: usize,
    /// Threads that are inside a system call.
    inside: HashSet<Pid>,
    /// The thread whose system call is the one.
    due: Option<Pid>,
}

impl Trace {
    fn run(&mut self) -> io::Result<ExitCode> {
        let mut threads = HashSet::from([self.program]);
        loop {
            let (thread, signal) = match waitpid(None, Some(WaitPidFlag::__WALL))? {
                WaitStatus::Exited(pid, code) if pid == self.program => {
                    return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
                }
                WaitStatus::Signaled(pid, signal, _) if pid == self.program => {
                    return Ok(ExitCode::from(128 + signal as u8));
                }
                WaitStatus::PtraceSyscall(thread) => {
                    self.syscall(thread)?;
                    (thread, None)
                }
                WaitStatus::PtraceEvent(thread, ..) => (thread, None),
                // A new thread begins stopped.
                WaitStatus::Stopped(thread, Signal::SIGSTOP) if threads.insert(thread) => {
                    (thread, None)
                }
                WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
                _ => continue,
            };
            match ptrace::syscall(thread, signal) {
                // Killed meanwhile; its end is told next.
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// At the entry of a system call and, the next time, at its end.
    fn syscall(&mut self, thread: Pid) -> io::Result<()> {
        if self.inside.remove(&thread) {
            if self.due == Some(thread) {
                kill(self.program, Signal::SIGKILL)?;
            }
            return Ok(());
        }
        self.inside.insert(thread);
        let Some(change) = Change::of(thread)? else {
            return Ok(());
        };
        if self.fate == Fate::Refuse && change.kind == Kind::Frame {
            // The network has no say in it.
            return Ok(());
        }
        self.seen += 1;
        if self.seen == self.step {
            println!("{}", change.name);
            match self.fate {
                Fate::Kill => self.due = Some(thread),
                Fate::Refuse => change.spoil(thread)?,
            }
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Netlink,
    /// Of several messages, which take effect together.
    Batch,
    /// To the physical network.
    Frame,
    Sysctl,
}

/// A system call that changes the network of the pod.
#[derive(Debug)]
struct Change {
    kind: Kind,
    name: String,
    /// What is written, and where in the program's memory it is.
    bytes: Vec<u8>,
    at: u64,
}

/// `struct nlmsghdr`
const HEADER: usize = 16;

/// `struct nfgenmsg` after it: all that begins a batch.
const BATCH_BEGIN: usize = HEADER + 4;

impl Change {
    /// What the thread is about to do, if that changes anything: a request
    /// that only reads does not.
    fn of(thread: Pid) -> io::Result<Option<Self>> {
        // proc(5): the number and the arguments of the call a thread stands in.
        let text = fs::read_to_string(format!("/proc/{thread}/syscall"))?;
        let mut words = text.split_whitespace();
        let number = words.next().and_then(|word| word.parse::<i64>().ok());
        let arguments: Vec<u64> = words
            .filter_map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok())
            .collect();
        let [descriptor, buffer, length, ..] = arguments[..] else {
            return Ok(None);
        };
        match number {
            Some(libc::SYS_write) => Self::of_write(thread, descriptor, buffer, length),
            Some(libc::SYS_sendto) => Self::of_send(thread, buffer, length),
            Some(libc::SYS_sendmsg) => {
                // struct msghdr: msg_iov after a pointer and a length; struct
                // iovec: a pointer and a length.
                let vector = word(thread, buffer + 16)?;
                Self::of_send(thread, word(thread, vector)?, word(thread, vector + 8)?)
            }
            _ => Ok(None),
        }
    }

    fn of_write(thread: Pid, descriptor: u64, at: u64, length: u64) -> io::Result<Option<Self>> {
        let path = fs::read_link(format!("/proc/{thread}/fd/{descriptor}"))?;
        if !path.starts_with("/proc/sys") {
            return Ok(None);
        }
        let bytes = read(thread, at, length)?;
        let value = String::from_utf8_lossy(&bytes);
        let name = format!("{}={value}", path.display());
        Ok(Some(Self {
            kind: Kind::Sysctl,
            name,
            bytes,
            at,
        }))
    }

    fn of_send(thread: Pid, at: u64, length: u64) -> io::Result<Option<Self>> {
        let bytes = read(thread, at, length)?;
        let number = |range: Range<usize>| -> Option<[u8; 2]> { bytes.get(range)?.try_into().ok() };
        let message_length = bytes
            .first_chunk()
            .map_or(u32::MAX, |b| u32::from_ne_bytes(*b));
        let message_length = usize::try_from(message_length).unwrap_or(usize::MAX);
        let (Some(kind), Some(flags)) = (number(4..6), number(6..8)) else {
            return Ok(None);
        };
        let (kind, flags) = (u16::from_ne_bytes(kind), u16::from_ne_bytes(flags));
        if message_length > bytes.len() {
            // An Ethernet frame begins with a hardware address.
            return Ok(Some(Self {
                kind: Kind::Frame,
                name: "frame".to_owned(),
                bytes,
                at,
            }));
        }
        let subsystem = kind >> 8;
        // Every fourth message of rtnetlink(7) asks for one object.
        let asks = subsystem == 0 && kind >= 16 && kind % 4 == 2;
        if asks || flags & NLM_F_DUMP == NLM_F_DUMP {
            return Ok(None);
        }
        let (kind, name) = if kind == NFNL_MSG_BATCH_BEGIN && message_length == BATCH_BEGIN {
            (Kind::Batch, format!("netfilter batch of {length} bytes"))
        } else {
            (Kind::Netlink, format!("netlink request {kind:#x}"))
        };
        Ok(Some(Self {
            kind,
            name,
            bytes,
            at,
        }))
    }

    /// Makes it something that the kernel refuses.
    fn spoil(&self, thread: Pid) -> io::Result<()> {
        match self.kind {
            Kind::Frame => Ok(()),
            // Not a number.
            Kind::Sysctl => write(thread, self.at, &vec![b'x'; self.bytes.len()]),
            Kind::Netlink => self.spoil_message(thread, 0),
            Kind::Batch => self.spoil_message(thread, BATCH_BEGIN),
        }
    }

    /// Gives the message at `offset` a type that its subsystem does not have.
    fn spoil_message(&self, thread: Pid, offset: usize) -> io::Result<()> {
        let subsystem = self.bytes.get(offset + 5).copied().unwrap_or_default();
        let at = self.at + u64::try_from(offset + 4).map_err(io::Error::other)?;
        write(
            thread,
            at,
            &u16::to_ne_bytes(u16::from(subsystem) << 8 | 0xff),
        )
    }
}

const NLM_F_DUMP: u16 = netlink_packet_core::NLM_F_DUMP;

/// include/uapi/linux/netfilter/nfnetlink.h
const NFNL_MSG_BATCH_BEGIN: u16 = 16;

fn word(thread: Pid, at: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    memory(thread, false)?.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn read(thread: Pid, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    memory(thread, false)?.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

fn write(thread: Pid, at: u64, bytes: &[u8]) -> io::Result<()> {
    memory(thread, true)?.write_all_at(bytes, at)
}

fn memory(thread: Pid, write: bool) -> io::Result<File> {
    File::options()
        .read(true)
        .write(write)
        .open(format!("/proc/{thread}/mem"))
}
