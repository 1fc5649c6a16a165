//! The thread that writes.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use egress_config::LogFormat;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use thiserror::Error;

use super::buffer::{Added, Buffer};
use super::entry::Entry;
use crate::logging::Form;

/// How long lines may wait for company.
const COLLECT: Duration = Duration::from_millis(100);
/// Bytes of one write, after which others may write to stderr.
const WRITE_BYTES: usize = 64 * 1024;

/// The access log of the process. Clones share it.
#[derive(Clone, Debug)]
pub struct AccessLog {
    shared: Option<Arc<Shared>>,
}

/// The lines of one worker. Clones write into the same buffer, so every worker
/// takes its own with [`AccessLog::worker`].
#[derive(Clone)]
pub struct WorkerLog {
    source: Option<Arc<Source>>,
}

/// The log cannot start.
#[derive(Debug, Error)]
#[error("the access log cannot start: {0}")]
pub struct AccessLogError(#[source] io::Error);

#[derive(Debug)]
struct Shared {
    form: Form,
    state: Mutex<State>,
    changed: Condvar,
    dropped: Counter,
}

#[derive(Debug)]
struct Source {
    shared: Arc<Shared>,
    buffer: Mutex<Buffer>,
}

#[derive(Debug, Default)]
struct State {
    sources: Vec<Arc<Source>>,
    waiting: Waiting,
    life: Life,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Waiting {
    #[default]
    Nothing,
    Lines,
    /// So many that the writer comes at once.
    Much,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Running,
    Finishing,
    Finished,
}

impl AccessLog {
    /// Writes to stderr in the form that [`logging`](crate::logging) gives
    /// `format`. Registers `egress_access_log_dropped_total`.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(format: LogFormat, registry: &mut Registry) -> Result<Self, AccessLogError> {
        Self::to(io::stderr(), Form::decide(format), registry)
    }

    /// Writes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self { shared: None }
    }

    fn to(
        mut out: impl Write + Send + 'static,
        form: Form,
        registry: &mut Registry,
    ) -> Result<Self, AccessLogError> {
        let shared = Arc::new(Shared {
            form,
            state: Mutex::default(),
            changed: Condvar::new(),
            dropped: Counter::default(),
        });
        registry.register(
            "egress_access_log_dropped",
            "Lines of the access log that were dropped because stderr was not read",
            shared.dropped.clone(),
        );
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&mut out))
            .map_err(AccessLogError)?;
        let shared = Some(shared);
        Ok(Self { shared })
    }

    /// A buffer for one worker.
    #[must_use]
    pub fn worker(&self) -> WorkerLog {
        let source = self.shared.as_ref().map(|shared| {
            let source = Arc::new(Source {
                shared: Arc::clone(shared),
                buffer: Mutex::new(Buffer::new(shared.form)),
            });
            shared.lock().sources.push(Arc::clone(&source));
            source
        });
        WorkerLog { source }
    }

    /// Writes what is there and ends the log; lines after it are lost. Blocks
    /// the calling thread, for at most `patience` when nobody reads stderr.
    pub fn finish(&self, patience: Duration) {
        let Some(shared) = &self.shared else { return };
        let mut state = shared.lock();
        if state.life == Life::Running {
            state.life = Life::Finishing;
        }
        shared.changed.notify_all();
        // What is not written by then never will be.
        let _ = shared
            .changed
            .wait_timeout_while(state, patience, |state| state.life != Life::Finished);
    }
}

impl WorkerLog {
    /// Adds a line: its message, and the fields that `fields` writes.
    pub fn line(&self, message: &str, fields: impl FnOnce(&mut Entry<'_>)) {
        let Some(source) = &self.source else { return };
        let now = SystemTime::now();
        let added = source.lock().add(now, message, fields);
        match added {
            Added::Further => {}
            Added::First => source.shared.wake(Waiting::Lines),
            Added::Full => source.shared.wake(Waiting::Much),
            Added::Dropped => {
                source.shared.dropped.inc();
            }
        }
    }
}

impl Shared {
    fn run(&self, out: &mut impl Write) {
        let mut lines = Vec::new();
        loop {
            let (sources, life) = self.next();
            for source in &sources {
                source.lock().take(&mut lines);
                let lost = write(out, &lines);
                self.dropped.inc_by(lost);
            }
            if life != Life::Running {
                self.lock().life = Life::Finished;
                self.changed.notify_all();
                return;
            }
        }
    }

    /// Waits until there is something to write.
    fn next(&self) -> (Vec<Arc<Source>>, Life) {
        let running = |state: &State| state.life == Life::Running;
        let idle = |state: &mut State| running(state) && state.waiting == Waiting::Nothing;
        let state = self
            .changed
            .wait_while(self.lock(), idle)
            .unwrap_or_else(PoisonError::into_inner);
        let few = |state: &mut State| running(state) && state.waiting < Waiting::Much;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, COLLECT, few)
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting = Waiting::Nothing;
        (state.sources.clone(), state.life)
    }

    fn wake(&self, waiting: Waiting) {
        let mut state = self.lock();
        state.waiting = state.waiting.max(waiting);
        drop(state);
        self.changed.notify_all();
    }

    /// No code that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// A panic of a caller's fields leaves a line without its end at worst.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes whole lines, some KiB at a time. Returns the lines that were lost.
fn write(out: &mut impl Write, mut lines: &[u8]) -> u64 {
    let mut lost = 0;
    while !lines.is_empty() {
        let (chunk, rest) = first_lines(lines);
        if out.write_all(chunk).is_err() {
            lost += chunk.iter().filter(|&&byte| byte == b'\n').count() as u64;
        }
        lines = rest;
    }
    lost
}

/// As many lines as one write takes, at least one, and the rest.
fn first_lines(lines: &[u8]) -> (&[u8], &[u8]) {
    let is_end = |byte: &u8| *byte == b'\n';
    let fitting = lines.get(..WRITE_BYTES).unwrap_or(lines);
    let end = fitting
        .iter()
        .rposition(is_end)
        .or_else(|| lines.iter().position(is_end))
        .map_or(lines.len(), |end| end + 1);
    lines.split_at_checked(end).unwrap_or((lines, &[]))
}

impl fmt::Debug for WorkerLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerLog").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    use prometheus_client::encoding::text::encode;

    use super::*;

    /// Passes every write on, after `gate` has let it.
    struct Out {
        writes: Sender<Vec<u8>>,
        gate: Arc<Mutex<()>>,
    }

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _gate = self.gate.lock().unwrap();
            // After the test has ended nobody receives.
            let _ = self.writes.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Started {
        log: AccessLog,
        registry: Registry,
        writes: Receiver<Vec<u8>>,
        gate: Arc<Mutex<()>>,
    }

    fn start() -> Started {
        let (sender, writes) = channel();
        let gate = Arc::new(Mutex::new(()));
        let out = Out {
            writes: sender,
            gate: Arc::clone(&gate),
        };
        let mut registry = Registry::default();
        let log = AccessLog::to(out, Form::Text, &mut registry).unwrap();
        Started {
            log,
            registry,
            writes,
            gate,
        }
    }

    fn dropped(registry: &Registry) -> usize {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("egress_access_log_dropped_total "));
        line.unwrap().parse().unwrap()
    }

    fn number(worker: &WorkerLog, number: u64) {
        worker.line("request", |entry| {
            entry.number("number", number);
        });
    }

    fn lines(writes: &[Vec<u8>]) -> usize {
        writes
            .iter()
            .map(|write| write.iter().filter(|&&byte| byte == b'\n').count())
            .sum()
    }

    #[test]
    fn lines_are_collected_and_written_together() {
        let started = start();
        let workers = [started.log.worker(), started.log.worker()];
        let began = Instant::now();
        for worker in &workers {
            for count in 0..50 {
                number(worker, count);
            }
        }
        let mut writes = vec![started.writes.recv().unwrap()];
        assert!(began.elapsed() >= COLLECT);
        while lines(&writes) < 100 {
            writes.push(started.writes.recv().unwrap());
        }
        assert!(writes.len() < 10, "{} writes", writes.len());
        assert_eq!(dropped(&started.registry), 0);
    }

    #[test]
    fn much_is_written_early_in_whole_lines() {
        let started = start();
        let worker = started.log.worker();
        let began = Instant::now();
        let mut count = 0_usize;
        let mut writes = Vec::new();
        while writes.len() < 3 && began.elapsed() < Duration::from_secs(20) {
            number(&worker, count as u64);
            count += 1;
            writes.extend(started.writes.try_iter());
        }
        started.log.finish(Duration::from_secs(5));
        writes.extend(started.writes.try_iter());
        assert!(writes.len() >= 3);
        for write in &writes {
            assert!(write.starts_with(b"20") && write.ends_with(b"\n"));
            assert!(write.len() <= WRITE_BYTES);
        }
        assert_eq!(lines(&writes) + dropped(&started.registry), count);
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_stops_nobody() {
        let started = start();
        let worker = started.log.worker();
        let shut = started.gate.lock().unwrap();
        for count in 0..60_000 {
            number(&worker, count);
        }
        let lost = dropped(&started.registry);
        assert!(lost > 10_000, "{lost}");
        let began = Instant::now();
        started.log.finish(Duration::from_millis(100));
        assert!(began.elapsed() >= Duration::from_millis(100));
        drop(shut);
        started.log.finish(Duration::from_secs(20));
        let writes: Vec<_> = started.writes.try_iter().collect();
        assert_eq!(lines(&writes) + dropped(&started.registry), 60_000);
    }

    #[test]
    fn finishing_writes_what_is_there_at_once() {
        let started = start();
        let worker = started.log.worker();
        number(&worker, 1);
        let began = Instant::now();
        started.log.finish(Duration::from_secs(20));
        assert!(began.elapsed() < Duration::from_secs(10));
        let writes: Vec<_> = started.writes.try_iter().collect();
        assert_eq!(lines(&writes), 1);
        started.log.finish(Duration::from_secs(20));
    }

    #[test]
    fn what_is_off_asks_for_no_fields() {
        let log = AccessLog::off();
        log.worker().line("request", |_| panic!("not asked for"));
        log.finish(Duration::from_secs(20));
    }

    #[test]
    fn a_writer_that_fails_loses_lines_and_says_so() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut registry = Registry::default();
        let log = AccessLog::to(Broken, Form::Json, &mut registry).unwrap();
        let worker = log.worker();
        for count in 0..7 {
            number(&worker, count);
        }
        log.finish(Duration::from_secs(20));
        assert_eq!(dropped(&registry), 7);
    }

    #[test]
    fn a_line_longer_than_a_write_stays_whole() {
        let long = [b"x".repeat(WRITE_BYTES + 5), b"\nshort\n".to_vec()].concat();
        let (first, rest) = first_lines(&long);
        assert_eq!(
            (first.len(), rest),
            (WRITE_BYTES + 6, b"short\n".as_slice())
        );
        assert_eq!(first_lines(rest), (rest, b"".as_slice()));
        let short = b"a\nb\n";
        assert_eq!(first_lines(short), (short.as_slice(), b"".as_slice()));
    }
}
