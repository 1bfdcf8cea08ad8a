//! What all connections of the door share. All of it is of one thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use lode_net::client::Client;
use lode_net::resp::Protocol;

use super::cursors::Cursors;
use super::limits::MAX_HELD_BYTES;

/// The table that a connection begins with.
pub const FIRST_TABLE: &str = "0";

/// The door, as its connections see it.
pub struct Door {
    pub client: Client,
    pub addr: SocketAddr,
    pub max_connections: usize,
    pub begun: Instant,
    pub cursors: RefCell<Cursors>,
    pub tally: Tally,
    /// Open connections, by their number.
    pub peers: RefCell<BTreeMap<u64, Rc<Peer>>>,
    /// Bytes of requests and replies that connections hold.
    held_bytes: Cell<usize>,
    next_peer: Cell<u64>,
    random: Cell<u64>,
}

/// What INFO counts.
#[derive(Default)]
pub struct Tally {
    pub accepted: Cell<u64>,
    pub refused: Cell<u64>,
    pub commands: Cell<u64>,
    pub errors: Cell<u64>,
}

impl Tally {
    /// One more.
    pub fn count(counter: &Cell<u64>) {
        counter.set(counter.get() + 1);
    }
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
}

impl Door {
    /// A door before its first connection. `random` is any number.
    pub fn new(client: Client, addr: SocketAddr, max_connections: usize, random: u64) -> Door {
        Door {
            client,
            addr,
            max_connections,
            begun: Instant::now(),
            cursors: RefCell::new(Cursors::new(random)),
            tally: Tally::default(),
            peers: RefCell::default(),
            held_bytes: Cell::new(0),
            next_peer: Cell::new(1),
            random: Cell::new(random | 1),
        }
    }

    /// Takes a connection in; `None`: there are as many as may be.
    pub fn admit(&self, addr: SocketAddr) -> Option<Rc<Peer>> {
        let mut peers = self.peers.borrow_mut();
        if peers.len() >= self.max_connections {
            Tally::count(&self.tally.refused);
            return None;
        }
        Tally::count(&self.tally.accepted);
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
        });
        peers.insert(number, peer.clone());
        Some(peer)
    }

    /// A connection holds another number of bytes now.
    pub fn hold(&self, before: usize, now: usize) {
        let held = self.held_bytes.get() + now;
        self.held_bytes.set(held.checked_sub(before).expect("no connection gives back what it did not hold"));
    }

    /// Whether connections hold more than they may together.
    pub fn is_short(&self) -> bool {
        self.held_bytes.get() > MAX_HELD_BYTES
    }

    /// Bytes that connections hold.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.get()
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
