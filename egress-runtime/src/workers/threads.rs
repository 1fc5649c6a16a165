//! The threads of the workers.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::interval;

/// Shorter than the time-outs of connections, and long enough to cost nothing.
const TICK: Duration = Duration::from_secs(1);

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    ended: UnboundedReceiver<Ended>,
}

/// A worker that is no more.
#[derive(Debug)]
pub struct Ended {
    /// Which, from 0.
    pub worker: usize,
    /// Whether its future was done, or what it panicked with.
    pub result: Result<(), WorkerError>,
}

/// What is wrong with a worker.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// It cannot start.
    #[error("worker {worker} cannot start: {cause}")]
    Start {
        /// Which, from 0.
        worker: usize,
        /// Why: the system has no threads or file descriptors left.
        #[source]
        cause: io::Error,
    },
    /// It ended by a panic.
    #[error("worker {worker} panicked: {message}")]
    Panic {
        /// Which, from 0.
        worker: usize,
        /// What the panic said.
        message: String,
    },
}

impl Workers {
    /// Starts `count` threads, `worker-0` and so on, each with a runtime of
    /// its own on which it runs the future that `make` returns for its number.
    /// When that future is done, whatever it has spawned is dropped.
    ///
    /// # Errors
    /// When a runtime or a thread cannot be made; those started before it end
    /// with their futures.
    pub fn start<F>(
        count: usize,
        make: impl Fn(usize) -> F + Send + Sync + 'static,
    ) -> Result<Self, WorkerError>
    where
        F: Future<Output = ()>,
    {
        let make = Arc::new(make);
        let (report, ended) = unbounded_channel();
        let mut workers = Self {
            handles: Vec::with_capacity(count),
            threads: Vec::with_capacity(count),
            ended,
        };
        for worker in 0..count {
            workers
                .add(worker, Arc::clone(&make), report.clone())
                .map_err(|cause| WorkerError::Start { worker, cause })?;
        }
        Ok(workers)
    }

    /// The runtimes, in the order of the workers' numbers.
    #[must_use]
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// The next worker that ends; none when all have ended. Cancel safe.
    pub async fn ended(&mut self) -> Option<Ended> {
        self.ended.recv().await
    }

    /// Waits for the threads to end, which blocks the calling one.
    pub fn join(self) {
        for thread in self.threads {
            // Its panic was caught and reported.
            let _ = thread.join();
        }
    }

    fn add<F>(
        &mut self,
        worker: usize,
        make: Arc<impl Fn(usize) -> F + Send + Sync + 'static>,
        report: UnboundedSender<Ended>,
    ) -> io::Result<()>
    where
        F: Future<Output = ()>,
    {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        self.handles.push(runtime.handle().clone());
        let run = move || {
            let work = AssertUnwindSafe(|| {
                runtime.block_on(async {
                    tokio::spawn(tick());
                    make(worker).await;
                });
            });
            let result = catch_unwind(work).map_err(|panic| WorkerError::Panic {
                worker,
                message: message(panic.as_ref()),
            });
            // What it has spawned ends before it is reported.
            drop(runtime);
            // Nobody may be interested any more.
            let _ = report.send(Ended { worker, result });
        };
        let thread = thread::Builder::new()
            .name(format!("worker-{worker}"))
            .spawn(run)?;
        self.threads.push(thread);
        Ok(())
    }
}

/// A timer that is earlier than nearly all others. Tokio writes to its driver's
/// eventfd for each that is to go off before those it knew of when it last
/// waited: without this, a system call and an event for every connection.
async fn tick() {
    let mut ticks = interval(TICK);
    loop {
        ticks.tick().await;
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn each_worker_has_a_thread_and_a_runtime() {
        let names = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&names);
        let mut workers = Workers::start(3, move |worker| {
            let seen = Arc::clone(&seen);
            async move {
                let task = tokio::spawn(async move {
                    let name = thread::current().name().map(str::to_owned);
                    seen.lock().unwrap().push((worker, name.unwrap()));
                });
                task.await.unwrap();
            }
        })
        .unwrap();
        assert_eq!(workers.handles().len(), 3);
        let mut ended = Vec::new();
        while let Some(worker) = workers.ended().await {
            worker.result.unwrap();
            ended.push(worker.worker);
        }
        ended.sort_unstable();
        assert_eq!(ended, [0, 1, 2]);
        workers.join();
        let mut names = names.lock().unwrap().clone();
        names.sort_unstable();
        let expected = [0, 1, 2].map(|worker| (worker, format!("worker-{worker}")));
        assert_eq!(names, expected);
    }

    #[tokio::test]
    async fn a_panic_is_noticed_and_the_others_go_on() {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut workers = Workers::start(2, move |worker| {
            let mut stopped = stopped.clone();
            async move {
                assert_ne!(worker, 1, "odd");
                stopped.wait_for(|stopped| *stopped).await.unwrap();
            }
        })
        .unwrap();
        let first = workers.ended().await.unwrap();
        assert_eq!(first.worker, 1);
        let error = first.result.unwrap_err().to_string();
        assert!(error.starts_with("worker 1 panicked: "), "{error}");
        assert!(error.contains("odd"), "{error}");
        stop.send(true).unwrap();
        let second = workers.ended().await.unwrap();
        assert_eq!(second.worker, 0);
        second.result.unwrap();
        assert!(workers.ended().await.is_none());
        workers.join();
    }

    #[tokio::test]
    async fn spawned_tasks_are_dropped_before_the_end_is_told() {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let dropped = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&dropped);
        let mut workers = Workers::start(1, move |_| {
            let counted = Counted(Arc::clone(&count));
            async move {
                tokio::spawn(async move {
                    let _counted = counted;
                    std::future::pending::<()>().await;
                });
            }
        })
        .unwrap();
        workers.ended().await.unwrap().result.unwrap();
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    }
}
