//! A shard's drive and sockets, as its reactor sees them. What the reactor asks for is handed to the world, which says
//! when it is done.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use lode_net::ring::{
    Chunk, Chunks, Event, Features, Outgoing, RingCounters, Slab, SlabBuffer, SocketId, TaskRun,
    UnpluggedMemory,
};
use lode_node::reactor::ReactorIo;

use super::drive::DriveOp;

/// Bytes of buffers, and of receive chunks.
const SLAB_BYTES: usize = 8 << 20;
const CHUNKS: u16 = 64;
const CHUNK_BYTES: u32 = 4096;
/// Linux: the operation was ended early.
const CANCELED: i32 = 125;

/// What the reactor asks the world for.
#[derive(Debug)]
pub enum Asked {
    /// Something of the drive.
    Drive { token: u64, op: DriveOp },
    /// These bytes are to go to the peer.
    Send { socket: SocketId, bytes: Vec<u8> },
    /// Nothing more will go to the peer.
    FinishSending(SocketId),
    /// The connection is over.
    Close(SocketId),
}

#[derive(Default)]
struct Socket {
    /// Bytes that have come and were not received.
    inbound: VecDeque<u8>,
    wants_bytes: bool,
    /// Why no more bytes will come.
    ended: Option<Option<i32>>,
    sending: Option<Outgoing>,
}

/// Drive and sockets of one shard.
pub struct SimIo {
    memory: UnpluggedMemory,
    events: Vec<Event>,
    /// Buffers of drive operations under way.
    lent: BTreeMap<u64, Option<SlabBuffer>>,
    sockets: BTreeMap<u32, Socket>,
    free_sockets: Vec<u32>,
    next_socket: u32,
    asked: Vec<Asked>,
}

impl SimIo {
    /// With nothing under way.
    pub fn new() -> SimIo {
        SimIo {
            memory: UnpluggedMemory::new(SLAB_BYTES, CHUNKS, CHUNK_BYTES)
                .expect("memory for a simulated shard"),
            events: Vec::new(),
            lent: BTreeMap::new(),
            sockets: BTreeMap::new(),
            free_sockets: Vec::new(),
            next_socket: 1,
            asked: Vec::new(),
        }
    }

    /// Takes what the reactor has asked for since the last call.
    pub fn take_asked(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.asked)
    }

    /// Whether there are events for the reactor.
    pub fn is_ready(&self) -> bool {
        !self.events.is_empty()
    }

    /// Bytes of buffers that are in use.
    pub fn used_bytes(&self) -> usize {
        self.memory.slab().total_bytes() - self.memory.slab().free_bytes()
    }

    /// An operation of the drive has ended.
    pub fn drive_done(&mut self, token: u64, result: Result<Vec<u8>, i32>) {
        let buffer = self.lent.remove(&token).expect("the operation is under way");
        if let Some(buffer) = buffer {
            if let Ok(bytes) = &result
                && !bytes.is_empty()
            {
                self.memory.fill_lent(buffer, bytes);
            }
            self.memory.reclaim(buffer);
        }
        self.events.push(Event::Drive { token, result: result.map(|_| ()) });
    }

    /// A client has connected.
    pub fn accept(&mut self) -> SocketId {
        let id = self.free_sockets.pop().unwrap_or_else(|| {
            self.next_socket += 1;
            self.next_socket
        });
        self.sockets.insert(id, Socket::default());
        self.events.push(Event::Accepted { listener: SocketId(0), socket: SocketId(id) });
        SocketId(id)
    }

    /// Bytes have come from the peer.
    pub fn arrived(&mut self, socket: SocketId, bytes: &[u8]) {
        if let Some(state) = self.sockets.get_mut(&socket.0) {
            state.inbound.extend(bytes);
        }
        self.pump(socket);
    }

    /// No more bytes will come; with an error, none can be sent either.
    pub fn peer_ended(&mut self, socket: SocketId, os_error: Option<i32>) {
        let Some(state) = self.sockets.get_mut(&socket.0) else { return };
        if os_error.is_some() {
            state.inbound.clear();
        }
        state.ended.get_or_insert(os_error);
        if let (Some(os_error), Some(mut outgoing)) =
            (os_error, state.sending.take_if(|_| os_error.is_some()))
        {
            self.memory.end_send(&mut outgoing);
            self.events.push(Event::Sent { socket, bytes: 0, outgoing, result: Err(os_error) });
        }
        self.pump(socket);
    }

    /// The peer's side took bytes of the send under way; `whole` says whether it has all of it.
    pub fn sent(&mut self, socket: SocketId, bytes: usize, whole: bool) {
        let Some(state) = self.sockets.get_mut(&socket.0) else { return };
        if !whole {
            return self.events.push(Event::SentPart { socket, bytes });
        }
        let Some(mut outgoing) = state.sending.take() else { return };
        self.memory.end_send(&mut outgoing);
        self.events.push(Event::Sent { socket, bytes, outgoing, result: Ok(()) });
    }

    /// Gives what has come to the reactor, as far as it wants it and there are chunks.
    fn pump(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id.0) else { return };
        while socket.wants_bytes && !socket.inbound.is_empty() {
            let (first, _) = socket.inbound.as_slices();
            let Some((chunk, taken)) = self.memory.arrive(first) else { return };
            socket.inbound.drain(..taken);
            self.events.push(Event::Received { socket: id, chunk });
        }
        if let (true, true, Some(os_error)) = (socket.wants_bytes, socket.inbound.is_empty(), socket.ended) {
            socket.wants_bytes = false;
            self.events.push(Event::ReceiveEnded { socket: id, os_error });
        }
    }

    fn lend(&mut self, token: u64, buffer: Option<(SlabBuffer, u32)>) {
        if let Some((buffer, len)) = buffer {
            self.memory.lend(buffer, len as usize);
        }
        let before = self.lent.insert(token, buffer.map(|(buffer, _)| buffer));
        assert!(before.is_none(), "token {token} is under way already");
    }
}

impl ReactorIo for SimIo {
    fn take_events(&mut self, into: &mut Vec<Event>) {
        into.append(&mut self.events);
    }

    fn drive_operations(&self) -> usize {
        self.lent.len()
    }

    fn read(&mut self, token: u64, buffer: SlabBuffer, len: u32, at: u64) {
        self.lend(token, Some((buffer, len)));
        self.asked.push(Asked::Drive { token, op: DriveOp::Read { at: at as usize, len: len as usize } });
    }

    fn write(&mut self, token: u64, buffer: SlabBuffer, len: u32, at: u64, durable: bool) {
        self.lend(token, Some((buffer, len)));
        let bytes = self.memory.lent_bytes(buffer, len as usize).to_vec();
        self.asked.push(Asked::Drive { token, op: DriveOp::Write { at: at as usize, bytes, durable } });
    }

    fn flush(&mut self, token: u64) {
        self.lend(token, None);
        self.asked.push(Asked::Drive { token, op: DriveOp::Flush });
    }

    fn discard(&mut self, token: u64, at: u64, len: u32) {
        self.lend(token, None);
        self.asked.push(Asked::Drive { token, op: DriveOp::Discard { at: at as usize, len: len as usize } });
    }

    fn listen(&mut self, _listener: OwnedFd) -> SocketId {
        unreachable!("a simulated node has no listening sockets")
    }

    fn listen_again(&mut self, _listener: SocketId) {}

    fn adopt(&mut self, _socket: OwnedFd) -> SocketId {
        unreachable!("nobody accepts connections for a simulated node")
    }

    fn peer(&mut self, _socket: SocketId) -> Option<SocketAddr> {
        None
    }

    fn receive(&mut self, socket: SocketId) {
        self.sockets.get_mut(&socket.0).expect("the socket is open").wants_bytes = true;
        self.pump(socket);
    }

    fn stop_receiving(&mut self, socket: SocketId) {
        self.sockets.get_mut(&socket.0).expect("the socket is open").wants_bytes = false;
    }

    fn send(&mut self, socket: SocketId, outgoing: Outgoing) {
        assert!(!outgoing.is_empty(), "an empty send");
        let bytes = self.memory.begin_send(&outgoing);
        let state = self.sockets.get_mut(&socket.0).expect("the socket is open");
        assert!(state.sending.is_none(), "one send at a time");
        state.sending = Some(outgoing);
        match state.ended {
            // The peer is gone: the send fails, later, as every operation does.
            Some(Some(os_error)) => {
                let mut outgoing = state.sending.take().expect("it was just put there");
                self.memory.end_send(&mut outgoing);
                self.events.push(Event::Sent { socket, bytes: 0, outgoing, result: Err(os_error) });
            }
            _ => self.asked.push(Asked::Send { socket, bytes }),
        }
    }

    fn finish_sending(&mut self, socket: SocketId) {
        self.asked.push(Asked::FinishSending(socket));
    }

    fn close(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.remove(&socket.0) else { return };
        if let Some(mut outgoing) = state.sending {
            self.memory.end_send(&mut outgoing);
            self.events.push(Event::Sent { socket, bytes: 0, outgoing, result: Err(CANCELED) });
        }
        self.free_sockets.push(socket.0);
        self.events.push(Event::Closed { socket });
        self.asked.push(Asked::Close(socket));
    }

    fn slab(&self) -> &Slab {
        self.memory.slab()
    }

    fn slab_mut(&mut self) -> &mut Slab {
        self.memory.slab_mut()
    }

    fn memory(&mut self) -> (&mut Slab, &Chunks) {
        self.memory.parts()
    }

    fn recycle(&mut self, chunk: Chunk) {
        self.memory.recycle(chunk);
        let waiting: Vec<u32> =
            self.sockets.iter().filter(|(_, s)| !s.inbound.is_empty()).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|id| self.pump(SocketId(id)));
    }

    fn features(&self) -> Features {
        Features {
            kernel: "simulated".into(),
            task_run: TaskRun::Deferred,
            single_issuer: true,
            multishot_receive: true,
            multishot_accept: true,
            batched_wait: true,
            registered_ring: false,
            registered_drive: false,
            registered_buffer_bytes: 0,
        }
    }

    fn counters(&self) -> RingCounters {
        RingCounters::default()
    }
}
