//! Clients: what a process in a pod, on a node or on the LAN does.
//!
//! Open them inside a namespace ([`crate::NetNs::run`], or the shorthands of
//! [`crate::Host`]); once open they may be used from anywhere.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use egress_config::{AddressFamily as Family, Protocol as Transport};
use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::resolver;

/// What a server saw, from the line it answers with:
/// `203.0.113.25:80 saw 192.168.12.99:40312 payload=hello`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The server's own address of the connection.
    pub server: SocketAddr,
    /// The client's address as the server saw it.
    pub client: SocketAddr,
    /// What the client sent, without its line end.
    pub payload: String,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} saw {} payload={}",
            self.server, self.client, self.payload
        )
    }
}

impl std::str::FromStr for Seen {
    type Err = ClientError;

    fn from_str(line: &str) -> Result<Self, ClientError> {
        let parse = || {
            let (server, rest) = line.trim_end().split_once(" saw ")?;
            let (client, payload) = rest.split_once(" payload=")?;
            Some(Self {
                server: server.parse().ok()?,
                client: client.parse().ok()?,
                payload: payload.to_owned(),
            })
        };
        parse().ok_or_else(|| ClientError::BadAnswer(line.to_owned()))
    }
}

/// Why a client got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A TCP reset in answer to the SYN, or an ICMP port unreachable.
    #[error("connection refused")]
    Refused,
    /// The connection was open and ended without an answer.
    #[error("connection closed by the other side")]
    Closed,
    /// An ICMP error, or no route: the kernel's error number says which.
    #[error("destination unreachable: {0}")]
    Unreachable(Errno),
    /// Nothing came.
    #[error("no answer within the deadline")]
    TimedOut,
    /// Something came that no server of the lab sends.
    #[error("answer not understood: {0:?}")]
    BadAnswer(String),
    /// Anything else.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match (error.kind(), error.raw_os_error().map(Errno::from_raw)) {
            (io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock, _)
            | (_, Some(Errno::EINPROGRESS)) => Self::TimedOut,
            (io::ErrorKind::ConnectionRefused, _) => Self::Refused,
            (
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe,
                _,
            ) => Self::Closed,
            (_, Some(errno @ (Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EACCES))) => {
                Self::Unreachable(errno)
            }
            _ => Self::Io(error),
        }
    }
}

/// A TCP connection to a server of the lab.
#[derive(Debug)]
pub struct TcpClient {
    stream: BufReader<TcpStream>,
}

impl TcpClient {
    /// Connects; `deadline` also bounds every later answer.
    ///
    /// # Errors
    /// As the network answered.
    pub fn connect(to: SocketAddr, deadline: Duration) -> Result<Self, ClientError> {
        Self::connect_from(None, to, deadline)
    }

    /// Connects from a given address.
    ///
    /// # Errors
    /// As the network answered, or when the address is not the host's.
    pub fn connect_from(
        from: Option<SocketAddr>,
        to: SocketAddr,
        deadline: Duration,
    ) -> Result<Self, ClientError> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(from) = from {
            socket.bind(&from.into())?;
        }
        socket.connect_timeout(&to.into(), deadline)?;
        socket.set_read_timeout(Some(deadline))?;
        socket.set_write_timeout(Some(deadline))?;
        Ok(Self {
            stream: BufReader::new(socket.into()),
        })
    }

    /// Sends a line and reads what the server saw.
    ///
    /// # Errors
    /// When the connection fails or the answer does not come.
    pub fn ask(&mut self, payload: &str) -> Result<Seen, ClientError> {
        self.stream
            .get_mut()
            .write_all(format!("{payload}\n").as_bytes())?;
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(ClientError::Closed),
            _ => line.parse(),
        }
    }

    /// Waits for the other side to end the connection.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] when it stays open.
    pub fn await_end(&mut self) -> Result<(), ClientError> {
        match self
            .stream
            .read_to_end(&mut Vec::new())
            .map_err(ClientError::from)
        {
            Ok(_) | Err(ClientError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The connection, for what the methods here do not offer.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }
}

/// A UDP flow to a server of the lab.
#[derive(Debug)]
pub struct UdpClient {
    socket: UdpSocket,
}

impl UdpClient {
    /// Opens a socket for one server; `deadline` bounds every answer.
    ///
    /// # Errors
    /// When there is no route.
    pub fn connect(to: SocketAddr, deadline: Duration) -> Result<Self, ClientError> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::connect_from(SocketAddr::new(any, 0), to, deadline)
    }

    /// Opens a socket with a given address for one server.
    ///
    /// # Errors
    /// When there is no route, or the address is not the host's.
    pub fn connect_from(
        from: SocketAddr,
        to: SocketAddr,
        deadline: Duration,
    ) -> Result<Self, ClientError> {
        let socket = UdpSocket::bind(from)?;
        socket.set_read_timeout(Some(deadline))?;
        socket.connect(to)?;
        Ok(Self { socket })
    }

    /// Sends one datagram and reads what the server saw. Nothing is sent
    /// again: a packet that gets lost is a finding.
    ///
    /// # Errors
    /// When an ICMP error or no answer comes.
    pub fn ask(&self, payload: &str) -> Result<Seen, ClientError> {
        self.socket.send(payload.as_bytes())?;
        let mut buffer = vec![0; 65536];
        let length = self.socket.recv(&mut buffer)?;
        buffer.truncate(length);
        String::from_utf8_lossy(&buffer).parse()
    }
}

/// `ping -c 1`: one echo request and its reply.
///
/// # Errors
/// When no reply comes within `deadline`.
pub fn ping(to: IpAddr, deadline: Duration) -> Result<(), ClientError> {
    static PING: AtomicU16 = AtomicU16::new(1);
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.connect(&SocketAddr::new(to, 0).into())?;
    let identifier = PING.fetch_add(1, Ordering::Relaxed);
    let mut packet = [request, 0, 0, 0, 0, 0, 0, 1];
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    if to.is_ipv4() {
        // The kernel fills in the checksum of ICMPv6 only.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    socket.send(&packet)?;
    // A UdpSocket is std's way to read datagrams from any socket.
    let socket = UdpSocket::from(OwnedFd::from(socket));
    let start = Instant::now();
    let mut buffer = [0; 1500];
    loop {
        let left = deadline
            .saturating_sub(start.elapsed())
            .max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        // IPv4 raw sockets deliver the IP header, IPv6 ones do not.
        let ip_header = if to.is_ipv4() {
            usize::from(buffer[0] & 0xf) * 4
        } else {
            0
        };
        if let Some([kind, _, _, _, high, low, ..]) = buffer.get(ip_header..length)
            && *kind == reply
            && u16::from_be_bytes([*high, *low]) == identifier
        {
            return Ok(());
        }
    }
}

/// Internet checksum, RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let (pairs, _) = bytes.as_chunks();
    let mut sum: u32 = pairs
        .iter()
        .map(|pair| u32::from(u16::from_be_bytes(*pair)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// `dig @SERVER NAME A|AAAA`, over UDP or TCP.
///
/// # Errors
/// When no answer comes within `deadline`, or one that is not NOERROR.
pub fn lookup(
    server: IpAddr,
    transport: Transport,
    name: &str,
    family: Family,
    deadline: Duration,
) -> Result<Vec<IpAddr>, ClientError> {
    let server = SocketAddr::new(server, 53);
    let question = resolver::question(name, family)?;
    let mut answer = vec![0; 65535];
    match transport {
        Transport::Udp => {
            let client = UdpClient::connect(server, deadline)?;
            client.socket.send(&question)?;
            let length = client.socket.recv(&mut answer)?;
            answer.truncate(length);
        }
        Transport::Tcp => {
            let mut client = TcpClient::connect(server, deadline)?;
            let length = u16::try_from(question.len()).map_err(io::Error::other)?;
            client
                .stream
                .get_mut()
                .write_all(&[&length.to_be_bytes(), &question[..]].concat())?;
            let mut length = [0; 2];
            client.stream.read_exact(&mut length)?;
            answer.truncate(usize::from(u16::from_be_bytes(length)));
            client.stream.read_exact(&mut answer)?;
        }
    }
    Ok(resolver::addresses(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::{ClientError, Seen, checksum};

    #[test]
    fn seen_is_read_as_it_is_written() {
        for line in [
            "203.0.113.25:80 saw 192.168.12.99:40312 payload=a saw b payload=c",
            "[2001:db8:25::25]:80 saw [2001:db8:12::99]:1 payload=",
        ] {
            assert_eq!(line.parse::<Seen>().unwrap().to_string(), line);
        }
        assert!(matches!(
            "220 ready".parse::<Seen>(),
            Err(ClientError::BadAnswer(_))
        ));
    }

    #[test]
    fn checksum_of_rfc_1071() {
        // Section 3: the sum of these bytes is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&bytes), !0xddf2);
    }
}
