//! The life of connections: accepted, looked at after each turn, swept for deadlines, closed.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use lode_net::ring::SocketId;
use lode_net::wire::server::{Context, Gate, Incoming, unsolicited};
use lode_net::wire::{ServerConnection, ShardId, Status};

use super::connection::{Connection, Phase};
use super::counters::CloseReason;
use super::pending::Origin;
use super::room::Buffers;
use super::{Reactor, ReactorIo, SWEEP_INTERVAL};

/// With so many drive operations in flight answers may be held back for a turn.
const HOLD_OPERATIONS: usize = 32;
/// While memory for unfinished requests is short, one must come in whole within this time, not thirty seconds.
const SLOW_FRAME_NS: u64 = 1_000_000_000;
/// How long a peer may take for its last answers, and to close its side, before the socket is closed.
pub const FINISH_NS: u64 = 1_000_000_000;

impl<I: ReactorIo> Reactor<I> {
    /// A new connection of a listening socket.
    pub(super) fn accepted(&mut self, socket: SocketId, now_ns: u64) {
        let peer = self.config.addresses.is_limited().then(|| self.ring.peer(socket)).flatten();
        let ip = peer.map(|peer| peer.ip());
        self.take_in(socket, ip, now_ns);
    }

    /// A new connection, from this address where that counts: taken, or refused with a reason where there are too many.
    pub(super) fn take_in(&mut self, socket: SocketId, ip: Option<IpAddr>, now_ns: u64) {
        let shard = ShardId(self.config.shard.0);
        let server = ServerConnection::new(shard, self.config.limits, now_ns);
        let connections = self.config.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let connection = self.connections.insert(socket, server);
        connection.receiving = true;
        self.ring.receive(socket);
        let may_connect = ip.is_none_or(|ip| connection.meters.connect(&self.config.addresses, ip));
        let refusal = match () {
            _ if !may_connect => Some((Status::TooManyConnections, CloseReason::Overload)),
            _ if connections > self.config.max_connections => {
                Some((Status::TooManyConnections, CloseReason::Overload))
            }
            _ if self.refusing => Some((Status::ShuttingDown, CloseReason::Stop)),
            _ => None,
        };
        match refusal {
            None => self.stats.accepted += 1,
            Some((status, reason)) => {
                self.stats.refused_connections += 1;
                self.stats.closed.count(reason);
                connection.push_reply(&unsolicited(status, status.text()), &mut self.spares, now_ns);
                connection.phase = Phase::Finishing { deadline_ns: now_ns + FINISH_NS };
            }
        }
        self.connections.touch(socket);
    }

    /// The peer sends no more, or is gone.
    pub(super) fn input_ended(&mut self, socket: SocketId, os_error: Option<i32>) {
        let Some(connection) = self.connections.get(socket) else { return };
        connection.input_ended = true;
        connection.receiving = false;
        if os_error.is_some() {
            return self.close(socket, Some(CloseReason::Peer));
        }
        // What it asked for, in this turn too, is still answered.
        self.connections.touch(socket);
    }

    /// The peer took bytes of a send that goes on.
    pub(super) fn sent_part(&mut self, socket: SocketId, bytes: usize, now_ns: u64) {
        if let Some(connection) = self.connections.get(socket) {
            connection.server.reply_sent(bytes, now_ns);
            connection.progress_ns = now_ns;
        }
    }

    /// A send ended.
    pub(super) fn sent(&mut self, socket: SocketId, bytes: usize, whole: bool, now_ns: u64) {
        self.note_sent(socket);
        let Some(connection) = self.connections.get(socket) else { return };
        connection.end_send(&mut self.spares);
        connection.server.reply_sent(bytes, now_ns);
        if !whole {
            self.close(socket, Some(CloseReason::Peer));
        }
        self.connections.touch(socket);
    }

    /// The ring closed a socket.
    pub(super) fn closed(&mut self, socket: SocketId) {
        if let Some(mut connection) = self.connections.remove(socket) {
            connection.meters.disconnect(&self.config.addresses);
            self.partial_bytes -= connection.server.partial_bytes();
            self.config.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Begins to close a connection; `reason` is counted where it was not before.
    fn close(&mut self, socket: SocketId, reason: Option<CloseReason>) {
        let Some(connection) = self.connections.get(socket) else { return };
        if connection.phase == Phase::Closing {
            return;
        }
        if let (Phase::Open, Some(reason)) = (connection.phase, reason) {
            self.stats.closed.count(reason);
        }
        self.note_unsent(socket);
        let Some(connection) = self.connections.get(socket) else { return };
        connection.phase = Phase::Closing;
        connection.clear_queue(self.ring.slab_mut(), &mut self.spares);
        let has_begun = connection.has_begun.then_some(connection.key);
        if connection.server.in_flight() > 0 {
            self.gone.add(Origin::Connection(connection.key));
        }
        has_begun.into_iter().for_each(|key| self.end_transactions_of(key));
        self.ring.close(socket);
    }

    /// Sends what waits, receives or stops receiving, and ends connections that are finished.
    pub(super) fn look_at_touched(&mut self, now_ns: u64) {
        let operations = self.ring.drive_operations();
        let may_hold = operations >= HOLD_OPERATIONS && self.pace.batch(operations).want > 1;
        let mut held = std::mem::take(&mut self.held);
        for socket in held.drain(..) {
            self.connections.touch(socket);
        }
        self.resume_unfinished();
        while let Some(socket) = self.connections.next_touched() {
            let Some(connection) = self.connections.get(socket) else { continue };
            if may_hold && connection.hold() {
                held.push(socket);
            } else if let Some(outgoing) = connection.next_send(now_ns) {
                self.stats.sends += 1;
                self.ring.send(socket, outgoing);
            }
            match connection.phase {
                Phase::Closing => {}
                Phase::Open => self.look_at_open(socket, now_ns),
                Phase::Finishing { .. } => self.look_at_finishing(socket),
            }
        }
        self.held = held;
    }

    /// Whether a connection's unfinished request may come in while too much is held of such: that of one at a
    /// time may, or none would ever be whole.
    fn may_finish(&mut self, socket: SocketId) -> bool {
        let is_unfinished = |connection: &mut Connection| {
            connection.phase == Phase::Open && connection.server.partial_bytes() > 0
        };
        if self.partial_bytes <= self.config.max_partial_bytes {
            self.finishing = None;
        } else if self.connections.get(socket).is_some_and(is_unfinished) {
            let other = self.finishing.filter(|other| *other != socket);
            if other.is_some_and(|other| self.connections.get(other).is_some_and(is_unfinished)) {
                return false;
            }
            self.finishing = Some(socket);
        }
        true
    }

    /// Connections whose unfinished requests wait: all go on when there is memory again, else the next one when
    /// the one before has its request whole.
    fn resume_unfinished(&mut self) {
        while let Some(socket) = self.unfinished.pop_front() {
            if !self.may_finish(socket) {
                return self.unfinished.push_front(socket);
            }
            self.connections.touch(socket);
        }
    }

    fn look_at_open(&mut self, socket: SocketId, now_ns: u64) {
        let may_finish = self.may_finish(socket);
        let Some(connection) = self.connections.get(socket) else { return };
        if connection.input_ended {
            if connection.server.in_flight() == 0 {
                connection.phase = Phase::Finishing { deadline_ns: now_ns + FINISH_NS };
                self.stats.closed.count(CloseReason::Peer);
                self.look_at_finishing(socket);
            }
            return;
        }
        // What it asks for while memory is short waits until it has taken what it asked for before.
        let queued_bytes = connection.server.queued_bytes();
        let held_up = queued_bytes > 0 && self.spares.is_crowded(queued_bytes);
        let wanted = connection.server.wants_input() && !held_up && !connection.is_held_up() && may_finish;
        if wanted && !connection.receiving {
            connection.receiving = true;
            connection.server.resumed(now_ns);
            self.ring.receive(socket);
        } else if !wanted && connection.receiving {
            connection.receiving = false;
            connection.server.paused(now_ns);
            if !may_finish {
                self.unfinished.push_back(socket);
            }
            self.ring.stop_receiving(socket);
        }
    }

    fn look_at_finishing(&mut self, socket: SocketId) {
        let Some(connection) = self.connections.get(socket) else { return };
        if !connection.is_flushed() {
            return;
        }
        if connection.input_ended {
            return self.close(socket, None);
        }
        // The peer is told that nothing more comes, and its own end is awaited: closing a socket that
        // holds unread bytes would take back the last answer.
        if !std::mem::replace(&mut connection.announced_end, true) {
            self.ring.finish_sending(socket);
        }
    }

    /// While memory for unfinished requests is short, those that take long make way, the largest first.
    fn end_slow_requests(&mut self, now_ns: u64) {
        let most = self.config.max_partial_bytes / 2;
        if self.partial_bytes <= most {
            return;
        }
        let mut slow = Vec::new();
        for socket in self.connections.sockets() {
            let Some(connection) = self.connections.get(socket) else { continue };
            // Of one that is not read from, it is not the peer who takes long.
            let is_slow = connection.phase == Phase::Open && !connection.is_held_up();
            let since_ns = connection.server.unfinished_since_ns().filter(|_| is_slow);
            if since_ns.is_some_and(|since_ns| now_ns.saturating_sub(since_ns) > SLOW_FRAME_NS) {
                slow.push((connection.server.partial_bytes(), socket));
            }
        }
        slow.sort_unstable_by_key(|(held, socket)| (std::cmp::Reverse(*held), socket.0));
        for (_, socket) in slow {
            let Some(connection) = self.connections.get(socket) else { continue };
            if self.partial_bytes <= most {
                return;
            }
            self.partial_bytes -= connection.server.abandon();
            self.close(socket, Some(CloseReason::Overload));
        }
    }

    /// Closes what has run out of time, and listens again where accepting failed.
    pub(super) fn sweep(&mut self, now_ns: u64) {
        self.next_sweep_ns = now_ns + SWEEP_INTERVAL.as_nanos() as u64;
        for listener in &self.listeners {
            self.ring.listen_again(*listener);
        }
        // When memory runs short, a peer that holds some and takes nothing has a second, not thirty.
        let short_of_memory = Buffers::of(self.ring.slab()).is_short() || self.spares.is_short();
        self.end_slow_requests(now_ns);
        for socket in self.connections.sockets() {
            let Some(connection) = self.connections.get(socket) else { continue };
            match connection.phase {
                Phase::Closing => {}
                Phase::Finishing { deadline_ns } if now_ns >= deadline_ns => self.close(socket, None),
                Phase::Finishing { .. } => {}
                Phase::Open if short_of_memory && connection.is_stalled(now_ns) => {
                    self.close(socket, Some(CloseReason::Deaf));
                }
                Phase::Open => self.check_deadlines(socket, now_ns),
            }
        }
    }

    fn check_deadlines(&mut self, socket: SocketId, now_ns: u64) {
        let (node, map) = (self.node.as_deref(), &self.map.published);
        let gate = self.map.access().map(|access| access as &dyn Gate);
        let context = Context { node, map, crowded: false, gate, now_ns };
        let Some(connection) = self.connections.get(socket) else { return };
        let Some(Incoming::Close { reply, violation }) = connection.server.check_deadlines(&context) else {
            return;
        };
        let reason = CloseReason::from(&violation);
        if reason == CloseReason::Deaf {
            return self.close(socket, Some(reason));
        }
        self.stats.closed.count(reason);
        connection.push_reply(&reply, &mut self.spares, now_ns);
        connection.phase = Phase::Finishing { deadline_ns: now_ns + FINISH_NS };
        self.connections.touch(socket);
    }
}
