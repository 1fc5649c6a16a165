//! A client's connection, with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, tcp};
use tokio_rustls::server::TlsStream;

/// A client's connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// In the clear.
    Tcp(TcpStream),
    /// Inside TLS; boxed, because its state is large.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Its reading half.
pub(crate) enum Reader<'s> {
    Tcp(tcp::ReadHalf<'s>),
    Tls(tokio::io::ReadHalf<&'s mut TlsStream<TcpStream>>),
}

/// Its writing half.
pub(crate) enum Writer<'s> {
    Tcp(tcp::WriteHalf<'s>),
    Tls(tokio::io::WriteHalf<&'s mut TlsStream<TcpStream>>),
}

/// An end of a connection.
pub(crate) trait End {
    /// The socket, where its bytes are those of the message, not those of TLS.
    fn socket(&self) -> Option<&TcpStream>;
}

impl Stream {
    /// Both halves, to be used at the same time.
    pub(crate) fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        match self {
            Self::Tcp(stream) => {
                let (reader, writer) = stream.split();
                (Reader::Tcp(reader), Writer::Tcp(writer))
            }
            Self::Tls(stream) => {
                let (reader, writer) = tokio::io::split(stream.as_mut());
                (Reader::Tls(reader), Writer::Tls(writer))
            }
        }
    }

    /// Makes the connection end with a reset: the client must not take what it
    /// has for the whole.
    pub(crate) fn reset_on_close(&self) {
        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        // It closes without one where the kernel refuses.
        let _ = stream.set_zero_linger();
    }
}

macro_rules! end {
    ($type:ty) => {
        impl End for $type {
            fn socket(&self) -> Option<&TcpStream> {
                match self {
                    Self::Tcp(socket) => Some(socket.as_ref()),
                    Self::Tls(_) => None,
                }
            }
        }
    };
}

end!(Reader<'_>);
end!(Writer<'_>);

impl End for Stream {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Tls(_) => None,
        }
    }
}

impl End for tcp::ReadHalf<'_> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl End for tcp::WriteHalf<'_> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl End for TokioIo<Upgraded> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

macro_rules! read {
    ($type:ty) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
                    Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
                }
            }
        }
    };
}

macro_rules! write {
    ($type:ty) => {
        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
                    Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
                    Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
                    Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
                }
            }
        }
    };
}

read!(Stream);
write!(Stream);
read!(Reader<'_>);
write!(Writer<'_>);
