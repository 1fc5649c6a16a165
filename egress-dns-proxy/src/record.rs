//! One connection, or one session of datagrams: its line in the access log
//! and its counts.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egress_config::Protocol;
use egress_runtime::access_log::WorkerLog;
use egress_runtime::dial::DialError;
use egress_runtime::drain::Guard;
use egress_runtime::limits::{Permit, Refusal};
use egress_runtime::relay::{RelayEnd, Transferred};

use crate::route::Route;
use crate::udp::SessionError;

/// Counts when it is made; counts and logs once when it is dropped, however
/// the connection came to its end.
#[derive(Debug)]
pub(crate) struct Record {
    route: Arc<Route>,
    log: WorkerLog,
    client: SocketAddr,
    upstream: Option<SocketAddr>,
    began: Instant,
    connect: Option<Duration>,
    transferred: Transferred,
    end: End,
    /// What it counts for while it lasts.
    open: Option<(Permit, Guard)>,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// We ended it: the program is ending, or the mapping is gone.
    CutOff,
    /// There were too many.
    Refused(Refusal),
    /// Nothing to connect to.
    Unresolved,
    /// No backend answered.
    NotConnected(Box<DialError>),
    /// A backend could not be sent datagrams.
    NoSession(Box<SessionError>),
    /// Both sides had ended, or nothing came any more.
    Relayed(RelayEnd),
    /// Nobody has answered, and the name has other addresses now.
    AddressGone,
}

impl Record {
    pub(crate) fn new(
        route: Arc<Route>,
        log: WorkerLog,
        client: SocketAddr,
        open: (Permit, Guard),
    ) -> Self {
        let counts = route.counts();
        counts.connections.add(1);
        counts.open.add(1);
        Self::with(route, log, client, End::CutOff, Some(open))
    }

    /// Of a client that a limit keeps out.
    pub(crate) fn refused(
        route: Arc<Route>,
        log: WorkerLog,
        client: SocketAddr,
        refusal: Refusal,
    ) -> Self {
        let counts = route.counts();
        counts.connections.add(1);
        counts.limited.add(1);
        Self::with(route, log, client, End::Refused(refusal), None)
    }

    fn with(
        route: Arc<Route>,
        log: WorkerLog,
        client: SocketAddr,
        end: End,
        open: Option<(Permit, Guard)>,
    ) -> Self {
        Self {
            route,
            log,
            client,
            upstream: None,
            began: Instant::now(),
            connect: None,
            transferred: Transferred::default(),
            end,
            open,
        }
    }

    pub(crate) fn route(&self) -> &Arc<Route> {
        &self.route
    }

    pub(crate) fn transferred(&self) -> &Transferred {
        &self.transferred
    }

    /// A backend was reached at `address`; with datagrams that takes no time.
    pub(crate) fn connected(&mut self, address: SocketAddr, took: Option<Duration>) {
        self.upstream = Some(address);
        self.connect = took;
    }

    /// Says how it ended, before it is dropped.
    pub(crate) fn ended(&mut self, end: End) {
        let counts = self.route.counts();
        match end {
            End::Unresolved => counts.unresolved.add(1),
            End::NotConnected(_) | End::NoSession(_) => counts.connect_failed.add(1),
            End::CutOff | End::Refused(_) | End::Relayed(_) | End::AddressGone => {}
        }
        self.end = end;
    }
}

impl AsRef<Transferred> for Record {
    fn as_ref(&self) -> &Transferred {
        &self.transferred
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let mapping = self.route.mapping();
        let counts = self.route.counts();
        let (up, down) = (self.transferred.up.get(), self.transferred.down.get());
        counts.bytes_up.add(up);
        counts.bytes_down.add(down);
        if self.open.is_some() {
            counts.open.add(-1);
        }
        let message = match mapping.protocol() {
            Protocol::Tcp => "connection",
            Protocol::Udp => "session",
        };
        self.log.line(message, |entry| {
            entry
                .socket("client", self.client)
                .number("port", mapping.port().get().into())
                .display("protocol", mapping.protocol())
                .display("host", mapping.host())
                .number("host_port", mapping.remote_port().get().into())
                .number("line", self.route.line().into());
            if let Some(upstream) = self.upstream {
                entry.socket("upstream", upstream);
            }
            entry
                .str("end", self.end.word(&self.route))
                .number("bytes_up", up)
                .number("bytes_down", down)
                .duration_ms("duration_ms", self.began.elapsed());
            if let Some(connect) = self.connect {
                entry.duration_ms("connect_ms", connect);
            }
            if let Some(error) = self.end.error(self.client, self.upstream) {
                entry.display("error", error);
            }
        });
    }
}

impl End {
    fn word(&self, route: &Route) -> &'static str {
        match self {
            Self::CutOff if route.is_forbidden() => "reload",
            Self::CutOff => "drain",
            Self::Refused(_) => "limit",
            Self::Unresolved => "unresolved",
            Self::NotConnected(_) | Self::NoSession(_) => "not_connected",
            Self::Relayed(RelayEnd::Finished) => "finished",
            Self::Relayed(RelayEnd::Idle) => "idle",
            Self::Relayed(RelayEnd::Downstream(_)) => "client_error",
            Self::Relayed(RelayEnd::Upstream(_)) => "upstream_error",
            Self::AddressGone => "address_gone",
        }
    }

    /// What went wrong, and on which side.
    fn error(&self, client: SocketAddr, upstream: Option<SocketAddr>) -> Option<Error<'_>> {
        match self {
            Self::Refused(refusal) => Some(Error::Us(refusal)),
            Self::NotConnected(error) => Some(Error::Us(error)),
            Self::NoSession(error) => Some(Error::Us(error)),
            Self::Relayed(RelayEnd::Downstream(error)) => {
                Some(Error::Side("client", Some(client), error))
            }
            Self::Relayed(RelayEnd::Upstream(error)) => {
                Some(Error::Side("upstream", upstream, error))
            }
            Self::CutOff
            | Self::Unresolved
            | Self::Relayed(RelayEnd::Finished | RelayEnd::Idle)
            | Self::AddressGone => None,
        }
    }
}

enum Error<'a> {
    /// Its text names the side where it is not ours.
    Us(&'a dyn fmt::Display),
    Side(&'static str, Option<SocketAddr>, &'a io::Error),
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Us(error) => error.fmt(f),
            Self::Side(side, Some(address), error) => write!(f, "{side} {address}: {error}"),
            Self::Side(side, None, error) => write!(f, "{side}: {error}"),
        }
    }
}
