//! One connection on a std socket: opened blocking, then never blocking again.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::client::ClientOptions;
use crate::client::call::Loss;
use crate::client::connection::{Connection, ConnectionError, Event, OwnedReply, Unanswered};
use crate::client::error::ConnectError;
use crate::client::stream::Stream;
use crate::client::view::NodeView;
use crate::wire::{ShardId, Status};

const READ_BUFFER_BYTES: usize = 64 * 1024;
const NOT_READY_WAIT: Duration = Duration::from_millis(50);

/// What a request is known by: which run of calls, and which call of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ticket {
    Call { run: u64, place: usize },
    Map,
}

/// One open connection.
pub(super) struct Link {
    stream: Stream,
    pub(super) connection: Connection<Ticket>,
    pub(super) incarnation: u64,
    pub(super) shard: ShardId,
}

/// What became of a request.
pub(super) type Settled = (Ticket, Result<OwnedReply, Loss>);

impl Link {
    /// Connects and shakes hands; a node that recovers is waited for. `view` learns what the node says of itself.
    pub(super) fn open(
        addr: &str,
        options: &ClientOptions,
        timeout: Duration,
        view: &mut NodeView,
    ) -> Result<Link, ConnectError> {
        let deadline = Instant::now() + timeout;
        let wrong = |source| ConnectError::Address { addr: addr.to_owned(), source };
        let candidates: Vec<SocketAddr> = addr.to_socket_addrs().map_err(wrong)?.collect();
        let timed_out = || ConnectError::Timeout { addr: addr.to_owned(), timeout };
        let mut last = wrong(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        loop {
            let mut not_ready = false;
            for candidate in &candidates {
                let left = remaining(deadline).ok_or_else(timed_out)?;
                match Link::open_once(addr, *candidate, left, options, view) {
                    Ok(link) => return Ok(link),
                    Err(error) => {
                        not_ready |= is_not_ready(&error);
                        last = error;
                    }
                }
            }
            if !not_ready {
                return Err(match last {
                    ConnectError::Io { source, .. } if is_timeout(&source) => timed_out(),
                    last => last,
                });
            }
            std::thread::sleep(NOT_READY_WAIT);
        }
    }

    fn open_once(
        addr: &str,
        candidate: SocketAddr,
        left: Duration,
        options: &ClientOptions,
        view: &mut NodeView,
    ) -> Result<Link, ConnectError> {
        let broken = |source| ConnectError::broken(addr, source);
        let refused = |source| ConnectError::Refused { addr: addr.to_owned(), source };
        let deadline = Instant::now() + left;
        let mut stream = Stream::of_options(candidate, left, options).map_err(broken)?;
        let mut connection = Connection::with_token(
            options.token.as_ref(),
            &options.name,
            view.incarnation(),
            view.map().version(),
        );
        stream.write_all(connection.output()).and_then(|()| stream.flush()).map_err(broken)?;
        connection.consume_output(connection.output().len());
        let mut buffer = vec![0u8; READ_BUFFER_BYTES];
        loop {
            let left = remaining(deadline).ok_or_else(|| broken(io::ErrorKind::TimedOut.into()))?;
            stream.set_read_timeout(left).map_err(broken)?;
            let read = stream.read(&mut buffer).map_err(broken)?;
            if read == 0 {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut input = &buffer[..read];
            if let Some(Event::Opened(hello)) = connection.next_event(&mut input).map_err(refused)? {
                let (incarnation, shard) = (hello.incarnation, ShardId(hello.shard));
                view.adopt_hello(candidate.ip(), *hello)
                    .map_err(|reason| ConnectError::BadMap { addr: addr.to_owned(), reason })?;
                stream.set_nonblocking().map_err(broken)?;
                return Ok(Link { stream, connection, incarnation, shard });
            }
        }
    }

    /// Receives and sends what can be at once. An error ends the link; `settled` has what came before it.
    ///
    /// Receives first: where the node has closed an idle connection, that shows before anything is sent, and
    /// the request may go elsewhere.
    pub(super) fn pump(
        &mut self,
        buffer: &mut Vec<u8>,
        view: &mut NodeView,
        settled: &mut Vec<Settled>,
    ) -> Result<(), String> {
        buffer.resize(READ_BUFFER_BYTES, 0);
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err("the node closed the connection".to_owned()),
                Ok(read) => {
                    self.take_in(&buffer[..read], view, settled)?;
                    if read < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("receiving failed: {error}")),
            }
        }
        self.send().map_err(|error| format!("sending failed: {error}"))
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.connection.output().is_empty() {
            match self.stream.write(self.connection.output()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.connection.consume_output(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match self.stream.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            done => done,
        }
    }

    fn take_in(
        &mut self,
        mut input: &[u8],
        view: &mut NodeView,
        settled: &mut Vec<Settled>,
    ) -> Result<(), String> {
        loop {
            match self.connection.next_event(&mut input).map_err(|error| error.to_string())? {
                None => return Ok(()),
                Some(Event::Opened(_)) => return Err("the node shook hands twice".to_owned()),
                Some(Event::Reply { tag, reply, .. }) => {
                    if let Some(bytes) = reply.view().map_body() {
                        view.adopt_map_bytes(bytes, self.incarnation)?;
                    }
                    settled.push((tag, Ok(reply.into_owned())));
                }
            }
        }
    }

    /// What was not answered, after the link has ended.
    pub(super) fn end(mut self, reason: &str) -> Vec<Settled> {
        let lost = |u: Unanswered<Ticket>| {
            (u.tag, Err(Loss { reason: reason.to_owned(), maybe_sent: u.maybe_sent }))
        };
        self.connection.drain(0).into_iter().map(lost).collect()
    }
}

/// Waits until one of the links can move bytes, or the time is over.
pub(super) fn wait<'a>(links: impl Iterator<Item = &'a Link>, timeout: Duration) -> io::Result<()> {
    let flags = |link: &Link| match link.connection.output().is_empty() && !link.stream.has_unsent() {
        true => PollFlags::IN,
        false => PollFlags::IN | PollFlags::OUT,
    };
    let mut fds: Vec<PollFd<'_>> = links.map(|link| PollFd::new(&link.stream, flags(link))).collect();
    let timeout = Timespec {
        tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64,
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn remaining(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn is_not_ready(error: &ConnectError) -> bool {
    matches!(
        error,
        ConnectError::Refused { source: ConnectionError::Refused { status: Status::NotReady, .. }, .. }
    )
}
