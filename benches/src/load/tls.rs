//! TLS between client and proxy.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};

use super::socket::send;

/// Whom the clients trust, and whom they expect.
#[derive(Debug, Clone)]
pub(super) struct TlsSettings {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsSettings {
    /// Trusts the certificates of a PEM file.
    pub(super) fn new(authority: &Path, name: &str) -> Result<Self> {
        let reading = || format!("reading certificates from {}", authority.display());
        let file = File::open(authority).with_context(reading)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_reader_iter(BufReader::new(file)) {
            roots.add(certificate.with_context(reading)?)?;
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Whole handshakes are what is measured.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            name: ServerName::try_from(name.to_owned())?,
        })
    }

    pub(super) fn client(&self) -> Result<Box<Tls>> {
        let session = ClientConnection::new(self.config.clone(), self.name.clone())?;
        Ok(Box::new(Tls { session }))
    }
}

/// The client's side of a session.
#[derive(Debug)]
pub(super) struct Tls {
    session: ClientConnection,
}

/// A socket as rustls writes to it.
struct Writer<'a>(&'a OwnedFd);

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match send(self.0, bytes) {
            Ok(Some(sent)) => Ok(sent),
            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tls {
    /// Encrypts and sends; before the handshake is done, keeps it for then.
    pub(super) fn send(&mut self, socket: &OwnedFd, bytes: &[u8]) -> Result<Option<usize>> {
        let taken = self.session.writer().write(bytes)?;
        self.flush(socket)?;
        Ok((taken > 0).then_some(taken))
    }

    /// Says that nothing more comes.
    pub(super) fn end(&mut self, socket: &OwnedFd) -> Result<()> {
        self.session.send_close_notify();
        self.flush(socket)
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.session.wants_write()
    }

    pub(super) fn flush(&mut self, socket: &OwnedFd) -> Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Writer(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("sending TLS"),
            }
        }
        Ok(())
    }

    /// Takes in some of `wire` and decrypts it.
    pub(super) fn take(&mut self, wire: &mut &[u8]) -> Result<()> {
        self.session.read_tls(wire)?;
        self.session
            .process_new_packets()
            .context("TLS to the proxy")?;
        Ok(())
    }

    /// What is decrypted; 0 when there is nothing.
    pub(super) fn read(&mut self, plain: &mut [u8]) -> Result<usize> {
        match self.session.reader().read(plain) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error).context("receiving TLS"),
        }
    }
}
