//! Hostile clients of one kind: one thread, at a bounded rate, with sockets that do not block.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lode_net::wire::limits::MAX_REQUEST_BODY_BYTES;
use serde::Serialize;

use super::arms::Arms;
use crate::draw::Dice;
use crate::options::{HostileKind, HostileOptions};

/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the thread sleeps where nothing is due.
const PAUSE: Duration = Duration::from_millis(1);
/// What is due and was not done, for the cores were others', is not made up for beyond this.
const MOST_BEHIND: Duration = Duration::from_millis(50);
/// Bytes of a large request that come one by one.
const HALF_LEFT_BYTES: usize = 1000;

/// What hostile clients did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Deeds {
    /// Connections that were made.
    pub connections: u64,
    /// Those that the node did not take within a second.
    pub not_taken: u64,
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// Connections that the node has ended.
    pub cut_off: u64,
}

impl Deeds {
    /// And these.
    pub fn add(&mut self, other: &Deeds) {
        self.connections += other.connections;
        self.not_taken += other.not_taken;
        self.sent_bytes += other.sent_bytes;
        self.cut_off += other.cut_off;
    }
}

/// One connection.
struct Slot {
    stream: TcpStream,
    /// What it is to send, and how much of it is sent.
    script: Script,
    sent: usize,
}

/// What a connection sends.
enum Script {
    /// These of the arms, byte by byte from `slow_from` on.
    Slow { bytes: fn(&Arms) -> &[u8], slow_from: usize },
    /// These, and no more.
    Once(Vec<u8>),
    /// These again and again; nothing is read.
    Deaf,
}

/// Hostile clients of one kind.
pub struct Attack<'a> {
    kind: HostileKind,
    addr: SocketAddr,
    arms: &'a Arms,
    slots: Vec<Option<Slot>>,
    next: usize,
    per_s: f64,
    dice: Dice,
    deeds: Deeds,
    buffer: Vec<u8>,
}

impl<'a> Attack<'a> {
    /// Of a node at this address.
    pub fn new(kind: HostileKind, addr: SocketAddr, arms: &'a Arms, options: &HostileOptions) -> Attack<'a> {
        use HostileKind::{Damaged, Deaf, Drops, Garbage, Half, SlowHello, SlowRequest};
        let each = |count: u32, interval: Duration| f64::from(count) / interval.as_secs_f64().max(0.001);
        let slow = (options.slow_connections, each(options.slow_connections, options.byte_interval));
        let greedy = (options.greedy_connections, each(options.greedy_connections, options.greedy_interval));
        let (count, per_s) = match kind {
            SlowHello | SlowRequest => slow,
            Half | Deaf => greedy,
            Garbage | Damaged => (options.slow_connections, options.connections_per_s as f64),
            Drops => (options.wave, options.connections_per_s as f64),
        };
        let slots = (0..count).map(|_| None).collect();
        let seed = options.load.data.seed();
        let (dice, deeds, buffer) = (Dice::new(seed), Deeds::default(), vec![0; 64 << 10]);
        Attack { kind, addr, arms, slots, next: 0, per_s, dice, deeds, buffer }
    }

    /// Goes on until it is told to stop. All connections end with it.
    pub fn run(mut self, stop: &AtomicBool) -> Deeds {
        let mut from = Instant::now();
        let mut done = 0.0;
        while !stop.load(Ordering::Relaxed) {
            let due = from.elapsed().as_secs_f64() * self.per_s;
            if due - done > MOST_BEHIND.as_secs_f64() * self.per_s + 1.0 {
                (from, done) = (Instant::now(), 0.0);
                continue;
            }
            if due - done < 1.0 {
                thread::sleep(PAUSE);
                continue;
            }
            done += 1.0;
            self.step();
        }
        self.deeds
    }

    /// The turn of the next connection.
    fn step(&mut self) {
        let place = self.next % self.slots.len();
        self.next += 1;
        if place == 0 && self.next > 1 && self.kind == HostileKind::Drops {
            self.slots.iter_mut().for_each(|slot| *slot = None);
        }
        match self.slots[place].take() {
            Some(slot) => self.slots[place] = self.go_on(slot),
            None => self.slots[place] = self.open(),
        }
    }

    fn open(&mut self) -> Option<Slot> {
        let stream = TcpStream::connect_timeout(&self.addr, PATIENCE).and_then(|stream| {
            stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).map(|()| stream)
        });
        let Ok(stream) = stream else {
            self.deeds.not_taken += 1;
            return None;
        };
        self.deeds.connections += 1;
        let script = self.script();
        self.go_on(Slot { stream, script, sent: 0 })
    }

    fn script(&mut self) -> Script {
        let half = |arms: &Arms| arms.put.len() - HALF_LEFT_BYTES;
        match self.kind {
            HostileKind::SlowHello => Script::Slow { bytes: |arms| &arms.hello, slow_from: 0 },
            HostileKind::SlowRequest => {
                Script::Slow { bytes: |arms| &arms.put, slow_from: self.arms.hello.len() }
            }
            HostileKind::Half => Script::Slow { bytes: |arms| &arms.put, slow_from: half(self.arms) },
            HostileKind::Garbage => Script::Once(self.garbage()),
            HostileKind::Damaged => Script::Once(self.damaged()),
            HostileKind::Drops if self.dice.below(2) == 0 => Script::Once(Vec::new()),
            HostileKind::Drops => Script::Once(self.arms.hello.clone()),
            HostileKind::Deaf => Script::Deaf,
        }
    }

    /// From a few bytes to 64 KiB, half of them after a handshake.
    fn garbage(&mut self) -> Vec<u8> {
        let len = (1usize << self.dice.below(17)).min(self.arms.garbage.len());
        let from = self.dice.below((self.arms.garbage.len() - len) as u64 + 1) as usize;
        let hello = if self.dice.below(2) == 0 { &self.arms.hello[..] } else { &[] };
        [hello, &self.arms.garbage[from..from + len]].concat()
    }

    /// A handshake and a request: one of its bytes is wrong, or its length is.
    fn damaged(&mut self) -> Vec<u8> {
        let mut bytes = self.arms.get.clone();
        let hello = if self.dice.below(4) == 0 { 0 } else { self.arms.hello.len() };
        match self.dice.below(3) {
            0 => bytes[hello..hello + 4].copy_from_slice(&u32::MAX.to_le_bytes()),
            1 => bytes[hello..hello + 4].copy_from_slice(&(MAX_REQUEST_BODY_BYTES as u32 + 1).to_le_bytes()),
            _ => {
                let at = hello + self.dice.below((bytes.len() - hello) as u64) as usize;
                bytes[at] ^= 1 << self.dice.below(8);
            }
        }
        bytes
    }

    /// Sends what comes next. Gives the connection back, unless it is over.
    fn go_on(&mut self, mut slot: Slot) -> Option<Slot> {
        let Attack { arms, deeds, buffer, .. } = self;
        let Slot { stream, script, sent } = &mut slot;
        let is_over = match script {
            Script::Slow { bytes, slow_from } => {
                let bytes = bytes(arms);
                let until = if *sent < *slow_from { *slow_from } else { bytes.len().min(*sent + 1) };
                is_closed(stream, buffer) || send(stream, &bytes[*sent..until], sent, deeds)
            }
            Script::Once(bytes) => is_closed(stream, buffer) || send(stream, &bytes[*sent..], sent, deeds),
            Script::Deaf => match sent.checked_sub(arms.hello.len()) {
                None => send(stream, &arms.hello[*sent..], sent, deeds),
                Some(asked) => send(stream, &arms.reads[asked % arms.reads.len()..], sent, deeds),
            },
        };
        self.deeds.cut_off += u64::from(is_over);
        (!is_over).then_some(slot)
    }
}

/// Whether the node has ended the connection; what it has said is thrown away.
fn is_closed(stream: &mut TcpStream, buffer: &mut [u8]) -> bool {
    loop {
        match stream.read(buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// Sends what the socket takes, and tells whether the connection is over.
fn send(stream: &mut TcpStream, bytes: &[u8], sent: &mut usize, deeds: &mut Deeds) -> bool {
    if bytes.is_empty() {
        return false;
    }
    match stream.write(bytes) {
        Ok(count) => {
            *sent += count;
            deeds.sent_bytes += count as u64;
            count == 0
        }
        Err(error) => ![ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()),
    }
}
