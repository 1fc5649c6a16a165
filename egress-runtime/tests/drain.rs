//! The end of a program with connections.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use egress_runtime::drain::{Connections, Drain};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::timeout;

const SOON: Duration = Duration::from_millis(50);

#[tokio::test]
async fn finishes_when_the_last_guard_is_dropped() {
    let drain = Drain::new();
    timeout(SOON, drain.finished()).await.unwrap();
    let (first, second) = (drain.guard(), drain.guard());
    assert_eq!(drain.in_flight(), 2);
    drain.begin();
    drop(first);
    timeout(SOON, drain.finished()).await.unwrap_err();
    let waits = tokio::spawn({
        let drain = drain.clone();
        async move { drain.finished().await }
    });
    tokio::task::yield_now().await;
    std::thread::spawn(move || drop(second)).join().unwrap();
    waits.await.unwrap();
    assert_eq!(drain.in_flight(), 0);
}

#[tokio::test]
async fn tells_those_that_wait_and_those_that_come_late() {
    let drain = Drain::new();
    let guard = drain.guard();
    assert!(!drain.is_draining());
    timeout(SOON, drain.draining()).await.unwrap_err();
    let waits = tokio::spawn({
        let drain = drain.clone();
        async move {
            drain.draining().await;
            drop(guard);
        }
    });
    tokio::task::yield_now().await;
    drain.begin();
    waits.await.unwrap();
    drain.draining().await;
    assert!(drain.is_draining());
    timeout(SOON, drain.finished()).await.unwrap();
}

/// Counts its drop.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn cuts_off_those_that_meet_a_condition() {
    let connections = Connections::new();
    let dropped = Arc::new(AtomicUsize::new(0));
    for number in 0..10 {
        let record = Dropped(Arc::clone(&dropped));
        connections.spawn(0, move |registered| async move {
            registered.set(number);
            let _kept = (record, registered);
            pending::<()>().await;
        });
    }
    tokio::task::yield_now().await;
    assert_eq!(connections.len(), 10);
    assert_eq!(connections.abort_where(|number| number % 2 == 0), 5);
    while connections.len() > 5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 5);
    assert_eq!(connections.abort_where(|number| number % 2 == 0), 0);
    assert_eq!(connections.abort_all(), 5);
    while !connections.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn leaves_when_it_is_done_and_its_place_is_used_again() {
    let connections = Connections::new();
    for round in 0..3 {
        let (end, ended) = oneshot::channel::<()>();
        connections.spawn(round, |registered| async move {
            let _ = ended.await;
            drop(registered);
        });
        assert_eq!(connections.len(), 1);
        end.send(()).unwrap();
        while !connections.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

#[test]
fn is_cut_off_from_another_thread() {
    let connections = Connections::new();
    let worker = Builder::new_current_thread().enable_all().build().unwrap();
    let dropped = Arc::new(AtomicUsize::new(0));
    let (started, start) = std::sync::mpsc::channel();
    let thread = std::thread::spawn({
        let (connections, dropped) = (connections.clone(), Arc::clone(&dropped));
        move || {
            worker.block_on(async move {
                let (end, ended) = oneshot::channel::<()>();
                let record = Dropped(dropped);
                connections.spawn((), |registered| async move {
                    let _kept = (record, registered, end);
                    pending::<()>().await;
                });
                started.send(()).unwrap();
                ended.await.unwrap_err();
            });
        }
    });
    start.recv().unwrap();
    assert_eq!(connections.abort_all(), 1);
    thread.join().unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert!(connections.is_empty());
}

#[test]
fn a_runtime_that_ends_drops_what_is_registered() {
    let connections = Connections::new();
    let dropped = Arc::new(AtomicUsize::new(0));
    let runtime = Builder::new_current_thread().build().unwrap();
    let record = Dropped(Arc::clone(&dropped));
    runtime.block_on(async {
        connections.spawn((), |registered| async move {
            let _kept = (record, registered);
            pending::<()>().await;
        });
    });
    let handle = runtime.handle().clone();
    drop(runtime);
    assert!(connections.is_empty());
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    // On a runtime that has ended the future is dropped at once.
    let _inside = handle.enter();
    connections.spawn((), |registered| async move {
        drop(registered);
    });
    assert!(connections.is_empty());
    assert_eq!(connections.abort_all(), 0);
}
