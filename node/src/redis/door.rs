//! What all connections of the door share. All of it is of one thread.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use lode_net::client::Client;
use lode_net::resp::Protocol;
use lode_net::wire::server::Principal;
use tokio::sync::Semaphore;

use super::DoorConfig;
use super::cursors::{Cursors, Owner};
use super::memory::Memory;
use super::slowlog::SlowCommands;
use super::tally::Tally;
use super::transaction::Shares;
use crate::access::{AccessBook, Addresses, Meters};
use crate::tls::Tls;

/// The table that a connection begins with.
pub const FIRST_TABLE: &str = "0";

/// The door, as its connections see it.
pub struct Door {
    pub client: Client,
    pub addr: SocketAddr,
    pub max_connections: usize,
    pub begun: Instant,
    pub cursors: RefCell<Cursors>,
    pub tally: Arc<Tally>,
    /// Commands that took long.
    pub slow: SlowCommands,
    /// Open connections, by their number.
    pub peers: RefCell<BTreeMap<u64, Rc<Peer>>>,
    /// Requests and replies that connections hold.
    pub memory: Rc<Memory>,
    /// Whether a table has a time to live, by its id: a table's never changes.
    pub have_ttl: RefCell<HashMap<u32, bool>>,
    /// Whose turn it is to look at a key that takes long: one pattern's, whatever their number.
    pub long_looks: Semaphore,
    next_peer: Cell<u64>,
    random: Cell<u64>,
    /// The tokens, where the node wants them.
    pub access: Option<Arc<AccessBook>>,
    /// Who has connections, by address.
    pub addresses: Arc<Addresses>,
    /// The certificate, where the door speaks TLS.
    pub tls: Option<Arc<Tls>>,
}

/// One connection, as the others may see it.
pub struct Peer {
    pub number: u64,
    pub addr: SocketAddr,
    pub since: Instant,
    pub name: RefCell<String>,
    pub table: RefCell<Rc<str>>,
    pub protocol: Cell<Protocol>,
    pub last_command: Cell<&'static str>,
    /// For whom it acts, where the node wants to know.
    pub principal: Cell<Option<Principal>>,
    /// What its address and its token may take.
    pub meters: RefCell<Meters>,
}

impl Peer {
    /// Whose its scans are.
    pub fn owner(&self) -> Owner {
        (self.addr.ip(), self.principal.get())
    }
}

impl Door {
    /// A door before its first connection. `random` is any number.
    pub fn new(
        client: Client,
        addr: SocketAddr,
        config: &DoorConfig,
        tally: Arc<Tally>,
        random: u64,
    ) -> Door {
        Door {
            client,
            addr,
            max_connections: config.max_connections,
            begun: Instant::now(),
            cursors: RefCell::new(Cursors::new(random)),
            tally,
            slow: SlowCommands::new(config.slow_request),
            peers: RefCell::default(),
            memory: Rc::default(),
            have_ttl: RefCell::default(),
            long_looks: Semaphore::new(1),
            next_peer: Cell::new(1),
            random: Cell::new(random | 1),
            access: config.access.clone(),
            addresses: Arc::clone(&config.addresses),
            tls: config.tls.clone(),
        }
    }

    /// Takes a connection in; `None`: there are as many as may be.
    pub fn admit(&self, addr: SocketAddr) -> Option<Rc<Peer>> {
        let mut peers = self.peers.borrow_mut();
        let mut meters = Meters::default();
        let is_one_too_many = self.addresses.is_limited() && !meters.connect(&self.addresses, addr.ip());
        if is_one_too_many || peers.len() >= self.max_connections {
            meters.disconnect(&self.addresses);
            self.tally.refused.count();
            return None;
        }
        self.tally.accepted.count();
        let number = self.next_peer.get();
        self.next_peer.set(number + 1);
        let peer = Rc::new(Peer {
            number,
            addr,
            since: Instant::now(),
            name: RefCell::default(),
            table: RefCell::new(FIRST_TABLE.into()),
            protocol: Cell::default(),
            last_command: Cell::new("NULL"),
            principal: Cell::new(None),
            meters: RefCell::new(meters),
        });
        peers.insert(number, peer.clone());
        self.tally.connections.set(peers.len());
        Some(peer)
    }

    /// A connection has ended.
    pub fn leave(&self, number: u64) {
        if let Some(peer) = self.peers.borrow_mut().remove(&number) {
            peer.meters.borrow_mut().disconnect(&self.addresses);
        }
        self.tally.connections.set(self.peers.borrow().len());
    }

    /// What one connection may hold now before it is kept from more, in bytes.
    pub fn share(&self) -> usize {
        self.memory.share(self.peers.borrow().len())
    }

    /// What connections may keep between their commands now.
    pub fn shares(&self) -> Shares<'_> {
        Shares { memory: &self.memory, share: self.share() }
    }

    /// Any number (xorshift: Marsaglia, "Xorshift RNGs", 2003).
    pub fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }
}
