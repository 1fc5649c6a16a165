//! One end of a connection whose every byte a test says itself.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{error::Context, error::Result, netns::NetNs, reply::Reply};

/// How long the other end may take to say what is expected of it.
const DEADLINE: Duration = Duration::from_secs(15);

/// Connections that may wait to be accepted by hand.
const BACKLOG: i32 = 1024;

/// One end of a connection. What does not come within 15 s, or comes
/// otherwise than expected, ends the test with the place.
#[derive(Debug)]
pub struct Wire<S: Read + Write = TcpStream> {
    stream: BufReader<S>,
}

impl Wire {
    /// Connects from inside a namespace.
    ///
    /// # Errors
    /// As the network answered.
    pub fn connect(from: &NetNs, to: SocketAddr) -> io::Result<Self> {
        Self::over(from.run(|| TcpStream::connect_timeout(&to, DEADLINE))?)
    }

    /// Takes over a connection that was made elsewhere.
    ///
    /// # Errors
    /// When the kernel refuses the deadlines.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self::new(stream))
    }

    /// The connection, for what the methods here do not offer. Some of what
    /// came may have been read from it.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Ends this side of the connection: the other end reads an end, and may
    /// go on.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn end(&self) -> io::Result<()> {
        self.stream().shutdown(Shutdown::Write)
    }

    /// Closes the connection with a reset.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reset(self) -> io::Result<()> {
        SockRef::from(self.stream()).set_linger(Some(Duration::ZERO))
    }
}

impl<S: Read + Write> Wire<S> {
    /// One end of anything that reads and writes.
    pub fn new(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Sends this.
    ///
    /// # Panics
    /// When the connection is gone.
    #[track_caller]
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        match self.try_say(bytes.as_ref()) {
            Ok(()) => {}
            Err(error) => panic!("saying {:?}: {error}", lossy(bytes.as_ref())),
        }
    }

    /// Tries to send this.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn try_say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes.as_ref())?;
        stream.flush()
    }

    /// Reads exactly this.
    ///
    /// # Panics
    /// When something else comes, or nothing.
    #[track_caller]
    pub fn hear(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut heard = Vec::new();
        let length = u64::try_from(expected.len()).unwrap_or(u64::MAX);
        let result = (&mut self.stream).take(length).read_to_end(&mut heard);
        assert!(
            result.is_ok() && heard == expected,
            "heard {:?} ({result:?}) and not {:?}",
            lossy(&heard),
            lossy(expected)
        );
    }

    /// Reads a head to its end, and returns it without the empty line.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn head(&mut self) -> String {
        let mut head = String::new();
        loop {
            let line = self.line(&head);
            if line.is_empty() {
                return head;
            }
            if !head.is_empty() {
                head.push_str("\r\n");
            }
            head.push_str(&line);
        }
    }

    /// Reads a final response to a request with this method.
    ///
    /// # Panics
    /// When none comes whole.
    #[track_caller]
    pub fn reply(&mut self, method: &str) -> Reply {
        match Reply::read(&mut self.stream, method) {
            Ok(Some(reply)) => reply,
            other => panic!("no answer to {method}: {other:?}"),
        }
    }

    /// Tries to read a final response: what came of it.
    ///
    /// # Errors
    /// When the connection breaks or ends within it.
    pub fn try_reply(&mut self, method: &str) -> io::Result<Option<Reply>> {
        Reply::read(&mut self.stream, method)
    }

    /// Reads a body in chunks: its content, and the lines of its trailer
    /// section.
    ///
    /// # Panics
    /// When it does not come whole.
    #[track_caller]
    pub fn chunks(&mut self) -> (Vec<u8>, Vec<String>) {
        let mut content = Vec::new();
        loop {
            let chunk = self.chunk();
            if chunk.is_empty() {
                break;
            }
            content.extend(chunk);
        }
        let mut trailers = Vec::new();
        loop {
            match self.line("a trailer section") {
                line if line.is_empty() => return (content, trailers),
                line => trailers.push(line),
            }
        }
    }

    /// Reads one chunk with its line end; of the last one, its first line
    /// alone.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn chunk(&mut self) -> Vec<u8> {
        let line = self.line("a chunk size");
        let Ok(size) = u64::from_str_radix(&line, 16) else {
            panic!("no chunk size: {line:?}");
        };
        let mut chunk = Vec::new();
        if size > 0 {
            let result = (&mut self.stream).take(size).read_to_end(&mut chunk);
            assert!(
                result.as_ref().is_ok_and(|read| *read as u64 == size),
                "{} of {size} bytes of a chunk: {result:?}",
                chunk.len()
            );
            self.hear("\r\n");
        }
        chunk
    }

    /// Reads to the end, which must be clean.
    ///
    /// # Panics
    /// When the connection breaks or stays open.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        match self.try_rest() {
            (rest, Ok(())) => rest,
            (rest, Err(error)) => panic!("{error} after {:?}", lossy(&rest)),
        }
    }

    /// Reads to the end: what came, and whether the end was clean.
    pub fn try_rest(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut rest = Vec::new();
        let end = self.stream.read_to_end(&mut rest).map(|_| ());
        (rest, end)
    }

    #[track_caller]
    fn line(&mut self, before: &str) -> String {
        let mut line = Vec::new();
        let result = self.stream.read_until(b'\n', &mut line);
        match line.strip_suffix(b"\r\n") {
            Some(line) => String::from_utf8_lossy(line).into_owned(),
            None => panic!("{result:?} within a line, {:?}: {before}", lossy(&line)),
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    const SHOWN: usize = 500;
    let shown = bytes.get(..SHOWN).unwrap_or(bytes);
    String::from_utf8_lossy(shown).into_owned()
}

/// A port whose connections a test accepts and answers by hand.
#[derive(Debug)]
pub struct Door {
    socket: Socket,
    address: SocketAddr,
}

impl Door {
    /// Listens inside a namespace.
    ///
    /// # Errors
    /// When the address is not there or taken.
    pub fn open(netns: &NetNs, address: SocketAddr) -> Result<Self> {
        let listen = || {
            let socket = Socket::new(
                Domain::for_address(address),
                Type::STREAM,
                Some(Protocol::TCP),
            )?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            socket.set_read_timeout(Some(DEADLINE))?;
            Ok::<_, io::Error>(socket)
        };
        let socket = netns
            .run(listen)
            .context(|| format!("listening on {address}"))?;
        Ok(Self { socket, address })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection.
    ///
    /// # Panics
    /// When none comes.
    #[must_use]
    #[track_caller]
    pub fn accept(&self) -> Wire {
        let accepted = self.socket.accept();
        match accepted.and_then(|(stream, _)| Wire::over(stream.into())) {
            Ok(wire) => wire,
            Err(error) => panic!("nobody came to {}: {error}", self.address),
        }
    }

    /// Whether nobody waits to be accepted.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn is_quiet(&self) -> io::Result<bool> {
        self.socket.set_nonblocking(true)?;
        let accepted = self.socket.accept();
        self.socket.set_nonblocking(false)?;
        match accepted {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }
}
