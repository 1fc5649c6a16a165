//! The tasks of a worker that can be cut off from outside.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;
use tokio::task::AbortHandle;

/// The connections of one worker, each with a value that tells others what it
/// is. Clones share them; any thread may cut connections off.
pub struct Connections<T> {
    state: Arc<Mutex<State<T>>>,
}

struct State<T> {
    entries: Slab<Entry<T>>,
    next: u64,
}

struct Entry<T> {
    /// Keys are used again, identities are not.
    id: u64,
    value: T,
    task: Task,
}

enum Task {
    Starting,
    /// To be aborted as soon as it has started.
    Unwanted,
    Running(AbortHandle),
}

/// A connection's place among the others, which it leaves on drop.
pub struct Registered<T> {
    connections: Connections<T>,
    key: usize,
}

impl<T> Connections<T> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            entries: Slab::new(),
            next: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Spawns the future that `make` returns on the current runtime. The
    /// future keeps the [`Registered`] for as long as it may be cut off.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<F>(&self, value: T, make: impl FnOnce(Registered<T>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (key, id) = self.lock().add(value);
        let connections = self.clone();
        // Not under the lock: a runtime that is ending drops the future here.
        let task = tokio::spawn(make(Registered { connections, key })).abort_handle();
        let unwanted = self.lock().started(key, id, task);
        if let Some(task) = unwanted {
            task.abort();
        }
    }

    /// Cuts off the connections whose value meets `condition`, and returns how
    /// many. A task that is cut off is dropped where it waits.
    pub fn abort_where(&self, condition: impl FnMut(&T) -> bool) -> usize {
        let (count, tasks) = self.lock().unwanted(condition);
        // Not under the lock, which a dropped future takes.
        for task in tasks {
            task.abort();
        }
        count
    }

    /// Cuts off every connection, and returns how many.
    pub fn abort_all(&self) -> usize {
        self.abort_where(|_| true)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Only a caller's condition may panic under the lock, and it changes
    /// nothing.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Registered<T> {
    /// Replaces the value, when it is known better.
    pub fn set(&self, value: T) {
        let before = self
            .connections
            .lock()
            .entries
            .get_mut(self.key)
            .map(|entry| std::mem::replace(&mut entry.value, value));
        // After the lock: its drop is the caller's code.
        drop(before);
    }
}

impl<T> Drop for Registered<T> {
    fn drop(&mut self) {
        let entry = self.connections.lock().entries.try_remove(self.key);
        drop(entry);
    }
}

impl<T> State<T> {
    fn add(&mut self, value: T) -> (usize, u64) {
        let id = self.next;
        self.next += 1;
        let task = Task::Starting;
        (self.entries.insert(Entry { id, value, task }), id)
    }

    /// Returns the task when it is to be aborted.
    fn started(&mut self, key: usize, id: u64, task: AbortHandle) -> Option<AbortHandle> {
        // Otherwise it has ended already.
        let entry = self.entries.get_mut(key).filter(|entry| entry.id == id)?;
        match entry.task {
            Task::Unwanted => Some(task),
            Task::Starting | Task::Running(_) => {
                entry.task = Task::Running(task);
                None
            }
        }
    }

    fn unwanted(&mut self, mut condition: impl FnMut(&T) -> bool) -> (usize, Vec<AbortHandle>) {
        let mut tasks = Vec::new();
        let mut count = 0;
        for (_, entry) in &mut self.entries {
            if !condition(&entry.value) {
                continue;
            }
            count += 1;
            match &entry.task {
                Task::Running(task) => tasks.push(task.clone()),
                Task::Starting | Task::Unwanted => entry.task = Task::Unwanted,
            }
        }
        (count, tasks)
    }
}

impl<T> Clone for Connections<T> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
        }
    }
}

impl<T> Default for Connections<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Connections<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Registered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
