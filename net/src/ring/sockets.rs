//! Sockets: the ring owns their descriptors, and closes one only when no request names it any more.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{cqueue, opcode, squeue, types};
use rustix::net::{Shutdown, shutdown};

use super::chunks::GROUP;
use super::core::{Completed, Event, Ring, chunk_of};
use super::inflight::{SendWork, SlotId, Work};
use super::outgoing::Outgoing;

/// A socket of the ring. Reused only after [`Event::Closed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// One socket and what the kernel is doing for it.
struct Socket {
    descriptor: OwnedFd,
    /// The request that receives, while there is one.
    receive: Option<SlotId>,
    /// The request that accepts, while there is one.
    accept: Option<SlotId>,
    /// Whether bytes are wanted: the receive is armed again when it ends.
    wants_bytes: bool,
    /// Whether the receive has been told to stop.
    stopping: bool,
    /// Whether a send is under way.
    sending: bool,
    closing: bool,
}

/// The sockets of one ring.
#[derive(Default)]
pub(super) struct Sockets {
    table: Vec<Option<Socket>>,
    free: Vec<u32>,
    /// Those that found no receive chunk.
    starved: Vec<SocketId>,
}

impl Sockets {
    fn insert(&mut self, descriptor: OwnedFd) -> SocketId {
        let socket = Socket {
            descriptor,
            receive: None,
            accept: None,
            wants_bytes: false,
            stopping: false,
            sending: false,
            closing: false,
        };
        match self.free.pop() {
            Some(index) => {
                self.table[index as usize] = Some(socket);
                SocketId(index)
            }
            None => {
                self.table.push(Some(socket));
                SocketId((self.table.len() - 1) as u32)
            }
        }
    }

    fn get(&mut self, id: SocketId) -> &mut Socket {
        self.table.get_mut(id.0 as usize).and_then(Option::as_mut).expect("an open socket")
    }

    /// Ends all traffic, so that requests that wait for a peer complete.
    pub(super) fn shut_down_all(&mut self) {
        for socket in self.table.iter().flatten() {
            let _ = shutdown(&socket.descriptor, Shutdown::Both);
        }
    }
}

impl Ring {
    /// Takes a connected socket over.
    pub fn adopt(&mut self, socket: OwnedFd) -> SocketId {
        self.sockets.insert(socket)
    }

    /// Takes a listening socket over, and accepts from it until it is closed.
    pub fn listen(&mut self, listener: OwnedFd) -> SocketId {
        let id = self.sockets.insert(listener);
        self.listen_again(id);
        id
    }

    /// Accepts again, after [`Event::AcceptFailed`].
    pub fn listen_again(&mut self, listener: SocketId) {
        let socket = self.sockets.get(listener);
        if socket.closing || socket.accept.is_some() {
            return;
        }
        let file = types::Fd(socket.descriptor.as_raw_fd());
        let entry = if self.features.multishot_accept {
            opcode::AcceptMulti::new(file).flags(libc::SOCK_CLOEXEC).build()
        } else {
            let nowhere = std::ptr::null_mut();
            opcode::Accept::new(file, nowhere, std::ptr::null_mut()).flags(libc::SOCK_CLOEXEC).build()
        };
        let slot = self.in_flight.insert(Work::Accept(listener));
        self.sockets.get(listener).accept = Some(slot);
        // SAFETY: the entry points to no memory: the peer's address is not asked for.
        unsafe { self.push(entry.user_data(slot.to_user_data())) };
    }

    /// The address at the other end of a connection; nothing where it has none, or is gone.
    pub fn peer(&mut self, socket: SocketId) -> Option<SocketAddr> {
        let address = rustix::net::getpeername(&self.sockets.get(socket).descriptor).ok()??;
        SocketAddr::try_from(address).ok()
    }

    /// Receives from now on, until `stop_receiving` or [`Event::ReceiveEnded`].
    pub fn receive(&mut self, socket: SocketId) {
        self.sockets.get(socket).wants_bytes = true;
        self.arm_receive(socket);
    }

    /// Receives no more for now. Bytes that the kernel had already taken still arrive.
    pub fn stop_receiving(&mut self, socket: SocketId) {
        let state = self.sockets.get(socket);
        state.wants_bytes = false;
        if let Some(slot) = state.receive
            && !state.stopping
        {
            state.stopping = true;
            self.cancel(slot);
        }
    }

    /// Sends `outgoing`. One send at a time on a socket; [`Event::Sent`] gives it back.
    pub fn send(&mut self, socket: SocketId, outgoing: Outgoing) {
        assert!(!outgoing.is_empty(), "an empty send");
        let state = self.sockets.get(socket);
        assert!(!state.sending && !state.closing, "socket {} cannot send now", socket.0);
        state.sending = true;
        outgoing.lend(&mut self.slab);
        // SAFETY: a msghdr of zeroes is one without address, vectors and control data.
        let message = unsafe { std::mem::zeroed() };
        self.submit_send(Box::new(SendWork { socket, outgoing, done: 0, vectors: Vec::new(), message }));
    }

    /// Tells the peer that nothing more will be sent; it may still send.
    pub fn finish_sending(&mut self, socket: SocketId) {
        let _ = shutdown(&self.sockets.get(socket).descriptor, Shutdown::Write);
    }

    /// Ends all traffic and closes the socket once the kernel is done with it: [`Event::Closed`].
    pub fn close(&mut self, socket: SocketId) {
        let state = self.sockets.get(socket);
        if state.closing {
            return;
        }
        state.closing = true;
        state.wants_bytes = false;
        let _ = shutdown(&state.descriptor, Shutdown::Both);
        let requests = [state.accept, state.receive.filter(|_| !state.stopping)];
        state.stopping = true;
        for slot in requests.into_iter().flatten() {
            self.cancel(slot);
        }
        self.finish_close(socket);
    }

    /// Arms the receives that found no chunk, once there are chunks again.
    pub(super) fn rearm_starved(&mut self) {
        if self.sockets.starved.is_empty() || !self.chunks.any_with_kernel() {
            return;
        }
        for socket in std::mem::take(&mut self.sockets.starved) {
            let open = self.sockets.table.get(socket.0 as usize).is_some_and(Option::is_some);
            if open && self.sockets.get(socket).wants_bytes {
                self.arm_receive(socket);
            }
        }
    }

    fn arm_receive(&mut self, id: SocketId) {
        let multishot = self.features.multishot_receive;
        let socket = self.sockets.get(id);
        if socket.receive.is_some() || socket.closing {
            return;
        }
        let file = types::Fd(socket.descriptor.as_raw_fd());
        let entry = if multishot {
            opcode::RecvMulti::new(file, GROUP).build()
        } else {
            let len = self.chunks.chunk_bytes() as u32;
            let receive = opcode::Recv::new(file, std::ptr::null_mut(), len).buf_group(GROUP);
            receive.build().flags(squeue::Flags::BUFFER_SELECT)
        };
        let slot = self.in_flight.insert(Work::Receive(id));
        let socket = self.sockets.get(id);
        socket.receive = Some(slot);
        socket.stopping = false;
        // SAFETY: the entry points to no memory; the kernel takes chunks from the registered ring.
        unsafe { self.push(entry.user_data(slot.to_user_data())) };
    }

    fn submit_send(&mut self, mut work: Box<SendWork>) {
        let file = types::Fd(self.sockets.get(work.socket).descriptor.as_raw_fd());
        let mut vectors = std::mem::take(&mut work.vectors);
        work.outgoing.vectors(&self.slab, work.done, &mut vectors);
        // Without MSG_WAITALL: every part that the peer takes is seen, so that a stalled peer is, too.
        let flags = libc::MSG_NOSIGNAL;
        work.vectors = vectors;
        let slot = self.in_flight.insert(Work::Send(work));
        // Addresses are taken where the work stays: in its slot.
        let Work::Send(work) = self.in_flight.get_mut(slot) else {
            unreachable!("the work was just put there");
        };
        let entry = match work.vectors.as_slice() {
            [one] if one.iov_len <= u32::MAX as usize => {
                opcode::Send::new(file, one.iov_base.cast(), one.iov_len as u32).flags(flags).build()
            }
            many => {
                work.message.msg_iov = many.as_ptr().cast_mut();
                work.message.msg_iovlen = many.len();
                opcode::SendMsg::new(file, &raw const work.message).flags(flags as u32).build()
            }
        };
        // SAFETY: the entry points into the boxed work (header and vectors), which the slot keeps, and
        // the vectors to bytes that its `Outgoing` keeps on the heap, or to slab buffers lent to the kernel,
        // all until the slot's last completion.
        unsafe { self.push(entry.user_data(slot.to_user_data())) };
    }

    pub(super) fn complete_send(&mut self, id: SlotId, completed: Completed) {
        let Work::Send(mut work) = self.in_flight.remove(id) else {
            unreachable!("the caller looked at the slot");
        };
        let closing = self.sockets.get(work.socket).closing || self.is_ending();
        let bytes = completed.result.max(0) as usize;
        let result = match completed.result {
            sent if sent > 0 => {
                work.done += bytes;
                assert!(work.done <= work.outgoing.len(), "the kernel sent more than there was");
                if work.done < work.outgoing.len() && !closing {
                    self.counters.short_sends += 1;
                    self.events.push_back(Event::SentPart { socket: work.socket, bytes });
                    return self.submit_send(work);
                }
                if work.done < work.outgoing.len() { Err(libc::ECANCELED) } else { Ok(()) }
            }
            error if (error == -libc::EINTR || error == -libc::EAGAIN) && !closing => {
                return self.submit_send(work);
            }
            0 => Err(libc::EPIPE),
            error => Err(-error),
        };
        let SendWork { socket, mut outgoing, .. } = *work;
        outgoing.reclaim(&mut self.slab);
        outgoing.clear(&mut self.slab);
        self.sockets.get(socket).sending = false;
        self.events.push_back(Event::Sent { socket, bytes, outgoing, result });
        self.finish_close(socket);
    }

    pub(super) fn complete_accept(&mut self, id: SlotId, listener: SocketId, completed: Completed) {
        let more = cqueue::more(completed.flags);
        if !more {
            self.in_flight.remove(id);
            self.sockets.get(listener).accept = None;
        }
        if completed.result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
            let descriptor = unsafe { OwnedFd::from_raw_fd(completed.result) };
            let socket = self.sockets.insert(descriptor);
            self.events.push_back(Event::Accepted { listener, socket });
            if !more && !self.is_ending() {
                self.listen_again(listener);
            }
        } else if !self.sockets.get(listener).closing {
            let os_error = -completed.result;
            self.events.push_back(Event::AcceptFailed { listener, os_error });
        }
        self.finish_close(listener);
    }

    pub(super) fn complete_receive(&mut self, id: SlotId, socket: SocketId, completed: Completed) {
        let more = cqueue::more(completed.flags);
        if !more {
            self.in_flight.remove(id);
            self.sockets.get(socket).receive = None;
        }
        let chunk = chunk_of(&mut self.chunks, completed);
        let closing = self.sockets.get(socket).closing;
        match (completed.result, chunk) {
            (received, Some(chunk)) if received > 0 && !closing => {
                self.events.push_back(Event::Received { socket, chunk });
            }
            (_, Some(chunk)) => self.chunks.recycle(chunk),
            _ => {}
        }
        if !more && !closing && !self.is_ending() {
            self.after_receive(socket, completed.result);
        }
        self.finish_close(socket);
    }

    /// A receive ended with `result`: arms it again where bytes are still wanted and may still come.
    fn after_receive(&mut self, id: SocketId, result: i32) {
        let socket = self.sockets.get(id);
        match -result {
            0 => {
                socket.wants_bytes = false;
                self.events.push_back(Event::ReceiveEnded { socket: id, os_error: None });
            }
            libc::ENOBUFS => {
                self.counters.starved_receives += 1;
                self.sockets.starved.push(id);
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN | ..0 => {
                if socket.wants_bytes {
                    self.arm_receive(id);
                }
            }
            os_error => {
                socket.wants_bytes = false;
                self.events.push_back(Event::ReceiveEnded { socket: id, os_error: Some(os_error) });
            }
        }
    }

    /// Closes the descriptor of a closing socket when the last request that names it is over.
    fn finish_close(&mut self, id: SocketId) {
        let socket = self.sockets.get(id);
        let idle = socket.receive.is_none() && socket.accept.is_none() && !socket.sending;
        if socket.closing && idle {
            self.sockets.table[id.0 as usize] = None;
            self.sockets.free.push(id.0);
            self.events.push_back(Event::Closed { socket: id });
        }
    }
}
