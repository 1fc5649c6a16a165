//! One port of datagrams on one worker, and the sessions of its clients.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use egress_runtime::egress_address::EgressAddress;
use egress_runtime::limits::Limits;
use socket2::Socket;

use super::scratch::with_scratch;
use super::session::{Running, Session, SessionError};
use super::socket::{Downstream, Peer};
use crate::record::{End, Record};
use crate::route::{Lead, Route};
use crate::server::{Shared, Worker};

/// Datagrams of one socket, after which others have their turn.
pub(super) const BATCH: usize = 64;

/// What the ports of one worker share.
#[derive(Clone, Debug)]
pub(crate) struct UdpWorker {
    pub(crate) worker: Worker,
    pub(crate) source: EgressAddress,
    /// How long a session may be quiet.
    pub(crate) idle: Duration,
    /// Sessions, of all workers.
    pub(crate) sessions: Limits,
}

/// One port on one worker.
#[derive(Debug)]
pub(super) struct PortWorker {
    downstream: Downstream,
    lead: Arc<Lead>,
    worker: UdpWorker,
    sessions: Mutex<HashMap<Peer, Arc<Session>>>,
}

/// Serves the clients of one port on one worker until it is dropped.
///
/// # Errors
/// When the runtime cannot take the socket, or it fails for good.
pub(crate) async fn serve(
    socket: Socket,
    lead: Arc<Lead>,
    worker: UdpWorker,
) -> io::Result<Infallible> {
    let port = Arc::new(PortWorker {
        downstream: Downstream::new(socket)?,
        lead,
        worker,
        sessions: Mutex::default(),
    });
    loop {
        port.downstream.readable().await?;
        port.receive();
        // Where datagrams come without end, sessions have their turn too.
        tokio::task::yield_now().await;
    }
}

impl PortWorker {
    pub(super) fn downstream(&self) -> &Downstream {
        &self.downstream
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.worker.worker.shared
    }

    pub(super) fn idle(&self) -> Duration {
        self.worker.idle
    }

    /// Lets go of a session that has ended.
    pub(super) fn forget(&self, peer: &Peer, session: &Arc<Session>) {
        let mut sessions = self.lock();
        if sessions
            .get(peer)
            .is_some_and(|known| Arc::ptr_eq(known, session))
        {
            sessions.remove(peer);
        }
    }

    /// Takes what has come.
    fn receive(self: &Arc<Self>) {
        with_scratch(|scratch| {
            for _ in 0..BATCH {
                match self.downstream.receive(scratch) {
                    Ok((length, Some(peer))) => {
                        let bytes = scratch.bytes.get(..length).unwrap_or_default();
                        self.relay(bytes, peer);
                    }
                    Ok((_, None)) => self.lead.route().counts().dropped.add(1),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    // An answer of ours found nobody: says which client, not
                    // what is wrong with the socket.
                    Err(_) => {}
                }
            }
        });
    }

    fn relay(self: &Arc<Self>, bytes: &[u8], peer: Peer) {
        // The ports of the pod are for the cluster.
        if self.worker.source.is_ours(peer.local()) {
            return;
        }
        let known = self.lock().get(&peer).cloned();
        let sent = match known {
            Some(session) => match session.send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.forget(&peer, &session);
                    self.open(peer).map(|session| session.send(bytes))
                }
                sent => Some(sent),
            },
            None => self.open(peer).map(|session| session.send(bytes)),
        };
        match sent {
            Some(Ok(())) => {}
            Some(Err(_)) | None => self.lead.route().counts().dropped.add(1),
        }
    }

    /// Begins a session, if that is possible.
    fn open(self: &Arc<Self>, peer: Peer) -> Option<Arc<Session>> {
        let worker = &self.worker.worker;
        if worker.shared.drain.is_draining() {
            return None;
        }
        let route = self.lead.route();
        let Ok(permit) = self.worker.sessions.admit(peer.client().ip()) else {
            route.counts().limited.add(1);
            return None;
        };
        let rotation = route.target().rotation();
        if rotation.is_empty() {
            route.counts().unresolved.add(1);
            return None;
        }
        let open = (permit, worker.shared.drain.guard());
        let log = worker.log.clone();
        let mut record = Record::new(Arc::clone(&route), log, peer.client(), open);
        match self.connect(&route) {
            Ok(session) => {
                record.connected(session.address(), None);
                let session = Arc::new(session);
                self.lock().insert(peer, Arc::clone(&session));
                let running = Running::new(Arc::clone(&session), peer, Arc::clone(self), record);
                worker.connections.spawn(route, |registered| async move {
                    running.run().await;
                    drop(registered);
                });
                Some(session)
            }
            Err(error) => {
                record
                    .ended(error.map_or(End::Unresolved, |error| End::NoSession(Box::new(error))));
                None
            }
        }
    }

    /// Connects to the first backend that can be connected to.
    ///
    /// # Errors
    /// With what was wrong with the first; none where there is no backend.
    fn connect(&self, route: &Route) -> Result<Session, Option<SessionError>> {
        let target = route.target();
        let rotation = target.rotation();
        let mut failure = None;
        for address in rotation.pick(target.turn()) {
            match Session::connect(address, &self.worker.source) {
                Ok(session) => return Ok(session),
                Err(error) => {
                    if let SessionError::Unreachable { cause, .. } = &error {
                        target.dialled(address, Err(cause));
                    }
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure)
    }

    /// No code that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<Peer, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
