//! Tries addresses until one answers.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use egress_config::AddressFamily;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::error::{DialError, DialErrorKind};
use super::interleave::interleave;
use super::socket::connect;
use crate::egress_address::EgressAddress;

/// How long an attempt may take before the next address is tried beside it
/// (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Opens TCP connections from the egress address.
#[derive(Clone, Copy, Debug)]
pub struct Dialer {
    source: EgressAddress,
    timeout: Duration,
}

/// A connection, and how it came to be.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub stream: TcpStream,
    /// The candidate that answered.
    pub address: SocketAddr,
    /// From the beginning of the dial to the end of the handshake.
    pub took: Duration,
}

impl Dialer {
    /// Sockets are bound to `source`. `timeout` is for a whole dial, whatever
    /// the number of candidates.
    #[must_use]
    pub const fn new(source: EgressAddress, timeout: Duration) -> Self {
        Self { source, timeout }
    }

    /// Connects to one of `candidates`: the families take turns beginning with
    /// IPv4, each in the order given; the next address is tried after a
    /// quarter of a second, or at once when one fails (RFC 8305).
    ///
    /// # Errors
    /// The most telling failure, when no address answered.
    pub async fn dial(&self, candidates: &[SocketAddr]) -> Result<Dialled, DialError> {
        match candidates {
            [only] => self.dial_one(*only).await,
            // Boxed, so that a caller's future has no room for a race that it
            // seldom runs.
            _ => Box::pin(self.race(interleave(candidates), |_, _| ())).await,
        }
    }

    /// Like [`Self::dial`], but in the order given; and `report` hears what
    /// became of each attempt, also of those that had not answered when an
    /// address tried later did, or when time was up
    /// ([`io::ErrorKind::TimedOut`]).
    ///
    /// # Errors
    /// As [`Self::dial`].
    pub async fn dial_reporting(
        &self,
        candidates: &[SocketAddr],
        mut report: impl FnMut(SocketAddr, Result<(), &io::Error>),
    ) -> Result<Dialled, DialError> {
        match candidates {
            [only] => {
                let result = self.dial_one(*only).await;
                report(*only, result.as_ref().map(|_| ()).map_err(DialError::cause));
                result
            }
            _ => Box::pin(self.race(candidates.to_vec(), report)).await,
        }
    }

    async fn dial_one(&self, address: SocketAddr) -> Result<Dialled, DialError> {
        let begun = Instant::now();
        let stream = timeout(self.timeout, self.attempt(address))
            .await
            .unwrap_or_else(|_| Err(timed_out(address, self.timeout)))?;
        Ok(Dialled {
            stream,
            address,
            took: begun.elapsed(),
        })
    }

    async fn race(
        &self,
        candidates: Vec<SocketAddr>,
        mut report: impl FnMut(SocketAddr, Result<(), &io::Error>),
    ) -> Result<Dialled, DialError> {
        let begun = Instant::now();
        let tried = candidates.len();
        let mut waiting = candidates.into_iter();
        let mut running = FuturesUnordered::new();
        // The addresses of `running`, in the order of their start.
        let mut unanswered: Vec<SocketAddr> = Vec::new();
        let mut failure: Option<DialError> = None;
        let mut deadline = pin!(sleep(self.timeout));
        let mut next = pin!(sleep(ATTEMPT_DELAY));
        while waiting.len() > 0 || !running.is_empty() {
            // Each round follows a failure or the end of the delay.
            if let Some(address) = waiting.next() {
                unanswered.push(address);
                running.push(async move { (address, self.attempt(address).await) });
                next.as_mut().reset(Instant::now() + ATTEMPT_DELAY);
            }
            tokio::select! {
                biased;
                Some((address, result)) = running.next() => {
                    let result: Result<TcpStream, DialError> = result;
                    let position = unanswered.iter().position(|&other| other == address);
                    match result {
                        Ok(stream) => {
                            let took = begun.elapsed();
                            for &slower in unanswered.iter().take(position.unwrap_or(0)) {
                                report(slower, Err(timed_out(slower, took).cause()));
                            }
                            report(address, Ok(()));
                            return Ok(Dialled { stream, address, took });
                        }
                        Err(error) => {
                            position.map(|position| unanswered.remove(position));
                            report(address, Err(error.cause()));
                            failure = Some(more_telling(failure, error));
                        }
                    }
                }
                () = &mut next, if waiting.len() > 0 => {}
                () = &mut deadline => {
                    for &address in &unanswered {
                        let error = timed_out(address, self.timeout);
                        report(address, Err(error.cause()));
                        failure = Some(more_telling(failure, error));
                    }
                    break;
                }
            }
        }
        Err(failure.map_or_else(DialError::no_candidates, |error| error.after(tried)))
    }

    async fn attempt(&self, address: SocketAddr) -> Result<TcpStream, DialError> {
        let family = AddressFamily::of(address.ip());
        if !self.source.family_allowed(family) {
            return Err(DialError::no_family(address));
        }
        connect(address, self.source.source_for(family)).await
    }
}

fn timed_out(address: SocketAddr, waited: Duration) -> DialError {
    let text = format!("no handshake within {} ms", waited.as_millis());
    let cause = io::Error::new(io::ErrorKind::TimedOut, text);
    DialError::new(DialErrorKind::TimedOut, address, cause)
}

/// The earlier of equals: it was preferred.
fn more_telling(earlier: Option<DialError>, later: DialError) -> DialError {
    match earlier {
        Some(earlier) if earlier.kind() >= later.kind() => earlier,
        _ => later,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, TcpListener};

    use nix::sys::socket::{getsockopt, sockopt};
    use socket2::{Domain, Socket, Type};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const UNBOUND: Dialer = Dialer::new(EgressAddress::none(), SOON);

    fn listener(address: &str) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address where nobody listens.
    fn closed() -> SocketAddr {
        listener("127.0.0.1").1
    }

    /// An address that leaves handshakes unanswered: nobody accepts there, and
    /// its queue is full.
    fn black_hole() -> (Socket, Vec<std::net::TcpStream>, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let wait = Duration::from_millis(100);
        let fill = || std::net::TcpStream::connect_timeout(&address, wait).ok();
        let queued = std::iter::from_fn(fill).collect();
        (socket, queued, address)
    }

    async fn reports(
        dialer: Dialer,
        candidates: &[SocketAddr],
    ) -> (
        Result<Dialled, DialError>,
        Vec<(SocketAddr, Result<(), io::ErrorKind>)>,
    ) {
        let mut reports = Vec::new();
        let result = dialer
            .dial_reporting(candidates, |address, outcome| {
                reports.push((address, outcome.map_err(io::Error::kind)));
            })
            .await;
        (result, reports)
    }

    #[tokio::test]
    async fn one_address_is_dialled() {
        let (_listener, address) = listener("127.0.0.1");
        let dialled = UNBOUND.dial(&[address]).await.unwrap();
        assert_eq!(dialled.address, address);
        assert!(dialled.took < SOON);
        let (result, reports) = reports(UNBOUND, &[address]).await;
        assert!(result.is_ok());
        assert_eq!(reports, [(address, Ok(()))]);
    }

    #[tokio::test]
    async fn a_refusal_names_the_address_and_the_cause() {
        let closed = closed();
        let (result, reports) = reports(UNBOUND, &[closed]).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), DialErrorKind::Refused);
        assert_eq!(error.reason(), "connection_refused");
        assert_eq!(error.address(), Some(closed));
        assert_eq!(
            error.to_string(),
            format!("upstream {closed} refused the connection: Connection refused (os error 111)")
        );
        assert_eq!(reports, [(closed, Err(io::ErrorKind::ConnectionRefused))]);
    }

    #[tokio::test]
    async fn the_next_address_is_tried_at_once_after_a_refusal() {
        let (_listener, open) = listener("127.0.0.1");
        let refusing = [closed(), closed()];
        let candidates = [refusing[0], refusing[1], open];
        let (result, reports) = reports(UNBOUND, &candidates).await;
        let dialled = result.unwrap();
        assert_eq!(dialled.address, open);
        assert!(dialled.took < ATTEMPT_DELAY, "{:?}", dialled.took);
        let refused = Err(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            reports,
            [
                (refusing[0], refused),
                (refusing[1], refused),
                (open, Ok(()))
            ]
        );
    }

    #[tokio::test]
    async fn a_black_hole_costs_a_quarter_of_a_second() {
        let (_socket, _queued, hole) = black_hole();
        let (_listener, open) = listener("127.0.0.1");
        let (result, reports) = reports(UNBOUND, &[hole, open]).await;
        let dialled = result.unwrap();
        assert_eq!(dialled.address, open);
        assert!(dialled.took >= ATTEMPT_DELAY, "{:?}", dialled.took);
        assert!(dialled.took < Duration::from_secs(1), "{:?}", dialled.took);
        assert_eq!(
            reports,
            [(hole, Err(io::ErrorKind::TimedOut)), (open, Ok(()))]
        );
    }

    #[tokio::test]
    async fn a_dial_ends_when_its_time_is_up() {
        let (_socket, _queued, hole) = black_hole();
        let hurried = Dialer::new(EgressAddress::none(), Duration::from_millis(300));
        for candidates in [vec![hole], vec![closed(), hole]] {
            let (result, reports) = reports(hurried, &candidates).await;
            let error = result.unwrap_err();
            assert_eq!(error.kind(), DialErrorKind::TimedOut);
            assert_eq!(error.reason(), "connection_timeout");
            assert_eq!(error.address(), Some(hole));
            assert!(error.to_string().ends_with("no handshake within 300 ms"));
            assert_eq!(reports.last(), Some(&(hole, Err(io::ErrorKind::TimedOut))));
        }
    }

    #[tokio::test]
    async fn when_all_refuse_each_is_reported() {
        let candidates = [closed(), closed(), closed()];
        let (result, reports) = reports(UNBOUND, &candidates).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), DialErrorKind::Refused);
        assert_eq!(error.address(), Some(candidates[0]));
        let text = error.to_string();
        assert!(text.starts_with("none of 3 upstream addresses"), "{text}");
        let refused = |address| (address, Err(io::ErrorKind::ConnectionRefused));
        assert_eq!(reports, candidates.map(refused));
    }

    #[tokio::test]
    async fn nothing_to_dial_is_an_error() {
        let error = UNBOUND.dial(&[]).await.unwrap_err();
        assert_eq!(error.address(), None);
    }

    #[tokio::test]
    async fn connections_leave_with_the_egress_address() {
        let (listener, address) = listener("127.0.0.1");
        let source: IpAddr = "127.0.0.7".parse().unwrap();
        let dialer = Dialer::new(EgressAddress::bound(Some(source), None), SOON);
        let dialled = dialer.dial(&[address]).await.unwrap();
        let (_stream, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), source);
        assert_eq!(dialled.stream.local_addr().unwrap(), peer);
        let no_port = getsockopt(&dialled.stream, sockopt::IpBindAddressNoPort).unwrap();
        assert!(no_port);
    }

    #[tokio::test]
    async fn a_lost_egress_address_fails_closed() {
        let (listener, address) = listener("127.0.0.1");
        let gone: IpAddr = "192.0.2.77".parse().unwrap();
        let dialer = Dialer::new(EgressAddress::bound(Some(gone), None), SOON);
        let error = dialer.dial(&[address]).await.unwrap_err();
        assert_eq!(error.kind(), DialErrorKind::NoSource);
        let text = error.to_string();
        assert!(text.contains("lost egress address 192.0.2.77, nothing was sent"));
        listener.set_nonblocking(true).unwrap();
        let nobody = listener.accept().unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn a_family_without_egress_address_is_not_dialled() {
        let (_listener, ipv4) = listener("127.0.0.1");
        let ipv6: SocketAddr = "[::1]:1".parse().unwrap();
        let source = "127.0.0.1".parse().ok();
        let dialer = Dialer::new(EgressAddress::bound(source, None), SOON);
        let error = dialer.dial(&[ipv6]).await.unwrap_err();
        assert_eq!(error.kind(), DialErrorKind::NoFamily);
        assert!(error.to_string().contains("no IPv6 egress address"));
        let (result, reports) = reports(dialer, &[ipv6, ipv4]).await;
        assert_eq!(result.unwrap().address, ipv4);
        let closed = Err(io::ErrorKind::AddrNotAvailable);
        assert_eq!(reports, [(ipv6, closed), (ipv4, Ok(()))]);
    }

    #[tokio::test]
    async fn sockets_notice_dead_peers() {
        let (_listener, address) = listener("127.0.0.1");
        let stream = UNBOUND.dial(&[address]).await.unwrap().stream;
        assert!(stream.nodelay().unwrap());
        assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap());
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle), Ok(60));
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepInterval), Ok(15));
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout), Ok(300_000));
    }

    #[test]
    fn what_a_caller_holds_while_dialling_is_small() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let candidates = [address];
        let dialling = UNBOUND.dial(&candidates);
        is_send(&dialling);
        let size = size_of_val(&dialling);
        assert!(size <= 640, "{size} bytes");
    }

    fn is_send(_: &impl Send) {}
}
