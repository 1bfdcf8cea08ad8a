//! TLS on a client's connections: whom it trusts, and who the node is to be.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// Where systems keep the certificates that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What a client goes by that speaks TLS: the certificates that it trusts.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// The name that the node's certificate has to be for; that of the address where nothing is said.
    name: Option<String>,
}

/// Why there are no certificates to trust.
#[derive(Debug, Error)]
pub enum ClientTlsError {
    /// The file cannot be read.
    #[error("cannot read the trusted certificates {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system has none where one would look.
    #[error("this system has no file of trusted certificates (looked for {}); name one", SYSTEM_ROOTS.join(", "))]
    NoSystemRoots,
}

impl ClientTls {
    /// Trusts the certificates of this file (PEM): those of authorities, or a node's own that it has signed itself.
    pub fn trusting(path: &Path) -> Result<ClientTls, ClientTlsError> {
        let failed = |reason: String| ClientTlsError::File { path: path.to_owned(), reason };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            // Systems' own files have some that are too old to be understood: the others count.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err(failed("there is no certificate in it; give PEM".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| failed(error.to_string()))?;
        let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        Ok(ClientTls { config, name: None })
    }

    /// Trusts whom the system trusts.
    pub fn of_system() -> Result<ClientTls, ClientTlsError> {
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let known = SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists());
        ClientTls::trusting(&named.or(known).ok_or(ClientTlsError::NoSystemRoots)?)
    }

    /// The same, for a node whose certificate is for this name, whatever its address.
    pub fn named(self, name: &str) -> ClientTls {
        ClientTls { name: Some(name.to_owned()), ..self }
    }

    /// The same, for a node whose certificate is for the host of this address.
    pub fn of_address(mut self, addr: &str) -> ClientTls {
        self.name_by(addr);
        self
    }

    /// The name is the address', unless it was told.
    pub(crate) fn name_by(&mut self, addr: &str) {
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.name.get_or_insert_with(|| host.to_owned());
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// Who is to be at the other end of a connection to this address.
    pub(crate) fn server_name(&self, ip: IpAddr) -> Result<ServerName<'static>, InvalidDnsNameError> {
        match &self.name {
            Some(name) => ServerName::try_from(name.clone()),
            None => Ok(ServerName::from(ip)),
        }
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &ClientTls) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl Eq for ClientTls {}

/// In what words a failure of TLS is told, where it is one: most often two sides do not speak of the same.
pub(crate) fn in_words(error: &io::Error) -> Option<String> {
    use rustls::{CertificateError, Error};
    let inner = error.get_ref()?.downcast_ref::<Error>()?;
    let hint = match inner {
        Error::InvalidMessage(_) => "; does it speak TLS at this address?",
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "; is its certificate's authority among those that are trusted?"
        }
        // The library has no value of its own for it; what `openssl req -x509` makes unless it is told is such a one.
        Error::InvalidCertificate(CertificateError::Other(why))
            if why.to_string().contains("CaUsedAsEndEntity") =>
        {
            "; its certificate is one of an authority: give the node one with basicConstraints CA:FALSE"
        }
        _ => "",
    };
    Some(format!("{inner}{hint}"))
}

/// How a client gets its connections where it does not dial addresses: from within the node itself.
#[derive(Clone)]
pub struct Dial(Arc<DialFn>);

type DialFn = dyn Fn(SocketAddr) -> io::Result<UnixStream> + Send + Sync;

impl Dial {
    /// By this function.
    pub fn new(dial: impl Fn(SocketAddr) -> io::Result<UnixStream> + Send + Sync + 'static) -> Dial {
        Dial(Arc::new(dial))
    }

    pub(crate) fn dial(&self, addr: SocketAddr) -> io::Result<UnixStream> {
        (self.0)(addr)
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial(..)")
    }
}

impl PartialEq for Dial {
    fn eq(&self, other: &Dial) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Dial {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(matches!(ClientTls::trusting(&path), Err(ClientTlsError::File { .. })), "none there");
        for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&path, text).unwrap();
            let error = ClientTls::trusting(&path).unwrap_err().to_string();
            assert!(error.contains("no certificate in it") && error.contains("ca.pem"), "{error}");
        }
    }
}
