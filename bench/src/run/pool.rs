//! The connections of one worker, and the wait for any of them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use lode_net::client::ClientOptions;
use lode_net::wire::control::HelloReply;
use lode_net::wire::{PartitionMap, ShardId};
use rustix::event::{Timespec, epoll};
use thiserror::Error;

use super::ask::{Answer, Ask};
use super::link::{Link, LinkError};
use super::pipeline::Dialect;

/// What one read of a socket takes at most.
const RECEIVE_BYTES: usize = 256 << 10;

/// With so few requests in flight the generator looks for the answer instead of sleeping at once: waking it takes
/// about as long as the answer, and would count as the node's.
const FEW_IN_FLIGHT: usize = 2;
/// How long it looks before it sleeps after all.
const LOOK: Duration = Duration::from_micros(300);

/// Connections heard in one wait; the others are heard in the next.
const MOST_EVENTS: usize = 64;

/// Why a pool could not be made.
#[derive(Debug, Error)]
pub enum PoolError {
    /// A connection failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The wait for connections cannot be set up.
    #[error("epoll: {0}")]
    Epoll(#[from] io::Error),
    /// The partition map makes no sense.
    #[error("the node's partition map cannot be used: {0}")]
    Map(String),
}

/// Connections to all shards of a node.
pub struct Pool {
    /// The connections; those of one shard lie `shards` apart.
    pub links: Vec<Link>,
    epoll: OwnedFd,
    buffer: Vec<u8>,
    watches_output: Vec<bool>,
    next_of_shard: Vec<usize>,
}

impl Pool {
    /// Opens `connections` connections to the node at `addr`, at least one to each shard.
    pub fn open(
        addr: SocketAddr,
        shown: &ClientOptions,
        connections: usize,
    ) -> Result<(Pool, PartitionMap), PoolError> {
        let (first, hello) = Link::open(addr, shown)?;
        drop(first);
        let map = map_of(&hello)?;
        let shards = hello.shards.len();
        let mut links = Vec::new();
        for place in 0..connections.max(shards) {
            let shard = hello.shards[place % shards];
            links.push(Link::open(SocketAddr::new(addr.ip(), shard.port), shown)?.0);
        }
        Ok((Pool::of(links, shards)?, map))
    }

    /// Opens `connections` connections to a server whose protocol knows neither handshake nor partitions.
    pub fn open_pipelines(addr: SocketAddr, dialect: Dialect, connections: usize) -> Result<Pool, PoolError> {
        let links: Result<Vec<Link>, LinkError> =
            (0..connections.max(1)).map(|_| Link::open_pipeline(addr, dialect)).collect();
        Pool::of(links?, 1)
    }

    fn of(links: Vec<Link>, shards: usize) -> Result<Pool, PoolError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        for (place, link) in links.iter().enumerate() {
            let data = epoll::EventData::new_u64(place as u64);
            epoll::add(&epoll, link, data, epoll::EventFlags::IN).map_err(io::Error::from)?;
        }
        let watches_output = vec![false; links.len()];
        let (buffer, next_of_shard) = (vec![0; RECEIVE_BYTES], vec![0; shards]);
        Ok(Pool { links, epoll, buffer, watches_output, next_of_shard })
    }

    /// A connection to this shard, each in its turn; any connection, where the shard is not known.
    pub fn link_to(&mut self, shard: ShardId) -> &mut Link {
        let shards = self.next_of_shard.len();
        let place = usize::from(shard.0) % shards;
        let of_shard = self.links.len().saturating_sub(place).div_ceil(shards).max(1);
        let turn = self.next_of_shard[place];
        self.next_of_shard[place] = (turn + 1) % of_shard;
        &mut self.links[place + turn * shards]
    }

    /// Waits for replies, `timeout` at most, and gives each to `each`.
    pub fn wait(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(usize, Ask, &Answer<'_>),
    ) -> Result<(), PoolError> {
        let looks_until = (self.in_flight() <= FEW_IN_FLIGHT).then(|| Instant::now() + LOOK.min(timeout));
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let nothing = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [nothing; MOST_EVENTS];
        let count = loop {
            let is_looking = looks_until.is_some_and(|end| Instant::now() < end);
            let patience = if is_looking { &at_once } else { &timeout };
            match epoll::wait(&self.epoll, &mut events, Some(patience)) {
                Ok(0) if is_looking => std::thread::yield_now(),
                Ok(ready) => break ready,
                Err(rustix::io::Errno::INTR) => return Ok(()),
                Err(errno) => return Err(PoolError::Epoll(errno.into())),
            }
        };
        for event in &events[..count] {
            // The kernel's struct is packed on some machines: take the fields out by value.
            let (flags, place) = (event.flags, event.data.u64() as usize);
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                self.links[place].receive(&mut self.buffer, &mut |ask, answer| each(place, ask, answer))?;
            }
        }
        Ok(())
    }

    /// Sends what is encoded, and watches for room where a socket took less.
    pub fn flush(&mut self) -> Result<(), PoolError> {
        for (place, link) in self.links.iter_mut().enumerate() {
            link.flush()?;
            if link.is_choked != self.watches_output[place] {
                self.watches_output[place] = link.is_choked;
                let output = if link.is_choked { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
                let data = epoll::EventData::new_u64(place as u64);
                epoll::modify(&self.epoll, &*link, data, epoll::EventFlags::IN | output)
                    .map_err(io::Error::from)?;
            }
        }
        Ok(())
    }

    /// Requests sent and not answered, over all connections.
    pub fn in_flight(&self) -> usize {
        self.links.iter().map(Link::in_flight).sum()
    }
}

fn map_of(hello: &HelloReply) -> Result<PartitionMap, PoolError> {
    let body = hello.map.clone().ok_or_else(|| PoolError::Map("the node sent none".to_owned()))?;
    if hello.shards.is_empty() {
        return Err(PoolError::Map("it has no shards".to_owned()));
    }
    PartitionMap::new(body).map_err(|error| PoolError::Map(error.to_string()))
}
