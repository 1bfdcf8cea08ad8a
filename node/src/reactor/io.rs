//! What a reactor asks of the world: a drive, sockets, and the memory that both use. The ring is one such world; a
//! simulated one is another, so that the reactor that serves is the one that is tested from a seed.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use lode_net::ring::{
    Chunk, Chunks, Event, Features, Outgoing, Ring, RingCounters, Slab, SlabBuffer, SocketId,
};

/// Drive, sockets and memory of one shard. What is asked for happens later: its end comes as an [`Event`].
pub trait ReactorIo {
    /// Moves what happened since the last call to `into`.
    fn take_events(&mut self, into: &mut Vec<Event>);

    /// Drive operations under way.
    fn drive_operations(&self) -> usize;
    /// Fills `buffer[..len]` from byte `at` of the drive.
    fn read(&mut self, token: u64, buffer: SlabBuffer, len: u32, at: u64);
    /// Writes `buffer[..len]` to byte `at` of the drive; if `durable`, ends only when the bytes would survive
    /// power loss.
    fn write(&mut self, token: u64, buffer: SlabBuffer, len: u32, at: u64, durable: bool);
    /// Makes all writes that have ended survive power loss.
    fn flush(&mut self, token: u64);
    /// Tells the drive that these bytes are not needed.
    fn discard(&mut self, token: u64, at: u64, len: u32);

    /// Begins to accept connections.
    fn listen(&mut self, listener: OwnedFd) -> SocketId;
    /// Accepts again, where accepting failed.
    fn listen_again(&mut self, listener: SocketId);
    /// Takes a connection over that somebody else has accepted.
    fn adopt(&mut self, socket: OwnedFd) -> SocketId;
    /// The address at the other end of a connection, where it has one.
    fn peer(&mut self, socket: SocketId) -> Option<SocketAddr>;
    /// Begins to receive.
    fn receive(&mut self, socket: SocketId);
    /// Receives no more until it is told to. What is on its way may still come.
    fn stop_receiving(&mut self, socket: SocketId);
    /// Sends; one send a socket at a time.
    fn send(&mut self, socket: SocketId, outgoing: Outgoing);
    /// Tells the peer that nothing more comes.
    fn finish_sending(&mut self, socket: SocketId);
    /// Closes a socket, or a listener.
    fn close(&mut self, socket: SocketId);

    /// The buffers.
    fn slab(&self) -> &Slab;
    /// The buffers, to take from and to give back to.
    fn slab_mut(&mut self) -> &mut Slab;
    /// The buffers and the receive chunks, side by side.
    fn memory(&mut self) -> (&mut Slab, &Chunks);
    /// Gives a receive chunk back.
    fn recycle(&mut self, chunk: Chunk);

    /// What was found and is used.
    fn features(&self) -> Features;
    /// How busy it was.
    fn counters(&self) -> RingCounters;
}

impl ReactorIo for Ring {
    fn take_events(&mut self, into: &mut Vec<Event>) {
        Ring::take_events(self, into);
    }

    fn drive_operations(&self) -> usize {
        Ring::drive_operations(self)
    }

    fn read(&mut self, token: u64, buffer: SlabBuffer, len: u32, at: u64) {
        Ring::read(self, token, buffer, len, at);
    }

    fn write(&mut self, token: u64, buffer: SlabBuffer, len: u32, at: u64, durable: bool) {
        Ring::write(self, token, buffer, len, at, durable);
    }

    fn flush(&mut self, token: u64) {
        Ring::flush(self, token);
    }

    fn discard(&mut self, token: u64, at: u64, len: u32) {
        Ring::discard(self, token, at, len);
    }

    fn listen(&mut self, listener: OwnedFd) -> SocketId {
        Ring::listen(self, listener)
    }

    fn listen_again(&mut self, listener: SocketId) {
        Ring::listen_again(self, listener);
    }

    fn adopt(&mut self, socket: OwnedFd) -> SocketId {
        Ring::adopt(self, socket)
    }

    fn peer(&mut self, socket: SocketId) -> Option<SocketAddr> {
        Ring::peer(self, socket)
    }

    fn receive(&mut self, socket: SocketId) {
        Ring::receive(self, socket);
    }

    fn stop_receiving(&mut self, socket: SocketId) {
        Ring::stop_receiving(self, socket);
    }

    fn send(&mut self, socket: SocketId, outgoing: Outgoing) {
        Ring::send(self, socket, outgoing);
    }

    fn finish_sending(&mut self, socket: SocketId) {
        Ring::finish_sending(self, socket);
    }

    fn close(&mut self, socket: SocketId) {
        Ring::close(self, socket);
    }

    fn slab(&self) -> &Slab {
        Ring::slab(self)
    }

    fn slab_mut(&mut self) -> &mut Slab {
        Ring::slab_mut(self)
    }

    fn memory(&mut self) -> (&mut Slab, &Chunks) {
        Ring::memory(self)
    }

    fn recycle(&mut self, chunk: Chunk) {
        Ring::recycle(self, chunk);
    }

    fn features(&self) -> Features {
        Ring::features(self).clone()
    }

    fn counters(&self) -> RingCounters {
        Ring::counters(self)
    }
}
