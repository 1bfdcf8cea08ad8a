//! The bytes below a connection: plain TCP, TLS on it, or a pair of sockets within one process; for std and for tokio.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;

use crate::client::options::ClientOptions;
use crate::client::tls::ClientTls;

/// A connection of std: waits at first, and never again once it was told not to.
#[derive(Debug)]
pub enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// From within the process.
    Local(UnixStream),
    /// Encrypted.
    Tls(Box<Secured>),
}

/// TLS over a socket. Reading and writing do not wait for each other, or two full sides would for ever.
#[derive(Debug)]
pub struct Secured {
    session: ClientConnection,
    tcp: TcpStream,
}

impl Secured {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if self.session.read_tls(&mut self.tcp)? == 0 {
                return Ok(0);
            }
            self.session
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    /// What rustls keeps is bounded: while it has that much, it takes nothing.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = self.session.writer().write(bytes)?;
        let handed_on = self.flush();
        match handed_on {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(error) if taken == 0 => return Err(error),
            // There is room again.
            Ok(()) if taken == 0 => taken = self.session.writer().write(bytes)?,
            _ => {}
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            if self.session.write_tls(&mut self.tcp)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

impl Stream {
    /// Connects, and shakes hands where it is to be TLS.
    pub fn connect(addr: SocketAddr, timeout: Duration, tls: Option<&ClientTls>) -> io::Result<Stream> {
        let deadline = Instant::now() + timeout;
        let mut tcp = TcpStream::connect_timeout(&addr, timeout)?;
        tcp.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Stream::Plain(tcp)) };
        let name = tls.server_name(addr.ip()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(tls.config(), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
            tcp.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
            if session.wants_write() {
                session.write_tls(&mut tcp)?;
                continue;
            }
            if session.read_tls(&mut tcp)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let taken = session.process_new_packets();
            if let Err(error) = taken {
                // The other end is told why, if it still listens.
                let _ = session.write_tls(&mut tcp);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Ok(Stream::Tls(Box::new(Secured { session, tcp })))
    }

    pub(crate) fn of_options(
        addr: SocketAddr,
        timeout: Duration,
        options: &ClientOptions,
    ) -> io::Result<Stream> {
        match &options.dial {
            Some(dial) => dial.dial(addr).map(Stream::Local),
            None => Stream::connect(addr, timeout, options.tls.as_ref()),
        }
    }

    /// From now on it waits no more.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Stream::Plain(tcp) => tcp.set_nonblocking(true),
            Stream::Local(pair) => pair.set_nonblocking(true),
            Stream::Tls(tls) => tls.tcp.set_nonblocking(true),
        }
    }

    /// Most time that a read waits.
    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Plain(tcp) => tcp.set_read_timeout(Some(timeout)),
            Stream::Local(pair) => pair.set_read_timeout(Some(timeout)),
            Stream::Tls(tls) => tls.tcp.set_read_timeout(Some(timeout)),
        }
    }

    /// Whether what was written waits here for the socket to take it: [`Write::flush`] hands it on.
    pub fn has_unsent(&self) -> bool {
        matches!(self, Stream::Tls(tls) if tls.session.wants_write())
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.read(into),
            Stream::Local(pair) => pair.read(into),
            Stream::Tls(tls) => tls.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.write(bytes),
            Stream::Local(pair) => pair.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) | Stream::Local(_) => Ok(()),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Plain(tcp) => tcp.as_fd(),
            Stream::Local(pair) => pair.as_fd(),
            Stream::Tls(tls) => tls.tcp.as_fd(),
        }
    }
}

/// A connection of tokio.
pub(crate) enum AsyncStream {
    Plain(tokio::net::TcpStream),
    Local(tokio::net::UnixStream),
    Tls(Box<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>),
}

impl AsyncStream {
    /// Connects to one of these, and shakes hands where it is to be TLS; with the address that it leads to.
    pub(crate) async fn connect(
        candidates: &[SocketAddr],
        options: &ClientOptions,
    ) -> io::Result<(AsyncStream, SocketAddr)> {
        if let (Some(dial), Some(first)) = (&options.dial, candidates.first()) {
            let pair = dial.dial(*first)?;
            pair.set_nonblocking(true)?;
            return Ok((AsyncStream::Local(tokio::net::UnixStream::from_std(pair)?), *first));
        }
        let tcp = tokio::net::TcpStream::connect(candidates).await?;
        tcp.set_nodelay(true)?;
        let addr = tcp.peer_addr()?;
        let Some(tls) = &options.tls else { return Ok((AsyncStream::Plain(tcp), addr)) };
        let name = tls.server_name(addr.ip()).map_err(io::Error::other)?;
        let secured = TlsConnector::from(tls.config()).connect(name, tcp).await?;
        Ok((AsyncStream::Tls(Box::new(secured)), addr))
    }
}

impl AsyncRead for AsyncStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            AsyncStream::Plain(tcp) => Pin::new(tcp).poll_read(context, into),
            AsyncStream::Local(pair) => Pin::new(pair).poll_read(context, into),
            AsyncStream::Tls(tls) => Pin::new(tls).poll_read(context, into),
        }
    }
}

impl AsyncWrite for AsyncStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            AsyncStream::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            AsyncStream::Local(pair) => Pin::new(pair).poll_write(context, bytes),
            AsyncStream::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            AsyncStream::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            AsyncStream::Local(pair) => Pin::new(pair).poll_flush(context),
            AsyncStream::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            AsyncStream::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            AsyncStream::Local(pair) => Pin::new(pair).poll_shutdown(context),
            AsyncStream::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
