//! Certificates for the names and addresses of the lab.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use crate::error::{Context, LabError, Result};

/// A certificate with its key, and the authority of its own that signed it.
#[derive(Debug)]
pub struct Identity {
    authority_pem: String,
    certificate_pem: String,
    key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
}

impl Identity {
    /// Makes a certificate for these names and addresses.
    ///
    /// # Errors
    /// When one of them is neither.
    pub fn create(names: &[&str]) -> Result<Self> {
        Self::make(names).map_err(|cause| LabError::new("making a certificate", cause))
    }

    fn make(names: &[&str]) -> std::result::Result<Self, String> {
        let text = |error: rcgen::Error| error.to_string();
        let mut authority = CertificateParams::new(Vec::new()).map_err(text)?;
        // A certificate that has its issuer's name is taken for self-signed.
        authority
            .distinguished_name
            .push(DnType::CommonName, "authority of the lab");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own_key = KeyPair::generate().map_err(text)?;
        let authority = CertifiedIssuer::self_signed(authority, own_key).map_err(text)?;
        let key = KeyPair::generate().map_err(text)?;
        let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
        let certificate = CertificateParams::new(names)
            .and_then(|parameters| parameters.signed_by(&key, &authority))
            .map_err(text)?;
        let mut roots = RootCertStore::empty();
        roots
            .add(authority.der().clone())
            .map_err(|error| error.to_string())?;
        Ok(Self {
            authority_pem: authority.pem(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?,
            roots,
        })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// The certificate.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its private key.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificate, as it is shown in a handshake.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Writes `ca.pem`, `cert.pem` and `key.pem`.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write_to(&self, folder: &Path) -> Result<()> {
        for (name, pem) in [
            ("ca.pem", &self.authority_pem),
            ("cert.pem", &self.certificate_pem),
            ("key.pem", &self.key_pem),
        ] {
            let path = folder.join(name);
            fs::write(&path, pem).context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// A server with this certificate that offers these protocols.
    ///
    /// # Errors
    /// When certificate and key do not fit.
    pub fn server(&self, protocols: &[&str]) -> Result<ServerConfig> {
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| LabError::new("making a TLS server", error.to_string()))?;
        config.alpn_protocols = wire(protocols);
        Ok(config)
    }

    /// A client that trusts the authority and offers these protocols.
    #[must_use]
    pub fn client(&self, protocols: &[&str]) -> ClientConfig {
        let mut config = ClientConfig::builder()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = wire(protocols);
        config
    }

    /// As [`Identity::client`], with a certificate of its own.
    ///
    /// # Errors
    /// When that certificate and its key do not fit.
    pub fn client_named(&self, own: &Self, protocols: &[&str]) -> Result<ClientConfig> {
        let mut config = ClientConfig::builder()
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
            .map_err(|error| LabError::new("making a TLS client", error.to_string()))?;
        config.alpn_protocols = wire(protocols);
        Ok(config)
    }
}

fn wire(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect()
}
