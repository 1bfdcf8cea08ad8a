//! One connection of the load: a socket that does not block, and the sans-IO connection of either protocol.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use lode_net::client::connection::{Connection, ConnectionError, Event, Reply};
use lode_net::client::stream::Stream;
use lode_net::client::{ClientOptions, ClientTls};
use lode_net::wire::control::HelloReply;
use lode_net::wire::limits::MAX_SCAN_BYTES;
use lode_net::wire::request::EncodeError;
use lode_net::wire::{
    BatchBuilder, BatchWrite, MapVersion, RangeView, ReadView, RequestView, ScanView, ShardId, Status,
    TransactionId,
};
use thiserror::Error;

use super::ask::{Answer, Ask, Outcome, Step};
use super::pipeline::{Dialect, Pipeline, PipelineError};

/// How long the node may take to answer a connection's handshake.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// What the load generator calls itself.
const NAME: &str = "lode-bench";

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
    /// The server does not speak the protocol, or cannot do what is asked for in it.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

/// The sans-IO connection of a protocol.
enum Wire {
    Lode(Box<Connection<Ask>>),
    Pipeline(Pipeline),
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
    stream: Stream,
    wire: Wire,
}

impl Link {
    /// Connects and shakes hands, waiting for both; from then on the socket does not block.
    pub fn open(addr: SocketAddr, shown: &ClientOptions) -> Result<(Link, HelloReply), LinkError> {
        let connection = Connection::with_token(shown.token.as_ref(), NAME, 0, MapVersion(0));
        let wire = Wire::Lode(Box::new(connection));
        let mut link = Link::connect(addr, shown.tls.as_ref(), wire)?;
        let hello = link.shake_hands()?;
        link.shard = ShardId(hello.shard);
        let version = hello.map.as_ref().map_or(0, |map| map.version);
        if let Wire::Lode(connection) = &mut link.wire {
            connection.set_map_version(MapVersion(version));
        }
        link.stream.set_nonblocking().map_err(|error| LinkError::Socket { addr, error })?;
        Ok((link, hello))
    }

    /// Connects to a server whose protocol knows no handshake.
    pub fn open_pipeline(addr: SocketAddr, dialect: Dialect) -> Result<Link, LinkError> {
        let link = Link::connect(addr, None, Wire::Pipeline(Pipeline::new(dialect)))?;
        link.stream.set_nonblocking().map_err(|error| LinkError::Socket { addr, error })?;
        Ok(link)
    }

    fn connect(addr: SocketAddr, tls: Option<&ClientTls>, wire: Wire) -> Result<Link, LinkError> {
        let socket = |error| LinkError::Socket { addr, error };
        let stream = Stream::connect(addr, HELLO_TIMEOUT, tls).map_err(socket)?;
        stream.set_read_timeout(HELLO_TIMEOUT).map_err(socket)?;
        Ok(Link { shard: ShardId(0), backlog: VecDeque::new(), is_choked: false, addr, stream, wire })
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
            let Wire::Lode(connection) = &mut self.wire else {
                unreachable!("only lode's own connections shake hands");
            };
            let mut input = &buffer[..count];
            let event = connection.next_event(&mut input);
            match event.map_err(|error| LinkError::Protocol { addr: self.addr, error })? {
                Some(Event::Opened(hello)) => return Ok(*hello),
                // Nothing was asked, so `next_event` lets no reply through.
                Some(Event::Reply { .. }) | None => {}
            }
        }
    }

    /// Requests sent and not answered.
    pub fn in_flight(&self) -> usize {
        match &self.wire {
            Wire::Lode(connection) => connection.in_flight(),
            Wire::Pipeline(connection) => connection.in_flight(),
        }
    }

    /// Encodes a request behind those before it.
    pub fn ask(&mut self, ask: Ask, key: &[u8], value: &[u8]) -> Result<(), LinkError> {
        match &mut self.wire {
            Wire::Lode(connection) => submit(connection, ask, key, value)?,
            Wire::Pipeline(connection) => connection.submit(ask, key, value)?,
        }
        Ok(())
    }

    fn output(&self) -> &[u8] {
        match &self.wire {
            Wire::Lode(connection) => connection.output(),
            Wire::Pipeline(connection) => connection.output(),
        }
    }

    fn consume_output(&mut self, bytes: usize) {
        match &mut self.wire {
            Wire::Lode(connection) => connection.consume_output(bytes),
            Wire::Pipeline(connection) => connection.consume_output(bytes),
        }
    }

    /// Hands the socket what it takes of what is encoded.
    pub fn flush(&mut self) -> Result<(), LinkError> {
        while !self.output().is_empty() {
            let written = {
                let Link { stream, wire, .. } = self;
                match wire {
                    Wire::Lode(connection) => stream.write(connection.output()),
                    Wire::Pipeline(connection) => stream.write(connection.output()),
                }
            };
            match written {
                Ok(0) => return Err(LinkError::Closed { addr: self.addr }),
                Ok(count) => self.consume_output(count),
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
        // What was encrypted and not taken waits for the socket as well.
        match self.stream.flush() {
            Ok(()) => self.is_choked = false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_choked = true,
            Err(error) => return Err(LinkError::Socket { addr: self.addr, error }),
        }
        Ok(())
    }

    /// Reads once into `buffer`, and gives each answer that is whole to `each`.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        each: &mut dyn FnMut(Ask, &Answer<'_>),
    ) -> Result<(), LinkError> {
        let addr = self.addr;
        let count = match self.stream.read(buffer) {
            Ok(0) => return Err(LinkError::Closed { addr }),
            Ok(count) => count,
            Err(error) if [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&error.kind()) => {
                return Ok(());
            }
            Err(error) => return Err(LinkError::Socket { addr, error }),
        };
        let mut input = &buffer[..count];
        let connection = match &mut self.wire {
            Wire::Lode(connection) => connection,
            Wire::Pipeline(connection) => return Ok(connection.receive(input, each)?),
        };
        loop {
            let event = connection.next_event(&mut input);
            match event.map_err(|error| LinkError::Protocol { addr, error })? {
                Some(Event::Reply { tag, reply, .. }) => each(tag, &answer(&reply)),
                Some(Event::Opened(_)) => {}
                None => return Ok(()),
            }
        }
    }
}

/// Encodes the next step of a request for lode.
fn submit(connection: &mut Connection<Ask>, ask: Ask, key: &[u8], value: &[u8]) -> Result<(), EncodeError> {
    let target = ask.target;
    match ask.step {
        Step::Read => connection.submit_get(target, key, ask)?,
        Step::Write => connection.submit_put(target, key, value, ask)?,
        Step::Scan => {
            let from = ask.from.clone();
            let start = if from.is_empty() { key } else { &from };
            let range = RangeView { start, end: None };
            let scan = ScanView {
                range,
                reverse: false,
                keys_only: false,
                ttls: false,
                limit: ask.left,
                byte_budget: MAX_SCAN_BYTES,
            };
            connection.submit(&RequestView::Scan { target, scan }, ask)?
        }
        Step::Begin => {
            connection.submit(&RequestView::Begin { target, read_only: false, lifetime_ms: 0 }, ask)?
        }
        Step::ReadWithin(id) => {
            let (transaction, read) = (TransactionId(id), ReadView::Get { key });
            connection.submit(&RequestView::Within { target, transaction, read }, ask)?
        }
        Step::Commit(id) => {
            let mut batch = BatchBuilder::new();
            batch.push(BatchWrite::Put { key, value });
            let request = RequestView::Commit { target, transaction: TransactionId(id), batch: batch.view() };
            connection.submit(&request, ask)?
        }
        Step::Rollback(id) => {
            connection.submit(&RequestView::Rollback { target, transaction: TransactionId(id) }, ask)?
        }
    };
    Ok(())
}

/// What lode answered, in the words of either protocol.
fn answer<'a>(reply: &'a Reply<'_>) -> Answer<'a> {
    let (view, status) = (reply.view(), reply.status());
    let outcome = match status {
        Status::Ok => Outcome::Done,
        Status::NotFound => Outcome::NotFound,
        Status::Busy => Outcome::Busy,
        Status::Throttled => Outcome::Throttled,
        Status::Conflict => Outcome::Conflict,
        _ => Outcome::Refused,
    };
    let message = match outcome {
        Outcome::Refused if view.message().is_empty() => status.text(),
        Outcome::Refused => view.message(),
        _ => "",
    };
    Answer { outcome, body: view.body, number: view.header.aux, has_more: view.has_more(), message }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
