//! The floor of a server: what one ring gives that takes small requests from sockets, reads a block of the drive for
//! each, and sends part of it back, with nothing of lode's protocol or engine in between.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::core::{Event, Ring, RingConfig};
use super::floor::{FloorError, FloorReport, MAX_DEPTH, thread_cpu};
use super::outgoing::Outgoing;
use super::slab::{BLOCK_BYTES, SlabBuffer};
use super::sockets::SocketId;

/// Bytes of a request: which block, and the asker's own number.
pub const REQUEST_BYTES: usize = 16;
/// Bytes before the block's own in a reply: the asker's number, and as many zeros.
pub const HEAD_BYTES: usize = 16;
/// Chunks that requests and replies arrive in.
const CHUNKS: u16 = 256;
const CHUNK_BYTES: u32 = 16 << 10;
/// Longest wait for an event.
const LONGEST_WAIT: Duration = Duration::from_millis(20);
/// How long clients may take to come and to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the clients of an echo ask for.
#[derive(Debug, Clone, Copy)]
pub struct EchoLoad {
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each.
    pub depth: usize,
    /// Bytes of a reply, 16 of which are its head; at most one block.
    pub reply_bytes: usize,
    /// How long the server looks for work before it sleeps. Zero costs the least CPU; a wake that is not needed is what
    /// a single request in flight waits for.
    pub spin: Duration,
    /// How long it runs.
    pub time: Duration,
}

/// Runs a server and its clients, each in a thread of its own. `file` is read in random blocks of its first `bytes`;
/// without it the server answers from memory. CPU time is the server's alone; latencies are the clients'.
pub fn echo(file: Option<(File, u64)>, load: &EchoLoad) -> Result<FloorReport, FloorError> {
    let bytes = file.as_ref().map_or(BLOCK_BYTES as u64, |(_, bytes)| *bytes);
    check(load, bytes)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let addr = listener.local_addr()?;
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| Server::new(listener, file, load)?.run());
        let asked = ask(addr, bytes, load);
        // A panic in the server is a bug of this program; it goes on where it was.
        let cpu_us = serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(FloorReport { cpu_us, ..asked? })
    })
}

fn ring(buffers: usize) -> Result<Ring, FloorError> {
    let slab_bytes = (buffers * BLOCK_BYTES).max(2 << 20);
    let config = RingConfig { slab_bytes, chunks: CHUNKS, chunk_bytes: CHUNK_BYTES, ..RingConfig::default() };
    Ok(Ring::new(config)?)
}

/// A socket, what came of an unfinished message, and what waits to be sent.
#[derive(Default)]
struct Peer {
    partial: Vec<u8>,
    waiting: Outgoing,
    /// The memory of the last send, for the next.
    spare: Option<Outgoing>,
    is_sending: bool,
}

impl Peer {
    /// Gives each whole message of `size` bytes in `bytes`, and what came before them, to `each`.
    fn take(&mut self, bytes: &[u8], size: usize, each: &mut dyn FnMut(&[u8])) {
        let mut rest = bytes;
        if !self.partial.is_empty() {
            let missing = (size - self.partial.len()).min(rest.len());
            self.partial.extend_from_slice(&rest[..missing]);
            rest = &rest[missing..];
            if self.partial.len() < size {
                return;
            }
            each(&self.partial);
            self.partial.clear();
        }
        let mut whole = rest.chunks_exact(size);
        whole.by_ref().for_each(each);
        self.partial.extend_from_slice(whole.remainder());
    }

    fn send(&mut self, ring: &mut Ring, socket: SocketId) {
        if !self.is_sending && !self.waiting.is_empty() {
            let next = self.spare.take().unwrap_or_default();
            ring.send(socket, std::mem::replace(&mut self.waiting, next));
            self.is_sending = true;
        }
    }

    fn sent(&mut self, ring: &mut Ring, socket: SocketId, mut outgoing: Outgoing) {
        outgoing.clear(ring.slab_mut());
        self.spare = Some(outgoing);
        self.is_sending = false;
        self.send(ring, socket);
    }
}

/// One request that is read for.
#[derive(Clone, Copy)]
struct Reading {
    socket: SocketId,
    number: u64,
    buffer: SlabBuffer,
}

struct Server {
    ring: Ring,
    peers: Vec<Peer>,
    readings: Vec<Option<Reading>>,
    free: Vec<usize>,
    reply_bytes: usize,
    spin: Duration,
    reads: bool,
    /// Clients that have not gone yet.
    left: usize,
    /// Clients that are not gone by then never came.
    until: Instant,
}

impl Server {
    fn new(listener: TcpListener, file: Option<(File, u64)>, load: &EchoLoad) -> Result<Server, FloorError> {
        let in_flight = load.connections * load.depth;
        // Blocks are the kernel's while they are read into, and again while they are sent.
        let mut ring = ring(2 * in_flight)?;
        let reads = file.is_some();
        if let Some((file, _)) = file {
            ring.attach_drive(file.into());
        }
        ring.listen(OwnedFd::from(listener));
        let (readings, free) = (vec![None; in_flight], (0..in_flight).collect());
        let EchoLoad { reply_bytes, spin, connections, .. } = *load;
        Ok(Server {
            ring,
            peers: Vec::new(),
            readings,
            free,
            reply_bytes,
            spin,
            reads,
            left: connections,
            until: Instant::now() + load.time + PATIENCE,
        })
    }

    /// Serves until every client has gone; tells the CPU time in microseconds.
    fn run(mut self) -> Result<f64, FloorError> {
        let mut events = Vec::new();
        let before = thread_cpu();
        while self.left > 0 && Instant::now() < self.until {
            self.wait();
            self.ring.take_events(&mut events);
            for event in events.drain(..) {
                self.on_event(event)?;
            }
            for (place, peer) in self.peers.iter_mut().enumerate() {
                peer.send(&mut self.ring, SocketId(place as u32));
            }
        }
        Ok((thread_cpu() - before).as_secs_f64() * 1e6)
    }

    fn wait(&mut self) {
        if !self.spin.is_zero() {
            self.ring.submit();
            let begun = Instant::now();
            while begun.elapsed() < self.spin {
                if self.ring.is_ready() {
                    return;
                }
            }
        }
        self.ring.submit_and_wait(LONGEST_WAIT);
    }

    fn peer(&mut self, socket: SocketId) -> &mut Peer {
        let place = socket.0 as usize;
        if self.peers.len() <= place {
            self.peers.resize_with(place + 1, Peer::default);
        }
        &mut self.peers[place]
    }

    fn on_event(&mut self, event: Event) -> Result<(), FloorError> {
        match event {
            Event::Accepted { socket, .. } => {
                self.peer(socket);
                self.ring.receive(socket);
            }
            Event::Received { socket, chunk } => {
                let mut peer = std::mem::take(self.peer(socket));
                let mut asked = Vec::new();
                let bytes = self.ring.chunks().bytes(&chunk);
                peer.take(bytes, REQUEST_BYTES, &mut |request| {
                    asked.push((word(request, 0), word(request, 8)))
                });
                *self.peer(socket) = peer;
                self.ring.recycle(chunk);
                asked.into_iter().for_each(|(block, number)| self.answer(socket, block, number));
            }
            Event::Drive { token, result } => {
                result.map_err(FloorError::Drive)?;
                let reading = self.readings[token as usize].take().expect("a read that was begun");
                self.free.push(token as usize);
                let rest = (self.reply_bytes - HEAD_BYTES) as u32;
                let peer = self.peer(reading.socket);
                peer.waiting.push_copy(&head(reading.number));
                peer.waiting.push_buffer(reading.buffer, 0, rest);
            }
            Event::Sent { socket, outgoing, result, .. } => {
                result.map_err(os_failure)?;
                let mut peer = std::mem::take(self.peer(socket));
                peer.sent(&mut self.ring, socket, outgoing);
                *self.peer(socket) = peer;
            }
            Event::ReceiveEnded { socket, .. } => self.ring.close(socket),
            Event::Closed { .. } => self.left -= 1,
            Event::AcceptFailed { os_error, .. } => {
                return Err(os_failure(os_error));
            }
            Event::SentPart { .. } => {}
        }
        Ok(())
    }

    fn answer(&mut self, socket: SocketId, block: u64, number: u64) {
        if !self.reads {
            let reply_bytes = self.reply_bytes;
            self.peer(socket).waiting.push_with(|out| {
                let begin = out.len();
                out.extend_from_slice(&head(number));
                out.resize(begin + reply_bytes, 0);
            });
            return;
        }
        let token = self.free.pop().expect("clients keep to their depth");
        let buffer = self.ring.slab_mut().acquire(BLOCK_BYTES).expect("a block for each, twice");
        self.readings[token] = Some(Reading { socket, number, buffer });
        self.ring.read(token as u64, buffer, BLOCK_BYTES as u32, block * BLOCK_BYTES as u64);
    }
}

fn os_failure(code: i32) -> FloorError {
    FloorError::File(io::Error::from_raw_os_error(code))
}

fn head(number: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&number.to_le_bytes());
    head
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Connections to the server.
fn connect(ring: &mut Ring, addr: SocketAddr, count: usize) -> Result<Vec<(SocketId, Peer)>, FloorError> {
    let mut peers = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        let socket = ring.adopt(OwnedFd::from(stream));
        ring.receive(socket);
        peers.push((socket, Peer::default()));
    }
    Ok(peers)
}

/// Whether a file of so many bytes can be asked for so.
pub fn check(load: &EchoLoad, bytes: u64) -> Result<(), FloorError> {
    let in_flight = load.connections * load.depth;
    if load.connections == 0 || !(1..=MAX_DEPTH).contains(&in_flight) {
        return Err(FloorError::Depth { depth: in_flight, most: MAX_DEPTH });
    }
    assert!((HEAD_BYTES..=BLOCK_BYTES).contains(&load.reply_bytes), "a reply of {} bytes", load.reply_bytes);
    match bytes < BLOCK_BYTES as u64 {
        true => Err(FloorError::TooShort { bytes, block_bytes: BLOCK_BYTES as u32 }),
        false => Ok(()),
    }
}

/// The clients: all connections in one thread, with a ring of its own, of whatever server answers requests for random blocks of so
/// many bytes as [`echo`]'s does. A request is 16 bytes: the block's number, and the asker's own, both little-endian. A reply is the
/// asker's number, 8 zeros, and the begin of the block. The report has no CPU time: that is the server's to tell.
pub fn ask(addr: SocketAddr, bytes: u64, load: &EchoLoad) -> Result<FloorReport, FloorError> {
    check(load, bytes)?;
    let blocks = bytes / BLOCK_BYTES as u64;
    let mut ring = ring(1)?;
    let mut peers = connect(&mut ring, addr, load.connections)?;
    let mut begun_ns = vec![0u64; load.connections * load.depth];
    let mut report = FloorReport::default();
    let begun = Instant::now();
    // Never zero, which would stay zero.
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut request = |number: usize, begun_ns: &mut [u64], peer: &mut Peer| {
        // xorshift64: Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        begun_ns[number] = begun.elapsed().as_nanos() as u64;
        peer.waiting.push_copy(&(dice % blocks).to_le_bytes());
        peer.waiting.push_copy(&(number as u64).to_le_bytes());
    };
    for (place, (socket, peer)) in peers.iter_mut().enumerate() {
        for number in place * load.depth..(place + 1) * load.depth {
            request(number, &mut begun_ns, peer);
        }
        peer.send(&mut ring, *socket);
    }
    let mut events = Vec::new();
    let mut in_flight = begun_ns.len();
    while in_flight > 0 {
        ring.submit_and_wait(LONGEST_WAIT);
        ring.take_events(&mut events);
        let is_over = begun.elapsed() >= load.time;
        for event in events.drain(..) {
            match event {
                Event::Received { socket, chunk } => {
                    let (_, peer) = peers.iter_mut().find(|peer| peer.0 == socket).expect("one of ours");
                    let mut numbers = Vec::new();
                    let bytes = ring.chunks().bytes(&chunk);
                    peer.take(bytes, load.reply_bytes, &mut |reply| numbers.push(word(reply, 0) as usize));
                    ring.recycle(chunk);
                    let now_ns = begun.elapsed().as_nanos() as u64;
                    for number in numbers {
                        report.operations += 1;
                        report.latencies_ns.push(now_ns - begun_ns[number]);
                        if is_over {
                            in_flight -= 1;
                        } else {
                            request(number, &mut begun_ns, peer);
                        }
                    }
                    peer.send(&mut ring, socket);
                }
                Event::Sent { socket, outgoing, result, .. } => {
                    result.map_err(os_failure)?;
                    let (_, peer) = peers.iter_mut().find(|peer| peer.0 == socket).expect("one of ours");
                    peer.sent(&mut ring, socket, outgoing);
                }
                Event::ReceiveEnded { os_error, .. } => {
                    return Err(os_failure(os_error.unwrap_or(libc::ECONNRESET)));
                }
                _ => {}
            }
        }
    }
    report.seconds = begun.elapsed().as_secs_f64();
    report.latencies_ns.sort_unstable();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(connections: usize, depth: usize, reply_bytes: usize) -> EchoLoad {
        EchoLoad { connections, depth, reply_bytes, spin: Duration::ZERO, time: Duration::from_millis(60) }
    }

    fn drive() -> (File, u64) {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1 << 20).expect("its length");
        (file, 1 << 20)
    }

    #[test]
    fn every_request_is_answered_from_the_drive_and_from_memory() {
        for (connections, depth, reply_bytes) in [(1, 1, 16), (3, 5, 1040), (2, 64, BLOCK_BYTES)] {
            for file in [Some(drive()), None] {
                let report = echo(file, &load(connections, depth, reply_bytes)).expect("measured");
                assert!(report.operations >= (connections * depth) as u64, "{report:?}");
                assert_eq!(report.latencies_ns.len() as u64, report.operations);
                assert!(report.cpu_us > 0.0);
            }
        }
    }

    #[test]
    fn a_server_that_looks_for_work_answers_too() {
        let load = EchoLoad { spin: Duration::from_micros(100), ..load(1, 1, 1040) };
        assert!(echo(Some(drive()), &load).expect("measured").operations > 0);
    }

    #[test]
    fn depths_beyond_the_limits_are_refused() {
        for (connections, depth) in [(0, 1), (1, 0), (1, MAX_DEPTH + 1), (33, 32)] {
            assert!(matches!(echo(None, &load(connections, depth, 64)), Err(FloorError::Depth { .. })));
        }
        let short = File::open("/dev/null").expect("a file");
        assert!(matches!(
            echo(Some((short, 100)), &load(1, 1, 64)),
            Err(FloorError::TooShort { bytes: 100, .. })
        ));
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let stream: Vec<u8> = (0..64).collect();
        for piece in 1..=64 {
            let mut peer = Peer::default();
            let mut whole = Vec::new();
            for part in stream.chunks(piece) {
                peer.take(part, 16, &mut |message| whole.push(message.to_vec()));
            }
            assert_eq!(whole.concat(), stream, "in pieces of {piece}");
        }
    }
}
