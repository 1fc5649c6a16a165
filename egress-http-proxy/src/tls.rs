//! TLS towards clients: certificate, key and client CA from files, read again
//! when they change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use crate::config::TlsConfig;

/// HTTP/2 first: it carries many tunnels over one handshake.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why clients cannot be served over TLS.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    /// A file is not there.
    #[error(
        "{variable}: cannot read {path}: {cause}; check the path and that its volume is mounted"
    )]
    Unreadable {
        variable: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{variable}: {path} is no PEM file with {what}: {cause}")]
    Pem {
        variable: &'static str,
        path: PathBuf,
        what: &'static str,
        cause: String,
    },
    /// Certificate and key, or the CA, are no good.
    #[error("{variable}: {path} cannot be used: {cause}")]
    Unusable {
        variable: &'static str,
        path: PathBuf,
        cause: String,
    },
}

const CERTIFICATE: &str = "EGRESS_HTTP_PROXY_TLS_CERTIFICATE";
const KEY: &str = "EGRESS_HTTP_PROXY_TLS_KEY";
const CLIENT_CA: &str = "EGRESS_HTTP_PROXY_TLS_CLIENT_CA";

/// Reads the files and makes of them what a handshake needs.
///
/// # Errors
/// When a file cannot be read or used; the text names it.
pub(crate) fn load(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(CERTIFICATE, config.certificate())?;
    let key = PrivateKeyDer::from_pem_slice(&read(KEY, config.key())?).map_err(|error| {
        TlsError::Pem {
            variable: KEY,
            path: config.key().to_path_buf(),
            what: "a private key",
            cause: error.to_string(),
        }
    })?;
    let provider = Arc::new(ring::default_provider());
    let unusable = |variable, path: &Path, cause: &dyn std::fmt::Display| TlsError::Unusable {
        variable,
        path: path.to_path_buf(),
        cause: cause.to_string(),
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(CERTIFICATE, config.certificate(), &error))?;
    let builder = match config.client_ca() {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(CLIENT_CA, path)? {
                roots
                    .add(certificate)
                    .map_err(|error| unusable(CLIENT_CA, path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| unusable(CLIENT_CA, path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut server = builder
        .with_single_cert(chain, key)
        .map_err(|error| unusable(CERTIFICATE, config.certificate(), &explain(&error)))?;
    server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(server))
}

fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("EGRESS_HTTP_PROXY_TLS_KEY is not its key ({error})")
        }
        error => error.to_string(),
    }
}

fn certificates(
    variable: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(variable, path)?;
    let bad = |cause: String| TlsError::Pem {
        variable,
        path: path.to_path_buf(),
        what: "certificates",
        cause,
    };
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if chain.is_empty() {
        return Err(bad("there is none in it".to_owned()));
    }
    Ok(chain)
}

fn read(variable: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|cause| TlsError::Unreadable {
        variable,
        path: path.to_path_buf(),
        cause,
    })
}
