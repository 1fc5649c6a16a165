//! The TLS settings, renewed when their files change.

use std::sync::Arc;

use egress_runtime::watch::FileWatch;
use futures_util::future::select_all;
use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;

use crate::config::TlsConfig;
use crate::server::Certificates;
use crate::tls::{self, TlsError};

/// The TLS settings in use.
pub(crate) struct Renewal {
    config: TlsConfig,
    send: watch::Sender<Arc<ServerConfig>>,
    files: Vec<FileWatch>,
}

impl Renewal {
    /// Watches the files, then reads them, so that no change falls in between.
    pub(crate) fn start(config: &TlsConfig) -> Result<Self, TlsError> {
        let paths = [
            Some(config.certificate()),
            Some(config.key()),
            config.client_ca(),
        ];
        let files = paths.into_iter().flatten().map(FileWatch::new).collect();
        let (send, _) = watch::channel(tls::load(config)?);
        Ok(Self {
            config: config.clone(),
            send,
            files,
        })
    }

    /// The settings of every handshake to come.
    pub(crate) fn subscribe(&self) -> Certificates {
        self.send.subscribe()
    }

    /// Waits until one of the files has other content.
    pub(crate) async fn changed(&mut self) {
        // There are at least two: certificate and key.
        select_all(self.files.iter_mut().map(|file| Box::pin(file.changed()))).await;
    }

    /// Reads the files again; handshakes to come use what they hold.
    ///
    /// # Errors
    /// When they cannot be used. The old settings stay in use.
    pub(crate) fn load(&self) -> Result<(), TlsError> {
        self.send.send_replace(tls::load(&self.config)?);
        Ok(())
    }
}
