//! TLS on all doors of the node. The shards know nothing of it: lode's own protocol comes to them by [`front`], in the clear, and the
//! doors for Redis clients and for operators take a secured stream where they would take a socket.

mod certificate;
pub mod front;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::access::{Addresses, ClientLimits};
use crate::patient::Patient;

/// How long a handshake may take, from the connection to its last byte.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// A peer that takes nothing of what is sent for so long is given up.
const SEND_PATIENCE: Duration = Duration::from_secs(30);
/// Most connections that shake hands at a time: each costs memory and, once, a signature.
pub const MAX_HANDSHAKES: usize = 512;
/// Most of them from one address, so that nobody alone keeps all others out.
pub const MAX_HANDSHAKES_OF_ADDRESS: u32 = 64;
/// A certificate that ends sooner than this is warned of.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// What every TLS connection begins with: a record of a handshake.
const HANDSHAKE_RECORD: u8 = 0x16;
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A connection that is encrypted.
pub type Secured = tokio_rustls::server::TlsStream<Patient<TcpStream>>;

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its authority, as PEM.
    pub cert: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

/// Why the node cannot speak TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the {what} {}: {error}", path.display())]
    Io {
        /// What it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file does not have in it what it should.
    #[error("there is no {what} in {}: {reason}; give PEM", path.display())]
    Pem {
        /// What should be there.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is there.
        reason: String,
    },
    /// Each is good, and they do not belong together.
    #[error("the private key {} is not that of the certificate {}; give both of one pair", key.display(), cert.display())]
    Mismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// They cannot be used.
    #[error("the certificate {} cannot be used: {reason}", cert.display())]
    Unusable {
        /// The certificate.
        cert: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The certificate that the node shows now, and who is shaking hands.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    present: RwLock<Arc<Shown>>,
    shaking: AtomicUsize,
    addresses: Addresses,
    handshakes: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
struct Shown {
    config: Arc<ServerConfig>,
    validity: Option<(SystemTime, SystemTime)>,
}

impl Tls {
    /// Reads certificate and key.
    pub fn open(files: &TlsFiles) -> Result<Tls, TlsError> {
        let limits = ClientLimits { connections: Some(MAX_HANDSHAKES_OF_ADDRESS), requests_per_s: None };
        Ok(Tls {
            files: files.clone(),
            present: RwLock::new(Arc::new(read(files)?)),
            shaking: AtomicUsize::new(0),
            addresses: Addresses::new(limits),
            handshakes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Reads them again. Where they cannot be used, everything stays as it is; connections that are open keep theirs.
    pub fn reload(&self) -> Result<(), TlsError> {
        let shown = Arc::new(read(&self.files)?);
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(())
    }

    fn present(&self) -> Arc<Shown> {
        Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What an operator has to do something about, if anything.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let (cert, key) = (self.files.cert.display(), self.files.key.display());
        let validity = self.present().validity;
        if validity.is_none() {
            warnings.push(format!(
                "of the certificate {cert} it cannot be read when it ends: you will not be warned before it does"
            ));
        }
        if let Some((begins, ends)) = validity {
            let now = SystemTime::now();
            if let Ok(since) = now.duration_since(ends) {
                let days = since.as_secs() / 86_400;
                warnings.push(format!(
                    "the certificate {cert} has ended {days} days ago: clients refuse it; put a new one in its place and send SIGHUP"
                ));
            } else if ends.duration_since(now).is_ok_and(|left| left < SOON) {
                let days = ends.duration_since(now).unwrap_or_default().as_secs() / 86_400;
                warnings.push(format!(
                    "the certificate {cert} ends in {days} days; put a new one in its place and send SIGHUP"
                ));
            } else if begins > now {
                warnings.push(format!(
                    "the certificate {cert} is not yet good: see whether this machine's clock is right"
                ));
            }
        }
        let mode = fs::metadata(&self.files.key).map_or(0, |found| found.permissions().mode());
        if mode & 0o007 != 0 {
            warnings.push(format!(
                "the private key {key} is open to everybody on this machine (mode {:03o}): chmod 600, and make a new one",
                mode & 0o777
            ));
        }
        warnings
    }

    /// Shakes hands. Nothing where the peer does not speak TLS (`plain` is then the last that he is told), takes too long, or there
    /// are too many of his.
    pub async fn shake(&self, stream: TcpStream, ip: IpAddr, plain: &[u8]) -> Option<Secured> {
        let Some(_place) = Place::take(self, ip) else {
            debug!(event = "tls_refused", %ip, "{ip} is refused: too many shake hands");
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&self.present().config));
        let (secured, count) =
            match tokio::time::timeout(HANDSHAKE_PATIENCE, shaken(acceptor, stream, plain)).await {
                Ok(Ok(secured)) => (Some(secured), &self.handshakes),
                Ok(Err(error)) => {
                    debug!(event = "tls_refused", %ip, "{ip} does not come to speak TLS: {error}");
                    (None, &self.failed)
                }
                Err(_) => {
                    debug!(event = "tls_refused", %ip, "{ip} does not come to speak TLS: it takes too long");
                    (None, &self.failed)
                }
            };
        count.fetch_add(1, Ordering::Relaxed);
        secured
    }

    /// When the certificate ends.
    pub fn ends(&self) -> Option<SystemTime> {
        self.present().validity.map(|(_, ends)| ends)
    }

    /// Handshakes that came to their end.
    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// Handshakes that did not: the peer speaks no TLS, trusts another, or takes too long.
    pub fn handshakes_failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Connections that had to go before theirs, as too many were under way.
    pub fn handshakes_refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

async fn shaken(acceptor: TlsAcceptor, mut stream: TcpStream, plain: &[u8]) -> io::Result<Secured> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] != HANDSHAKE_RECORD {
        stream.write_all(plain).await?;
        stream.shutdown().await?;
        // Closing a socket that holds unread bytes would take back what was said.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        return Err(io::Error::other("it speaks in the clear"));
    }
    let _ = stream.set_nodelay(true);
    acceptor.accept(Patient::new(stream, SEND_PATIENCE)).await
}

/// A connection's place among those that shake hands.
struct Place<'a> {
    tls: &'a Tls,
    ip: IpAddr,
}

impl<'a> Place<'a> {
    fn take(tls: &'a Tls, ip: IpAddr) -> Option<Place<'a>> {
        let more = |now: usize| (now < MAX_HANDSHAKES).then_some(now + 1);
        tls.shaking.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        if tls.addresses.connect(ip).is_none() {
            tls.shaking.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place { tls, ip })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.tls.addresses.disconnect(self.ip);
        self.tls.shaking.fetch_sub(1, Ordering::Relaxed);
    }
}

fn read(files: &TlsFiles) -> Result<Shown, TlsError> {
    const CERTIFICATE: &str = "certificate";
    const KEY: &str = "private key";
    let no = |what: &'static str, path: &Path, reason: String| {
        Err(TlsError::Pem { what, path: path.to_owned(), reason })
    };
    let bytes = read_file(CERTIFICATE, &files.cert)?;
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = match chain {
        Ok(chain) if chain.is_empty() => return no(CERTIFICATE, &files.cert, "the file has none".to_owned()),
        Ok(chain) => chain,
        Err(error) => return no(CERTIFICATE, &files.cert, error.to_string()),
    };
    let key = match PrivateKeyDer::from_pem_slice(&read_file(KEY, &files.key)?) {
        Ok(key) => key,
        Err(error) => return no(KEY, &files.key, error.to_string()),
    };
    let validity = chain.first().and_then(|own| certificate::validity(own));
    let unusable = |error: rustls::Error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { cert: files.cert.clone(), key: files.key.clone() }
        }
        error => TlsError::Unusable { cert: files.cert.clone(), reason: error.to_string() },
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(unusable)?.with_no_client_auth();
    let config = builder.with_single_cert(chain, key).map_err(unusable)?;
    Ok(Shown { config: Arc::new(config), validity })
}

fn read_file(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |error| TlsError::Io { what, path: path.to_owned(), error };
    let found = fs::metadata(path).map_err(failed)?;
    if !found.is_file() || found.len() > MAX_FILE_BYTES {
        return Err(failed(io::Error::other("it is no file of at most 1 MiB")));
    }
    fs::read(path).map_err(failed)
}
