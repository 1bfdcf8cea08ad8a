//! One connection of the load: a socket that does not block, and the sans-IO connection.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use lode_net::client::connection::{Connection, ConnectionError, Event, Reply};
use lode_net::wire::control::HelloReply;
use lode_net::wire::request::EncodeError;
use lode_net::wire::{MapVersion, ShardId, Target};
use thiserror::Error;

use super::tally::Operation;

/// How long the node may take to answer a connection's handshake.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// What the load generator calls itself.
const NAME: &str = "lode-bench";

/// A request that waits to be sent, or for its answer.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// When it was to be sent, in nanoseconds since the load's origin.
    pub at_ns: u64,
    /// Which record.
    pub index: u64,
    /// Which operation.
    pub operation: Operation,
    /// Partition and epoch.
    pub target: Target,
}

/// Why a connection failed.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The socket failed.
    #[error("the connection to {addr} failed: {error}; is the node running?")]
    Socket {
        /// The other end.
        addr: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// The node ended the connection.
    #[error("the node at {addr} closed the connection")]
    Closed {
        /// The other end.
        addr: SocketAddr,
    },
    /// The node refused, or does not speak the protocol.
    #[error("{addr}: {error}")]
    Protocol {
        /// The other end.
        addr: SocketAddr,
        /// What went wrong.
        error: ConnectionError,
    },
    /// A request could not be encoded.
    #[error("a request could not be encoded: {0}")]
    Encode(#[from] EncodeError),
}

/// One connection to one shard.
pub struct Link {
    /// The shard it ends at.
    pub shard: ShardId,
    /// Requests whose time has come, and for which there was no room.
    pub backlog: VecDeque<Ask>,
    /// Whether the socket took less than there was to send.
    pub is_choked: bool,
    addr: SocketAddr,
    stream: TcpStream,
    connection: Connection<Ask>,
}

impl Link {
    /// Connects and shakes hands, waiting for both; from then on the socket does not block.
    pub fn open(addr: SocketAddr) -> Result<(Link, HelloReply), LinkError> {
        let socket = |error| LinkError::Socket { addr, error };
        let stream = TcpStream::connect_timeout(&addr, HELLO_TIMEOUT).map_err(socket)?;
        stream.set_nodelay(true).map_err(socket)?;
        stream.set_read_timeout(Some(HELLO_TIMEOUT)).map_err(socket)?;
        let connection = Connection::new(NAME, 0, MapVersion(0));
        let backlog = VecDeque::new();
        let mut link = Link { shard: ShardId(0), backlog, is_choked: false, addr, stream, connection };
        let hello = link.shake_hands()?;
        link.shard = ShardId(hello.shard);
        let version = hello.map.as_ref().map_or(0, |map| map.version);
        link.connection.set_map_version(MapVersion(version));
        link.stream.set_nonblocking(true).map_err(socket)?;
        Ok((link, hello))
    }

    fn shake_hands(&mut self) -> Result<HelloReply, LinkError> {
        self.flush()?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => return Err(LinkError::Closed { addr: self.addr }),
                Ok(count) => count,
                Err(error) => {
                    return Err(LinkError::Socket { addr: self.addr, error });
                }
            };
            let mut input = &buffer[..count];
            let event = self.connection.next_event(&mut input);
            match event.map_err(|error| LinkError::Protocol { addr: self.addr, error })? {
                Some(Event::Opened(hello)) => return Ok(*hello),
                // Nothing was asked, so `next_event` lets no reply through.
                Some(Event::Reply { .. }) | None => {}
            }
        }
    }

    /// Requests sent and not answered.
    pub fn in_flight(&self) -> usize {
        self.connection.in_flight()
    }

    /// Encodes a request behind those before it.
    pub fn ask(&mut self, ask: Ask, key: &[u8], value: &[u8]) -> Result<(), LinkError> {
        match ask.operation {
            Operation::Get => self.connection.submit_get(ask.target, key, ask)?,
            Operation::Put => self.connection.submit_put(ask.target, key, value, ask)?,
        };
        Ok(())
    }

    /// Hands the socket what it takes of what is encoded.
    pub fn flush(&mut self) -> Result<(), LinkError> {
        while !self.connection.output().is_empty() {
            match self.stream.write(self.connection.output()) {
                Ok(0) => return Err(LinkError::Closed { addr: self.addr }),
                Ok(count) => self.connection.consume_output(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_choked = true;
                    return Ok(());
                }
                Err(error) => {
                    return Err(LinkError::Socket { addr: self.addr, error });
                }
            }
        }
        self.is_choked = false;
        Ok(())
    }

    /// Reads once into `buffer`, and gives each reply that is whole to `each`.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        each: &mut dyn FnMut(Ask, &Reply<'_>),
    ) -> Result<(), LinkError> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Err(LinkError::Closed { addr: self.addr }),
            Ok(count) => count,
            Err(error) if [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&error.kind()) => {
                return Ok(());
            }
            Err(error) => {
                return Err(LinkError::Socket { addr: self.addr, error });
            }
        };
        let mut input = &buffer[..count];
        loop {
            let event = self.connection.next_event(&mut input);
            match event.map_err(|error| LinkError::Protocol { addr: self.addr, error })? {
                Some(Event::Reply { tag, reply, .. }) => each(tag, &reply),
                Some(Event::Opened(_)) => {}
                None => return Ok(()),
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
